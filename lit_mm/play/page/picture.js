// Pictures of messages on canvases, and pictures that people drop.

export async function paint(canvas, bytes) {
  const bitmap = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
  canvas.width = bitmap.width;
  canvas.height = bitmap.height;
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  bitmap.close();
}

export function copy(canvas) {
  const made = document.createElement("canvas");
  made.width = canvas.width;
  made.height = canvas.height;
  made.getContext("2d").drawImage(canvas, 0, 0);
  return made;
}

export function mark(canvas, [rows, columns], tiles) {
  const unit = 64;
  canvas.width = columns * unit;
  canvas.height = rows * unit;
  const pen = canvas.getContext("2d");
  pen.lineWidth = 4;
  for (const [color, inset] of [["#000", 2], ["#ff4fd8", 6]]) {
    pen.strokeStyle = color;
    for (const tile of tiles) {
      pen.strokeRect((tile % columns) * unit + inset, Math.floor(tile / columns) * unit + inset, unit - 2 * inset, unit - 2 * inset);
    }
  }
}

// Pictures that are dropped anywhere on the page are for the part of it that is shown; no browser leaves for them.
export function takesPictures(area, input, take) {
  const over = (event, on) => { event.preventDefault(); area.classList.toggle("dropping", on); };
  document.addEventListener("dragover", (event) => over(event, true));
  document.addEventListener("dragleave", (event) => over(event, false));
  document.addEventListener("drop", (event) => {
    over(event, false);
    const [file] = event.dataTransfer.files;
    if (file && !area.hidden) take(file);
  });
  input.addEventListener("change", () => {
    if (input.files[0]) take(input.files[0]);
    input.value = "";
  });
}
