"""`flatcoat run`: every stage of a recipe, from documents to a measured search engine in one folder."""

from __future__ import annotations

import os
import platform
import resource
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flatcoat.app import build, cascade
from flatcoat.app.before import run_before
from flatcoat.app.family import open_vectors, write_index
from flatcoat.app.measure import Measured, measure_all, measure_cross
from flatcoat.app.model_tables import IndexTable, ModelTable
from flatcoat.app.ready_run import check_settings, make_ready
from flatcoat.app.recipe import format_recipe, load_recipe
from flatcoat.app.stages import Stages, claim
from flatcoat.app.tables import AlsoTable, Recipe
from flatcoat.app.train import train_model, training_inputs
from flatcoat.checks.base import Finding
from flatcoat.data.collection import open_collection
from flatcoat.data.store import Collection
from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.evaluation.measures import parse
from flatcoat.files import digest, only_writer, read_json, write_json, write_text
from flatcoat.index.store import open_index, write_bm25
from flatcoat.records import Track

if TYPE_CHECKING:
    from flatcoat.models.load import Model


def run_recipe(
    recipe: Recipe,
    out: Path,
    *,
    resume: bool = False,
    track: Track,
    note: Callable[[str], None],
    allow: tuple[str, ...] = (),
    store: Path | None = None,
    checked: Sequence[Finding] | None = None,
) -> dict[str, Any]:
    """Run every stage into `out`; give the results that `results.json` holds. `store` is a collection that is read already,
    `checked` what the checks of a companion found before anything was made.

    Raises:
        Misuse: `out` is another recipe's.
        FlatcoatError: a check found what would make the answer wrong, or a stage could not be done.
    """
    with only_writer(out):
        claim(out, format_recipe(recipe), resume)
        if store is not None and not (out / "store").exists():
            (out / "store").symlink_to(os.path.relpath(store, out))
        return _Run(recipe, out, track, note, allow, checked).go(resume)


