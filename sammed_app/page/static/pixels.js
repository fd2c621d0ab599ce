// Images and masks on canvases: masks come as lengths of runs of 0, 1, 0, ... in raster order.

// Okabe and Ito; the server draws thumbnails in the same order.
export const COLOURS = ["#56B4E9", "#E69F00", "#009E73", "#F0E442", "#CC79A7", "#D55E00", "#0072B2"];
export const TRUTH = "#F0E442", PREDICTION = "#56B4E9", PROMPT = "#D55E00";

export function filled(runs, length) {
  const plane = new Uint8Array(length);
  let at = 0;
  runs.forEach((run, i) => {
    if (i % 2) plane.fill(1, at, at + run);
    at += run;
  });
  return plane;
}

export function loadImage(source) {
  return new Promise((done, failed) => {
    const image = new Image();
    image.onload = () => done(image);
    image.onerror = () => failed(new Error("the picture did not come: is the server still running?"));
    image.src = source;
  });
}

function rgb(colour) {
  return [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));
}

// A mask of (height, width) as a translucent canvas of its own size.
export function tint(plane, width, height, colour, alpha) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const pen = canvas.getContext("2d");
  const data = pen.createImageData(width, height);
  const [r, g, b] = rgb(colour);
  for (let i = 0; i < plane.length; i++) {
    if (plane[i]) data.data.set([r, g, b, alpha], 4 * i);
  }
  pen.putImageData(data, 0, 0);
  return canvas;
}

// The edge of a mask along pixel borders, in pixels of the slice (x, y at pixel corners).
export function outlinePath(plane, width, height) {
  const path = new Path2D();
  const at = (x, y) => x >= 0 && y >= 0 && x < width && y < height && plane[y * width + x];
  for (let y = 0; y <= height; y++) {
    let start = -1;
    for (let x = 0; x <= width; x++) {
      const edge = x < width && !!at(x, y) !== !!at(x, y - 1);
      if (edge && start < 0) start = x;
      if (!edge && start >= 0) {
        path.moveTo(start, y);
        path.lineTo(x, y);
        start = -1;
      }
    }
  }
  for (let x = 0; x <= width; x++) {
    let start = -1;
    for (let y = 0; y <= height; y++) {
      const edge = y < height && !!at(x, y) !== !!at(x - 1, y);
      if (edge && start < 0) start = y;
      if (!edge && start >= 0) {
        path.moveTo(x, start);
        path.lineTo(x, y);
        start = -1;
      }
    }
  }
  return path;
}

// A canvas that shows one image, enlarged to fit, with layers on it.
// layers: {plane, colour, fill (0 to 1), line (px), dash}; prompts: {points: [[x, y, label]], box}.
export class Picture {
  constructor(side, label) {
    this.side = side;
    this.canvas = document.createElement("canvas");
    this.canvas.setAttribute("role", "img");
    this.canvas.setAttribute("aria-label", label);
    this.layers = [];
    this.prompts = null;
    this.cache = new WeakMap();
  }

  async load(source) {
    this.image = await loadImage(source);
    this.show(null);
  }

  // Show a part of the image, half-open [x0, y0, x1, y1], or all of it.
  show(part) {
    const [x0, y0, x1, y1] = part ?? [0, 0, this.image.width, this.image.height];
    this.origin = [x0, y0];
    this.scale = Math.min(this.side / (x1 - x0), this.side / (y1 - y0));
    this.ratio = window.devicePixelRatio || 1;
    const width = Math.round((x1 - x0) * this.scale);
    const height = Math.round((y1 - y0) * this.scale);
    this.canvas.width = Math.round(width * this.ratio);
    this.canvas.height = Math.round(height * this.ratio);
    this.canvas.style.width = `${width}px`;
    this.canvas.style.height = `${height}px`;
    this.draw();
  }

  made(layer) {
    let found = this.cache.get(layer.plane);
    if (!found) {
      found = { tints: new Map() };
      this.cache.set(layer.plane, found);
    }
    return found;
  }

  draw() {
    if (!this.image) return;
    const { width, height } = this.image;
    const pen = this.canvas.getContext("2d");
    const scale = this.scale * this.ratio;
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.clearRect(0, 0, this.canvas.width, this.canvas.height);
    pen.setTransform(scale, 0, 0, scale, -this.origin[0] * scale, -this.origin[1] * scale);
    pen.imageSmoothingEnabled = scale < 1;
    pen.drawImage(this.image, 0, 0);
    for (const layer of this.layers) {
      const made = this.made(layer);
      if (layer.fill) {
        const key = `${layer.colour} ${layer.fill}`;
        if (!made.tints.has(key)) {
          made.tints.set(key, tint(layer.plane, width, height, layer.colour, Math.round(255 * layer.fill)));
        }
        pen.drawImage(made.tints.get(key), 0, 0);
      }
      if (layer.line) {
        made.path ??= outlinePath(layer.plane, width, height);
        // A dark rim keeps the line visible on bright tissue.
        for (const [colour, thick] of [["rgba(0,0,0,.6)", layer.line + 2], [layer.colour, layer.line]]) {
          pen.strokeStyle = colour;
          pen.lineWidth = (thick * this.ratio) / scale;
          pen.setLineDash(layer.dash ? layer.dash.map((d) => (d * this.ratio) / scale) : []);
          pen.stroke(made.path);
        }
      }
    }
    if (this.prompts) this.drawPrompts(pen, scale);
    pen.setLineDash([]);
  }

  drawPrompts(pen, scale) {
    const one = this.ratio / scale;
    const { points = [], box = null } = this.prompts;
    pen.setLineDash([]);
    if (box) {
      const [x0, y0, x1, y1] = box;
      for (const [colour, thick] of [["#fff", 4], [PROMPT, 2]]) {
        pen.strokeStyle = colour;
        pen.lineWidth = thick * one;
        pen.strokeRect(x0, y0, x1 - x0, y1 - y0);
      }
    }
    points.forEach(([x, y, label], i) => {
      if (label < 0) return;
      const newest = i === points.length - 1;
      const radius = (newest ? 8 : 6) * one;
      // A pixel's centre is its integer index.
      const [cx, cy] = [x + 0.5, y + 0.5];
      pen.beginPath();
      pen.arc(cx, cy, radius, 0, 2 * Math.PI);
      pen.fillStyle = label ? PROMPT : "#fff";
      pen.fill();
      pen.lineWidth = 2 * one;
      pen.strokeStyle = label ? "#fff" : PROMPT;
      pen.stroke();
      // Plus and minus, so that colour is not all that tells them apart.
      pen.strokeStyle = label ? "#fff" : PROMPT;
      pen.beginPath();
      pen.moveTo(cx - radius / 2, cy);
      pen.lineTo(cx + radius / 2, cy);
      if (label) {
        pen.moveTo(cx, cy - radius / 2);
        pen.lineTo(cx, cy + radius / 2);
      }
      pen.stroke();
    });
  }

  // Where a mouse event lies, in pixels of the slice (a pixel's centre is its integer index).
  place(event) {
    const rect = this.canvas.getBoundingClientRect();
    const [x0, y0] = this.origin;
    return [
      (event.clientX - rect.left) / this.scale + x0 - 0.5,
      (event.clientY - rect.top) / this.scale + y0 - 0.5,
    ];
  }
}
