/** Columns of results: hits, how the same document moves from column to column, and a line between its places. */

import { el, milliseconds, score, snippet, spoken } from "./text.js";

/** The rank a document has among a column's hits, or null. */
export const rankIn = (answer, id) => answer?.hits?.find((hit) => hit.id === id)?.rank ?? null;

/** A hit's title, or its id where it has none. */
export const nameOf = (hit) => hit.title || hit.id;

function latency(seconds, retriever) {
  const parts = ["encode", "search", "rerank"].filter((part) => seconds[part] >= 5e-5);
  const split = parts.length > 1 ? parts.map((part) => `${part} ${milliseconds(seconds[part])}`).join(" · ") : "";
  return el(
    "p",
    { class: "latency" },
    el("strong", {}, milliseconds(seconds.total)),
    split ? ` ${split}` : null,
    retriever?.approximate ? el("span", { class: "tag" }, "approximate") : null,
  );
}

function described(column, retriever) {
  if (column.fuse) return `${column.retrievers.join(" + ")}, by ${column.fuse}`;
  return [retriever.kind, retriever.index, retriever.model].filter(Boolean).join(" · ");
}

/** How a hit stands to the first column: higher, lower, the same, or new. */
function movement(hit, first, firstTitle) {
  const before = rankIn(first, hit.id);
  if (before === null) return el("span", { class: "move new" }, "new", spoken(`: not shown in ${firstTitle}`));
  const by = before - hit.rank;
  if (by === 0) return el("span", { class: "move" }, "=", spoken(` same rank as in ${firstTitle}`));
  const [sign, word] = by > 0 ? ["↑", "higher"] : ["↓", "lower"];
  return el(
    "span",
    { class: by > 0 ? "move up" : "move down" },
    el("span", { "aria-hidden": "true" }, `${sign}${Math.abs(by)}`),
    spoken(`${Math.abs(by)} ${word} than in ${firstTitle}`),
  );
}

function legsOf(hit, column) {
  if (!column.fuse) return null;
  const ranks = column.retrievers.map((name) => `${name} ${hit.found_by?.[name]?.rank ?? "–"}`);
  return el("span", { class: "legs" }, ranks.join(" · "));
}

function metadataOf(hit, actions) {
  const pairs = Object.entries(hit.metadata ?? {}).flatMap(([field, value]) =>
    [value].flat().map((one) => [field, one]),
  );
  const shown = pairs.filter(([, value]) => value !== null && typeof value !== "object" && String(value).length < 40);
  if (!shown.length) return null;
  const items = shown.slice(0, 6).map(([field, value]) => {
    const text = [el("span", { class: "field" }, field), ` ${value}`];
    if (!actions.filterable(field)) return el("li", {}, el("span", { class: "fact" }, text));
    const press = () => actions.filter(field, String(value));
    const label = `Only where ${field} is ${value}`;
    return el("li", {}, el("button", { class: "fact", onclick: press, title: label }, text));
  });
  return el("ul", { class: "facts", "aria-label": "Metadata" }, items);
}

function drawHit(hit, place) {
  const { column, words, actions } = place;
  const item = el("li", { class: "hit", "data-id": hit.id, "data-column": column.key });
  const why = () => actions.explain(column, hit);
  item.append(
    el("span", { class: "rank", "aria-hidden": "true" }, String(hit.rank)),
    el(
      "div",
      { class: "hit-body" },
      el("h3", { dir: "auto" }, spoken(`${hit.rank}. `), el("button", { class: "title", onclick: why }, nameOf(hit))),
      el("p", { class: "text", dir: "auto" }, snippet(hit.text ?? "", words)),
      metadataOf(hit, actions),
      el(
        "p",
        { class: "foot" },
        el("span", { class: "score" }, spoken("score "), score(hit.score)),
        place.first ? movement(hit, place.first, place.firstTitle) : null,
        legsOf(hit, column),
        hit.title ? el("span", { class: "id" }, hit.id) : null,
      ),
    ),
  );
  item.addEventListener("click", (event) => {
    if (!event.target.closest("button") && !String(getSelection())) why();
  });
  return item;
}

function contents(answer, place) {
  if (!answer) return el("p", { class: "quiet waiting" }, "Searching …");
  if (answer.error) return el("p", { class: "trouble", role: "alert" }, answer.error.message);
  if (!answer.hits.length) return el("p", { class: "quiet" }, "Nothing found.");
  return el("ol", { class: "hits" }, answer.hits.map((hit) => drawHit(hit, place)));
}

/** What stands where results will be: what can be asked. */
export function drawIntroduction(served) {
  const rows = served.retrievers.map(({ name, kind, index, model, approximate }) =>
    el("div", {}, el("dt", {}, name), el("dd", {}, [kind, index, model, approximate ? "approximate" : null].filter(Boolean).join(" · "))),
  );
  return el(
    "section",
    { class: "introduction", "aria-labelledby": "introduction" },
    el("h2", { id: "introduction" }, "Ask, and see why"),
    el("p", {}, "Up to three retrievers answer side by side. Open a result to see what it was found by."),
    el("dl", {}, rows),
  );
}

/** One column. `place` has the column, its retriever, the words to mark, the first column's answer, and actions. */
export function drawColumn(answer, place) {
  const { column, retriever, actions } = place;
  const id = `column-${place.number}`;
  const missed = el(
    "button",
    { class: "plain", onclick: () => actions.missed(column.key) },
    "What was missed ",
    el("kbd", { "aria-hidden": "true" }, "m"),
  );
  return el(
    "section",
    { class: "column", id, "aria-labelledby": `${id}-title`, "aria-busy": String(!answer), "data-column": column.key },
    el(
      "div",
      { class: "column-head" },
      el("h2", { id: `${id}-title` }, column.title),
      el("p", { class: "quiet" }, described(column, retriever)),
      answer?.seconds ? latency(answer.seconds, retriever) : null,
      answer?.hits && retriever?.approximate ? missed : null,
    ),
    contents(answer, place),
  );
}

function curve(from, to, frame) {
  const [x1, y1] = [from.right - frame.left, from.top - frame.top + 24];
  const [x2, y2] = [to.left - frame.left, to.top - frame.top + 24];
  const middle = (x1 + x2) / 2;
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", `M${x1} ${y1}C${middle} ${y1} ${middle} ${y2} ${x2} ${y2}`);
  return path;
}

/** Mark the document of a hit in every column, and draw a line between its places; null takes both away. */
export function linkSame(columns, id) {
  columns.querySelector("svg.lines")?.remove();
  const same = [];
  for (const hit of columns.querySelectorAll(".hit")) {
    hit.classList.toggle("same", hit.dataset.id === id);
    if (hit.dataset.id === id) same.push(hit.getBoundingClientRect());
  }
  if (same.length < 2 || same.some((place) => place.width === 0) || same[1].left < same[0].right) return;
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", "lines");
  svg.setAttribute("aria-hidden", "true");
  const frame = columns.getBoundingClientRect();
  for (let n = 1; n < same.length; n += 1) svg.append(curve(same[n - 1], same[n], frame));
  columns.append(svg);
}
