"""What each term of a loss, and each stage of training, is worth on this collection: the recipe without it, trained anew.

Variants are trained over several seeds, each from the same start, data, batches and number of steps. A stage before that several
variants have alike is trained once for all. Results lie under `results/`, one file a variant and seed, and are not made twice;
weights are removed once they have been measured. An ablation killed at any moment goes on where it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np

from flatcoat.app import build
from flatcoat.app.ablate_report import markdown, summarise
from flatcoat.app.before import run_before
from flatcoat.app.cascade import beside
from flatcoat.app.family import exact_index
from flatcoat.app.measure import slug
from flatcoat.app.ready_run import check_settings, make_ready
from flatcoat.app.recipe import format_recipe
from flatcoat.app.run import machine
from flatcoat.app.stages import Stages
from flatcoat.app.tables import LossTable, Recipe, StageTable
from flatcoat.app.teaching import TermsTable, TermTable
from flatcoat.app.train import train_model, training_inputs
from flatcoat.data.collection import open_collection
from flatcoat.data.store import Collection
from flatcoat.data.trec import read_run, write_run
from flatcoat.errors import FlatcoatError, Misuse, nearest
from flatcoat.evaluation.measures import deepest, evaluate, means, parse
from flatcoat.files import digest, only_writer, read_json, remove_folder, write_json, write_text
from flatcoat.index.store import open_index, write_bm25
from flatcoat.records import Ranking, Run, Track
from flatcoat.search.engine import named, search_texts

ALONE = "nll alone"
LOSSES = ("contrastive", "margin_mse", "kl")  # the parts of one scorer's loss, where there is no list of terms
RESCORED = 100  # of the served model's own answers, how many late interaction scores again
MARK = "ablated.toml"


@dataclass(frozen=True)
class Variant:
    """A recipe less something; `takes` names what is missing."""

    name: str
    recipe: Recipe
    kind: Literal["full", "term", "stage", "pair", "alone"]
    takes: tuple[str, ...] = ()


def weighing(recipe: Recipe) -> list[str]:
    """The parts of a recipe's own loss that weigh something: its terms, or `loss.NAME` of the table of one scorer's loss."""
    if recipe.taught:
        return [name for name, term in recipe.every_term().items() if term.weight]
    return [f"loss.{name}" for name in LOSSES if getattr(recipe.loss, name)]


def variants(recipe: Recipe, *, pairs: bool = False, only: Sequence[str] = ()) -> list[Variant]:
    """The recipe as it is, and less each part, each stage, everything but the served model's own likelihood; `only` some of them.

    Raises:
        Misuse: there is nothing to take away, or nothing of a name in `only`.
    """
    recipe = recipe.model_copy(update={"also": ()})
    terms = weighing(recipe)
    found = [_without(recipe, (name,)) for name in terms if len(terms) > 1]
    found += [_without_stage(recipe, stage.name) for stage in recipe.before]
    alone = nll_alone(recipe)
    plain = terms == [_main(recipe)] and not any(stage.cascade or stage.terms for stage in recipe.before)
    if not plain and all(variant.recipe.model_dump() != alone.model_dump() for variant in found):
        found.append(Variant(ALONE, alone, "alone"))
    if not found:
        raise Misuse(f"nothing can be taken away: {terms[0]} is all that is minimised, and there is no stage before")
    if pairs and len(terms) > 2:
        found += [_without(recipe, two) for two in combinations(terms, 2)]
    return [Variant("full", recipe, "full"), *_chosen(found, only)]


def _chosen(found: list[Variant], only: Sequence[str]) -> list[Variant]:
    known = list(dict.fromkeys(name for v in found for name in (v.takes or (v.name,))))
    for name in only:
        if name not in known:
            said = nearest(name, known) or f"; here: {', '.join(known)}"
            raise Misuse(f"--only {name}: nothing of this name can be taken away{said}")
    return [v for v in found if not only or set(v.takes or (v.name,)) <= set(only)]


def _main(recipe: Recipe) -> str:
    """The part of the loss by which the served model learns from the judgements."""
    return f"nll.{recipe.main or recipe.model.kind}" if recipe.taught else "loss.contrastive"


def _without(recipe: Recipe, names: tuple[str, ...]) -> Variant:
    """Less one part of its own loss, or two; all else stays, even what then teaches nobody, so that nothing else differs."""
    if recipe.taught:
        kept = {name: term for name, term in recipe.every_term().items() if name not in names}
        made = recipe.model_copy(update={"terms": TermsTable(terms=kept)})
    else:
        off = {name.removeprefix("loss."): 0.0 for name in names}
        made = recipe.model_copy(update={"loss": recipe.loss.model_copy(update=off)})
    if not _asks_teacher(made):
        made = made.model_copy(update={"teacher": None})
    return Variant(f"without {' + '.join(names)}", made, "term" if len(names) == 1 else "pair", names)


def _asks_teacher(recipe: Recipe) -> bool:
    own = list(recipe.every_term()) if recipe.taught else []
    own += [name for stage in recipe.before if stage.terms for name in stage.terms.terms]
    return bool(recipe.loss.margin_mse + recipe.loss.kl) or any(".teacher." in name for name in own)


def _without_stage(recipe: Recipe, name: str) -> Variant:
    kept = tuple(stage for stage in recipe.before if stage.name != name)
    return Variant(f"without {name}", recipe.model_copy(update={"before": kept}), "stage", (name,))


def nll_alone(recipe: Recipe) -> Recipe:
    """The same model, data, negatives, batches and steps, in every stage, and only the likelihood of what is judged relevant."""
    changed: dict[str, Any] = {"cascade": None, "teacher": None, "loss": LossTable()}
    if recipe.model.kind != "sparse":
        changed["sparsity"] = None
    name = f"nll.{recipe.main or recipe.model.kind}"
    if recipe.taught:
        own = recipe.every_term().get(name) or TermTable()
        alone = TermTable(weight=own.weight or 1.0, temperature=own.temperature)
        changed["terms"] = TermsTable(terms={name: alone})
    plain = {"cascade": None, "terms": TermsTable(terms={name: TermTable()})}
    before = tuple(s.model_copy(update=plain) if s.cascade or s.terms else s for s in recipe.before)
    return recipe.model_copy(update={**changed, "before": before})


def seeded(recipe: Recipe, number: int) -> Recipe:
    """The recipe with the seeds of all its trainings moved on by a number."""

    def moved(table: Any) -> Any:
        return table.model_copy(update={"seed": table.seed + number})

    def stage(table: StageTable) -> StageTable:
        return table.model_copy(update={"training": moved(table.training)}) if table.training else table

    return recipe.model_copy(update={"training": moved(recipe.training), "before": tuple(map(stage, recipe.before))})


def stage_keys(recipe: Recipe, collection: Collection) -> dict[str, str]:
    """Of each stage before, by name, the digest of all that goes into it and into those before it."""
    from flatcoat.models.checkpoint import fingerprint

    keys: dict[str, str] = {}
    for table in recipe.before:
        if table.task == "rank":
            said = training_inputs(recipe.of_stage(table), collection)
        else:  # text alone: whatever ranks later makes no other stage of it
            tables = [recipe.model.model_dump(), recipe.runtime.model_dump()]
            said = [tables, fingerprint(recipe.model.start), collection.facts["content"]]
        keys[table.name] = digest([table.model_dump(), said, list(keys.values())])
    return keys


def run_ablation(
    recipe: Recipe,
    out: Path,
    *,
    seeds: int = 3,
    pairs: bool = False,
    only: Sequence[str] = (),
    track: Track,
    note: Callable[[str], None],
    allow: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Train and measure every variant over `seeds` seeds into `out`; give what `ablation.json` holds.

    Raises:
        Misuse: seeds below 1, a recipe that trains nothing or has nothing to take away, an unknown name in `only`, or a folder
            of something else.
        FlatcoatError: a check found what would make the answer wrong, or a variant could not be trained.
    """
    if seeds < 1:
        raise Misuse(f"--seeds {seeds}: want at least 1")
    if not recipe.training.steps:
        raise Misuse("training.steps = 0 trains nothing; an ablation trains a recipe without each of its parts")
    chosen = variants(recipe, pairs=pairs, only=only)
    parse(recipe.evaluation.measures)
    out = out.resolve()
    with only_writer(out):
        _claim(out, chosen[0].recipe)
        runner = Runner(chosen[0].recipe, out, track, note, allow)
        runner.prepare()
        records: dict[str, list[dict[str, Any]]] = {variant.name: [] for variant in chosen}
        for number in range(seeds):
            for place, variant in enumerate(chosen, start=number * len(chosen) + 1):
                note(f"{variant.name}, seed {recipe.training.seed + number} ({place} of {seeds * len(chosen)})")
                records[variant.name].append(runner.record(variant, number))
        table = summarise([(v.name, v.kind, v.takes, records[v.name]) for v in chosen], recipe.evaluation.measures)
        results = {"collection": recipe.collection.source, **table, "machine": machine()}
        write_text(out / "ablation.md", markdown(results))
        write_json(out / "ablation.json", results)
        from flatcoat.app.html.study_report import write_ablation_report

        write_ablation_report(out)
    return results


