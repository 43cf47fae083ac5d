"""The model card and the push: what it says is what lies there, its code runs, its metadata is the Hub's, nothing else is sent."""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from huggingface_hub import CommitOperationAdd, ModelCard, ModelCardData

from flatcoat.app import hub, verbs_hub
from flatcoat.app.card_numbers import is_of, read_numbers, short_name
from flatcoat.app.model_card import metric_of, model_card, story_of, without_folders
from flatcoat.app.recipe import format_recipe, parse_recipe
from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.models.checkpoint import Overrides, load_dense, save_dense
from flatcoat.models.colbert_checkpoint import LateOverrides, load_late, save_late
from flatcoat.models.cross_checkpoint import CrossOverrides, load_cross, save_cross
from flatcoat.models.load import load_model
from flatcoat.models.splade_checkpoint import SparseOverrides, load_splade, save_splade

MACHINE = {"processor": "A processor", "cores": 2, "python": "3.11", "versions": {"torch": "2.0"}, "date": "2026-01-02"}


@pytest.fixture(scope="module")
def folders(tiny, tiny_mlm, tmp_path_factory):
    """A model of each kind."""
    home = tmp_path_factory.mktemp("cards")
    save_dense(load_dense(str(tiny), Overrides(query_length=30, query_prompt="ask: ")), home / "dense")
    save_splade(load_splade(str(tiny_mlm), SparseOverrides(query_terms=5)), home / "sparse")
    save_late(load_late(str(tiny), LateOverrides(16)), home / "late")
    save_cross(load_cross(str(tiny), CrossOverrides(seed=3, query_length=7)), home / "cross")
    return {kind: home / kind for kind in ("dense", "sparse", "late", "cross")}


@pytest.fixture
def run(folders, tmp_path):
    """A run's folder as `flatcoat run` leaves it, as far as a card reads it."""
    folder = tmp_path / "home of somebody" / "run"
    (folder / "runs").mkdir(parents=True)
    (folder / "model").symlink_to(folders["dense"])
    return written(folder, start=str(folder / "start of mine"))


def written(folder, start, source=None):
    said = {"collection": {"source": source or str(folder.parent / "my-collection"), "test": "dev"}, "model": {"start": start},
            "training": {"steps": 7, "batch": 8}}  # fmt: skip
    (folder / "recipe.toml").write_text(format_recipe(parse_recipe(said, "test")))
    rng = np.random.default_rng(0)
    names = ["BM25", "before, exact", "after, exact", "after, scan", "late interaction, multivector", "after, exact, re-ranked (20)",
             "other: after, exact", "hybrid (BM25 + exact)"]  # fmt: skip
    values = {
        name: {m: {str(q): float(v) for q, v in enumerate(rng.random(40))} for m in ("nDCG@10", "R@100")}
        for name in names
    }
    systems = [
        {
            "name": name,
            "means": {m: float(np.mean(list(of.values()))) for m, of in table.items()},
            "ms": 1.0,
            "megabytes": 1.0,
        }
        for name, table in values.items()
    ]
    for system in systems:
        if system["name"] != "before, exact":
            system["against"] = {
                "measure": "nDCG@10",
                "difference": 0.1,
                "low": 0.05,
                "high": 0.15,
                "baseline": "before, exact",
            }
    results = {
        "systems": systems,
        "machine": MACHINE,
        "collection": {"source": "x", "documents": 60, "test_queries": 40},
    }
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "runs" / "by-query.json").write_text(json.dumps(values))
    return folder


class FakeHub:
    """The Hub's interface, as far as a push uses it; keeps what it was asked."""

    def __init__(self, error=None):
        self.made, self.commits, self.error = [], [], error

    def create_repo(self, repo_id, *, private, repo_type, exist_ok):
        self.made.append((repo_id, private, repo_type, exist_ok))

    def create_commit(self, repo_id, operations, *, commit_message, repo_type):
        if self.error:
            raise self.error
        self.commits.append((repo_id, list(operations), commit_message, repo_type))
        return SimpleNamespace(commit_url=f"https://huggingface.co/{repo_id}/commit/1")


