// One row of the corpus: image, masks to switch, where it came from, the exclude list.

import { api, send } from "./api.js";
import { address, el, say } from "./dom.js";
import { COLOURS, filled, Picture } from "./pixels.js";

const SIDE = 600;
const WORDS = {
  case_id: "case", patient_id: "patient", cluster: "patient known as", slice_index: "slice",
  slice_position_mm: "slice position (mm)", spacing_slice_mm: "slice spacing (mm)",
  volume_shape: "volume (z, y, x)", spacing_y_mm: "pixel height (mm)", spacing_x_mm: "pixel width (mm)",
  intensity: "grey values", catalog_version: "catalogue version", annotated_structures: "what was labelled",
  content_sha256: "content hash",
};

export async function mountRow(root, route) {
  const number = Number(route.path[1]);
  const filter = Object.fromEntries(route.query);
  const { at, ...asked } = filter;
  delete asked.page;
  const [row, pixels] = await Promise.all([
    api(`corpus/rows/${number}`), api(`corpus/rows/${number}/masks`),
  ]);
  const picture = new Picture(SIDE, `${row.modality} image ${row.sample_id}`);
  await picture.load(`/api/corpus/rows/${number}/image.png`);
  const planes = pixels.runs.map((runs) => filled(runs, pixels.height * pixels.width));
  const colours = planes.map((_, i) => COLOURS[i % COLOURS.length]);
  const listed = [...row.masks];
  if (pixels.ignore) {
    planes.push(filled(pixels.ignore, pixels.height * pixels.width));
    colours.push("#ffffff");
    listed.push({ structure: "not scored", organ: "", group: "", area_px: planes.at(-1).reduce((a, b) => a + b, 0) });
    listed.at(-1).share = listed.at(-1).area_px / planes.at(-1).length;
  }
  const shown = planes.map(() => true);
  let fill = true;
  const redraw = () => {
    picture.layers = planes.flatMap((plane, i) => shown[i]
      ? [{ plane, colour: colours[i], fill: fill ? 0.3 : 0, line: 2 }] : []);
    picture.draw();
  };
  redraw();
  const boxes = listed.map((mask, i) => toggle(mask, colours[i], (on) => { shown[i] = on; redraw(); }));
  const all = (on) => {
    boxes.forEach((box) => (box.querySelector("input").checked = on));
    shown.fill(on);
    redraw();
  };
  const fills = () => { fill = !fill; filling.checked = fill; redraw(); };
  const filling = el("input", { type: "checkbox", id: "fill", checked: true, onchange: fills });
  const step = async (by) => {
    if (at === undefined) {
      const next = Math.min(row.last, Math.max(0, number + by));
      if (next !== number) location.hash = address(`corpus/row/${next}`);
      return;
    }
    const place = Number(at) + by;
    if (place < 0) return;
    const found = await api("corpus/rows", { ...asked, page: place, per: 1 });
    if (found.rows.length) location.hash = address(`corpus/row/${found.rows[0].number}`, { ...asked, at: place });
    else say("That was the last one.");
  };
  const back = () => (location.hash = address("corpus", { ...asked, page: at ? Math.floor(at / 24) : "" }));
  const flag = flagForm(row, number);
  root.append(
    el("div", { class: "bar" },
      el("button", { type: "button", onclick: back }, "↑ All images"),
      el("button", { type: "button", id: "previous", onclick: () => step(-1) }, "← Previous"),
      el("button", { type: "button", id: "next", onclick: () => step(1) }, "Next →"),
      el("a", { class: "button push", href: address("try", { row: number }) }, "Click in this image")),
    el("h1", {}, row.sample_id),
    el("div", { class: "two" },
      el("div", {}, el("div", { class: "stage" }, picture.canvas),
        el("p", { class: "quiet" }, `${row.modality}, ${row.split}, ${row.height} × ${row.width} pixels`)),
      el("div", { class: "side" },
        el("h2", {}, `Masks (${row.masks.length})`),
        el("div", { class: "bar" },
          el("button", { type: "button", onclick: () => all(true) }, "All"),
          el("button", { type: "button", onclick: () => all(false) }, "None"),
          el("label", {}, filling, " filled")),
        el("ul", { class: "masks" }, boxes),
        flag.place,
        el("h2", {}, "Where it came from"),
        provenance(row))),
  );
  return {
    keys: {
      ArrowLeft: ["previous image", () => step(-1)],
      ArrowRight: ["next image", () => step(1)],
      m: ["all masks on or off", () => all(!shown.some(Boolean))],
      f: ["masks filled or outlined", fills],
      x: ["flag or take back", flag.focus],
      Escape: ["back to all images", back],
    },
  };
}

