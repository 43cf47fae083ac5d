"""From a recipe to what training minimises, and what follows it: terms, regularisers, a watch, a teacher."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flatcoat.app.tables import Recipe, SparsityTable
from flatcoat.data.store import Collection

if TYPE_CHECKING:
    from flatcoat.models.splade import LookupTower, SpladeModel
    from flatcoat.objectives.total import Term
    from flatcoat.training.loop import Follower, Teacher
    from flatcoat.training.sparsity import Regulariser

SAMPLE = 50_000  # documents that IDF weights are counted over
FITTED = 8  # batches that a teacher's scale is fitted on


def ranking_terms(recipe: Recipe, scorer: str) -> list[Term]:
    """The ranking part of the loss."""
    from flatcoat.objectives.contrastive import nll, nll_corrected
    from flatcoat.objectives.distil import distil_kl, distil_margin

    loss, scale = recipe.loss, 1 / recipe.training.temperature  # the student's scores as its own softmax has them
    made: list[Term] = []
    if loss.contrastive:
        made.append((nll_corrected if loss.corrected else nll)(scorer, recipe.training.temperature, loss.contrastive))
    if loss.margin_mse:
        made.append(distil_margin(scorer, "teacher", loss.margin_mse, scale))
    if loss.kl:
        made.append(distil_kl(scorer, "teacher", loss.kl, loss.kl_temperature, scale))
    return made


def regularisers(table: SparsityTable, steps: int) -> list[Regulariser]:
    """A regulariser for each side; one that weighs nothing is left out."""
    from flatcoat.training.sparsity import Regulariser, RegulariserSettings

    made = []
    for side in ("query", "document"):
        kind, weight, terms = (getattr(table, name) for name in (side, f"{side}_weight", f"{side}_terms"))
        if weight == 0:
            continue
        settings = RegulariserSettings(kind, weight, terms, table.threshold, table.df_alpha, table.df_beta)
        made.append(Regulariser(side, settings, round(table.ramp * steps)))
    return made


def sparse_objective(
    recipe: Recipe, model: SpladeModel, note: Callable[[str], None]
) -> tuple[list[Term], list[Follower]]:
    """What keeps a sparse model's training sparse, beside its ranking terms: terms and followers."""
    from flatcoat.models.hygiene import GROUPS, members
    from flatcoat.models.splade import LookupTower
    from flatcoat.objectives.flops import anti_collapse
    from flatcoat.objectives.total import Term
    from flatcoat.training.health import Health

    table = recipe.sparsity or SparsityTable()
    # a lookup is as sparse as its query is long: there is nothing to regularise
    own = [
        r
        for r in regularisers(table, recipe.training.steps)
        if r.side != "query" or not isinstance(model.query, LookupTower)
    ]
    terms = [r.term() for r in own]
    if table.anti_collapse:
        loss = lambda e: anti_collapse(e.extra["query"], e.extra["document"])  # noqa: E731
        terms.append(Term("anti_collapse", loss, table.anti_collapse))
    noise = members(model.document.tokenizer, model.vocabulary, GROUPS)
    watch = Health(model.vocabulary, noise, note, settled=round(table.ramp * recipe.training.steps))
    return terms, [*own, watch]


def scale_watch(recipe: Recipe, scorer: str, note: Callable[[str], None]) -> list[Follower]:
    """What looks at a teacher's scale, where there is a teacher."""
    from flatcoat.training.teacher import ScaleWatch

    # scores of terms are divided by their temperature already
    return (
        [ScaleWatch(scorer, 1.0 if recipe.taught else 1 / recipe.training.temperature, note)] if recipe.teacher else []
    )


def prepare_sparse(recipe: Recipe, model: SpladeModel, collection: Collection) -> int:
    """Before the first step: switch entries off, and give a lookup the corpus's IDF. Gives how many entries are off."""
    from flatcoat.models.hygiene import members
    from flatcoat.models.mlm import switch_off
    from flatcoat.models.splade import LookupTower

    table = recipe.sparsity or SparsityTable()
    off = np.flatnonzero(members(model.document.tokenizer, model.vocabulary, table.off)).tolist()
    networks = {id(t.backbone): t.backbone for t in (model.query, model.document) if hasattr(t, "backbone")}
    for network in networks.values():
        switch_off(network, off)
    if isinstance(model.query, LookupTower):
        begin_lookup(model, collection)
        if model.query.weight.requires_grad:
            weights = model.query.weight.detach().cpu().numpy().copy()
            weights[off] = 0.0
            with_weights(model.query, weights)
    return len(off)