def front(card):
    return ModelCard(card).data


@pytest.mark.parametrize(
    ("kind", "pipeline", "tags"),
    [
        ("dense", "sentence-similarity", {"sentence-transformers", "sentence-similarity"}),
        ("sparse", "feature-extraction", {"sentence-transformers", "sparse-encoder", "splade"}),
        ("late", "sentence-similarity", {"sentence-transformers", "ColBERT", "PyLate"}),
        ("cross", "text-ranking", {"sentence-transformers", "cross-encoder", "reranker"}),
    ],
)
def test_metadata_is_the_hubs_and_survives_it(kind, pipeline, tags, folders):
    card = model_card(story_of(str(folders[kind])), "me/it")
    data = front(card)
    assert (data.pipeline_tag, data.library_name) == (pipeline, "sentence-transformers")
    assert {"flatcoat"} | tags <= set(data.tags)
    assert data.license is None and data.base_model is None and data.datasets is None and not data.eval_results
    assert ModelCardData(**data.to_dict()).to_dict() == data.to_dict()
    assert "license" not in card.split("---")[1] and "## Measured" not in card and "## Trained" not in card


@pytest.mark.parametrize("kind", ["dense", "sparse", "late", "cross"])
def test_the_code_of_the_card_runs_and_both_ways_score_alike(kind, folders):
    story = story_of(str(folders[kind]))
    blocks = re.findall(r"```python\n(.+?)```", model_card(story, "me/it"), re.S)
    assert len(blocks) == 2
    scores = []
    for block in blocks:
        scope: dict = {}
        exec(compile(block.replace('"me/it"', repr(str(folders[kind]))), "card", "exec"), scope)
        scores.append(np.asarray(scope["scores"], dtype=np.float64).ravel())
    if kind != "sparse":  # which keeps only five terms of a query here, as its card says
        own = (
            1 / (1 + np.exp(-scores[0]))
            if kind == "cross" and load_model(str(folders[kind])).tower.settings.activation == "sigmoid"
            else scores[0]
        )
        assert np.allclose(own, scores[1], atol=1e-4)


def test_what_another_library_does_otherwise_is_said(folders):
    cards = {kind: model_card(story_of(str(folder)), "me/it") for kind, folder in folders.items()}
    assert "Flatcoat cuts queries to 30 tokens, sentence-transformers to 32." in cards["dense"]
    assert "prompts: queries `ask: `, documents ``" in cards["dense"]
    assert "the 5 heaviest terms of a query and every term of a document" in cards["sparse"]
    assert (
        "of which at most 7 are the query's" in cards["cross"] and "Flatcoat cuts queries to 7 tokens" in cards["cross"]
    )


def test_numbers_are_the_runs_with_their_intervals(run):
    from flatcoat.evaluation.significance import bootstrap

    card = model_card(story_of(str(run)), "me/it")
    values = json.loads((run / "runs" / "by-query.json").read_text())["after, exact"]["nDCG@10"]
    mean, (low, high) = np.mean(list(values.values())), bootstrap(np.array([values[q] for q in sorted(values)]))
    assert f"| after, exact | {mean:.4f} [{low:.4f}, {high:.4f}] |" in card
    assert "+0.1000 [+0.0500, +0.1500]" in card and "| baseline |" in card
    rows = re.findall(r"^\| ([^|]+?) \|", card, re.M)
    assert rows == ["system", "---", "BM25", "before, exact", "after, exact", "after, scan"]
    assert "`my-collection`, split dev: 40 queries over 60 documents" in card
    assert "2026-01-02, fp32; A processor, Python 3.11, torch 2.0." in card
    data = front(card)
    assert next((r.metric_type, r.metric_value) for r in data.eval_results) == ("ndcg@10", round(float(mean), 4))
    assert [r.metric_type for r in data.eval_results] == ["ndcg@10", "recall@100"]
    assert ModelCardData(**data.to_dict()).to_dict() == data.to_dict()