function toggle(mask, colour, onchange) {
  const swatch = el("span", { class: "swatch", "aria-hidden": "true" });
  swatch.style.background = colour;
  const about = [mask.organ && mask.organ !== mask.structure ? mask.organ : "", mask.group,
    `${mask.area_px.toLocaleString("en")} px (${(100 * mask.share).toFixed(2)} %)`].filter(Boolean).join(", ");
  return el("li", {}, el("label", {},
    el("input", { type: "checkbox", checked: true, onchange: (e) => onchange(e.target.checked) }),
    swatch, el("span", {}, mask.structure), el("span", { class: "quiet" }, about)));
}

function flagForm(row, number) {
  const place = el("section", { "aria-label": "Exclude list", class: "flag" });
  const apply = (said) => {
    const words = said.excluded ? `Left out: ${said.excluded}` : "This sample counts.";
    const reason = el("input", { type: "text", id: "reason", maxlength: 300, required: true, placeholder: "why?" });
    const change = async (work, done) => {
      try {
        apply(await work());
        say(done);
      } catch (error) {
        say(error.message, true);
      }
    };
    const form = el("form", {
      class: "bar",
      onsubmit: (e) => {
        e.preventDefault();
        change(() => send(`corpus/rows/${number}/flag`, { reason: reason.value }), `Left out by ${said.list}`);
      },
    },
      el("label", { class: "field grow", for: "reason" }, el("span", {}, "Reason"), reason),
      el("button", { type: "submit", id: "flag" }, "Flag as bad"));
    const back = el("button", {
      type: "button", id: "unflag",
      onclick: () => change(() => send(`corpus/rows/${number}/flag`, undefined, "DELETE"), "Taken back."),
    }, "Take back");
    place.replaceChildren(
      el("h2", {}, "Exclude list"),
      el("p", { id: "flag-state", class: said.excluded ? "failed" : "quiet" }, words),
      said.own_flag ? back : said.excluded ? el("p", { class: "quiet" }, "By its case or patient.") : form);
  };
  apply(row);
  return { place, focus: () => place.querySelector("input, button")?.focus() };
}

function provenance(row) {
  const lines = Object.entries(row.provenance).filter(([, v]) => v !== null && v !== "" && v.length !== 0);
  return el("div", {},
    el("table", { class: "facts" }, el("tbody", {},
      lines.map(([name, value]) => el("tr", {}, el("th", { scope: "row" }, WORDS[name] ?? name.replaceAll("_", " ")),
        el("td", {}, shownValue(name, value)))),
      row.sources.map((s) => el("tr", {}, el("th", { scope: "row" }, `file: ${s.role}`),
        el("td", {}, [s.path, s.member].filter(Boolean).join(" : "), el("br"),
          el("code", {}, `sha256 ${(s.sha256 ?? "").slice(0, 16)}…`)))))),
    el("p", { class: "quiet" }, "Its pixels again from the file: ", el("code", {}, row.trace)));
}

function shownValue(name, value) {
  if (name === "content_sha256") return el("code", {}, `${value.slice(0, 16)}…`);
  if (Array.isArray(value)) return value.join(name === "volume_shape" ? " × " : ", ");
  if (typeof value === "object") {
    return Object.entries(value).filter(([, v]) => v !== null).map(([k, v]) =>
      `${k.replaceAll("_", " ")} ${typeof v === "number" ? Number(v.toPrecision(5)) : v}`).join(", ");
  }
  return typeof value === "number" ? String(Number(value.toPrecision(6))) : String(value);
}
