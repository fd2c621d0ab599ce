// The parts of the view Try, made once; `view.parts` knows them by name.

import { address, el } from "./dom.js";
import { filesOf } from "./dropped.js";
import { tab } from "./tab.js";

const ACCEPT = ".png,.jpg,.jpeg,.tif,.tiff,.bmp,.nii,.gz,.nrrd,.nhdr,.raw,.mha,.mhd,.dcm,.ima,.zip";
const TOOLS = [["plus", "Object"], ["minus", "Background"], ["box", "Box"]];

function button(text, title, onclick) {
  return el("button", { type: "button", title, onclick }, text);
}

export function leftPart(view) {
  const p = view.parts;
  p.canvas = el("canvas", { tabindex: 0, role: "application", "aria-describedby": "try-how" });
  p.drop = el("div", { class: "drop" }, el("p", {}, "Drop an image here: PNG, JPEG, TIFF, NIfTI, NRRD, DICOM; a series as files or zip."),
    el("p", {}, el("button", { type: "button", class: "main", onclick: () => p.file.click() }, "Choose files"), " or open one from the ",
      el("a", { href: address("corpus") }, "corpus"), "."));
  p.slider = el("input", { type: "range", min: 0, "aria-label": "slice", oninput: () => view.go(Number(p.slider.value)) });
  p.slice = el("output", { class: "quiet" });
  p.strip = el("div", { class: "strip" }, button("[", "Slice before ([)", () => view.go(tab.look.index - 1)), p.slider,
    button("]", "Slice behind (])", () => view.go(tab.look.index + 1)), p.slice);
  p.state = el("span", { role: "status", class: "state" });
  p.bar = el("progress", { max: 1, "aria-label": "progress", hidden: true });
  p.how = el("p", { id: "try-how", class: "quiet how" },
    "Left click: object. Right click: not. Drag: box. Ctrl + wheel: zoom, Space + drag: move. Without a mouse: Shift + arrows, Enter.");
  return el("section", { class: "clickable", "aria-label": "Image" }, el("div", { class: "well" }, p.canvas, p.drop), p.strip,
    el("div", { class: "foot" }, p.state, p.bar), p.how);
}

export function rightPart(view) {
  const p = view.parts;
  p.file = el("input", { type: "file", multiple: true, accept: ACCEPT, class: "hidden", "aria-label": "image files", onchange: () => view.files([...p.file.files]) });
  p.name = el("p", { class: "name" });
  p.settings = el("div", { class: "settings" });
  p.tools = el("div", { class: "tools", role: "radiogroup", "aria-label": "Tool" }, TOOLS.map(([key, text]) =>
    el("button", { type: "button", role: "radio", "data-tool": key, onclick: () => view.setTool(key) }, text)));
  p.undo = button("Undo", "u", () => view.undo());
  p.redo = button("Redo", "r", () => view.redo());
  p.clear = button("Clear", "Prompts of this object on this slice (c)", () => view.clear());
  p.three = button("Three masks", "Show three alternatives (m)", () => view.three());
  p.choices = el("div", { class: "choices" });
  p.objects = el("ul", { class: "objects" });
  p.follow = button("Follow through slices", "Both ways from the prompted slices (t)", () => view.follow());
  p.unfollow = button("Forget followed", "Masks of this object that were followed", () => view.guard(tab.unfollow()));
  p.each = el("input", { type: "checkbox" });
  p.exports = [["nifti", "NIfTI"], ["png", "PNG"], ["prompts", "Prompts (JSON)"]].map(([form, text]) =>
    button(text, form === "nifti" ? "On the grid of the image, all slices (e)" : "", () => view.save(form)));
  p.all = button("Clear all", "Prompts and masks of all objects", () => view.clearAll());
  return el("aside", { "aria-label": "Controls" }, el("div", { class: "row" }, button("Open file", "o", () => p.file.click()), p.file, p.name), p.settings,
    el("h2", {}, "Prompts"), p.tools, el("div", { class: "row" }, p.undo, p.redo, p.clear, p.three), p.choices,
    el("h2", {}, "Objects"), p.objects, el("div", { class: "row" }, button("New object", "n", () => tab.addObject()), p.all),
    el("div", { class: "row follow" }, p.follow, p.unfollow),
    el("h2", {}, "Export"), el("div", { class: "row" }, p.exports), el("label", { class: "quiet" }, p.each, " a file for each object"));
}

export function catchDrops(view, root) {
  root.addEventListener("dragover", (event) => {
    event.preventDefault();
    root.classList.add("over");
  });
  root.addEventListener("dragleave", (event) => event.target === root && root.classList.remove("over"));
  root.addEventListener("drop", (event) => {
    event.preventDefault();
    root.classList.remove("over");
    view.guard(filesOf(event.dataTransfer).then((files) => view.files(files)));
  });
}
