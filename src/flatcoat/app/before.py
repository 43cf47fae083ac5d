"""Stages of training before a recipe's own: post-training on the documents' text, then ranking, each beginning where the last ended."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from flatcoat.app import build
from flatcoat.app.tables import Recipe, StageTable
from flatcoat.app.train import train_model, training_inputs
from flatcoat.data.store import Collection
from flatcoat.files import digest, read_json, remove_folder, write_json
from flatcoat.records import Track

TRAININGS = (
    "training",
    "training-query",
)  # of the documents' tower, and of the queries' where it has weights of its own
Stage = Callable[[str, Any, Path, Callable[[], object]], str]


def run_before(
    recipe: Recipe, collection: Collection, folder: Path, stage: Stage, start: str, *,
    bm25: Callable[[], Any], track: Track, note: Callable[[str], None], allow: tuple[str, ...] = (),
) -> tuple[Recipe, Path | None, list[str]]:  # fmt: skip
    """Run each stage under `folder`; give the recipe as it goes on, the last ranking stage's model, and the stages' keys.

    `stage(name, inputs, product, make)` makes a product unless it was made of the same inputs, and gives its key. `start` is
    where the first begins.
    """
    earlier: Path | None = None
    keys: list[str] = []
    recipe = _starting(recipe, start)
    for table in recipe.before:
        own = folder / table.name
        now = recipe.of_stage(table) if table.task == "rank" else recipe
        inputs = [table.model_dump(), _inputs(now, table, collection), keys]
        key = digest(inputs)
        make: Callable[[], object] = (
            (lambda now=now, own=own, earlier=earlier: _rank(now, collection, own, earlier, bm25, track, note, allow))
            if table.task == "rank"
            else (lambda now=now, own=own, t=table, k=key: _post_train(now, t, collection, own, k, track, note))
        )
        keys.append(stage(f"before-{table.name}", inputs, own / "model", make))
        recipe = _starting(recipe, str(own / "model"))
        earlier = own / "model" if table.task == "rank" else earlier
    return recipe, earlier, keys


def _inputs(recipe: Recipe, table: StageTable, collection: Collection) -> list[object]:
    """What a stage is made of, beside its table and the stages before; post-training knows nothing of ranking."""
    if table.task == "rank":
        return training_inputs(recipe.model_copy(update={"before": ()}), collection)
    from flatcoat.models.checkpoint import fingerprint

    data = {name: file["sha256"] for name, file in collection.facts["files"].items()}
    return [recipe.model.model_dump(), recipe.runtime.model_dump(), fingerprint(recipe.model.start), data]


def _starting(recipe: Recipe, start: str) -> Recipe:
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"start": start})})


def _rank(
    recipe: Recipe, collection: Collection, own: Path, earlier: Path | None, bm25: Callable[[], Any], track: Track,
    note: Callable[[str], None], allow: tuple[str, ...],
) -> None:  # fmt: skip
    cost = train_model(recipe, collection, own / "model", own / "training", bm25=bm25, earlier=earlier, track=track,
                       note=note, allow=allow)  # fmt: skip
    write_json(own / "cost.json", cost)


def _own_checkpoints(own: Path, key: str) -> None:
    """Remove the checkpoints of a post-training that was made of something else."""
    said = own / "post-training.json"
    if not said.is_file() or read_json(said) != key:
        for name in TRAININGS:
            remove_folder(own / name)
        write_json(said, key)


def _post_train(
    recipe: Recipe,
    table: StageTable,
    collection: Collection,
    own: Path,
    key: str,
    track: Track,
    note: Callable[[str], None],
) -> None:
    from flatcoat.models.load import save_model
    from flatcoat.training.pretrain import PretrainSettings, post_train
    from flatcoat.training.processes import join_processes

    assert table.training is not None and table.task != "rank"
    said = table.training
    model: Any = build.model(recipe.model, recipe.runtime)
    model.runtime = build.runtime(recipe.runtime, training=True)
    shared = ("steps", "batch", "rate", "weight_decay", "schedule", "warmup", "floor", "clip", "seed", "save_every")
    settings = PretrainSettings(
        table.task, **{name: getattr(said, name) for name in shared}, max_length=table.length, mask=table.mask,
        decoder_mask=table.decoder_mask,
    )  # fmt: skip
    texts = collection.documents.texts()
    processes = join_processes()
    towers = [model.document] if model.shared else [model.document, model.query]
    towers = [tower for tower in towers if hasattr(tower, "backbone")]  # a lookup has nothing to post-train
    if processes.rank == 0:
        _own_checkpoints(own, key)
    processes.agree(True)
    for name, tower in zip(TRAININGS, towers, strict=False):
        found = post_train(tower, texts, settings, own / name, runtime=model.runtime, processes=processes,
                           resume=True, track=track)  # fmt: skip
        note(f"{table.name}: " + ", ".join(f"{key} {value:.4g}" for key, value in found.items()))
        if processes.rank == 0:
            write_json(own / f"{name}.json", found)
    if processes.rank == 0:
        save_model(model, own / "model")
        for name in TRAININGS:
            remove_folder(own / name / "checkpoints")
