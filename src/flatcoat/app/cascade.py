"""From a recipe to what learns together, and back to folders: the model, and what is beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from flatcoat.app import build
from flatcoat.app.tables import CascadeTable, Recipe
from flatcoat.errors import Misuse
from flatcoat.files import remove_folder

if TYPE_CHECKING:
    from flatcoat.models.colbert import LateModel
    from flatcoat.models.cross import CrossModel
    from flatcoat.models.readings import Cascade
    from flatcoat.training.cascade import CascadeSettings

BESIDE = ("late", "cross", "sparse")


def beside(model: Path, name: str) -> Path:
    """The folder of what was trained beside a model."""
    return model.with_name(f"{model.name}-{name}")


def begin(recipe: Recipe, earlier: Path | None = None) -> Cascade:
    """What learns together, at its start; `earlier` is the model of a stage before, beside which its others are taken up.

    Raises Misuse where queries have an encoder of their own.
    """
    from flatcoat.models.readings import Cascade

    kind, table = recipe.model.kind, recipe.cascade or CascadeTable()
    model: Any = build.model(recipe.model, recipe.runtime)
    if kind == "cross":
        made = Cascade(None, cross=model)
    elif kind == "late":
        made = Cascade(None, late=model)
    else:
        if not getattr(model, "shared", True) and (table.late or table.sparse):
            raise Misuse(
                "a cascade reads one encoder in several ways; this model's queries have an encoder of their own"
            )
        sparse = _sparse_beside(recipe, model, earlier) if table.sparse else None
        late = _late_beside(model, table, earlier) if table.late else None
        made = Cascade(model, late, _cross_beside(recipe, table, earlier) if table.cross else None, sparse)
        if "att.cross.late" in recipe.every_term():
            _same_words(made)
    made.runtime = model.runtime
    return made.to(model.runtime.device)


def _late_beside(model: Any, table: CascadeTable, earlier: Path | None) -> LateModel:
    """Token vectors of the same encoder."""
    from flatcoat.models.colbert import LateModel, LateSettings, LateTower
    from flatcoat.models.colbert_checkpoint import PUNCTUATION, load_late, new_projection

    hidden = model.document.backbone.base_model.config.hidden_size
    if earlier is not None and beside(earlier, "late").is_dir():
        projection = load_late(str(beside(earlier, "late"))).document.projection
    else:
        projection = new_projection(hidden, table.late_dim)
    towers = []
    for side in ("query", "document"):
        tower = getattr(model, side)
        skip = PUNCTUATION if side == "document" and table.skip_punctuation else ()
        settings = LateSettings(tower.settings.max_length, tower.settings.prompt, skip=tuple(skip))
        towers.append(LateTower(tower.backbone.base_model, projection, tower.tokenizer, settings))
    return LateModel(towers[0], towers[1], model.runtime)


def _cross_beside(recipe: Recipe, table: CascadeTable, earlier: Path | None) -> CrossModel:
    from flatcoat.models.cross_checkpoint import CrossOverrides, load_cross

    kept = None if earlier is None else beside(earlier, "cross")
    source = str(kept) if kept is not None and kept.is_dir() else str(table.cross)
    lengths = recipe.model.query_length, recipe.model.document_length
    length = table.cross_length or (sum(lengths) if None not in lengths else None)  # pyright: ignore[reportArgumentType, reportCallIssue]
    loaded = load_cross(source, CrossOverrides(max_length=length, seed=recipe.training.seed))
    build.settle(loaded, recipe.model.model_copy(update={"freeze": "none"}), recipe.runtime)
    if not table.cross_rate:
        for parameter in loaded.parameters():
            parameter.requires_grad_(False)
    return loaded


def _sparse_beside(recipe: Recipe, model: Any, earlier: Path | None) -> Any:
    """Term weights beside a dense model, which then reads the body of their network."""
    from flatcoat.models.splade_checkpoint import SparseOverrides, load_splade

    one, two = model.query.settings, model.document.settings
    said = SparseOverrides(
        query_length=one.max_length, document_length=two.max_length, query_prompt=one.prompt, document_prompt=two.prompt
    )
    kept = None if earlier is None else beside(earlier, "sparse")
    sparse: Any = load_splade(str(kept) if kept is not None and kept.is_dir() else recipe.model.start, said)
    build.settle(sparse, recipe.model, recipe.runtime)
    for tower in (model.query, model.document):
        tower.backbone = sparse.document.backbone.base_model
    return sparse


def _same_words(made: Cascade) -> None:
    assert made.student is not None and made.cross is not None
    one, two = made.student.document.tokenizer.get_vocab(), made.cross.tower.tokenizer.get_vocab()
    if one != two:
        raise Misuse(
            "att.cross.late matches tokens one by one: the cross-encoder and the model want one vocabulary; drop the term"
        )


def settings(recipe: Recipe) -> CascadeSettings:
    """How scores are made."""
    from flatcoat.training.cascade import CascadeSettings

    table, terms = recipe.cascade or CascadeTable(), [n for n, t in recipe.every_term().items() if t.weight]
    heat = {recipe.main or recipe.model.kind: recipe.training.temperature}
    if recipe.main:
        heat |= {"late": table.late_temperature, "cross": table.cross_temperature}
    return CascadeSettings(
        heat,
        in_batch=table.in_batch,
        attention="att.cross.late" in terms,
        twice=bool({"reg.query", "reg.document"} & set(terms)),
        factors={"cross.": table.cross_rate or 1.0, "late.query.projection": table.late_rate},
    )


def served(made: Cascade) -> Any:
    """The model that the recipe is about."""
    return made.student or made.late or made.cross


def save(made: Cascade, out: Path) -> None:
    """Write the model, and beside it what learnt with it, each as its kind is written."""
    from flatcoat.models.load import save_model

    main = served(made)
    save_model(main, out)
    for name in BESIDE:
        other = getattr(made, name)
        if other is not None and other is not main:
            save_model(other, beside(out, name))


def clear(out: Path) -> None:
    """Remove what an earlier training left beside a model: it is not of the one to come."""
    for name in BESIDE:
        if (beside(out, name) / "modules.json").is_file():
            remove_folder(beside(out, name))
