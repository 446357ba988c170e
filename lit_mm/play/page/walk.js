// The tab to walk in.

import { Keys, typing } from "./keys.js";
import { sliders } from "./sliders.js";
import { copy, mark, paint, takesPictures } from "./picture.js";

const STRIP = 32;  // frames
const $ = (id) => document.getElementById(id);

export class Walk {
  #mode = "held";
  #view = null;
  #sliders = {};
  #settings = {};
  #ms = 0;  // of a frame with these settings
  #changed = {};  // settings that are still being changed
  #rest = 0;
  #repeated = 0;  // when a shortcut was taken last

  constructor(link, trouble) {
    this.link = link;
    this.keys = new Keys($("pads"), (keys) => link.send("keys", { keys }));
    $("pause").onclick = () => this.#time(this.#mode === "paused" ? this.#running() : "paused");
    $("always").onchange = () => this.#mode !== "paused" && this.#time(this.#running());
    $("step").onclick = () => link.send("step");
    $("undo").onclick = () => link.send("undo");
    $("mark").onchange = () => this.#mark();
    $("to-place").onclick = () => link.send("reset", { to: "place" });
    $("to-data").onclick = () => link.send("reset", { to: "data" });
    $("to-truth").onclick = () => link.send("truth");
    $("save").onclick = () => link.send("save");
    $("say").onsubmit = (event) => { event.preventDefault(); this.#say(); };
    takesPictures($("walk"), $("walk-file"), (file) => link.sendPicture(file, "walk").catch((error) => trouble(error.message)));
    addEventListener("keydown", (event) => this.#shortcut(event));
  }

  hello(message) {
    this.keys.show(message.keys);
    $("truth-name").textContent = message.truth ? `(${message.truth})` : "";
    for (const id of ["true-figure", "to-place", "to-truth", "mark-box", "differ-box"]) $(id).hidden = !message.truth;
    $("screens").classList.toggle("alone", !message.truth);
    $("to-data").hidden = !message.data;
    $("frames").max = message.most_frames;
    $("sentence").maxLength = $("caption").maxLength = $("question").maxLength = message.most_text;
    this.#sliders = sliders($("sliders"), message.ranges, (values) => this.#set(values), (name, value) => this.#cost(name, value));
    $("strip").replaceChildren();
    this.state({ settings: message.settings, mode: "held" });
  }

  state({ settings, mode }) {
    this.#mode = mode;
    this.#settings = settings;
    $("pause").setAttribute("aria-pressed", mode === "paused");
    if (mode !== "paused") $("always").checked = mode === "always";
    for (const [name, value] of Object.entries(settings)) this.#value(name, value);
  }

  async view(message) {
    const older = this.#view;
    await paint($("imagined"), message.parts[0]);
    const known = message.parts.length > 1;
    if (known) await paint($("true"), message.parts[1]);
    $("true").hidden = !known;
    $("no-truth").hidden = known;
    this.#view = message;
    this.#mark();
    $("number").textContent = message.number;
    $("differ").textContent = known ? message.differ.length : "–";
    const left = message.left ? ` (${message.left} more)` : "";
    $("action").textContent = message.action ? message.action + left + (message.understood === false ? " (the simulator does not understand it)" : "") : "–";
    if (message.ms !== undefined) {
      $("ms").textContent = message.ms;
      this.#ms = message.ms;
      this.#sliders.steps.tell();
    }
    $("fps").textContent = message.fps || "–";
    $("undo").disabled = !message.undo;
    $("to-truth").disabled = !known;
    this.#strip(message, older);
  }

  #strip(message, older) {
    const strip = $("strip");
    if (!older || message.number <= older.number) {
      for (const item of [...strip.children]) if (Number(item.dataset.number) >= message.number) item.remove();
    }
    const item = document.createElement("li");
    item.dataset.number = message.number;
    item.append(copy($("imagined")), (message.keys ?? []).join("+") || (message.action && message.ms !== undefined ? "“…”" : "start"));
    strip.prepend(item);
    while (strip.children.length > STRIP) strip.lastChild.remove();
  }

  #mark() {
    const grid = this.#view?.grid ?? [1, 1];
    mark($("marks"), grid, $("mark").checked ? this.#view?.differ ?? [] : []);
  }

  #running() { return $("always").checked ? "always" : "held"; }
  #time(mode) { this.link.send("time", { mode }); }

  // A slider that is moved by a held key changes many times; the server is told once.
  #set(values) {
    Object.assign(this.#changed, values);
    clearTimeout(this.#rest);
    this.#rest = setTimeout(() => { this.link.send("set", { values: this.#changed }); this.#changed = {}; }, 200);
  }

  #say() {
    const text = $("sentence").value;
    if (text.trim()) this.link.send("say", { text, frames: Number($("frames").value) });
  }

  #shortcut(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || $("walk").hidden) return;
    if (typing(event)) return event.key === "Escape" ? event.target.blur() : undefined;
    const key = event.key.toLowerCase();
    const id = { p: "pause", ".": "step", backspace: "undo", r: "to-place", t: "to-truth" }[key];
    if (key === "m" && !event.repeat && !$("mark-box").hidden) { $("mark").checked = !$("mark").checked; this.#mark(); }
    if (!id || $(id).hidden || $(id).disabled) return;
    event.preventDefault();
    const soon = event.timeStamp - this.#repeated < Math.max(100, 2 * this.#ms);  // no faster than frames come
    if (event.repeat && (soon || (id !== "undo" && id !== "step"))) return;
    this.#repeated = event.timeStamp;
    $(id).click();
  }

  // What a number of steps would take, as far as can be told from those that were taken.
  #cost(name, value) {
    return name === "steps" && this.#ms ? `, ${Math.round(this.#ms * value / this.#settings.steps)} ms` : "";
  }

  #value(name, value) {
    const slider = this.#sliders[name];
    if (slider) slider.show(value);
  }
}
