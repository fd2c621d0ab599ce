// The view Try: an image of the corpus or a dropped file; click, drag a box, follow, export.

import { address, choice, el, option, say } from "./dom.js";
import { COLOURS } from "./pixels.js";
import { visible } from "./dropped.js";
import { Stage } from "./stage.js";
import { tab } from "./tab.js";
import { catchDrops, leftPart, rightPart } from "./tryparts.js";

const SETTLE = 180; // ms that a slice is looked at before it is encoded
const SAID = {
  none: "", waiting: "waiting for the encoder", loading: "loading the model", encoding: "encoding the slice",
  ready: "ready: click in the image", failed: "",
};

let tool = "plus";
let corner = null; // first corner of a box that the keyboard draws

export async function mount(root, route) {
  const view = new View(root);
  await tab.begin();
  await view.openRoute(route);
  view.show(false);
  return { keys: view.keys(), close: () => view.close() };
}

class View {
  constructor(root) {
    this.parts = {};
    root.classList.add("try");
    root.append(leftPart(this), rightPart(this));
    this.stage = new Stage(this.parts.canvas, {
      click: (x, y, label) => this.point(x, y, label ?? (tool === "minus" ? 0 : 1)),
      box: (box) => this.guard(tab.change({ box })),
      wheel: (step) => tab.about && tab.plane.count > 1 && (this.go(tab.look.index + step), true),
    });
    tab.changed = () => this.refresh();
    this.spaces = (event) => this.space(event);
    window.addEventListener("keydown", this.spaces);
    window.addEventListener("keyup", this.spaces);
    catchDrops(this, root);
  }

  close() {
    clearTimeout(this.settling);
    window.removeEventListener("keydown", this.spaces);
    window.removeEventListener("keyup", this.spaces);
    tab.changed = () => {};
    this.stage.close();
  }

  guard(promise) {
    return promise.catch((error) => say(error.message, true));
  }

  // --- opening ---

  async openRoute(route) {
    const [row, sample] = [route.query.get("row"), route.query.get("sample")];
    if (row === null && sample === null) return;
    const asked = `${row} ${sample}`;
    if (tab.route === asked) return; // back again: the prompts are still there
    const model = route.query.get("model"); // of the answer that was looked at
    if (tab.models.some((m) => m.label === model)) tab.look.model = model;
    await tab.open(row === null ? { sample } : { row: Number(row) });
    tab.route = asked;
  }

  files(given) {
    const files = visible(given);
    this.parts.file.value = "";
    if (!files.length) return;
    if (tab.prompts.size && !confirm("Open another image? What is drawn on this one is lost.")) return;
    this.guard(this.openFiles(files));
  }

  async openSent() {
    try {
      await tab.open({});
    } catch (error) {
      if (!/\bchannel/.test(error.message)) throw error; // 4D: the user says which part
      const channel = prompt(`${error.message.split(";")[0]}. Which channel, from 0?`, "0");
      if (channel === null) throw error;
      await tab.open({ channel: Number(channel) });
    }
  }

  async openFiles(files) {
    try {
      await tab.sendFiles(files, (text) => (this.parts.state.textContent = text));
      await this.openSent();
    } finally {
      this.refresh();
    }
    tab.route = null;
    history.replaceState(null, "", address("try"));
    await this.show(false);
    say(`${tab.about.name} is open`);
  }

  // --- what is shown ---

  // The slice of now: its picture at once, its embedding when one stays on it.
  async show(keep = true) {
    this.refresh();
    if (!tab.about) return;
    this.settings();
    if (this.drawing) {
      this.late = true;
      return;
    }
    this.drawing = true;
    try {
      do {
        this.late = false;
        await this.picture(keep);
      } while (this.late);
    } catch (error) {
      say(error.message, true);
    } finally {
      this.drawing = false;
    }
    clearTimeout(this.settling);
    this.settling = setTimeout(() => this.guard(tab.want()), SETTLE);
    await this.guard(tab.loadDrawn());
  }