def test_a_card_names_no_folder_of_this_machine(run, tmp_path):
    card = model_card(story_of(str(run)), "me/it")
    assert str(tmp_path) not in card and "somebody" not in card
    assert 'source = "my-collection"' in card and 'start = "start of mine"' in card
    assert "steps = 7" in card and "7 steps of 8 queries" in card


def test_hub_ids_become_metadata_and_a_licence_is_said_only_if_said(run):
    written(run, "owner/base-model", "hf:owner/data")
    data = front(model_card(story_of(str(run)), "me/it", "apache-2.0"))
    assert (data.base_model, data.datasets, data.license) == ("owner/base-model", ["owner/data"], "apache-2.0")


def test_a_model_beside_another_has_rows_and_a_start_of_its_own(run, folders):
    (run / "model-late").symlink_to(folders["late"])
    names = [system.name for system in read_numbers(run, "model-late").own]
    assert names == ["late interaction, multivector"]
    assert is_of("after, exact, re-ranked (20)", "model-cross", "dense") and not is_of(
        "after, exact", "model-cross", "dense"
    )
    assert not is_of("other: after, exact", "model", "dense") and not is_of(
        "after, exact, re-ranked (9)", "model", "dense"
    )
    assert is_of("BM25, re-ranked (20)", "model", "cross")
    (run / "results.json").unlink()
    assert read_numbers(run, "model") is None


@pytest.mark.parametrize(
    ("source", "short"),
    [("/a/b/c", "c"), ("~/b/c/", "c"), ("python:/a/b", "python:b"), ("owner/name", "owner/name"), ("hf:owner/name", "hf:owner/name"),
     ("data/x", "data/x"), ("python:", "python:"), ("C:\\a\\b", "b")],
)  # fmt: skip
def test_short_names(source, short):
    assert short_name(source) == short


def test_paths_are_shortened_wherever_a_recipe_has_them():
    text = 'a = "/x/y"\nb = "owner/name"\nc = ["/p/q", "r"]\nd = "a / b"\n'
    assert without_folders(text) == 'a = "y"\nb = "owner/name"\nc = ["q", "r"]\nd = "a / b"\n'


def test_measures_by_the_hubs_names():
    assert [metric_of(m) for m in ("nDCG@10", "RR@10", "R@100", "AP", "P@5", "Success@5")] == [
        "ndcg@10", "mrr@10", "recall@100", "map", "precision@5", "success@5"]  # fmt: skip


def test_a_push_is_one_commit_of_the_models_files_and_its_card(folders, tmp_path):
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(folders["dense"], folder)
    for stray in (".secret.json", "optimizer.pt", "notes.md", ".cache/x.json"):
        (folder / stray).parent.mkdir(exist_ok=True)
        (folder / stray).write_text("{}")
    api = FakeHub()
    assert hub.push(str(folder), "me/it", private=True, api=api) == "https://huggingface.co/me/it/commit/1"
    assert api.made == [("me/it", True, "model", True)]
    ((repo, operations, message, repo_type),) = api.commits
    assert (repo, message, repo_type) == ("me/it", "dense model, by Flatcoat", "model")
    assert all(isinstance(operation, CommitOperationAdd) for operation in operations)
    sent = {operation.path_in_repo for operation in operations}
    wanted = {p.relative_to(folders["dense"]).as_posix() for p in folders["dense"].rglob("*") if p.is_file()}
    assert sent == wanted | {"README.md"}


