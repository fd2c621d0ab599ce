// Small helpers to make elements and to speak to the user. Text is always text, never HTML.

export function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

let timer = 0;

// A sentence at the foot of the page; one about a failure stays until the next.
export function say(text, failed = false) {
  const place = document.getElementById("said");
  place.textContent = text;
  place.className = failed ? "failed" : "";
  clearTimeout(timer);
  if (!failed) timer = setTimeout(() => (place.textContent = ""), 6000);
}

export function option(value, text, chosen) {
  return el("option", { value, selected: value === chosen }, text);
}

// A labelled choice out of names; '' stands for all.
export function choice(name, label, names, chosen, onchange, all = "all") {
  const select = el("select", { name, id: `f-${name}`, onchange },
    all === null ? null : option("", all, chosen), names.map((n) => option(n, n, chosen)));
  return el("label", { class: "field", for: `f-${name}` }, el("span", {}, label), select);
}

// Where a view goes, without the parts of the query that are empty.
export function address(path, query = {}) {
  const kept = Object.entries(query).filter(([, v]) => v !== "" && v !== null && v !== undefined);
  const text = new URLSearchParams(kept.map(([k, v]) => [k, String(v)])).toString();
  return `#/${path}${text ? `?${text}` : ""}`;
}

export function percent(value, digits = 1) {
  return value === null || value === undefined ? "–" : (100 * value).toFixed(digits);
}
