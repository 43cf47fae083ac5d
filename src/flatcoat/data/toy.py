"""A tiny collection made on the spot, for tests and examples: animals, where they live, what they eat."""

from __future__ import annotations

import json
from pathlib import Path

ANIMALS = ("badger", "heron", "otter", "lynx", "adder", "marten", "osprey", "weasel", "curlew", "beaver",
           "falcon", "hedgehog", "salmon", "puffin", "stoat", "vole", "raven", "toad", "gannet", "hare")  # fmt: skip
PLACES = ("woods", "marsh", "river", "hills", "heath")
FOODS = ("worms", "fish", "berries", "mice")


def toy_sentences() -> list[tuple[str, str, str]]:
    """(id, query, document) of each animal's home, food and young: 60 in all."""
    rows = []
    for number, animal in enumerate(ANIMALS):
        place, food = PLACES[number % len(PLACES)], FOODS[number % len(FOODS)]
        rows.append((f"{animal}-home", f"where does the {animal} live", f"The {animal} makes its home in the {place}."))
        rows.append((f"{animal}-food", f"what does the {animal} eat", f"A hungry {animal} looks for {food} at dusk."))
        rows.append((f"{animal}-young", f"young of the {animal}", f"Each spring the {animal} raises its young alone."))
    return rows


def write_toy(folder: Path) -> Path:
    """Write the toy collection as a BEIR folder: two thirds train, the rest dev and test."""
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    rows = toy_sentences()
    with (folder / "corpus.jsonl").open("w", encoding="utf-8") as corpus:
        for id, _, document in rows:
            corpus.write(json.dumps({"_id": f"d-{id}", "title": "", "text": document}) + "\n")
    with (folder / "queries.jsonl").open("w", encoding="utf-8") as queries:
        for id, query, _ in rows:
            queries.write(json.dumps({"_id": f"q-{id}", "text": query}) + "\n")
    for split, wanted in (("train", {0, 1, 3, 4}), ("dev", {2}), ("test", {5})):
        lines = [f"q-{id}\td-{id}\t1\n" for number, (id, _, _) in enumerate(rows) if number % 6 in wanted]
        (folder / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(lines))
    return folder
