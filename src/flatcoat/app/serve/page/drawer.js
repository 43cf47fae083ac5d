/** The drawer beside the results: why a hit was found, what an index missed, and the keys. */

import { nameOf } from "./columns.js";
import { explanation, keysHelp, legs, missed } from "./explain.js";
import { Refusal, ask } from "./service.js";
import { el, marked, matcher, score } from "./text.js";

const at = (id) => document.getElementById(id);

/** What is open, and the number of the last thing asked, so that a late answer does not take the place of a newer. */
export class Drawer {
  constructor() {
    this.asked = 0;
    at("close").addEventListener("click", () => at("drawer").close());
    at("drawer").addEventListener("click", (event) => event.target === at("drawer") && at("drawer").close());
  }

  /** Show what `make` promises; a refusal is told in its place. */
  async open(title, make) {
    const number = (this.asked += 1);
    at("drawer-title").textContent = title;
    at("drawer-body").replaceChildren(el("p", { class: "quiet", role: "status" }, "Asking …"));
    if (!at("drawer").open) at("drawer").showModal();
    at("drawer").scrollTop = 0;
    at("drawer-title").focus();
    let parts;
    try {
      parts = await make();
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      parts = [el("p", { class: "trouble", role: "alert" }, error.message)];
    }
    if (number === this.asked) at("drawer-body").replaceChildren(...parts.filter(Boolean));
  }

  /** Why a column gives a hit: by each of its retrievers. */
  explain(view, column, hit) {
    const { query, rerank } = view;
    const words = matcher(query);
    return this.open(nameOf(hit), async () => {
      const answers = await Promise.all(
        column.retrievers.map((retriever) =>
          ask("v1/explain", { query, retriever, id: hit.id }).catch((error) => ({ retriever, error })),
        ),
      );
      const text = hit.text ?? (await ask(`v1/documents/${encodeURIComponent(hit.id)}`)).text;
      const by = rerank && hit.found_by ? `${column.title}, re-ranked` : column.title;
      return [
        el("p", { class: "quiet" }, `“${query}” · ${by}: rank ${hit.rank}, score ${score(hit.score)} · ${hit.id}`),
        hit.found_by && (column.fuse || rerank) ? legs(hit, column.retrievers) : null,
        ...answers.map((answer) => explanation(answer, words)),
        el("section", { class: "leg" }, el("h3", {}, "The document"), el("p", { class: "whole", dir: "auto" }, marked(text, words))),
      ];
    });
  }

  /** What an approximate retriever missed of the question. */
  missed(view, name) {
    const column = { key: name, title: "exact search", retrievers: [name], fuse: null };
    const body = { query: view.query, retriever: name, k: view.shown };
    const why = (hit) => this.explain(view, column, hit);
    const note = view.filters.length ? el("p", { class: "quiet" }, "Of all documents: filters are left out here.") : null;
    return this.open(`What ${name} missed`, async () => [note, ...missed(await ask("v1/missed", body), why)]);
  }

  /** The keys; `on` says whether letters are listened to, `change` is called with a new wish. */
  help(on, change) {
    return this.open("Keys", () => keysHelp(on, change));
  }
}