class _Run:
    def __init__(
        self, recipe: Recipe, out: Path, track: Track, note: Callable[[str], None], allow: tuple[str, ...],
        checked: Sequence[Finding] | None,
    ):  # fmt: skip
        self.recipe, self.out, self.track, self.note, self.allow = recipe, out, track, note, allow
        self.checked = checked
        self.stages = Stages(out, note)
        self.times: dict[str, float] = read_json(out / "times.json") if (out / "times.json").is_file() else {}

    def go(self, resume: bool) -> dict[str, Any]:
        started = time.perf_counter()
        recipe, out = self.recipe, self.out
        others = {other.name: self._other(other) for other in recipe.also}
        findings = check_settings(recipe, self.allow, self.note) if self.checked is None else self.checked
        self.note(f"collection {recipe.collection.source}")
        source, store = recipe.collection, out / "store"
        read = lambda: open_collection(source.source, store, strict=source.strict)  # noqa: E731
        collection = read() if store.exists() else self._timed("collection", read)
        corpus = digest({name: file["sha256"] for name, file in collection.facts["files"].items()})
        lexical = recipe.lexical.model_dump()
        self._can_be_done(collection)
        if self.checked is None:
            findings = [*findings, *make_ready(recipe, collection, self.allow, self.note)]
        self._check(findings)
        found: dict[str, list[Finding]] = {}
        for name, other in others.items():
            self.note(f"also {name}: checked before anything is made")
            found[name] = check_settings(other, self.allow, self.note)
            found[name] += make_ready(other, collection, self.allow, self.note, companion=True)
        self._stage("bm25", [corpus, lexical], out / "index" / "bm25", lambda: self._bm25(collection))
        base = self._begin(collection)
        encodes = recipe.model.kind != "cross"
        keys = [self._encode("before", base, collection, out / "before")] if encodes else [self._said(base)]
        if recipe.training.steps:
            bm25 = lambda: open_index(out / "index" / "bm25").index  # noqa: E731
            going, earlier, made = run_before(
                recipe, collection, out / "stages", self._stage, base,
                bm25=bm25, track=self.track, note=self.note, allow=self.allow,
            )  # fmt: skip
            inputs = [training_inputs(going, collection), keys, made]
            key = self._stage("train", inputs, out / "model", lambda: self._train(going, earlier, collection))
            keys.append(key)
            if encodes:
                keys.append(self._encode("after", str(out / "model"), collection, out / "vectors", key))
        final = out / ("vectors" if recipe.training.steps else "before")
        if encodes:
            self._indexes(final, keys[-1])
            keys += self._beside(collection, keys[-1])
        for name, other in others.items():
            self.note(f"also {name}")
            folder, began = out / "also" / name, time.perf_counter()
            before = dict(read_json(folder / "stages.json")) if (folder / "stages.json").is_file() else {}
            made = run_recipe(
                other, folder, resume=resume, track=self.track, note=self.note, allow=self.allow, store=store,
                checked=found[name],
            )  # fmt: skip
            if read_json(folder / "stages.json") != before:  # nothing to time where all was done already
                self.times[f"also-{name}"] = time.perf_counter() - began
                write_json(out / "times.json", self.times)
            keys.append(digest(made))
        settings = [corpus, lexical, recipe.collection.model_dump(), recipe.evaluation.model_dump(),
                    [t.model_dump() for t in recipe.indexes], keys]  # fmt: skip
        key = self._stage("evaluate", settings, out / "results.json", lambda: self._evaluate(collection, final))
        from flatcoat.app.html.run_report import write_run_report

        self._stage("report", key, out / "report.html", lambda: write_run_report(out))
        results = read_json(out / "results.json")
        self.note(f"done in {time.perf_counter() - started:.0f} s: {out}")
        return results

    def _other(self, table: AlsoTable) -> Recipe:
        """A recipe that runs beside this one, over its collection.

        Raises:
            Misuse: it names others itself, measures otherwise, or starts from what is not there.
        """
        from flatcoat.models.source import resolve

        other = load_recipe(Path(table.recipe))
        if other.also:
            raise Misuse(f"also {table.name}: {table.recipe} names recipes of its own; name them here")
        if other.evaluation != self.recipe.evaluation:
            raise Misuse(f"also {table.name}: its [evaluation] is another; one table wants one")
        resolve(other.model.start)
        if other.collection != self.recipe.collection:
            self.note(f"also {table.name}: over {self.recipe.collection.source}, in place of its own collection")
        return other.model_copy(update={"collection": self.recipe.collection})

    def _can_be_done(self, collection: Collection) -> None:
        """Refuse in a second what would fail in an hour."""
        table = self.recipe.collection
        parse(self.recipe.evaluation.measures)
        if not len(collection.query_rows(table.test)):
            raise Misuse(f"split {table.test!r} has no queries to measure")
        for texts in (collection.documents, collection.queries):
            odd = next((id for id in texts.ids if id.split() != [id]), None)
            if odd is not None:
                raise FlatcoatError(f"id {odd!r} has white space, which TREC runs cannot hold; rename it in the source")

    def _timed(self, name: str, make: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        made = make()
        self.times[name] = time.perf_counter() - start
        write_json(self.out / "times.json", self.times)
        return made

    def _stage(self, name: str, inputs: Any, product: Path, make: Callable[[], object]) -> str:
        return self.stages.do(name, inputs, product, lambda: self._timed(name, make))

    def _bm25(self, collection: Collection) -> None:
        facts = {"corpus": collection.documents.fingerprint}
        path = self.out / "index" / "bm25"
        settings = build.lexical_settings(self.recipe.lexical)
        write_bm25(path, collection.documents.texts(), list(collection.documents.ids), facts, settings)

    def _check(self, findings: Sequence[Finding]) -> None:
        """Keep what the checks found for the report."""
        write_json(self.out / "checks.json", [finding.line() for finding in findings])

    def _begin(self, collection: Collection) -> str:
        """Where the start lies: as named, or in `start/` where a lookup of queries wants weights from this corpus."""
        from flatcoat.app.objective import begin_lookup
        from flatcoat.models.checkpoint import fingerprint
        from flatcoat.models.load import save_model
        from flatcoat.models.splade import SpladeModel

        start = self.recipe.model.start
        if self.recipe.model.queries != "lookup" and self.recipe.model.kind != "sparse":
            return start
        model = build.model(self.recipe.model, self.recipe.runtime)
        if not isinstance(model, SpladeModel) or not getattr(model.query, "fresh", False):
            return start
        inputs = [fingerprint(start), self.recipe.model.model_dump(), collection.facts["content"]]

        def begin() -> None:
            begin_lookup(model, collection)
            save_model(model, self.out / "start")

        self._stage("start", inputs, self.out / "start", begin)
        return str(self.out / "start")

    def _load(self, source: str) -> Model:
        if source == self.recipe.model.start:
            return build.model(self.recipe.model, self.recipe.runtime)
        return build.model(self.recipe.model.model_copy(update={"start": source}), self.recipe.runtime)

    def _encode(
        self,
        name: str,
        source: str,
        collection: Collection,
        path: Path,
        made: str = "",
        table: ModelTable | None = None,
    ) -> str:
        """Encode the corpus, with a model of another table where one is given; gives the stage's key."""
        from flatcoat.models.checkpoint import fingerprint

        runtime = self.recipe.runtime
        inputs = [made, fingerprint(source) if not made else "", self.recipe.model.model_dump(), runtime.model_dump(),
                  collection.facts["content"]]  # fmt: skip

        def encode() -> None:
            from flatcoat.app.encode import encode_documents

            model = self._load(source) if table is None else build.model(table, runtime)
            encode_documents(path, model, source, collection, track=self.track, label=f"encode {name}")

        return self._stage(f"encode-{name}", inputs, path, encode)

    def _beside(self, collection: Collection, made: str) -> list[str]:
        """Encode and index what learnt beside the model."""
        keys = []
        for name, kind in (("late", "multivector"), ("sparse", "inverted")):
            model, vectors = cascade.beside(self.out / "model", name), self.out / f"vectors-{name}"
            if not model.is_dir():
                continue
            table = ModelTable(kind=name, start=str(model))  # pyright: ignore[reportArgumentType]
            key = self._encode(f"after-{name}", str(model), collection, vectors, made, table)
            keys.append(key)
            index = IndexTable(kind=kind)  # pyright: ignore[reportArgumentType]
            self._stage(f"index-{name}", [key, index.model_dump()], self.out / "index" / name,
                        lambda v=vectors, i=index, n=name: write_index(self.out / "index" / n, open_vectors(v), i))  # fmt: skip
        return keys

    def _train(self, going: Recipe, earlier: Path | None, collection: Collection) -> None:
        made = (
            self.out / "before"
        )  # what the first mining may use, where it is of the weights that training begins with
        first = open_vectors(made).vectors if made.is_dir() and not self.recipe.before else None
        cost = train_model(
            going, collection, self.out / "model", self.out / "training",
            bm25=lambda: open_index(self.out / "index" / "bm25").index,
            first=first, earlier=earlier, track=self.track, note=self.note, allow=self.allow,
        )  # fmt: skip
        write_json(self.out / "training" / "cost.json", cost)

    def _indexes(self, vectors: Path, key: str) -> None:
        folder = self.out / "index"
        for label, table in (("exact", None), *((table.label, table) for table in self.recipe.indexes)):
            path, said = folder / label, [key, table.model_dump()] if table else key
            self._stage(f"index-{label}", said, path,
                        lambda path=path, table=table: write_index(path, open_vectors(vectors), table))  # fmt: skip

    def _evaluate(self, collection: Collection, final: Path) -> None:
        trained = bool(self.recipe.training.steps)
        measured = self._measure(collection, trained)
        cost = self.out / "training" / "cost.json"
        results = {
            "collection": {"source": self.recipe.collection.source, "documents": len(collection.documents),
                           "test_queries": len(collection.query_rows(self.recipe.collection.test))},
            "systems": measured.systems,
            "fidelity": measured.fidelity,
            "fixes": measured.fixes,
            "query_ms": measured.query_ms,
            "training": read_json(cost) if trained and cost.is_file() else None,
            "pairs_per_step": self.recipe.training.batch * self.recipe.training.accumulate,
            "made": collection.facts.get("made"),
            "seconds": self.times,
            "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "checks": read_json(self.out / "checks.json"),
            "machine": machine(),
        }  # fmt: skip
        from flatcoat.app.report import markdown

        write_text(self.out / "report.md", markdown(results))
        write_json(self.out / "results.json", results)

    def _said(self, source: str) -> str:
        """A digest of a model in use, where nothing is encoded with it."""
        from flatcoat.models.checkpoint import fingerprint

        return digest([fingerprint(source), self.recipe.model.model_dump(), self.recipe.runtime.model_dump()])

    def _measure(self, collection: Collection, trained: bool) -> Measured:
        if self.recipe.model.kind == "cross":
            source = str(self.out / "model") if trained else self.recipe.model.start
            return measure_cross(self.recipe, collection, self.out, self._load(source), self.track)
        begun = self.out / "start"
        before = self._load(str(begun) if begun.is_dir() else self.recipe.model.start)
        after = self._load(str(self.out / "model")) if trained else before
        return measure_all(self.recipe, collection, self.out, before, after, self.track)


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    import importlib.metadata
    from datetime import UTC, datetime

    names = ("torch", "transformers", "faiss-cpu", "bm25s", "numpy")
    versions = {name: importlib.metadata.version(name) for name in names if _installed(name)}
    return {
        "processor": _processor(), "cores": os.cpu_count(), "python": platform.python_version(), "versions": versions,
        "date": datetime.now(UTC).date().isoformat(),
    }  # fmt: skip


def _installed(name: str) -> bool:
    import importlib.metadata

    try:
        return bool(importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return False


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