def test_a_dry_run_writes_what_a_push_sends_and_is_pushed_as_it_was_edited(folders, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    verbs_hub.push(str(folders["late"]), "me/it", False, True, None, None, True)
    out = tmp_path / "it-push"
    assert capsys.readouterr().out == "it-push\n"
    api = FakeHub()
    hub.push(str(folders["late"]), "me/it", api=api)
    for operation in api.commits[0][1]:
        content = operation.path_or_fileobj
        assert (out / operation.path_in_repo).read_bytes() == (
            content if isinstance(content, bytes) else Path(content).read_bytes()
        )
    texts = ["an otter", "a hare"]
    one, other = (load_model(str(folder)).encode_documents(texts).vectors for folder in (out, folders["late"]))
    assert np.array_equal(one, other)
    (out / "README.md").write_text("mine")
    again = FakeHub()
    hub.push(str(out), "me/it", api=again)
    assert next(op for op in again.commits[0][1] if op.path_in_repo == "README.md").path_or_fileobj == str(
        out / "README.md"
    )
    assert again.made[0][1] is None
    hub.write_push(str(folders["late"]), "me/it", out)  # once more over what it wrote
    assert (out / "README.md").read_text() != "mine"


def test_a_whole_runs_folder_pushes_its_model(run):
    api = FakeHub()
    hub.push(str(run), "me/it", api=api)
    names = {operation.path_in_repo for operation in api.commits[0][1]}
    assert {"model.safetensors", "modules.json", "README.md"} <= names and "results.json" not in names


def test_what_cannot_be_pushed_says_why(folders, run, tmp_path):
    dense = str(folders["dense"])
    for name in ("it", "a/b/c", "a b/c", "", "me/--"):
        with pytest.raises(Misuse, match="want OWNER/NAME"):
            hub.push(dense, name, api=FakeHub())
    with pytest.raises(Misuse, match="no such folder"):
        hub.push(str(tmp_path / "none"), "me/it", api=FakeHub())
    (tmp_path / "empty").mkdir()
    with pytest.raises(Misuse, match="not the folder of a model"):
        hub.push(str(tmp_path / "empty"), "me/it", api=FakeHub())
    (run / "model").unlink()
    with pytest.raises(Misuse, match="trained no model"):
        hub.push(str(run), "me/it", api=FakeHub())
    with pytest.raises(Misuse, match="also what is read"):
        hub.write_push(dense, "me/it", folders["dense"])
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "thesis.txt").write_text("mine")
    with pytest.raises(Misuse, match="not a Flatcoat model"):
        hub.write_push(dense, "me/it", tmp_path / "theirs")
    with pytest.raises(Misuse, match="--out is where --dry-run writes"):
        verbs_hub.push(dense, "me/it", False, False, tmp_path / "out", None, True)
    with pytest.raises(FlatcoatError, match=r"me/it: the Hub did not take it \(no route\); hf auth login"):
        hub.push(dense, "me/it", api=FakeHub(OSError("no route\nmore")))


def test_a_card_that_is_there_keeps_its_licence(folders, tmp_path):
    hub.write_push(str(folders["dense"]), "me/it", tmp_path / "out")
    with pytest.raises(Misuse, match="is sent as it is"):
        hub.push(str(tmp_path / "out"), "me/it", license="mit", api=FakeHub())


def test_weights_that_run_code_are_not_sent(folders, tmp_path):
    import shutil

    shutil.copytree(folders["dense"], tmp_path / "old")
    story = story_of(str(tmp_path / "old"))
    (tmp_path / "old" / "model.safetensors").rename(tmp_path / "old" / "pytorch_model.bin")
    with pytest.raises(FlatcoatError, match=r"no \.safetensors to send, only pytorch_model\.bin"):
        hub.contents_of(story, "me/it", None)


@pytest.mark.parametrize(
    ("tool", "package"), [("haystack", "haystack"), ("langchain", "langchain_core"), ("mteb", "mteb")]
)
def test_a_tool_that_is_not_there_names_its_extra(tool, package, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"flatcoat.app.integrations.{tool}", raising=False)
    with pytest.raises(Misuse, match=rf"{package} is not installed; run: pip install 'flatcoat\[{tool}\]'"):
        module = importlib.import_module(f"flatcoat.app.integrations.{tool}")
        module.mteb_model("model")  # which alone asks no sooner than it is called
