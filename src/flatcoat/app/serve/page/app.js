/** The page: what is looked at, asked and drawn. Everything shown comes from the service; the view is in the address. */

import { MOST_CHOSEN, PAGE, addressOf, columnsOf, searchOf, viewOf } from "./address.js";
import { drawColumn, drawIntroduction, linkSame } from "./columns.js";
import { Drawer } from "./drawer.js";
import { listen } from "./keys.js";
import { Refusal, ask, keepKey } from "./service.js";
import { counted, el, matcher } from "./text.js";

const THEME = "flatcoat-theme";
const SINGLE_KEYS = "flatcoat-single-keys";
const at = (id) => document.getElementById(id);

/** The page's state and what a person can do with it. */
class Page {
  constructor() {
    this.served = null;
    this.view = null;
    this.answers = new Map(); // by column key: {hits, seconds, more, body} or {error}
    this.flight = null;
    this.current = null; // the key of the column in sight, where only one is
    this.narrow = matchMedia("(max-width: 47.99rem)");
    this.drawer = new Drawer();
  }

  // ---- beginning

  async start() {
    this.problem(null);
    try {
      this.served = await ask("v1/retrievers");
    } catch (error) {
      this.problem(error, () => this.start());
      return;
    }
    const { collection, documents, reranker, fields } = this.served;
    at("collection").textContent = `${collection} · ${counted(documents, "document")}`;
    at("controls").hidden = false;
    at("rerank-label").hidden = reranker === null;
    at("rerank-label").title = reranker ?? "";
    at("filter").hidden = !fields.length;
    at("field").replaceChildren(...fields.map((field) => el("option", {}, field)));
    this.follow();
  }

  /** Take the view from the address, and search. */
  follow() {
    this.view = viewOf(location.search, this.served);
    at("box").value = this.view.query;
    this.search();
  }

  /** Change the view, keep it in the address, and search. */
  change(part) {
    if (!this.served) return;
    this.view = { ...this.view, ...part };
    const address = addressOf(this.view);
    if (address !== location.search) history.pushState(null, "", address);
    this.search();
  }

  submit() {
    if (!this.served) return void this.start();
    const query = at("box").value.trim();
    if (!query) {
      this.say("Type a question first.");
      at("box").focus();
      return;
    }
    this.answers.clear();
    this.change({ query, shown: PAGE });
  }

  toggle(name) {
    const { chosen } = this.view;
    const without = chosen.filter((other) => other !== name);
    if (without.length < chosen.length) {
      if (without.length) this.change({ chosen: without });
      else this.say("One retriever has to stay.");
    } else if (chosen.length === MOST_CHOSEN) {
      this.say(`${MOST_CHOSEN} retrievers at most: take one away first.`);
    } else {
      const order = this.served.retrievers.map((retriever) => retriever.name);
      this.change({ chosen: [...chosen, name].sort((a, b) => order.indexOf(a) - order.indexOf(b)) });
    }
  }

  filter(field, value) {
    const { filters } = this.view;
    if (!value || filters.some(([f, v]) => f === field && v === value)) return;
    this.change({ filters: [...filters, [field, value]], shown: PAGE });
  }

  // ---- searching

  async search() {
    this.flight?.abort();
    const flight = (this.flight = new AbortController());
    this.problem(null);
    this.drawControls();
    const columns = columnsOf(this.view);
    document.title = this.view.query ? `${this.view.query} · Flatcoat` : "Flatcoat";
    this.keepOnly(columns);
    if (!this.view.query) {
      this.say("");
      this.drawColumns([]);
      at("columns").replaceChildren(drawIntroduction(this.served));
      return;
    }
    const words = matcher(this.view.query);
    const slow = setTimeout(() => this.say("Searching …"), 200);
    this.drawColumns(columns, words);
    await Promise.all(columns.map((column) => this.fill(column, columns, words, flight)));
    clearTimeout(slow);
    if (!flight.signal.aborted) this.finish(columns);
  }

