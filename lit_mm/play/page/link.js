// The socket: messages with pictures are binary, as lit_mm/play/protocol.py says; all others are JSON.

export class Link extends EventTarget {
  #socket = null;
  #tries = 0;

  open() {
    const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/play`);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => { this.#tries = 0; this.#tell("open"); };
    socket.onmessage = ({ data }) => this.#tell("message", typeof data === "string" ? { ...JSON.parse(data), parts: [] } : unpack(data));
    socket.onclose = ({ code, reason }) => this.#closed(code, reason);
    this.#socket = socket;
  }

  send(type, values = {}) {
    if (this.#socket?.readyState !== WebSocket.OPEN) return;
    this.#socket.send(JSON.stringify({ type, ...values }));
    if (type !== "seen" && values.keys?.length !== 0) this.#tell("asked");  // a key that is let go asks for nothing
  }

  async sendPicture(file, purpose) {
    const header = new TextEncoder().encode(JSON.stringify({ type: "picture", for: purpose }));
    const length = new DataView(new ArrayBuffer(4));
    length.setUint32(0, header.length);
    if (this.#socket?.readyState !== WebSocket.OPEN) return;
    this.#socket.send(new Blob([length.buffer, header, file]));
    this.#tell("asked");
  }

  #closed(code, reason) {
    const mine = code >= 4000;  // the server has said why; trying again would not help
    this.#tell("closed", { reason: reason || (code === 1009 ? "that was larger than 8 MB" : "the server has stopped, or cannot be reached"), final: mine });
    if (!mine) setTimeout(() => this.open(), Math.min(8000, 500 * 2 ** this.#tries++));
  }

  #tell(name, detail) { this.dispatchEvent(new CustomEvent(name, { detail })); }
}

function unpack(data) {
  const length = new DataView(data).getUint32(0);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
  let start = 4 + length;
  const parts = header.parts.map((size) => data.slice(start, (start += size)));
  return { ...header, parts };
}
