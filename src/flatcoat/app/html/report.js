"use strict";
const said = document.getElementById("said");
let clearing = 0;
function say(text) {
  said.textContent = text;
  clearTimeout(clearing);
  clearing = setTimeout(() => { said.textContent = ""; }, 2500);
}
function make(tag, text, kind) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (kind) element.className = kind;
  return element;
}

// Tables: a press on a header sorts; what is copied was written with the table.
function value(cell) {
  const text = cell.textContent.replace(/−/g, "-").replace(/^[<>]\s*/, "");
  const found = parseFloat(text);
  return Number.isNaN(found) ? null : found;
}
function compare(a, b) {
  const [x, y] = [value(a), value(b)];
  if (x !== null && y !== null) return x - y;
  if (x === null && y === null) return a.textContent.localeCompare(b.textContent);
  return null;
}
function sort(header) {
  const table = header.closest("table"), body = table.tBodies[0], column = header.cellIndex;
  const down = header.getAttribute("aria-sort") === "descending" || header.getAttribute("aria-sort") === null && !header.classList.contains("n");
  const sign = down ? 1 : -1;
  const rows = [...body.rows].sort((p, q) => {
    const order = compare(p.cells[column], q.cells[column]);
    return order === null ? (value(p.cells[column]) === null ? 1 : -1) : sign * order;
  });
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", down ? "ascending" : "descending");
  body.append(...rows);
}
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = make("textarea", text);
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  say("Copied");
}
function download(name) {
  const figure = document.getElementById(name);
  const drawing = [...figure.querySelectorAll("svg")].find((svg) => svg.getClientRects().length) || figure.querySelector("svg");
  const address = URL.createObjectURL(new Blob([new XMLSerializer().serializeToString(drawing)], { type: "image/svg+xml" }));
  const link = make("a");
  link.href = address;
  link.download = name + ".svg";
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}
document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.classList.contains("sort")) sort(button.closest("th"));
  if (button.dataset.copy) copy(button.closest(".table").querySelector("template." + button.dataset.copy).content.textContent);
  if (button.dataset.svg) download(button.dataset.svg);
});
addEventListener("beforeprint", () => { for (const fold of document.querySelectorAll("details.print")) fold.open = true; });

// Queries: bars that show what each system answered.
for (const panel of document.querySelectorAll(".queries")) {
  const data = JSON.parse(panel.querySelector("script[type='application/json']").textContent);
  const [plus, minus] = ["plus", "minus"].map((side) => panel.querySelector(`select[data-side=${side}]`));
  const answer = panel.querySelector(".answer");
  const drawings = [...panel.querySelectorAll("svg.pressed")];
  let order = data.queries.map((_, i) => i), pressed = -1;
  const difference = (i) => data.queries[i].values[plus.value] - data.queries[i].values[minus.value];
  const signed = (x) => (x < 0 ? "−" : "+") + Math.abs(x).toFixed(3);

  function draw() {
    order = data.queries.map((_, i) => i).sort((a, b) => difference(b) - difference(a) || a - b);
    const most = Math.max(...order.map((i) => Math.abs(difference(i)))) || 1;
    for (const svg of drawings) {
      const { zero, half } = JSON.parse(svg.dataset.scale);
      svg.querySelectorAll(".bar").forEach((bar, place) => {
        const x = difference(order[place]), tall = Math.max(1.5, half * Math.abs(x) / most), rect = bar.querySelector(".v");
        rect.setAttribute("y", x >= 0 ? zero - tall : zero);
        rect.setAttribute("height", tall);
        rect.setAttribute("class", x >= 0 ? "v f-c1" : "v f-c2");
        rect.setAttribute("fill", x >= 0 ? "#1f5fa8" : "#b4540a");
        bar.setAttribute("aria-label", data.queries[order[place]].text + ": " + signed(x));
      });
    }
    for (const label of panel.querySelectorAll("[data-share]")) {
      label.textContent = String(Number((label.dataset.share * most).toPrecision(3))).replace("-", "−");
    }
    if (pressed >= 0) show(order.indexOf(pressed));
  }
  function document_(place) {
    const [id, title, snippet] = data.documents[place];
    return [make("b", title || id), make("span", (title && title !== id ? id + " · " : "") + snippet, "snippet")];
  }
  function answers(query, system) {
    const box = make("div"), list = make("ol"), found = query.top[system];
    box.append(make("h4", `${data.systems[system]}: ${data.measure} ${query.values[system].toFixed(3)}`));
    if (!found) box.append(make("p", "its run is not in the folder", "note"));
    else if (!found.length) box.append(make("p", "no answer", "note"));
    for (const place of found || []) {
      const item = make("li", undefined, query.judged.some(([j, grade]) => j === place && grade > 0) ? "good" : "");
      item.append(...document_(place));
      list.append(item);
    }
    box.append(list);
    return box;
  }
  function show(place) {
    const i = order[place], query = data.queries[i];
    pressed = i;
    for (const svg of drawings) svg.querySelectorAll(".bar").forEach((bar, at) => {
      bar.setAttribute("aria-pressed", at === place);
      bar.setAttribute("tabindex", at === place ? 0 : -1);
    });
    answer.replaceChildren(make("h3", query.text), make("p", `${query.id} · ${data.measure} ${signed(difference(i))}`, "note"));
    const judged = make("ul"), more = query.more ? ` (the first of ${query.judged.length + query.more})` : "";
    for (const [at, grade] of query.judged) {
      const item = make("li");
      item.append(...document_(at));
      if (grade !== 1) item.querySelector("b").append(` (grade ${grade})`);
      judged.append(item);
    }
    const pair = make("div", undefined, "pair");
    pair.append(answers(query, Number(plus.value)), answers(query, Number(minus.value)));
    const rest = make("details");
    rest.append(make("summary", "The other systems"));
    data.systems.forEach((_, s) => { if (s !== Number(plus.value) && s !== Number(minus.value)) rest.append(answers(query, s)); });
    if (query.judged.length) answer.append(make("h4", "Judged" + more), judged);
    answer.append(pair);
    if (data.systems.length > 2) answer.append(rest);
  }
  for (const side of [plus, minus]) side.addEventListener("change", draw);
  for (const svg of drawings) {
    const bars = [...svg.querySelectorAll(".bar")];
    bars.forEach((bar, place) => {
      bar.addEventListener("click", () => show(place));
      bar.addEventListener("focus", () => show(place));
    });
    svg.addEventListener("keydown", (event) => {
      const at = bars.indexOf(document.activeElement);
      const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: bars.length - 1, Enter: at, " ": at }[event.key];
      if (to === undefined || !bars[to]) return;
      event.preventDefault();
      show(to);
      bars[to].focus();
    });
  }
  draw();
}