  /** Forget answers to other questions than the ones now asked. */
  keepOnly(columns) {
    const wanted = new Map(columns.map((column) => [column.key, this.body(column)]));
    for (const [key, answer] of this.answers) {
      if (answer.error || answer.body !== wanted.get(key)) this.answers.delete(key);
    }
  }

  /** What a column asks for from the first hit on, as text. */
  body(column) {
    return JSON.stringify(searchOf(this.view, column, 0, this.view.shown));
  }

  async fill(column, columns, words, flight) {
    if (this.answers.has(column.key)) return;
    const { shown } = this.view;
    const body = this.body(column);
    let answer;
    try {
      const { results, seconds } = await ask("v1/search", JSON.parse(body), flight.signal);
      answer = { hits: results[0].hits, seconds, more: results[0].hits.length === shown, body };
    } catch (error) {
      if (!(error instanceof Refusal)) return;
      answer = { error };
    }
    if (flight.signal.aborted) return;
    this.answers.set(column.key, answer);
    this.drawColumns(columns, words);
  }

  /** Say how it went, once for all columns where they failed alike. */
  finish(columns) {
    const answers = columns.map((column) => this.answers.get(column.key));
    const errors = answers.map((answer) => answer?.error).filter(Boolean);
    const locked = errors.find((error) => error.status === 401);
    if (locked || (errors.length === columns.length && new Set(errors.map((e) => e.message)).size === 1)) {
      this.drawColumns([]);
      this.problem(locked ?? errors[0], () => this.search());
      return;
    }
    const told = columns.map((c, n) => `${c.title} ${answers[n]?.error ? "failed" : counted(answers[n].hits.length, "result")}`);
    this.say(told.join(", ") + ".");
    at("more").hidden = !answers.some((answer) => answer?.more);
  }

  /** The next hits of every column that has more. */
  async more() {
    const [columns, flight, from] = [columnsOf(this.view), this.flight, this.view.shown];
    at("more").disabled = true;
    this.view = { ...this.view, shown: from + PAGE };
    try {
      await Promise.all(columns.map((column) => this.append(column, from, flight)));
      history.replaceState(null, "", addressOf(this.view));
      if (flight.signal.aborted) return;
      this.drawColumns(columns, matcher(this.view.query));
      this.finish(columns);
      this.move(from, 0);
    } catch (error) {
      this.view = { ...this.view, shown: from };
      if (error instanceof Refusal) this.problem(error, () => this.more());
    } finally {
      at("more").disabled = false;
    }
  }

  async append(column, from, flight) {
    const answer = this.answers.get(column.key);
    if (!answer?.hits) return;
    const search = searchOf(this.view, column, from, PAGE);
    const hits = answer.more ? (await ask("v1/search", search, flight.signal)).results[0].hits : [];
    const [all, body] = [[...answer.hits, ...hits], this.body(column)];
    this.answers.set(column.key, { ...answer, hits: all, more: hits.length === PAGE, body });
  }

  // ---- drawing

  say(text) {
    at("status").textContent = text;
  }

  /** Tell of what went wrong, with a way on; null takes it away. */
  problem(error, again) {
    at("more").hidden = true;
    if (!error) return at("problem").replaceChildren();
    this.say("");
    const after = error.status === 429 && error.after ? ` Try again in ${error.after} s.` : "";
    const parts = [el("p", {}, error.message + after)];
    if (error.status === 401) parts.push(this.keyForm(again));
    else parts.push(el("button", { class: "plain", onclick: again }, "Try again"));
    at("problem").replaceChildren(el("div", { class: "problem" }, parts));
  }

  keyForm(again) {
    const field = el("input", { id: "key", type: "password", autocomplete: "off", required: true });
    const use = (event) => {
      event.preventDefault();
      keepKey(field.value);
      again();
    };
    const label = el("label", { for: "key" }, "Key (kept until this tab is closed)");
    return el("form", { onsubmit: use }, label, field, el("button", { class: "plain" }, "Use this key"));
  }

