// The frame of the page: which view is shown, its keys, what is said to the user.
//
// A view is a module with `mount(root, route)`; it fills `root` and gives
//   { keys: {key: [what it does, function]}, close: function }   (both may be missing)
// `route` is { path: [..] behind the name of the view, query: URLSearchParams }.

import { api } from "./api.js";
import { el, say } from "./dom.js";

const VIEWS = { corpus: "./corpus.js", results: "./results.js", try: "./try.js" };
const main = document.getElementById("main");
let shown = null;
let turn = 0;

function route() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [view, ...rest] = path.split("/").filter(Boolean);
  return { view: VIEWS[view] ? view : "corpus", path: rest, query: new URLSearchParams(query) };
}

async function show() {
  const now = route();
  const mine = ++turn;
  const held = main.contains(document.activeElement) ? document.activeElement.id : "";
  shown?.close?.();
  shown = null;
  for (const link of document.querySelectorAll("header a[data-view]")) {
    if (link.dataset.view === now.view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `sammed: ${now.view}`;
  window.scrollTo(0, 0);
  const root = el("div", { class: "view" });
  const waiting = el("p", { class: "quiet waiting", role: "status" }, "Loading …");
  main.replaceChildren(waiting, root);
  try {
    const module = await import(VIEWS[now.view]);
    const made = await module.mount(root, now);
    if (mine !== turn) return made?.close?.();
    shown = made ?? {};
    // A field that was changed keeps the keyboard in the view that came of it.
    if (held && document.activeElement === document.body) document.getElementById(held)?.focus();
  } catch (error) {
    if (mine === turn) root.replaceChildren(el("p", { class: "failed", role: "alert" }, error.message));
  } finally {
    waiting.remove();
  }
}

function help() {
  const lines = [
    ["1, 2, 3", "corpus, results, try"],
    ["/", "search"],
    ["?", "this list"],
    ["Esc", "back"],
    ...Object.entries(shown?.keys ?? {}).map(([key, [what]]) => [NAMES[key] ?? key, what]),
  ];
  const seen = new Map(lines);
  document.querySelector("#keys dl").replaceChildren(
    ...[...seen].flatMap(([key, what]) => [el("dt", {}, el("kbd", {}, key)), el("dd", {}, what)]),
  );
  document.getElementById("keys").showModal();
}

const NAMES = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", " ": "Space", Escape: "Esc" };
const GO = { 1: "#/corpus", 2: "#/results", 3: "#/try" };

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const typing = event.target.matches("input:not([type=checkbox]):not([type=range]), textarea, select");
  if (typing) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const own = shown?.keys?.[event.key];
  // A focused button or link keeps Space and Enter for itself.
  if (own && !(["Enter", " "].includes(event.key) && event.target.matches("button, a, summary, input"))) {
    event.preventDefault();
    own[1](event);
  } else if (event.key === "?") {
    help();
  } else if (event.key === "/") {
    const search = main.querySelector("input[type=search]");
    if (search) {
      event.preventDefault();
      search.focus();
      search.select();
    }
  } else if (GO[event.key]) {
    location.hash = GO[event.key];
  }
});

document.getElementById("help").addEventListener("click", help);
window.addEventListener("hashchange", show);
window.addEventListener("unhandledrejection", (event) => {
  event.preventDefault();
  say(event.reason?.message ?? String(event.reason), true);
});

await show();
