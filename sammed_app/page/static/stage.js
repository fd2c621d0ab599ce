// The canvas of the view Try: one slice with zoom and pan, masks and prompts on it.
//
// Coordinates of the slice: a pixel covers [i, i + 1); its centre, where a click lies, is i.

import { outlinePath, tint } from "./pixels.js";

const DRAG = 4; // screen px below which a press is a click
const PLUS = "#D55E00", MINUS = "#0072B2";

export class Stage {
  // actions: click(x, y, label), box([x0, y0, x1, y1]), wheel(step)
  constructor(canvas, actions) {
    this.canvas = canvas;
    this.actions = actions;
    this.image = null;
    this.aspect = [1, 1];
    this.layers = [];
    this.prompts = { points: [], box: null };
    this.rubber = null;
    this.cursor = null;
    this.panning = false;
    this.scale = 1;
    this.origin = [0, 0];
    this.made = new WeakMap();
    this.watch = new ResizeObserver(() => this.resize());
    this.watch.observe(canvas);
    canvas.addEventListener("pointerdown", (e) => this.down(e));
    canvas.addEventListener("contextmenu", (e) => e.preventDefault());
    canvas.addEventListener("wheel", (e) => this.wheel(e), { passive: false });
  }

  close() {
    this.watch.disconnect();
  }

  // `keep` leaves zoom and pan as they are: another slice of the same image.
  show(image, aspect, keep) {
    this.image = image;
    this.aspect = aspect;
    if (keep) this.draw();
    else this.fit();
  }

  resize() {
    const ratio = window.devicePixelRatio || 1;
    const { clientWidth, clientHeight } = this.canvas;
    this.canvas.width = Math.max(1, Math.round(clientWidth * ratio));
    this.canvas.height = Math.max(1, Math.round(clientHeight * ratio));
    this.fit();
  }

  fit() {
    if (!this.image) return;
    const { clientWidth, clientHeight } = this.canvas;
    const [width, height] = [this.image.width * this.aspect[0], this.image.height * this.aspect[1]];
    this.scale = Math.min((clientWidth - 16) / width, (clientHeight - 16) / height);
    this.origin = [(clientWidth - width * this.scale) / 2, (clientHeight - height * this.scale) / 2];
    this.draw();
  }

  zoom(factor, at = [this.canvas.clientWidth / 2, this.canvas.clientHeight / 2]) {
    const scale = Math.min(64, Math.max(0.05, this.scale * factor));
    this.origin = this.origin.map((o, i) => at[i] - ((at[i] - o) * scale) / this.scale);
    this.scale = scale;
    this.draw();
  }

  // Screen px in the canvas -> edges of the slice's pixels, and back.
  inside([x, y]) {
    return [(x - this.origin[0]) / this.scale / this.aspect[0], (y - this.origin[1]) / this.scale / this.aspect[1]];
  }

  outside([x, y]) {
    return [this.origin[0] + x * this.scale * this.aspect[0], this.origin[1] + y * this.scale * this.aspect[1]];
  }

  at(event) {
    const rect = this.canvas.getBoundingClientRect();
    return [event.clientX - rect.left, event.clientY - rect.top];
  }

  wheel(event) {
    if (!this.image) return;
    event.preventDefault();
    if (event.ctrlKey || event.metaKey || !this.actions.wheel(Math.sign(event.deltaY))) {
      this.zoom(event.deltaY < 0 ? 1.15 : 1 / 1.15, this.at(event));
    }
  }

  down(event) {
    if (!this.image || event.button > 2) return;
    this.canvas.focus();
    this.canvas.setPointerCapture(event.pointerId);
    const start = this.at(event);
    const origin = [...this.origin];
    const pan = this.panning || event.button === 1;
    let dragged = false;
    const move = (e) => {
      const now = this.at(e);
      dragged ||= Math.hypot(now[0] - start[0], now[1] - start[1]) >= DRAG;
      if (!dragged) return;
      if (pan) this.origin = [origin[0] + now[0] - start[0], origin[1] + now[1] - start[1]];
      else if (event.button === 0) this.rubber = this.boxOf(this.inside(start), this.inside(now));
      this.draw();
    };
    const up = (e) => {
      stop();
      const box = this.rubber;
      this.rubber = null;
      if (pan) return;
      if (!dragged) this.click(this.inside(this.at(e)), event.button);
      else if (box) this.actions.box(box);
      this.draw();
    };
    const stop = () => {
      this.canvas.removeEventListener("pointermove", move);
      this.canvas.removeEventListener("pointerup", up);
      this.canvas.removeEventListener("pointercancel", cancel);
    };
    const cancel = () => {
      stop();
      this.rubber = null;
      this.draw();
    };
    this.canvas.addEventListener("pointermove", move);
    this.canvas.addEventListener("pointerup", up);
    this.canvas.addEventListener("pointercancel", cancel);
  }

  click([x, y], button) {
    const { width, height } = this.image;
    if (x < 0 || y < 0 || x >= width || y >= height) return;
    this.cursor = null;
    this.actions.click(...this.centred(x, y), button === 2 ? 0 : null);
  }