  async picture(keep) {
    const index = tab.look.index;
    const image = await tab.picture();
    if (index !== tab.look.index) return;
    const [y, x] = tab.plane.spacing_yx_mm ?? [1, 1];
    const least = Math.min(x, y);
    this.stage.show(image, [x / least, y / least], keep);
  }

  refresh() {
    const p = this.parts;
    const { about, look, state } = tab;
    p.drop.hidden = Boolean(about);
    p.name.textContent = about ? about.name : "";
    p.name.title = about ? [about.name, ...about.warnings].join("\n") : "";
    const count = tab.plane?.count ?? 0;
    p.strip.hidden = count < 2;
    p.slider.max = Math.max(0, count - 1);
    p.slider.value = look.index;
    p.slice.textContent = about ? `slice ${look.index} of 0 to ${count - 1}` : "";
    const working = tab.follow && ["waiting", "running"].includes(tab.follow.state);
    p.state.textContent = this.stateText(working);
    p.state.classList.toggle("failed", state.state === "failed");
    p.bar.hidden = !["waiting", "loading", "encoding"].includes(state.state);
    if (state.state === "encoding") p.bar.value = state.share;
    else p.bar.removeAttribute("value");
    p.canvas.setAttribute("aria-label", about ? `${about.name}, ${look.axis} slice ${look.index}` : "no image");
    for (const button of p.tools.children) button.setAttribute("aria-checked", String(button.dataset.tool === tool));
    p.undo.disabled = !tab.past.length;
    p.redo.disabled = !tab.future.length;
    p.clear.disabled = p.three.disabled = !tab.prompts.has(tab.key());
    const some = Object.values(tab.slices).some((list) => list.length);
    for (const button of [...p.exports, p.all]) button.disabled = !some;
    p.follow.disabled = count < 2 || !(working || [...tab.prompts.keys()].some((k) => k.startsWith(`${tab.active}/`)));
    p.follow.textContent = working ? "Stop following" : "Follow through slices";
    p.follow.hidden = p.unfollow.hidden = count < 2;
    p.unfollow.disabled = working || !(tab.slices[tab.active] ?? []).some((k) => !tab.prompts.has(tab.key(tab.active, k)));
    this.listObjects();
    this.listChoices();
    this.layers();
  }

  stateText(working) {
    const { about, look, state } = tab;
    if (!about) return "";
    if (!look.model) return "no model: start sammed app with --model LABEL=PATH, or train one";
    if (working) return `following: ${tab.follow.said}`;
    const mine = tab.drawn.get(tab.active);
    const at = mine ? `; ${mine.area_px} px, predicted IoU ${mine.iou.toFixed(2)}${mine.followed ? ", followed" : ""}` : "";
    return (state.error || SAID[state.state]) + at;
  }

  layers() {
    this.stage.layers = tab.objects.filter((o) => tab.drawn.has(o.id)).map((o) => {
      const mine = o.id === tab.active;
      return { plane: tab.drawn.get(o.id).plane, colour: this.colour(o.id), fill: mine ? 0.38 : 0.2, line: mine ? 2 : 1 };
    });
    this.stage.prompts = tab.now;
    this.stage.draw();
  }

  colour(id) {
    return COLOURS[(id - 1) % COLOURS.length];
  }

