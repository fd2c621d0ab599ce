// One score row: truth, answer and the benchmark's own prompts, click by click, two models abreast.

import { api } from "./api.js";
import { address, el, option, percent, say } from "./dom.js";
import { filled, Picture, PREDICTION, PROMPT, TRUTH } from "./pixels.js";

const SIDE = 470;
const BEAT_MS = 900;

export async function mountReplay(root, route) {
  const number = Number(route.path[1]);
  const { at, other, ...asked } = Object.fromEntries(route.query);
  const row = await api(`results/rows/${number}`);
  if (row.corpus_row === null) {
    root.append(el("p", { class: "failed" }, `The image ${row.sample_id} is not in the corpus that is open: `,
      el("code", {}, "sammed app --corpus FOLDER"), " names the one that was scored."));
    return {};
  }
  const masks = await api(`corpus/rows/${row.corpus_row}/masks`);
  const truth = filled(masks.runs[row.mask_index], masks.height * masks.width);
  const source = `/api/corpus/rows/${row.corpus_row}/image.png`;
  const near = nearby(truth, masks);
  const shared = { row, truth, source, part: near, zoomed: true, truthOn: true, answerOn: true, step: 0 };
  const answers = row.same.filter((one) => one.status !== "unsupported");
  const right = answers.find((one) => one.number === Number(other)) ?? rival(answers, number);
  const panels = [new Panel(shared, answers, number)];
  if (right) panels.push(new Panel(shared, answers, right.number));
  const longest = () => Math.max(1, ...panels.map((p) => p.steps.length));
  const slider = el("input", { type: "range", id: "step", min: 0, max: 0, value: 0, "aria-label": "Prompt so far" });
  const told = el("output", { id: "step-text", for: "step" });
  let moved = false; // once the user has stepped, an answer that comes later does not jump
  const at_ = (step, own = true) => {
    moved ||= own;
    shared.step = Math.min(longest() - 1, Math.max(0, step));
    slider.max = longest() - 1;
    slider.value = shared.step;
    told.textContent = ` ${shared.step + 1} of ${longest()} `;
    panels.forEach((panel) => panel.draw());
  };
  slider.addEventListener("input", () => at_(Number(slider.value)));
  panels.forEach((panel) => (panel.changed = () => {
    shared.part = closeUp(near, panels, masks);
    at_(moved ? shared.step : longest() - 1, false);
  }));
  let beat = 0;
  const stop = () => {
    clearInterval(beat);
    beat = 0;
    playing.textContent = "▶ Play";
  };
  const play = () => {
    if (beat) return stop();
    playing.textContent = "■ Stop";
    at_(shared.step >= longest() - 1 ? 0 : shared.step + 1);
    beat = setInterval(() => {
      if (shared.step >= longest() - 1) stop();
      else at_(shared.step + 1);
    }, BEAT_MS);
  };
  const playing = el("button", { type: "button", id: "play", onclick: play }, "▶ Play");
  const switched = (name, id, label) => {
    const box = el("input", { type: "checkbox", id, checked: shared[name] });
    const flip = () => {
      shared[name] = !shared[name];
      box.checked = shared[name];
      panels.forEach((panel) => panel.draw());
    };
    box.addEventListener("change", flip);
    return [el("label", {}, box, " ", label), flip];
  };
  const [truthBox, flipTruth] = switched("truthOn", "truth", swatch(TRUTH, "truth"));
  const [answerBox, flipAnswer] = switched("answerOn", "answer", swatch(PREDICTION, "answer"));
  const [zoomBox, flipZoom] = switched("zoomed", "zoom", "close up");
  const next = async (by) => {
    if (at === undefined) return say("Open a row from the table to go on from it.");
    const place = Number(at) + by;
    if (place < 0) return say("That was the first one.");
    const found = await api("results/rows", { ...asked, page: place, per: 1 });
    if (!found.rows.length) return say("That was the last one.");
    location.hash = address(`results/row/${found.rows[0].number}`, { ...asked, at: place });
  };
  const back = () => {
    const { order, ...rest } = asked;
    location.hash = address("results", { ...rest, order: order === "worst" ? "" : order, page: at ? Math.floor(at / 25) : "" });
  };
  root.append(
    el("div", { class: "bar" },
      el("button", { type: "button", onclick: back }, "↑ All answers"),
      el("button", { type: "button", id: "previous", onclick: () => next(-1) }, "← Previous"),
      el("button", { type: "button", id: "next", onclick: () => next(1) }, "Next →"),
      el("a", { class: "button push", href: address(`corpus/row/${row.corpus_row}`) }, "Row of the corpus"),
      el("a", { class: "button", href: address("try", { row: row.corpus_row, model: row.model }) }, "Click in this image")),
    el("h1", {}, `${row.structure}, ${row.modality}`, el("span", { class: "quiet" }, `  ${row.sample_id}, mask ${row.mask_index}, prompts ${row.mode}`)),
    el("div", { class: "bar replay" },
      el("button", { type: "button", "aria-label": "Prompt before", onclick: () => at_(shared.step - 1) }, "◀"),
      slider,
      el("button", { type: "button", "aria-label": "Next prompt", onclick: () => at_(shared.step + 1) }, "▶"),
      told, playing, truthBox, answerBox,
      el("span", {}, swatch(PROMPT, "prompts: + object, − background")), zoomBox),
    el("div", { class: "pair" }, panels.map((panel) => panel.place)),
  );
  at_(0, false);
  panels.forEach((panel) => panel.load());
  return {
    keys: {
      ArrowRight: ["next prompt", () => at_(shared.step + 1)],
      ArrowLeft: ["prompt before", () => at_(shared.step - 1)],
      " ": ["play or stop", play],
      t: ["truth on or off", flipTruth],
      a: ["answer on or off", flipAnswer],
      z: ["close up or whole image", flipZoom],
      n: ["next answer of the table", () => next(1)],
      p: ["answer before", () => next(-1)],
      Escape: ["back to all answers", back],
    },
    close: stop,
  };
}

