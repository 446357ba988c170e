// Keys that are held, on a keyboard or on the page's own buttons; told to the server whenever they change.

const ARROWS = { ArrowUp: ["UP", "W"], ArrowLeft: ["LEFT", "A"], ArrowDown: ["DOWN", "S"], ArrowRight: ["RIGHT", "D"] };

export class Keys {
  #held = new Map();  // what is pressed (a key of the keyboard, a button): the key that it means
  #known = [];
  #told = "[]";

  constructor(pads, tell) {
    this.pads = pads;
    this.tell = tell;
    addEventListener("keydown", (event) => this.#key(event, true));
    addEventListener("keyup", (event) => this.#key(event, false));
    addEventListener("blur", () => this.release());
    document.addEventListener("visibilitychange", () => document.hidden && this.release());
  }

  show(known) {
    this.#known = known;
    this.release();
    this.pads.replaceChildren(...known.map((key) => this.#pad(key)));
  }

  release() {
    this.#held.clear();
    this.#changed();
  }

  #pad(key) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = key;
    button.dataset.key = key;
    const hold = (event) => { button.setPointerCapture(event.pointerId); this.#press(button, key); event.preventDefault(); };
    button.addEventListener("pointerdown", hold);
    for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) button.addEventListener(name, () => this.#let(button));
    button.addEventListener("contextmenu", (event) => event.preventDefault());
    button.addEventListener("click", (event) => {  // of the keyboard: a tap
      if (event.detail === 0) { this.#press(button, key); this.#let(button); }
    });
    return button;
  }

  #key(event, down) {
    if (!down) return this.#let(event.code);
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || typing(event)) return;
    const names = ARROWS[event.code] ?? [event.code.replace(/^Key/, ""), event.code === "Space" && !event.target.closest("button, label") ? "stay" : ""];
    const key = names.find((name) => this.#known.includes(name));
    if (!key || document.getElementById("walk").hidden || event.target.closest("[role=tablist]")) return;
    event.preventDefault();
    this.#press(event.code, key);
  }

  #press(what, key) { this.#held.delete(what); this.#held.set(what, key); this.#changed(); }
  #let(what) { if (this.#held.delete(what)) this.#changed(); }

  #changed() {
    const keys = [...new Set(this.#held.values())];
    if (JSON.stringify(keys) === this.#told) return;
    this.#told = JSON.stringify(keys);
    for (const pad of this.pads.children) pad.classList.toggle("held", keys.includes(pad.dataset.key));
    this.tell(keys);
  }
}

// Whether a key is for the field that has the focus: all of them in a text, and in a slider those that move it.
export function typing({ target, code }) {
  if (!(target instanceof HTMLElement)) return false;
  if (target.matches("input[type=range]")) return code in ARROWS;
  return target.matches("textarea, select, input:not([type=checkbox], [type=file])");
}
