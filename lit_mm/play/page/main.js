// What comes from the server, to where it is shown.

import { Link } from "./link.js";
import { Studio } from "./studio.js";
import { Walk } from "./walk.js";

const $ = (id) => document.getElementById(id);
const link = new Link();
const tabs = [$("tab-walk"), $("tab-studio")];

function trouble(text) {
  $("trouble").hidden = !text;
  $("trouble").textContent = text;
}

function choose(tab) {
  for (const one of tabs) {
    const chosen = one === tab;
    one.setAttribute("aria-selected", chosen);
    one.tabIndex = chosen ? 0 : -1;
    $(one.getAttribute("aria-controls")).hidden = !chosen;
  }
  walk.keys.release();
}

function status(text, gone) {
  $("link").textContent = text;
  $("link").classList.toggle("gone", gone);
}

const walk = new Walk(link, trouble);
const studio = new Studio(link, trouble, () => { choose(tabs[0]); tabs[0].focus(); });

for (const tab of tabs) {
  tab.onclick = () => choose(tab);
  tab.onkeydown = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = tabs[(tabs.indexOf(tab) + step + tabs.length) % tabs.length];
    if (!next.hidden) { choose(next); next.focus(); }
  };
}

function save({ name, parts }) {
  const made = document.createElement("a");
  made.href = URL.createObjectURL(new Blob([parts[0]], { type: "application/zip" }));
  made.download = name;
  made.click();
  setTimeout(() => URL.revokeObjectURL(made.href), 60_000);
}

const shown = {
  hello(message) {
    $("model").textContent = message.model;
    $("tab-walk").hidden = !message.walks;
    if (!message.walks) choose(tabs[1]);
    walk.hello(message);
    studio.hello(message);
  },
  state: (message) => walk.state(message),
  view: (message) => walk.view(message),
  drawn: (message) => studio.drawn(message),
  said: (message) => studio.said(message),
  error: (message) => trouble(message.text),
  saved: save,
};

let painted = Promise.resolve();  // one after the other, in the order they came

link.addEventListener("message", ({ detail }) => {
  painted = painted.then(() => shown[detail.type]?.(detail)).catch((error) => trouble(String(error))).then(() => {
    if (detail.parts.length) link.send("seen");
  });
});
link.addEventListener("asked", () => trouble(""));  // what went wrong stays until something else is done
link.addEventListener("open", () => { status("playing", false); trouble(""); });
link.addEventListener("closed", ({ detail }) => {
  status("stopped", true);
  trouble(detail.final ? `The server has closed this page: ${detail.reason}.` : `Stopped: ${detail.reason}. Trying again.`);
  walk.keys.release();
});

link.open();