  centred(x, y) {
    return [x, y].map((v) => Math.max(0, Math.round((v - 0.5) * 100) / 100));
  }

  // Whole pixels that a drag touched, null where it lies beside the image.
  boxOf(a, b) {
    const limits = [this.image.width, this.image.height];
    const low = [0, 1].map((i) => Math.max(0, Math.floor(Math.min(a[i], b[i]))));
    const high = [0, 1].map((i) => Math.min(limits[i], Math.ceil(Math.max(a[i], b[i]))));
    return high[0] > low[0] && high[1] > low[1] ? [...low, ...high] : null;
  }

  // The cursor of the keyboard: a pixel, in the middle at first.
  step(dx, dy) {
    if (!this.image) return;
    const { width, height } = this.image;
    const [x, y] = this.cursor ?? [Math.floor(width / 2), Math.floor(height / 2)];
    const moved = this.cursor ? [x + dx, y + dy] : [x, y];
    this.cursor = [Math.min(width - 1, Math.max(0, moved[0])), Math.min(height - 1, Math.max(0, moved[1]))];
    this.draw();
  }

  draw() {
    const ratio = window.devicePixelRatio || 1;
    const pen = this.canvas.getContext("2d");
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.clearRect(0, 0, this.canvas.width, this.canvas.height);
    if (!this.image) return;
    this.canvas.dataset.view = JSON.stringify([...this.origin, ...this.aspect.map((a) => a * this.scale)]);
    const { width, height } = this.image;
    const [sx, sy] = this.aspect.map((a) => a * this.scale * ratio);
    pen.setTransform(sx, 0, 0, sy, this.origin[0] * ratio, this.origin[1] * ratio);
    pen.imageSmoothingEnabled = this.scale < 1; // larger than life: pixels stay pixels
    pen.drawImage(this.image, 0, 0);
    for (const layer of this.layers) this.drawLayer(pen, layer, width, height);
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.drawPrompts(pen);
  }

  drawLayer(pen, { plane, colour, fill, line }, width, height) {
    if (plane.length !== width * height) return;
    let made = this.made.get(plane);
    if (!made) {
      made = { tints: new Map(), path: outlinePath(plane, width, height) };
      this.made.set(plane, made);
    }
    const key = `${colour} ${fill}`;
    if (!made.tints.has(key)) made.tints.set(key, tint(plane, width, height, colour, Math.round(255 * fill)));
    pen.drawImage(made.tints.get(key), 0, 0);
    const whole = new Path2D();
    whole.addPath(made.path, pen.getTransform());
    pen.save();
    pen.resetTransform(); // lines of one width, whatever the shape of a pixel
    for (const [stroke, thick] of [["rgba(0,0,0,.6)", line + 2], [colour, line]]) {
      pen.strokeStyle = stroke;
      pen.lineWidth = thick * (window.devicePixelRatio || 1);
      pen.stroke(whole);
    }
    pen.restore();
  }

  drawPrompts(pen) {
    const { points, box } = this.prompts;
    for (const [shown, dash] of [[box, []], [this.rubber, [6, 4]]]) {
      if (!shown) continue;
      const [x0, y0] = this.outside([shown[0], shown[1]]);
      const [x1, y1] = this.outside([shown[2], shown[3]]);
      for (const [colour, thick] of [["#fff", 4], [PLUS, 2]]) {
        pen.strokeStyle = colour;
        pen.lineWidth = thick;
        pen.setLineDash(dash);
        pen.strokeRect(x0, y0, x1 - x0, y1 - y0);
      }
      pen.setLineDash([]);
    }
    for (const [x, y, label] of points) this.drawPoint(pen, this.outside([x + 0.5, y + 0.5]), label);
    if (this.cursor) this.drawCursor(pen, this.outside([this.cursor[0] + 0.5, this.cursor[1] + 0.5]));
  }

  // A round plus for the object, a square minus for what is not: told apart without colour.
  drawPoint(pen, [x, y], label) {
    pen.beginPath();
    if (label) pen.arc(x, y, 8, 0, 2 * Math.PI);
    else pen.rect(x - 7.5, y - 7.5, 15, 15);
    pen.fillStyle = label ? PLUS : MINUS;
    pen.fill();
    pen.lineWidth = 2;
    pen.strokeStyle = "#fff";
    pen.stroke();
    pen.beginPath();
    pen.moveTo(x - 4, y);
    pen.lineTo(x + 4, y);
    if (label) {
      pen.moveTo(x, y - 4);
      pen.lineTo(x, y + 4);
    }
    pen.stroke();
  }

  drawCursor(pen, [x, y]) {
    for (const [colour, thick] of [["#000", 4], ["#fff", 2]]) {
      pen.strokeStyle = colour;
      pen.lineWidth = thick;
      pen.beginPath();
      for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
        pen.moveTo(x + 4 * dx, y + 4 * dy);
        pen.lineTo(x + 14 * dx, y + 14 * dy);
      }
      pen.stroke();
    }
  }
}
