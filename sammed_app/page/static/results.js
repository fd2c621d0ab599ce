// Results: pages of score rows, the report, the cases of its gallery, and the way to a replay.

import { api } from "./api.js";
import { address, choice, el, option, percent, say } from "./dom.js";
import { pager } from "./corpus.js";
import { mountReplay } from "./replay.js";

const FILTERS = ["model", "mode", "dataset", "structure", "status"];
const PER = 25;
const PLACES = [["", "Scores"], ["cases", "Cases"], ["report", "Report"]];

export function scoresOf(query) {
  const found = Object.fromEntries(FILTERS.map((name) => [name, query.get(name) ?? ""]));
  return { ...found, order: query.get("order") ?? "worst" };
}

export async function mount(root, route) {
  const place = route.path[0] ?? "";
  if (place === "row") return mountReplay(root, route);
  const facets = await api("results/facets");
  root.append(
    el("nav", { class: "tabs", "aria-label": "Results" }, PLACES.map(([name, text]) =>
      el("a", { href: `#/results${name ? `/${name}` : ""}`, "aria-current": name === place ? "page" : null }, text)),
    el("span", { class: "quiet push" }, `${facets.root}, protocol ${facets.protocol}`)),
    facets.other_corpus
      ? el("p", { class: "failed" }, "The corpus that is open is not as it was when it was scored "
        + "(another build, or its exclude list changed): replays may differ.") : "",
  );
  if (place === "report") return report(root, facets);
  if (place === "cases") return cases(root);
  return scores(root, route, facets);
}

function report(root, facets) {
  if (!facets.report) {
    root.append(el("p", {}, "No report there: run ", el("code", {}, `sammed report ${facets.root}`)));
    return {};
  }
  root.append(el("iframe", { class: "report", title: "Report of the benchmark", src: "/api/results/report" }));
  return {};
}

async function cases(root) {
  const { cases: all } = await api("results/gallery");
  if (!all.length) {
    root.append(el("p", { class: "quiet" }, "No cases were drawn."));
    return {};
  }
  const groups = new Map();
  all.forEach((one, i) => {
    const key = `${one.model}, ${one.mode}`;
    groups.set(key, [...(groups.get(key) ?? []), { ...one, i }]);
  });
  const open = async (one) => {
    const { number } = await api("results/find", {
      model: one.model, mode: one.mode, sample_id: one.sample_id, mask_index: one.mask_index,
    });
    if (number === null) say("This case has no score row.", true);
    else location.hash = address(`results/row/${number}`);
  };
  for (const [key, group] of groups) {
    root.append(el("h2", {}, key), el("div", { class: "cases" }, group.map((one) =>
      el("button", { type: "button", class: "case", onclick: () => open(one) },
        el("img", { src: `/api/results/gallery/${one.i}.png`, loading: "lazy", alt: `${one.rank} case: ${one.caption}` }),
        el("span", {}, el("b", {}, `${one.rank}: ${percent(one.dice)} %`), ` ${one.caption}`)))));
  }
  return {};
}

async function scores(root, route, facets) {
  const asked = scoresOf(route.query);
  const page = Math.max(0, Number(route.query.get("page")) || 0);
  const found = await api("results/rows", { ...asked, page, per: PER });
  const last = Math.max(0, Math.ceil(found.total / PER) - 1);
  const go = (query) => (location.hash = address("results", { ...query, order: query.order === "worst" ? "" : query.order }));
  const turn = (step) => {
    const next = Math.min(last, Math.max(0, page + step));
    if (next !== page) go({ ...asked, page: next });
  };
  const turned = () => go({ ...asked, order: asked.order === "worst" ? "best" : "worst" });
  const field = (name, label) =>
    choice(name, label, facets[name], asked[name], (e) => go({ ...asked, [name]: e.target.value }));
  const body = el("tbody", {}, found.rows.map((row, i) => line(row, asked, page * PER + i)));
  root.append(
    el("form", { class: "bar", onsubmit: (e) => e.preventDefault() },
      field("model", "Model"), field("mode", "Prompts"), field("dataset", "Dataset"),
      field("structure", "Structure"), field("status", "Status"),
      el("label", { class: "field", for: "f-order" }, el("span", {}, "Order"),
        el("select", { id: "f-order", onchange: turned },
          option("worst", "worst first", asked.order), option("best", "best first", asked.order))),
      el("button", { type: "button", onclick: () => go({ order: "worst" }) }, "Clear")),
    el("p", { class: "count" },
      el("span", { id: "total" }, `${found.total.toLocaleString("en")} of ${facets.rows.toLocaleString("en")} answers`),
      pager(page, last, turn)),
    el("div", { class: "scroll" }, el("table", { class: "scores" },
      el("thead", {}, el("tr", {},
        el("th", { scope: "col", class: "number", "aria-sort": asked.order === "worst" ? "ascending" : "descending" },
          el("button", { type: "button", class: "plain", onclick: turned }, `Dice % ${asked.order === "worst" ? "↑" : "↓"}`)),
        ["IoU %", "Model", "Prompts", "Structure", "Modality", "Object", "Sample", "Status"].map((name, i) =>
          el("th", { scope: "col", class: i === 0 || i === 5 ? "number" : null }, name)))),
      body)),
  );
  const links = () => [...body.querySelectorAll("a")];
  const move = (step) => {
    const all = links();
    const now = all.indexOf(document.activeElement);
    const next = now < 0 ? 0 : now + step;
    if (all[next]) all[next].focus();
    else if (now >= 0) turn(step);
  };
  return {
    keys: {
      ArrowDown: ["answer below", () => move(1)],
      ArrowUp: ["answer above", () => move(-1)],
      ArrowRight: ["later page", () => turn(1)],
      ArrowLeft: ["earlier page", () => turn(-1)],
      o: ["turn the order around", turned],
    },
  };
}

function line(row, asked, at) {
  const href = address(`results/row/${row.number}`, { ...asked, at });
  const open = (event) => {
    if (!event.target.closest("a")) location.hash = href;
  };
  return el("tr", { onclick: open },
    el("td", { class: "number" }, el("a", { href }, percent(row.dice))),
    el("td", { class: "number" }, percent(row.iou)),
    el("td", {}, row.model), el("td", {}, row.mode), el("td", {}, row.structure), el("td", {}, row.modality),
    el("td", { class: "number" }, `${row.area_px.toLocaleString("en")} px`),
    el("td", { class: "sample" }, row.sample_id),
    el("td", { title: row.error || null }, row.status));
}
