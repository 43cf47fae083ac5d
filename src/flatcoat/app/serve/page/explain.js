/** Why a hit was found, and what an approximate index missed: what the drawer shows. */

import { el, marked, milliseconds, percent, score, spoken } from "./text.js";

const most = (values) => Math.max(1e-12, ...values.map(Math.abs));

/** A number and a bar as long as its part of the greatest. */
function bar(value, greatest, text = score(value)) {
  const fill = el("span", { class: value < 0 ? "fill below" : "fill" });
  fill.style.width = `${Math.min(100, (100 * Math.abs(value)) / greatest)}%`;
  return [el("span", { class: "number" }, text), el("span", { class: "bar", "aria-hidden": "true" }, fill)];
}

function table(caption, headings, rows) {
  const head = headings.map((heading) => el("th", { scope: "col" }, heading));
  const body = rows.map(([first, ...rest]) =>
    el("tr", {}, el("th", { scope: "row" }, first), rest.map((cell) => el("td", {}, cell))),
  );
  const parts = [el("caption", {}, caption), el("thead", {}, el("tr", {}, head)), el("tbody", {}, body)];
  return el("table", { class: "table" }, parts);
}

function terms(list) {
  if (!list.length) return el("p", { class: "quiet" }, "The question and the document share no term.");
  const [query, document_] = [most(list.map((term) => term.query)), most(list.map((term) => term.document))];
  const rows = list.map((term) => [
    term.term,
    bar(term.query, query),
    bar(term.document, document_),
    bar(term.share, 1, percent(term.share)),
  ]);
  return table("Terms that both have", ["Term", "In the question", "In the document", "Part of the score"], rows);
}

function expansion(list) {
  const greatest = most(list.map((term) => term.weight));
  const rows = list.map((term) => {
    const own = term.term.toLowerCase() === term.token.toLowerCase();
    return [term.term, bar(term.weight, greatest), own ? "itself" : term.token];
  });
  return table("What the question became", ["Term", "Weight", "Because of"], rows);
}

function passages(list, words) {
  const greatest = most(list.map((passage) => passage.score));
  const items = list.map((passage) =>
    el("li", {}, el("p", {}, marked(passage.text, words)), el("p", { class: "measure" }, bar(passage.score, greatest))),
  );
  return el("section", {}, el("h4", {}, "Its sentences, each scored alone"), el("ol", { class: "passages" }, items));
}

function bestOf(row) {
  return row.reduce((best, value, place) => (value > row[best] ? place : best), 0);
}

const placeOf = (cell) => cell.dataset.at.split(",").map(Number);

/** The cell the arrow keys lead to. */
function step(grid, cell, key) {
  const by = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[key];
  const [row, place] = placeOf(cell);
  return by ? grid.querySelector(`[data-at="${row + by[0]},${place + by[1]}"]`) : null;
}

function heatCell(value, at, best, range) {
  const cell = el(
    "td",
    {
      class: best ? "cell best" : "cell",
      tabindex: at[0] === 0 && best ? "0" : "-1",
      "data-at": at.join(","),
    },
    spoken(value.toFixed(2)),
  );
  cell.style.setProperty("--heat", `${Math.round((100 * (value - range[0])) / (range[1] - range[0] || 1))}%`);
  return cell;
}

function heatMap(alignment) {
  const { query_tokens: asked, document_tokens: held, similarities } = alignment;
  const all = similarities.flat();
  const range = [all.reduce((a, b) => Math.min(a, b), Infinity), all.reduce((a, b) => Math.max(a, b), -Infinity)];
  const pair = el("p", { class: "pair", role: "status" });
  const head = held.map((token) => el("th", { scope: "col" }, el("span", {}, token)));
  const body = similarities.map((row, number) => {
    const best = bestOf(row);
    const cells = row.map((value, place) => heatCell(value, [number, place], place === best, range));
    return el("tr", {}, el("th", { scope: "row" }, asked[number]), cells);
  });
  const grid = el(
    "table",
    { class: "heat" },
    el("caption", { class: "hidden" }, "Similarity of each token of the question to each of the document"),
    el("thead", {}, el("tr", {}, el("td", {}), head)),
    el("tbody", {}, body),
  );
  const tell = (event) => {
    const cell = event.target.closest?.(".cell");
    if (!cell) return;
    const [row, place] = placeOf(cell);
    const note = cell.classList.contains("best") ? ", its best match" : "";
    const [left, right] = [el("strong", {}, asked[row]), el("strong", {}, held[place])];
    pair.replaceChildren(left, " × ", right, ` ${similarities[row][place].toFixed(3)}${note}`);
  };
  grid.addEventListener("mouseover", tell);
  grid.addEventListener("focusin", tell);
  grid.addEventListener("keydown", (event) => {
    const cell = event.target.closest(".cell");
    const next = cell && step(grid, cell, event.key);
    if (!next) return;
    event.preventDefault();
    grid.querySelector('.cell[tabindex="0"]').tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });
  pair.textContent = `Strongest ${range[1].toFixed(3)}, faintest ${range[0].toFixed(3)}. Point at a pair to read it.`;
  return el(
    "section",
    {},
    el("h4", {}, "Tokens of the question × tokens of the document"),
    el("div", { class: "scroll" }, grid),
    pair,
  );
}