  settings() {
    const { about, look } = tab;
    const change = (key) => (event) => this.setLook(key, event.target.value);
    const boxes = [];
    if (tab.models.length) boxes.push(choice("model", "Model", tab.models.map((m) => m.label), look.model, change("model"), null));
    if (about.axes.length > 1) boxes.push(choice("axis", "Slices", about.axes.map((a) => a.axis), look.axis, change("axis"), null));
    if (about.policies.length > 1) {
      const own = tab.models.find((m) => m.label === look.model)?.policy ?? "auto";
      const typed = look.policy && !about.policies.includes(look.policy) ? look.policy : "";
      const select = el("select", { id: "f-policy", name: "policy", onchange: change("policy") }, option("", `as trained (${own})`, look.policy),
        about.policies.map((name) => option(name, name, look.policy)), typed ? option(typed, typed, typed) : null,
        about.windows ? option("own", "low, high ...", "") : null);
      boxes.push(el("label", { class: "field", for: "f-policy" }, el("span", {}, "Window"), select));
    }
    if (about.windows) boxes.push(choice("modality", "Modality", ["CT", "MR", "PET"], look.modality, change("modality"), about.modality || "not said"));
    this.parts.settings.replaceChildren(...boxes);
    const hints = about.warnings.filter((text) => !(look.modality && text.includes("choose CT")));
    if (hints.length) this.parts.settings.append(el("p", { class: "quiet" }, hints.join("; ")));
  }

  async setLook(key, given) {
    let value = given;
    if (key === "policy" && value === "own") {
      value = prompt("Grey values that become black and white: low, high", "-160, 240") ?? tab.look.policy;
    }
    if (key === "axis") {
      const some = Object.values(tab.slices).some((list) => list.length);
      if (some && !confirm("Slices of another axis? The prompts of this one are cleared.")) return this.settings();
      await this.guard(tab.clearAll());
    }
    const before = { ...tab.look };
    tab.look = { ...tab.look, [key]: value };
    if (key === "axis") tab.look.index = Math.floor(tab.plane.count / 2);
    tab.state = { state: "none", share: 0, error: "" };
    try {
      await tab.picture();
    } catch (error) {
      tab.look = before;
      say(error.message, true);
    }
    await this.show(key !== "axis");
    return this.guard(tab.askAgain());
  }

  listObjects() {
    const rows = tab.objects.map((o) => {
      const count = (tab.slices[o.id] ?? []).length;
      return el("li", { "aria-current": o.id === tab.active && "true" },
        el("input", { type: "radio", name: "object", checked: o.id === tab.active, "aria-label": `draw ${o.name}`, onchange: () => this.activate(o.id) }),
        el("span", { class: "swatch", "data-colour": (o.id - 1) % COLOURS.length }),
        el("input", { type: "text", value: o.name, maxlength: 80, "aria-label": "label of the object", onchange: (e) => this.rename(o, e.target) }),
        el("span", { class: "quiet" }, count ? `${count} sl.` : ""),
        el("button", { type: "button", "aria-label": `delete ${o.name}`, onclick: () => this.guard(tab.remove(o.id)) }, "×"));
    });
    const list = this.parts.objects;
    if (list.contains(document.activeElement) && document.activeElement.type === "text") return;
    const place = [...list.querySelectorAll("input, button")].indexOf(document.activeElement);
    list.replaceChildren(...rows);
    if (place >= 0) list.querySelectorAll("input, button")[place]?.focus();
  }

  listChoices() {
    const taken = tab.now.choice;
    this.parts.choices.replaceChildren(...tab.choices.map((one) => el("button",
      { type: "button", "aria-pressed": String(one.choice === taken), onclick: () => this.guard(tab.choose(one.choice)) },
      `${one.choice + 1}: ${one.area_px} px, IoU ${one.iou.toFixed(2)}`)));
    if (tab.choices.length) this.parts.choices.append(el("p", { class: "quiet" }, "The prompt file cannot say which one you took: sammed predict takes the model's own."));
  }

  // --- acting ---

  go(index) {
    if (!tab.about) return;
    const to = Math.min(tab.plane.count - 1, Math.max(0, index));
    if (to === tab.look.index) return;
    tab.look.index = to;
    tab.choices = [];
    tab.drawn = new Map();
    tab.state = { state: "none", share: 0, error: "" };
    tab.turn += 1;
    corner = null;
    this.show();
  }

  point(x, y, label) {
    if (!tab.look.model) {
      say("There is no model to ask: start sammed app with --model LABEL=PATH.", true);
      return;
    }
    this.guard(tab.change({ points: [...tab.now.points, [x, y, label]] }));
  }