  drawControls() {
    const { chosen, filters, fuse, rerank } = this.view;
    const focused = document.activeElement?.dataset?.retriever;
    const chips = this.served.retrievers.map(({ name, kind, index }, n) => {
      const on = chosen.includes(name);
      const number = n < 9 ? el("kbd", { "aria-hidden": "true" }, String(n + 1)) : null;
      const press = () => this.toggle(name);
      const attributes = { class: "chip", "aria-pressed": String(on), "data-retriever": name };
      return el("button", { ...attributes, title: `${kind}, ${index}`, onclick: press }, name, number);
    });
    at("retrievers").replaceChildren(...chips);
    if (focused) chips.find((chip) => chip.dataset.retriever === focused)?.focus();
    at("fuse").value = fuse ?? "";
    at("fuse").disabled = chosen.length < 2;
    at("rerank").value = rerank ?? "";
    const drop = (n) => () => {
      this.change({ filters: filters.filter((_, other) => other !== n), shown: PAGE });
      at("box").focus();
    };
    const items = filters.map(([field, value], n) => {
      const attributes = { class: "chip", "aria-label": `Remove filter ${field} = ${value}`, onclick: drop(n) };
      return el("li", {}, el("button", attributes, `${field} = ${value}`, el("span", { "aria-hidden": "true" }, "×")));
    });
    at("filters").replaceChildren(...items);
    at("filters").hidden = !filters.length;
  }

  drawColumns(columns, words = null) {
    const held = this.hit()?.dataset;
    const first = columns.length ? this.answers.get(columns[0].key) : null;
    const actions = {
      explain: (column, hit) => this.explain(column, hit),
      missed: (key) => this.missed(key),
      filter: (field, value) => this.filter(field, value),
      filterable: (field) => this.served.fields.includes(field),
    };
    const drawn = columns.map((column, number) => {
      const retriever = this.served.retrievers.find((one) => one.name === column.key);
      const place = { column, number, retriever, words, actions, firstTitle: columns[0].title };
      place.first = number > 0 && first?.hits ? first : null;
      return drawColumn(this.answers.get(column.key), place);
    });
    at("columns").replaceChildren(...drawn);
    at("columns").dataset.count = columns.length;
    if (!columns.some((column) => column.key === this.current)) this.current = columns[0]?.key;
    this.drawTabs();
    if (held?.id) this.focusHit(held.column, held.id);
  }

  /** On a narrow screen columns are tabs. */
  drawTabs() {
    const columns = [...at("columns").querySelectorAll(".column")];
    const tabbed = this.narrow.matches && columns.length > 1;
    at("tabs").hidden = !tabbed;
    const tabs = columns.map((column, n) => {
      const { column: key } = column.dataset;
      const on = key === this.current;
      column.hidden = tabbed && !on;
      column.role = tabbed ? "tabpanel" : null;
      const attributes = { role: "tab", "aria-selected": String(on), tabindex: on ? "0" : "-1" };
      const press = () => this.show(key);
      return el("button", { ...attributes, "aria-controls": `column-${n}`, onclick: press }, column.querySelector("h2").textContent);
    });
    at("tabs").replaceChildren(...(tabbed ? tabs : []));
  }

  show(key) {
    const inTabs = at("tabs").contains(document.activeElement);
    this.current = key;
    this.drawTabs();
    if (inTabs) at("tabs").querySelector('[aria-selected="true"]').focus();
  }

  // ---- moving

  hitsOf(key) {
    return [...at("columns").querySelectorAll(".hit")].filter((hit) => hit.dataset.column === key);
  }

  focusHit(key, id) {
    this.hitsOf(key).find((hit) => hit.dataset.id === id)?.querySelector(".title").focus();
  }