function swatch(colour, text) {
  const made = el("span", { class: "swatch", "aria-hidden": "true" });
  made.style.background = colour;
  return el("span", { class: "legend" }, made, ` ${text}`);
}

// The other model to show: the best of those that are no rule of thumb, else any.
function rival(answers, number) {
  const others = answers.filter((one) => one.number !== number);
  const rule = (one) => Number(one.kind === "trivial");
  return others.sort((a, b) => rule(a) - rule(b) || (b.dice ?? 0) - (a.dice ?? 0))[0];
}

// The part of the image around a small object, or null where it fills the image.
function nearby(plane, { width, height }) {
  let [x0, y0, x1, y1] = [width, height, 0, 0];
  for (let i = 0; i < plane.length; i++) {
    if (!plane[i]) continue;
    const x = i % width, y = (i - x) / width;
    x0 = Math.min(x0, x); x1 = Math.max(x1, x + 1);
    y0 = Math.min(y0, y); y1 = Math.max(y1, y + 1);
  }
  const half = Math.max(1.2 * (x1 - x0), 1.2 * (y1 - y0), 20);
  if (2 * half > 0.8 * Math.max(width, height)) return null;
  const [cx, cy] = [(x0 + x1) / 2, (y0 + y1) / 2];
  return [Math.max(0, Math.floor(cx - half)), Math.max(0, Math.floor(cy - half)),
    Math.min(width, Math.ceil(cx + half)), Math.min(height, Math.ceil(cy + half))];
}

// One model's answer.
class Panel {
  constructor(shared, answers, number) {
    this.shared = shared;
    this.number = number;
    this.steps = [];
    this.planes = new Map();
    this.changed = () => {};
    this.picture = new Picture(SIDE, `answer about ${shared.row.structure}`);
    this.score = el("p", { class: "score", "aria-live": "polite" }, "…");
    this.note = el("p", { class: "quiet note" });
    const select = el("select", {
      "aria-label": "Model", onchange: (e) => { this.number = Number(e.target.value); this.load(); },
    }, answers.map((one) => option(String(one.number), `${one.model}: ${percent(one.dice)} %`, String(number))));
    this.place = el("section", { class: "panel", "aria-label": "Answer of a model" },
      el("div", { class: "bar" }, select, this.score), el("div", { class: "stage" }, this.picture.canvas), this.note);
  }

  async load() {
    this.score.textContent = "asking …";
    try {
      if (!this.picture.image) await this.picture.load(this.shared.source);
      const wanted = this.number;
      const told = await api(`results/rows/${wanted}/replay`);
      if (wanted !== this.number) return;
      this.steps = told.steps;
      this.planes.clear();
      this.note.textContent = told.note;
      this.note.classList.toggle("failed", !told.same);
      this.changed();
    } catch (error) {
      this.steps = [];
      this.score.textContent = "";
      this.note.textContent = error.message;
      this.note.classList.add("failed");
    }
  }

  plane(runs) {
    if (!this.planes.has(runs)) this.planes.set(runs, filled(runs, this.shared.truth.length));
    return this.planes.get(runs);
  }

  draw() {
    if (!this.picture.image) return;
    const { truth, truthOn, answerOn, zoomed, part } = this.shared;
    const step = this.steps[Math.min(this.shared.step, this.steps.length - 1)];
    const layers = [];
    if (step?.hint) layers.push({ plane: this.plane(step.hint), colour: PROMPT, fill: 0, line: 1.5, dash: [4, 4] });
    if (answerOn && step?.runs) layers.push({ plane: this.plane(step.runs), colour: PREDICTION, fill: 0.4, line: 2 });
    if (truthOn) layers.push({ plane: truth, colour: TRUTH, fill: 0, line: 2, dash: [7, 4] });
    this.picture.layers = layers;
    this.picture.prompts = step ? { points: step.points, box: step.box } : null;
    this.picture.show(zoomed ? part : null);
    if (!step) return;
    const clicks = step.points.filter((p) => p[2] >= 0).length;
    const asked = [step.box ? "box" : "", step.hint ? "mask" : "", clicks ? `${clicks} click${clicks > 1 ? "s" : ""}` : ""];
    const dice = step.dice === null ? "" : `Dice ${percent(step.dice)} %, IoU ${percent(step.iou)} %`;
    this.score.textContent = `${asked.filter(Boolean).join(" + ") || "no prompt"}: ${dice}${step.runs ? "" : " (answer not kept)"}`;
  }
}

// What every panel shows close up: the surroundings of the truth and every prompt of every panel;
// null where that is most of the image.
function closeUp(window, panels, { width, height }) {
  if (!window) return null;
  let [x0, y0, x1, y1] = window;
  const spots = panels.flatMap((panel) => panel.steps).flatMap((step) => [
    ...step.points.filter((p) => p[2] >= 0).map(([x, y]) => [x, y, x + 1, y + 1]),
    ...(step.box ? [step.box] : []),
  ]);
  for (const [a, b, c, d] of spots) {
    x0 = Math.min(x0, a - 2); y0 = Math.min(y0, b - 2);
    x1 = Math.max(x1, c + 2); y1 = Math.max(y1, d + 2);
  }
  const part = [Math.max(0, x0), Math.max(0, y0), Math.min(width, x1), Math.min(height, y1)].map(Math.round);
  const large = Math.max(part[2] - part[0], part[3] - part[1]) > 0.8 * Math.max(width, height);
  return large ? null : part;
}
