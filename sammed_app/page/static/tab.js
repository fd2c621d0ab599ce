// What this tab has open and drawn, and its talk with the server. It outlives the view: going to
// the corpus and back keeps the prompts.

import { api, CHANGE, send, upload } from "./api.js";
import { filled } from "./pixels.js";

const POLL = 150; // ms between questions about progress
const NOTHING = { points: [], box: null, choice: null };

class Tab {
  constructor() {
    this.name = null;
    this.models = [];
    this.about = null;
    this.changed = () => {};
    this.forget();
    window.addEventListener("pagehide", () => this.leave());
    window.addEventListener("beforeunload", (event) => {
      if (this.prompts.size) event.preventDefault();
    });
  }

  forget() {
    this.look = { model: this.look?.model ?? "", axis: "", index: 0, policy: "", modality: "" };
    this.objects = [{ id: 1, name: "object 1" }];
    this.active = 1;
    this.prompts = new Map(); // "object/slice" -> { points, box, choice }
    this.drawn = new Map(); // object -> { plane, iou, area_px, followed }, of this slice
    this.slices = {};
    this.choices = [];
    this.past = [];
    this.future = [];
    this.busy = new Map();
    this.pictures = new Map();
    this.state = { state: "none", share: 0, error: "" };
    this.follow = null;
    this.turn = (this.turn ?? 0) + 1;
  }

  async begin() {
    if (this.name) return;
    const made = await send("try/session", {});
    this.name = made.session;
    this.models = made.models;
    this.look.model = made.models[0]?.label ?? "";
  }

  leave() {
    if (!this.name) return;
    fetch(`/api/try/session/${this.name}`, { method: "DELETE", headers: CHANGE, keepalive: true });
    this.name = null;
  }

  at(rest) {
    return `try/session/${this.name}/${rest}`;
  }

  // --- opening ---

  async sendFiles(files, tell) {
    await this.begin();
    await send(this.at("drop"), {});
    for (const [i, file] of files.entries()) {
      tell(files.length > 1 ? `sending ${i + 1} of ${files.length}` : `sending ${file.name}`);
      const query = new URLSearchParams({ session: this.name, name: file.name });
      await upload(`try/upload?${query}`, file);
    }
    tell("reading");
  }

  async open(what) {
    await this.begin();
    const about = await send(this.at("open"), what);
    this.forget();
    this.about = about;
    const [first] = about.axes;
    this.look.axis = first.axis;
    this.look.index = Math.floor(first.count / 2);
  }

  get plane() {
    return this.about?.axes.find((a) => a.axis === this.look.axis);
  }

  async picture() {
    const key = JSON.stringify([this.look.model, this.look.axis, this.look.index, this.look.policy, this.look.modality]);
    if (!this.pictures.has(key)) {
      const blob = await api(this.at("slice.png"), { ...this.look });
      this.pictures.set(key, await createImageBitmap(blob));
      if (this.pictures.size > 48) this.pictures.delete(this.pictures.keys().next().value);
    }
    return this.pictures.get(key);
  }

  // --- the embedding of the slice ---

  async want() {
    const turn = ++this.turn;
    if (!this.look.model) return;
    this.state = (await send(this.at("want"), this.look)).slice;
    this.changed();
    while (turn === this.turn && ["waiting", "loading", "encoding"].includes(this.state.state)) {
      await new Promise((done) => setTimeout(done, POLL));
      if (turn !== this.turn) return;
      this.state = (await api(this.at("state"))).slice;
      this.changed();
    }
  }

  async ready() {
    if (this.state.state !== "ready") await this.want();
    if (this.state.state === "failed") throw new Error(this.state.error);
    return this.state.state === "ready";
  }

  async loadDrawn() {
    const index = this.look.index;
    const found = await api(this.at("drawn"), { index });
    if (index !== this.look.index) return;
    this.slices = found.slices;
    this.drawn = new Map(Object.entries(found.objects).map(([id, one]) => [Number(id), this.unpacked(one)]));
    this.changed();
  }

  unpacked(one) {
    const { width, height } = this.plane;
    return { ...one, plane: filled(one.runs, width * height) };
  }

  // --- prompts ---

  key(object = this.active, index = this.look.index) {
    return `${object}/${index}`;
  }

  get now() {
    return this.prompts.get(this.key()) ?? NOTHING;
  }

  change(change) {
    const key = this.key();
    const before = this.now;
    this.past.push({ key, before, after: { ...before, choice: null, ...change } });
    this.future = [];
    return this.put(key, this.past.at(-1).after);
  }

  async put(key, prompt) {
    if (prompt.points.length || prompt.box) this.prompts.set(key, prompt);
    else this.prompts.delete(key);
    this.choices = [];
    this.changed();
    await this.ask(key);
  }