  setTool(name) {
    tool = name;
    corner = null;
    this.refresh();
  }

  async timeTravel(step) {
    if (!step) return;
    if (step.index !== tab.look.index) {
      this.go(step.index);
    }
    await this.guard(step.run());
  }

  undo() {
    return this.timeTravel(tab.undo());
  }

  redo() {
    return this.timeTravel(tab.redo());
  }

  clear() {
    if (tab.prompts.has(tab.key())) this.guard(tab.change({ points: [], box: null }));
  }

  three() {
    if (tab.prompts.has(tab.key())) this.guard(tab.ask(tab.key(), -1));
  }

  activate(id) {
    tab.active = id;
    tab.choices = [];
    this.refresh();
  }

  rename(object, input) {
    const name = input.value.trim() || `object ${object.id}`;
    input.value = name;
    this.guard(tab.rename(object, name));
  }

  clearAll() {
    if (confirm("Clear the prompts and masks of all objects?")) this.guard(tab.clearAll());
  }

  follow() {
    if (tab.follow && ["waiting", "running"].includes(tab.follow.state)) this.guard(tab.stopFollow());
    else this.guard(tab.startFollow().then((done) => say(done.state === "done" ? done.said : `following: ${done.state}`)));
  }

  save(form) {
    this.guard(tab.save(form, this.parts.each.checked && form !== "prompts").then((name) => say(`saved ${name}`)));
  }

  space(event) {
    const typing = event.target.matches?.("input, select, textarea, button, a");
    if (event.key !== " " || typing) return;
    event.preventDefault();
    this.stage.panning = event.type === "keydown";
    this.parts.canvas.classList.toggle("pan", this.stage.panning);
  }

  arrow(dx, dy) {
    return (event) => {
      if (event.target.matches("input[type=radio]")) return;
      if (event.shiftKey) this.stage.step(dx, dy);
      else this.go(tab.look.index + (dx || -dy));
    };
  }

  enter() {
    const at = this.stage.cursor;
    if (!at || !tab.about) return;
    if (tool !== "box") this.point(...at, tool === "minus" ? 0 : 1);
    else if (!corner) {
      corner = at;
      say("first corner; go to the opposite one and press Enter");
    } else {
      const box = this.stage.boxOf(corner.map((v, i) => Math.min(v, at[i])), at.map((v, i) => Math.max(v, corner[i]) + 1));
      corner = null;
      this.guard(tab.change({ box }));
    }
  }

  keys() {
    return {
      f: ["click objects", () => this.setTool("plus")],
      g: ["click background", () => this.setTool("minus")],
      b: ["box", () => this.setTool("box")],
      u: ["undo", () => this.undo()],
      r: ["redo", () => this.redo()],
      c: ["clear this object on this slice", () => this.clear()],
      m: ["three alternatives", () => this.three()],
      n: ["new object", () => tab.addObject()],
      t: ["follow through slices, or stop", () => !this.parts.follow.disabled && this.follow()],
      e: ["export NIfTI", () => this.save("nifti")],
      o: ["open files", () => this.parts.file.click()],
      "[": ["slice before", () => this.go(tab.look.index - 1)],
      "]": ["slice behind", () => this.go(tab.look.index + 1)],
      ArrowUp: ["slice behind; with Shift: cursor", this.arrow(0, -1)],
      ArrowDown: ["slice before; with Shift: cursor", this.arrow(0, 1)],
      ArrowLeft: ["slice before; with Shift: cursor", this.arrow(-1, 0)],
      ArrowRight: ["slice behind; with Shift: cursor", this.arrow(1, 0)],
      Enter: ["prompt at the cursor", () => this.enter()],
      "+": ["zoom in", () => this.stage.zoom(1.25)],
      "-": ["zoom out", () => this.stage.zoom(0.8)],
      0: ["whole image", () => this.stage.fit()],
    };
  }
}
