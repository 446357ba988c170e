// Settings of drawing, one slider or number each.

const NAMES = { steps: "steps", guidance: "guidance", noise: "noise", seed: "seed", pace: "frames/s" };

export function sliders(area, ranges, changed, note = () => "") {
  const made = Object.fromEntries(Object.entries(ranges).map(([name, range]) => [name, slider(area.id, name, range, changed, note)]));
  area.replaceChildren(...Object.values(made).map(({ label }) => label));
  return made;
}

function slider(of, name, { low, high, whole }, changed, note) {
  const label = document.createElement("label");
  const input = document.createElement("input");
  input.id = `${of}-${name}`;
  input.type = name === "seed" ? "number" : "range";
  Object.assign(input, { min: low, max: high, step: whole ? 1 : 0.1 });
  const shown = document.createElement("output");
  shown.htmlFor = input.id;
  const tell = () => { shown.textContent = input.value + note(name, Number(input.value)); };
  input.oninput = tell;
  input.onchange = () => { if (input.value !== "") changed({ [name]: Number(input.value) }); };
  label.append(NAMES[name] ?? name, input, ...(name === "seed" ? [] : [shown]));
  const show = (value) => {
    if (input.type === "number" && input === document.activeElement) return;
    input.value = value;
    tell();
  };
  return { label, show, tell, value: () => Number(input.value) };
}
