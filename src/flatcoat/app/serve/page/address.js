/** What is looked at, as a value; and that value as the address of the page, so that a link shows it again. */

export const PAGE = 10;
export const MOST_CHOSEN = 3;
const MOST_SHOWN = 200;

/** The view an address tells of. Retrievers that are not served are left out; none chosen means the first. */
export function viewOf(address, served) {
  const told = new URLSearchParams(address);
  const names = served.retrievers.map((retriever) => retriever.name);
  const chosen = [...new Set((told.get("r") ?? "").split(","))].filter((name) => names.includes(name));
  const filters = told.getAll("f").map((text) => text.split(/:(.*)/s).slice(0, 2));
  const rerank = Number(told.get("rerank"));
  return {
    query: told.get("q") ?? "",
    chosen: (chosen.length ? chosen : names.slice(0, 1)).slice(0, MOST_CHOSEN),
    fuse: ["rank", "score"].includes(told.get("fuse")) ? told.get("fuse") : null,
    rerank: served.reranker !== null && [10, 20, 50].includes(rerank) ? rerank : null,
    filters: filters.filter(([field, value]) => served.fields.includes(field) && value),
    shown: Math.min(MOST_SHOWN, Math.max(PAGE, Math.floor(Number(told.get("n"))) || PAGE)),
  };
}

/** The address of a view; commas and colons are left as they are, to be read. */
export function addressOf(view) {
  const told = new URLSearchParams();
  if (view.query) told.set("q", view.query);
  told.set("r", view.chosen.join(","));
  if (view.fuse) told.set("fuse", view.fuse);
  if (view.rerank) told.set("rerank", view.rerank);
  for (const [field, value] of view.filters) told.append("f", `${field}:${value}`);
  if (view.shown !== PAGE) told.set("n", view.shown);
  return `?${told.toString().replaceAll("%2C", ",").replaceAll("%3A", ":")}`;
}

/** Values that a typed text can mean: itself, and the number or truth it spells. */
function meanings(text) {
  if (text === "true" || text === "false") return [text, text === "true"];
  return text.trim() !== "" && Number.isFinite(Number(text)) ? [text, Number(text)] : [text];
}

/** The service's filter: every field must hold, by any of the values given for it; null without filters. */
export function filterOf(filters) {
  const byField = {};
  for (const [field, value] of filters) (byField[field] ??= []).push(...meanings(value));
  const fields = Object.entries(byField).map(([field, values]) => [field, { in: values }]);
  return fields.length ? Object.fromEntries(fields) : null;
}

/** The columns of a view: one a retriever, and the hybrid of two or more last. */
export function columnsOf(view) {
  const columns = view.chosen.map((name) => ({ key: name, title: name, retrievers: [name], fuse: null }));
  if (view.fuse && view.chosen.length > 1) {
    columns.push({ key: view.chosen.join("+"), title: "hybrid", retrievers: view.chosen, fuse: view.fuse });
  }
  return columns;
}

/** The body of a column's search. */
export function searchOf(view, column, offset, k) {
  const body = { query: view.query, retrievers: column.retrievers, k, offset, filter: filterOf(view.filters) };
  if (column.fuse) body.fuse = column.fuse;
  if (view.rerank) body.rerank = view.rerank;
  return body;
}