def _claim(out: Path, recipe: Recipe) -> None:
    if not (out / MARK).is_file() and any(path.name != ".lock" for path in out.iterdir()):
        raise Misuse(f"{out} is not empty and not an ablation's folder; choose another --out")
    write_text(out / MARK, format_recipe(recipe))


class Runner:
    """What trains and measures a variant, over one collection and its BM25."""

    def __init__(self, recipe: Recipe, out: Path, track: Track, note: Callable[[str], None], allow: tuple[str, ...]):
        self.recipe, self.out, self.track, self.note, self.allow = recipe, out, track, note, allow
        source = recipe.collection
        self.collection = open_collection(source.source, out / "store", strict=source.strict)
        rows = self.collection.query_rows(source.test)
        if not len(rows):
            raise Misuse(f"split {source.test!r} has no queries to measure")
        self.texts = self.collection.queries.texts(rows)
        self.ids = [self.collection.queries.ids[int(row)] for row in rows]
        self.qrels = self.collection.qrels(source.test)
        table = recipe.evaluation
        self.k = min(max(table.k, deepest(table.measures)), len(self.collection.documents))

    def prepare(self) -> None:
        """The checks of a run, before time is spent; then BM25."""
        recipe, collection = self.recipe, self.collection
        check_settings(recipe, self.allow, self.note)
        make_ready(recipe, collection, self.allow, self.note)
        path, corpus = self.out / "index" / "bm25", collection.documents.fingerprint
        settings, ids = build.lexical_settings(recipe.lexical), list(collection.documents.ids)
        Stages(self.out, self.note).do(
            "bm25", [corpus, recipe.lexical.model_dump()], path,
            lambda: write_bm25(path, collection.documents.texts(), ids, {"corpus": corpus}, settings),
        )  # fmt: skip

    def _bm25(self) -> Any:
        return open_index(self.out / "index" / "bm25").index

    def record(self, variant: Variant, number: int) -> dict[str, Any]:
        """What a variant of a seed showed: made where it is not there, measured anew where other measures are asked for.

        Raises what making it does, with the variant's name.
        """
        recipe = seeded(variant.recipe, number)
        name = self.out / "results" / slug(variant.name) / f"seed-{recipe.training.seed}"
        path, measures = name.with_suffix(".json"), list(recipe.evaluation.measures)
        teaches = variant.kind == "full"
        keys = stage_keys(recipe, self.collection)
        asked = [self.k, recipe.evaluation.rerank, teaches]
        key = digest([training_inputs(recipe, self.collection), list(keys.values()), asked])
        trained = self.out / "work" / "trained" / key[:16]
        found: dict[str, Any] = read_json(path) if path.is_file() else {}
        try:
            if found.get("key") != key:
                cost = self._train(recipe, trained, keys)
                runs, depths = self._answers(recipe, trained / "model", teaches)
                for system, run in runs.items():
                    write_run(Path(f"{name}-{system}.trec"), run, slug(variant.name))
                log = (trained / "training" / "log.jsonl").read_text(encoding="utf-8")
                write_text(Path(f"{name}-log.jsonl"), log)
                found = {"key": key, "variant": variant.name, "seed": recipe.training.seed, "systems": list(runs),
                         "depths": depths, "seconds": cost, "gradient": gradient_norms(log.splitlines())}  # fmt: skip
            if found.get("measures") != measures:
                found |= {"measures": measures, **self._judged(name, found["systems"], measures)}
                write_json(path, found)
        except FlatcoatError as error:
            raise type(error)(f"{variant.name}, seed {recipe.training.seed}: {error}") from error
        remove_folder(trained)
        return found

    def _judged(self, name: Path, systems: Sequence[str], measures: Sequence[str]) -> dict[str, Any]:
        """Means, and each query's values, of the runs that are kept."""
        tables = {system: evaluate(self.qrels, read_run(Path(f"{name}-{system}.trec")), measures) for system in systems}
        return {"means": {system: means(table) for system, table in tables.items()}, "by_query": tables}

    def _train(self, recipe: Recipe, trained: Path, keys: Mapping[str, str]) -> dict[str, float]:
        """Train a variant's stages, those that are not there already, and the variant; give the seconds of both."""
        path = trained / "seconds.json"
        if path.is_file():
            return read_json(path)
        going, earlier, _ = run_before(
            recipe, self.collection, self.out / "work" / "now", self._stage(keys), recipe.model.start,
            bm25=self._bm25, track=self.track, note=self.note, allow=self.allow,
        )  # fmt: skip
        cost = train_model(
            going, self.collection, trained / "model", trained / "training", bm25=self._bm25, earlier=earlier,
            track=self.track, note=self.note, allow=self.allow,
        )  # fmt: skip
        logs = [self._shared(stage, key) / "training" / "log.jsonl" for stage, key in keys.items()]
        spent = {"training": cost["seconds"], "before": sum(map(_seconds, logs))}
        write_json(path, spent)
        return spent

    def _shared(self, stage: str, key: str) -> Path:
        return self.out / "work" / "stages" / f"{stage}-{key[:16]}"

    def _stage(self, keys: Mapping[str, str]) -> Callable[[str, Any, Path, Callable[[], object]], str]:
        """What makes a stage in the folder of its key, to which the place where training looks for it is pointed."""

        def do(name: str, inputs: Any, product: Path, make: Callable[[], object]) -> str:
            place = product.parent
            own = self._shared(place.name, keys[place.name])
            own.mkdir(parents=True, exist_ok=True)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.unlink(missing_ok=True)
            place.symlink_to(own, target_is_directory=True)
            if (own / "done.json").is_file():
                self.note(f"{name}: already done")
            else:
                self.note(name)
                make()
                write_json(own / "done.json", keys[place.name])
            return keys[place.name]

        return do

    def _answers(self, recipe: Recipe, model: Path, teaches: bool) -> tuple[dict[str, Run], dict[str, int]]:
        """The runs of the trained model over the test queries, by exact search; of its teachers, over the best of its own.

        Also how many of the best those were that another model scored again.
        """
        from flatcoat.models.load import encode_texts

        documents = self.collection.documents
        doc_ids = list(documents.ids)
        if recipe.model.kind == "cross":
            lexical = named(search_texts(None, self._bm25(), self.texts, self.k), self.ids, doc_ids)
            depth = recipe.evaluation.rerank
            return {"served": self._again(recipe, model, lexical, depth)}, {"served": depth}
        used = build.model(recipe.model.model_copy(update={"start": str(model)}), recipe.runtime)
        vectors = encode_texts(used.document, documents.texts(), used.runtime, track=self.track)
        top = search_texts(None, exact_index(vectors), used.encode_queries(self.texts), self.k, track=self.track)
        run = named(top, self.ids, doc_ids)
        wanted = {"late": min(RESCORED, self.k), "cross": min(recipe.evaluation.rerank, self.k)} if teaches else {}
        depths = {name: depth for name, depth in wanted.items() if beside(model, name).is_dir()}
        again = {name: self._again(recipe, beside(model, name), run, depth) for name, depth in depths.items()}
        return {"served": run, **again}, depths

    def _again(self, recipe: Recipe, source: Path, run: Run, depth: int) -> dict[str, Ranking]:
        """A run whose best `depth` the model of a folder has scored again."""
        from flatcoat.models.load import load_model
        from flatcoat.search.rerank import rerank

        scorer: Any = load_model(str(source))
        scorer.runtime = build.runtime(recipe.runtime)
        scorer.to(scorer.runtime.device)
        asked, documents = dict(zip(self.ids, self.texts, strict=True)), self.collection.documents
        read = lambda doc: documents.text(int(documents.lookup.row(doc)))  # noqa: E731  # pyright: ignore[reportArgumentType]
        return rerank(run, scorer, asked.__getitem__, read, depth, track=self.track)


def _seconds(log: Path) -> float:
    return sum(json.loads(line)["seconds"] for line in log.read_text(encoding="utf-8").splitlines())


def gradient_norms(log: Sequence[str]) -> dict[str, float]:
    """The mean norm of each term's own gradient on the served encoder (a cross-encoder's on itself), over a log's lines."""
    lines = [json.loads(line) for line in log]
    for part in ("gradient/", "gradient_cross/"):
        names = dict.fromkeys(name for line in lines for name in line if name.startswith(part))
        if names:
            return {n.removeprefix(part): float(np.mean([ln[n] for ln in lines if n in ln])) for n in names}
    return {}