  /** The hit that has the focus. */
  hit() {
    return document.activeElement?.closest(".hit");
  }

  /** Go to a hit `by` further, or to number `place` where none has the focus. */
  move(place, by) {
    const hit = by ? this.hit() : null;
    const hits = this.hitsOf(hit?.dataset.column ?? this.current);
    const next = hit ? hits.indexOf(hit) + by : place;
    if (next < 0) return at("box").focus();
    hits[Math.min(next, hits.length - 1)]?.querySelector(".title").focus();
  }

  /** The same document in the column beside, or the same place. */
  across(by) {
    const columns = columnsOf(this.view).map((column) => column.key);
    const hit = this.hit();
    const from = hit?.dataset.column ?? this.current;
    const key = columns[columns.indexOf(from) + by];
    if (!key) return;
    const place = hit ? this.hitsOf(from).indexOf(hit) : 0;
    if (!at("tabs").hidden) this.show(key);
    const hits = this.hitsOf(key);
    const same = hits.find((other) => other.dataset.id === hit?.dataset.id);
    if (hit) (same ?? hits[Math.min(place, hits.length - 1)])?.querySelector(".title").focus();
  }

  explainFocused() {
    const hit = this.hit();
    if (!hit) return this.say("Move to a result first, with j or the arrow down.");
    const column = columnsOf(this.view).find((one) => one.key === hit.dataset.column);
    const found = this.answers.get(column.key).hits.find((one) => one.id === hit.dataset.id);
    this.explain(column, found);
  }

  // ---- the drawer

  explain(column, hit) {
    return this.drawer.explain(this.view, column, hit);
  }

  missed(asked) {
    const approximate = this.served.retrievers.filter((retriever) => retriever.approximate).map(({ name }) => name);
    const name = [asked, this.hit()?.dataset.column, this.current, ...this.view.chosen].find((one) => approximate.includes(one));
    if (name && this.view.query) this.drawer.missed(this.view, name);
    else this.say("No approximate retriever is shown: nothing can be missed.");
  }

  help() {
    const change = (on) => localStorage.setItem(SINGLE_KEYS, on ? "on" : "off");
    this.drawer.help(localStorage.getItem(SINGLE_KEYS) !== "off", change);
  }

  // ---- light and dark

  theme(turn) {
    const other = { dark: "light", light: "dark" };
    const wished = localStorage.getItem(THEME);
    let now = wished ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
    if (turn) localStorage.setItem(THEME, (now = other[now]));
    if (turn || wished) document.documentElement.dataset.theme = now;
    at("theme").textContent = `${other[now]} theme`;
  }

  /** Listen to everything a person does. */
  wire() {
    const on = (id, event, act) => at(id).addEventListener(event, act);
    on("form", "submit", (event) => (event.preventDefault(), this.submit()));
    on("fuse", "change", () => this.change({ fuse: at("fuse").value || null }));
    on("rerank", "change", () => this.change({ rerank: Number(at("rerank").value) || null }));
    on("filter-form", "submit", (event) => {
      event.preventDefault();
      this.filter(at("field").value, at("value").value.trim());
      at("value").value = "";
    });
    on("more", "click", () => this.more());
    on("keys", "click", () => this.help());
    on("theme", "click", () => this.theme(true));
    const link = (event) => linkSame(at("columns"), event.target.closest?.(".hit")?.dataset.id ?? null);
    on("columns", "focusin", link);
    on("columns", "mouseover", link);
    on("columns", "mouseleave", () => linkSame(at("columns"), this.hit()?.dataset.id ?? null));
    this.narrow.addEventListener("change", () => this.drawTabs());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.theme(false));
    addEventListener("popstate", () => this.served && this.follow());
    listen(this, () => localStorage.getItem(SINGLE_KEYS) !== "off");
  }
}

const page = new Page();
page.wire();
page.theme(false);
page.start();
