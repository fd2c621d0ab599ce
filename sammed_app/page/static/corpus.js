// The corpus: filters, pages of thumbnails, and the way to one row.

import { api } from "./api.js";
import { address, choice, el, option } from "./dom.js";
import { mountRow } from "./row.js";

const FILTERS = ["dataset", "modality", "organ", "split", "size", "flagged"];
const PER = 24;

export function filterOf(query) {
  return Object.fromEntries([...FILTERS, "q"].map((name) => [name, query.get(name) ?? ""]));
}

export async function mount(root, route) {
  if (route.path[0] === "row") return mountRow(root, route);
  const facets = await api("corpus/facets");
  const asked = filterOf(route.query);
  const page = Math.max(0, Number(route.query.get("page")) || 0);
  const found = await api("corpus/rows", { ...asked, page, per: PER });
  const last = Math.max(0, Math.ceil(found.total / PER) - 1);
  const go = (query) => (location.hash = address("corpus", query));
  const turn = (step) => {
    const next = Math.min(last, Math.max(0, page + step));
    if (next !== page) go({ ...asked, page: next });
  };
  const cards = found.rows.map((row, i) => card(row, asked, page * PER + i));
  const grid = el("ul", { class: "grid", "aria-label": "Images" }, cards);
  root.append(
    bar(facets, asked, go),
    el("p", { class: "count" },
      el("span", { id: "total" }, `${found.total.toLocaleString("en")} of ${facets.rows.toLocaleString("en")} images`),
      el("span", { class: "quiet" }, ` in ${facets.root}, ${facets.masks.toLocaleString("en")} masks`),
      pager(page, last, turn)),
    found.total ? grid : el("p", { class: "quiet" }, "No image fits: take a filter away."),
  );
  return { keys: keys(grid, turn) };
}

function bar(facets, asked, go) {
  const field = (name, label, names, all) =>
    choice(name, label, names, asked[name], (e) => go({ ...asked, [name]: e.target.value }), all);
  const flagged = el("select", { id: "f-flagged", onchange: (e) => go({ ...asked, flagged: e.target.value }) },
    option("", "all", asked.flagged), option("no", "kept", asked.flagged), option("yes", "left out", asked.flagged));
  const search = el("input", {
    type: "search", id: "f-q", value: asked.q, placeholder: "sample, patient, structure …", maxlength: 200,
  });
  return el("form", {
    class: "bar", role: "search",
    onsubmit: (e) => { e.preventDefault(); go({ ...asked, q: search.value.trim() }); },
  },
    field("dataset", "Dataset", facets.dataset),
    field("modality", "Modality", facets.modality),
    field("organ", "Organ", facets.organ),
    field("split", "Split", facets.split),
    field("size", "Object size (of image)", facets.size),
    el("label", { class: "field", for: "f-flagged" }, el("span", {}, "Exclude list"), flagged),
    el("label", { class: "field", for: "f-q" }, el("span", {}, "Search"), search),
    el("button", { type: "submit" }, "Search"),
    el("button", { type: "button", onclick: () => go({}) }, "Clear"),
  );
}

export function pager(page, last, turn) {
  return el("span", { class: "pager push" },
    el("button", { type: "button", id: "before", disabled: page <= 0, onclick: () => turn(-1) }, "← Earlier"),
    el("span", {}, ` page ${page + 1} of ${last + 1} `),
    el("button", { type: "button", id: "after", disabled: page >= last, onclick: () => turn(1) }, "Later →"));
}

function card(row, asked, at) {
  const names = row.structures.slice(0, 4).join(", ") + (row.structures.length > 4 ? " …" : "");
  return el("li", {},
    el("a", {
      class: `card${row.excluded ? " left-out" : ""}`,
      href: address(`corpus/row/${row.number}`, { ...asked, at }),
    },
      el("img", {
        src: `/api/corpus/rows/${row.number}/thumb.png`, loading: "lazy", width: 176, height: 176,
        alt: `${row.modality} with ${row.masks} masks: ${names}`,
      }),
      el("span", { class: "name" }, row.sample_id),
      el("span", { class: "quiet" }, `${row.modality}, ${row.split}, ${row.height} × ${row.width}`),
      el("span", { class: "quiet" }, names),
      row.excluded ? el("span", { class: "badge" }, `left out: ${row.excluded}`) : null));
}

function keys(grid, turn) {
  const links = () => [...grid.querySelectorAll("a.card")];
  const across = () => {
    const tops = links().map((a) => a.offsetTop);
    return Math.max(1, tops.filter((top) => top === tops[0]).length);
  };
  const move = (step) => {
    const all = links();
    const now = all.indexOf(document.activeElement);
    const next = now < 0 ? 0 : now + step();
    if (all[next]) all[next].focus();
    else if (now >= 0) turn(next < 0 ? -1 : 1);
  };
  return {
    ArrowRight: ["next image", () => move(() => 1)],
    ArrowLeft: ["image before", () => move(() => -1)],
    ArrowDown: ["image below", () => move(across)],
    ArrowUp: ["image above", () => move(() => -across())],
    PageDown: ["later page", () => turn(1)],
    PageUp: ["earlier page", () => turn(-1)],
    n: ["later page", () => turn(1)],
    p: ["earlier page", () => turn(-1)],
  };
}