function matches(alignment) {
  const { query_tokens: asked, document_tokens: held, similarities } = alignment;
  const bests = similarities.map((row) => row[bestOf(row)]);
  const greatest = most(bests);
  const rows = similarities.map((row, n) => [asked[n], held[bestOf(row)], bar(bests[n], greatest, bests[n].toFixed(3))]);
  return table("Each token's best match; the score is their sum", ["Question", "Document", "Similarity"], rows);
}

/** An explanation as the service gave it, or why it gave none. */
export function explanation(answer, words) {
  if (answer.error) {
    const told = el("p", { class: "trouble", role: "alert" }, answer.error.message);
    return el("section", { class: "leg" }, el("h3", {}, answer.retriever), told);
  }
  const parts = [];
  if (answer.alignment?.similarities.length && answer.alignment.document_tokens.length) {
    parts.push(heatMap(answer.alignment), matches(answer.alignment));
  }
  if (answer.terms) parts.push(terms(answer.terms));
  if (answer.expansion?.length) parts.push(expansion(answer.expansion));
  if (answer.passages?.length) parts.push(passages(answer.passages, words));
  if (!parts.length) parts.push(el("p", { class: "quiet" }, "This retriever gives a score and no parts of it."));
  return el(
    "section",
    { class: "leg" },
    el("h3", {}, answer.retriever, el("span", { class: "quiet" }, ` ${answer.kind} · score ${score(answer.score)}`)),
    parts,
  );
}

/** Rank and score of a hit by each retriever of a hybrid. */
export function legs(hit, retrievers) {
  const rows = retrievers.map((name) => {
    const found = hit.found_by?.[name];
    return [name, found ? String(found.rank) : "not among its best", found ? score(found.score) : "–"];
  });
  return table("Where each retriever had it", ["Retriever", "Rank", "Score"], rows);
}

/** What exact search has among its best and the index did not give. `why` is called with a missed document. */
export function missed(answer, why) {
  const recall = el("p", { class: "big" }, el("strong", {}, percent(answer.recall)), ` of the true best ${answer.k}`);
  const times = `The index took ${milliseconds(answer.seconds.approximate)}, exact search ${milliseconds(answer.seconds.exact)}.`;
  const items = answer.missed.map((hit) =>
    el(
      "li",
      {},
      el("span", { class: "rank" }, spoken("exact rank "), String(hit.rank)),
      el("button", { class: "title", onclick: () => why(hit) }, hit.title || hit.id),
      el("span", { class: "score" }, spoken("score "), score(hit.score)),
    ),
  );
  if (!items.length) return [recall, el("p", {}, times), el("p", {}, "Nothing was missed: what it gave is what exact search gives.")];
  return [
    recall,
    el("p", { class: "quiet" }, times),
    el("h3", {}, answer.recall > 0 ? "Missed, with the rank exact search gives" : "All were missed"),
    el("ol", { class: "missed" }, items),
  ];
}

/** The keys, and whether single letters are listened to. */
export function keysHelp(on, change) {
  const rows = [
    ["/", "to the question"],
    ["Enter", "search; on a result, why it was found"],
    ["j  ↓", "next result"],
    ["k  ↑", "result before"],
    ["←  →", "the column beside"],
    ["e", "why it was found"],
    ["m", "what the index missed"],
    ["1 – 9", "a retriever on or off"],
    ["?", "these keys"],
    ["Esc", "close, or leave the question"],
  ];
  const box = el("input", { type: "checkbox", onchange: (event) => change(event.target.checked) });
  box.checked = on;
  return [
    el("dl", { class: "keys" }, rows.map(([key, does]) => el("div", {}, el("dt", {}, el("kbd", {}, key)), el("dd", {}, does)))),
    el("label", { class: "switch" }, box, " Listen to single letters and digits"),
  ];
}
