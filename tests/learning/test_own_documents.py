"""A folder of documents becomes a search engine: trained on questions made from it, measured apart, and whole in the end."""

from __future__ import annotations

import numpy as np
import pytest

from flatcoat.app.packaged import packaged_recipe
from flatcoat.app.recipe import load_recipe
from flatcoat.app.verbs_own import own_recipe, run_own, whole_recipe
from flatcoat.data.collection import open_collection
from flatcoat.data.store import Collection
from flatcoat.data.toy import ANIMALS, FOODS, PLACES
from flatcoat.errors import Misuse
from flatcoat.files import read_json
from flatcoat.records import silent


@pytest.fixture(scope="module")
def notes(tmp_path_factory):
    """Two hundred sentences about animals, in twenty files."""
    folder = tmp_path_factory.mktemp("own") / "notes"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number, animal in enumerate(ANIMALS):
        home, food = PLACES[number % len(PLACES)], FOODS[number % len(FOODS)]
        lines = [f"The {animal} makes its home in the {home}.", f"A hungry {animal} looks for {food} at dusk.",
                 f"Each spring the {animal} raises its young alone."]  # fmt: skip
        lines += [
            f"The {animal} of the {rng.choice(PLACES)} looks for its {rng.choice(FOODS)} in spring." for _ in range(4)
        ]
        (folder / f"{animal}.md").write_text(f"# The home of the {animal}\n\n" + "\n\n".join(dict.fromkeys(lines)))
    return folder


CHANGES = ["training.steps=6", "training.batch=4", "training.warmup=1", "training.evaluate_every=3", "training.save_every=3",
           "model.query_length=16", "model.document_length=32", "runtime.precision=fp32", "runtime.training_precision=fp32",
           "evaluation.dev_documents=40"]  # fmt: skip


def recipe_of(notes, tiny):
    return own_recipe(f"files:{notes}?words=24&overlap=8", [*CHANGES, f"model.start={tiny}", "model.dropout=0.0"])


def test_the_recipe_of_a_folder(notes, tmp_path):
    made = own_recipe(str(notes))
    assert made.collection.source == f"files:{notes}?withhold=true"
    assert own_recipe(f"files:{notes}?words=9").collection.source == f"files:{notes}?words=9&withhold=true"
    assert own_recipe(f"files:{notes}?withhold=false").collection.source.endswith("?withhold=false")
    (tmp_path / "own.toml").write_text(packaged_recipe("own.toml").read_text())
    stated = load_recipe(tmp_path / "own.toml")
    assert stated.model_copy(update={"collection": made.collection}) == made
    with pytest.raises(Misuse, match="neither a recipe"):
        own_recipe(str(tmp_path / "none"))
    with pytest.raises(Misuse, match="unknown key"):
        own_recipe(str(notes), ["training.stepz=3"])


def test_a_run_does_not_lie_in_what_it_reads(notes):
    for out in (notes, notes / "run"):
        with pytest.raises(Misuse, match="name an --out outside"):
            run_own(own_recipe(str(notes)), out, track=silent, note=lambda _: None)
    assert not (notes / "run").exists() and not (notes / "recipe.toml").exists()


def test_what_is_served_is_whole(notes, tmp_path):
    made = own_recipe(str(notes))
    served = whole_recipe(made, tmp_path)
    assert served.collection.source == f"files:{notes}?withhold=false" and served.training.steps == 0
    assert served.model.start == str(tmp_path / "model") and served.indexes == made.indexes


def test_a_folder_is_run(notes, tiny, tmp_path):
    results = run_own(recipe_of(notes, tiny), tmp_path / "run", track=silent, note=lambda _: None)
    names = [system["name"] for system in results["systems"]]
    assert names[:3] == ["BM25", "before, exact", "after, exact"] and all(
        s["means"]["nDCG@10"] > 0 for s in results["systems"]
    )
    measured, whole = (Collection.open(tmp_path / place / "store") for place in ("run", "run/whole"))
    assert measured.facts["made"]["withheld"] and not whole.facts["made"]["withheld"]
    assert list(measured.documents.ids) == list(whole.documents.ids)
    changed = [a != b for a, b in zip(measured.documents.texts(), whole.documents.texts(), strict=True)]
    judged = {int(row) for split in ("dev", "test") for row in measured.judgements(split)[:, 1]}
    assert any(changed) and {row for row, other in enumerate(changed) if other} <= judged
    served = read_json(tmp_path / "run" / "whole" / "results.json")
    assert [system["name"] for system in served["systems"]][:2] == ["BM25", "exact"]
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "These questions were made from the documents themselves" in page
    # BM25 finds what still has the question's words, and must work for the rest
    flattered, honest = (found["systems"][0]["means"]["nDCG@10"] for found in (served, results))
    assert flattered > honest


def test_a_folder_run_twice_is_done_once(notes, tiny, tmp_path):
    recipe, said = recipe_of(notes, tiny), []
    first = run_own(recipe, tmp_path / "run", track=silent, note=lambda _: None)
    assert run_own(recipe, tmp_path / "run", track=silent, note=said.append) == first
    assert "train: already done" in said and said.count("bm25: already done") == 2


def test_the_cli_reads_a_folder_as_a_collection(notes):
    assert "home of the" in open_collection(str(notes)).documents.titles[0].lower()