  // Sends what is there now; presses that come meanwhile are sent together after it.
  async ask(key, choice) {
    if (this.busy.has(key)) {
      this.busy.set(key, true);
      return;
    }
    const of = this.about;
    this.busy.set(key, true);
    try {
      while (this.busy.get(key) && of === this.about) {
        this.busy.set(key, false);
        if (await this.askOnce(key, choice)) this.busy.set(key, true);
      }
    } finally {
      this.busy.delete(key);
    }
  }

  // True: the slice had to be encoded first, ask again.
  async askOnce(key, choice) {
    const [object, index] = key.split("/").map(Number);
    const prompt = this.prompts.get(key) ?? NOTHING;
    const name = this.objects.find((o) => o.id === object)?.name ?? "";
    const look = { ...this.look, index };
    const { points, box } = prompt;
    const found = await send(this.at("ask"), { look, object, name, points, box, choice: choice ?? prompt.choice });
    if (found.again) {
      this.state = { state: "none", share: 0, error: "" };
      return index === this.look.index && (await this.ready());
    }
    if (index !== this.look.index) return false;
    this.choices = found.choices.map((one) => this.unpacked(one));
    if (found.drawn) this.drawn.set(object, this.unpacked(found.drawn));
    else this.drawn.delete(object);
    const rest = (this.slices[object] ?? []).filter((k) => k !== index);
    this.slices[object] = found.drawn ? [...rest, index].sort((a, b) => a - b) : rest;
    this.changed();
    return false;
  }

  async askAgain() {
    if (this.prompts.has(this.key())) await this.ask(this.key());
  }

  choose(choice) {
    const before = this.now;
    this.past.push({ key: this.key(), before, after: { ...before, choice } });
    this.future = [];
    return this.put(this.key(), this.past.at(-1).after);
  }

  // Gives the slice to go to, or null where there is nothing to undo.
  step(from, to, which) {
    const entry = from.pop();
    if (!entry) return null;
    to.push(entry);
    const [object, index] = entry.key.split("/").map(Number);
    if (this.objects.some((o) => o.id === object)) this.active = object;
    return { index, run: () => this.put(entry.key, entry[which]) };
  }

  undo() {
    return this.step(this.past, this.future, "before");
  }

  redo() {
    return this.step(this.future, this.past, "after");
  }

  // --- objects ---

  addObject() {
    const id = 1 + Math.max(0, ...this.objects.map((o) => o.id));
    this.objects.push({ id, name: `object ${id}` });
    this.active = id;
    this.choices = [];
    this.changed();
  }

  async rename(object, name) {
    object.name = name;
    await send(this.at(`objects/${object.id}`), { name });
  }

  async remove(id) {
    await send(this.at(`objects/${id}`), undefined, "DELETE");
    this.objects = this.objects.filter((o) => o.id !== id);
    for (const key of [...this.prompts.keys()]) if (key.startsWith(`${id}/`)) this.prompts.delete(key);
    this.past = this.past.filter((e) => !e.key.startsWith(`${id}/`));
    this.future = this.future.filter((e) => !e.key.startsWith(`${id}/`));
    this.drawn.delete(id);
    delete this.slices[id];
    if (!this.objects.length) this.addObject();
    if (this.active === id) this.active = this.objects[0].id;
    this.changed();
  }

  async clearAll() {
    await send(this.at("objects"), undefined, "DELETE");
    this.prompts.clear();
    this.drawn.clear();
    Object.assign(this, { slices: {}, choices: [], past: [], future: [] });
    this.changed();
  }

  // --- following and export ---

  async startFollow() {
    const id = this.active;
    this.follow = (await send(this.at("follow"), { look: this.look, object: id })).follow;
    while (["waiting", "running"].includes(this.follow.state)) {
      this.changed();
      await new Promise((done) => setTimeout(done, 2 * POLL));
      this.follow = (await api(this.at("state"))).follow;
    }
    await this.loadDrawn();
    if (this.follow.state === "failed") throw new Error(this.follow.error);
    return this.follow;
  }

  stopFollow() {
    return send(this.at("follow"), undefined, "DELETE");
  }

  async unfollow() {
    await send(this.at(`objects/${this.active}/followed`), undefined, "DELETE");
    await this.loadDrawn();
  }

  async save(form, perObject) {
    const query = new URLSearchParams({ form, per_object: perObject });
    const response = await fetch(`/api/${this.at("export")}?${query}`);
    if (!response.ok) throw new Error((await response.json()).error);
    const name = /filename="([^"]*)"/.exec(response.headers.get("content-disposition"))?.[1] ?? "mask";
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await response.blob());
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    return name;
  }
}

export const tab = new Tab();