def begin_lookup(model: SpladeModel, collection: Collection) -> bool:
    """Give a new lookup the corpus's IDF; one that has weights of its own keeps them. Whether it was new."""
    from flatcoat.models.splade import LookupTower

    if not isinstance(model.query, LookupTower) or not model.query.fresh:
        return False
    with_weights(model.query, inverse_frequency(model, collection))
    model.query.fresh = False
    return True


def inverse_frequency(model: SpladeModel, collection: Collection) -> np.ndarray:
    """log(1 + (N − n_j + ½) / (n_j + ½)) of each entry over the corpus (at most SAMPLE documents, evenly spaced).

    Documents are cut where the document tower cuts them, and have no prompt.
    """
    from flatcoat.models.texts import TextTower

    tower = TextTower(model.document.tokenizer, replace(model.document.settings, prompt=""))
    tower.special = False
    size = len(collection.documents)
    rows = np.unique(np.linspace(0, size - 1, min(size, SAMPLE)).astype(np.int64))
    counts = np.zeros(model.dim)
    for start in range(0, len(rows), 4096):
        for ids in tower.tokenize(collection.documents.texts(rows[start : start + 4096])):
            counts[np.unique(ids)] += 1
    return np.log1p((len(rows) - counts + 0.5) / (counts + 0.5)).astype(np.float32)


def with_weights(tower: LookupTower, weights: np.ndarray) -> None:
    """Set a lookup's weights."""
    import torch

    with torch.no_grad():
        tower.weight.copy_(torch.from_numpy(weights))


def teacher(recipe: Recipe, collection: Collection, runtime: Any, work: Path) -> Teacher | None:
    """The teacher that a recipe names; what a cross-encoder says is kept under `work`."""
    table = recipe.teacher
    if table is None:
        return None
    from flatcoat.training.teacher import Ensemble, read_teacher

    scale = 1.0 if table.scale == "fit" else table.scale
    if table.file is not None:
        return read_teacher(Path(table.file), collection, scale)
    alone = len(table.sources) == 1
    found = [_model_teacher(source, collection, runtime, work, scale if alone else 1.0) for source in table.sources]
    return found[0] if alone else Ensemble(found, scale)


def _model_teacher(source: str, collection: Collection, runtime: Any, work: Path, scale: float) -> Any:
    from flatcoat.files import digest
    from flatcoat.models.checkpoint import fingerprint
    from flatcoat.models.load import load_model
    from flatcoat.training.teacher import ModelTeacher, PairTeacher

    model: Any = load_model(source)
    model.runtime = runtime
    model.to(runtime.device)
    if not hasattr(model, "score"):
        return ModelTeacher(model, collection, scale)
    key = digest([fingerprint(source), collection.facts["content"], runtime.precision])[:16]
    return PairTeacher(model, collection, work / f"teacher-{key}.scores", scale)


def fit_scale(training: Any, work: Path, note: Callable[[str], None]) -> None:
    """Set the scale at which the teacher is as sure as it is right, on the first batches that training sees.

    Found once, by the first process, from its share of them; `work` keeps it for a run that is resumed.
    """
    from flatcoat.files import read_json, write_json
    from flatcoat.training.teacher import GRID, fitted_scale

    kept, processes, chosen = work / "teacher-scale.json", training.processes, 0
    training.teacher.scale = 1.0
    batches = [training.batch(number) for number in range(FITTED)]  # every process: they gather what they score
    if processes.rank == 0 and training.step and kept.is_file():
        chosen = int(read_json(kept))
    elif processes.rank == 0:
        found = [(_competing(batch), np.arange(len(batch.queries))) for batch in batches]
        width = max(scores.shape[1] for scores, _ in found)
        scores = np.concatenate([
            np.pad(s, ((0, 0), (0, width - s.shape[1])), constant_values=np.nan) for s, _ in found
        ])  # fmt: skip
        chosen = fitted_scale(scores, np.concatenate([target for _, target in found]))
        write_json(kept, chosen)
    training.teacher.scale = GRID[processes.most(np.array([chosen]))[0]]
    note(f"the teacher is as sure as it is right with its scores times {training.teacher.scale:.3g}")


def _competing(batch: Any) -> np.ndarray:
    """The teacher's scores of the first process's share, where documents may compete."""
    import torch

    from flatcoat.training.student import allowed

    scores = np.array(batch.teacher[:, : len(batch.keys)])
    known, target = torch.from_numpy(batch.known), torch.arange(len(batch.queries))
    scores[~allowed(torch.from_numpy(batch.keys), known, target).numpy()] = np.nan
    return scores
