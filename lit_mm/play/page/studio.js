// The tab to draw and describe in.

import { paint, takesPictures } from "./picture.js";
import { sliders } from "./sliders.js";

const $ = (id) => document.getElementById(id);

export class Studio {
  #sliders = {};

  constructor(link, trouble, walk) {
    $("draw").onsubmit = (event) => {
      event.preventDefault();
      const text = $("caption").value;
      const values = Object.fromEntries(Object.entries(this.#sliders).map(([name, one]) => [name, one.value()]));
      if (text.trim()) link.send("draw", { text, values });
    };
    $("describe").onsubmit = (event) => {
      event.preventDefault();
      $("said").textContent = "";
      link.send("describe", { text: $("question").value });
    };
    $("stop").onclick = () => link.send("stop");
    $("walk-in").onclick = () => { link.send("reset", { to: "drawn" }); walk(); };
    takesPictures($("studio"), $("studio-file"), (file) => link.sendPicture(file, "describe").catch((error) => trouble(error.message)));
  }

  hello(message) {
    $("walk-in").hidden = !message.walks;
    const { pace, ...ranges } = message.ranges;
    this.#sliders = sliders($("draw-sliders"), ranges, () => {});
    for (const [name, one] of Object.entries(this.#sliders)) one.show(message.drawing[name]);
  }

  async drawn(message) {
    await paint($("drawn"), message.parts[0]);
    $("progress").textContent = message.steps === 0 ? "dropped" : message.done ? `drawn in ${message.steps} steps` : `step ${message.step} of ${message.steps}`;
  }

  said(message) {
    $("said").textContent = message.text;
    $("said").dataset.done = message.done;
  }
}
