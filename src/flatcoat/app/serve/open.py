"""A run's folder as it is served: its indexes, BM25, what learnt beside its model, and its companions, each a retriever by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flatcoat.app.cascade import beside
from flatcoat.app.opening import holds, model_of, of_run
from flatcoat.app.recipe import load_recipe
from flatcoat.app.tables import Recipe
from flatcoat.checks.base import enforce
from flatcoat.checks.belongs import belongs
from flatcoat.data.store import Collection
from flatcoat.errors import FlatcoatError, Misuse, nearest
from flatcoat.files import digest
from flatcoat.index.bm25 import Bm25Index
from flatcoat.index.exact import ExactIndex
from flatcoat.index.inverted import InvertedIndex, InvertedSettings
from flatcoat.index.multivector_exact import MaxSimExact
from flatcoat.index.store import IndexFolder, open_index
from flatcoat.search.legs import DenseView, Encoding, LateView, Leg, SparseView, View, stored
from flatcoat.search.lexical import Base, LexicalView
from flatcoat.search.retriever import Retriever

NONE = "none"  # the name of no reranker
MOST_POSTINGS = 2_000_000  # of an exact index that is built while it serves, which takes about two seconds
VECTORS = ("vectors", "before")  # folders of a run that an index's own vectors may lie in


@dataclass(frozen=True)
class Place:
    """Where a retriever lies: the folder of a run, and an index's name in it."""

    run: Path
    index: str


def open_served(
    folder: Path, *, legs: Sequence[str] | None = None, reranker: str | None = None, precision: str | None = None,
    device: str = "auto", journal: Path | None = None,
) -> Retriever:  # fmt: skip
    """Open a run's folder to search in it and to write to it; what is written lies in `journal` (None: `live` in the folder).

    `legs` are names of `retrievers_of`, the first the default (None: all). `reranker` is a name of `rerankers_of` or a model
    (None: the first there is, "none": none).

    Raises:
        Misuse: not the folder of a run, or no such retriever.
        FlatcoatError: an index, a model or the journal is of another corpus or model, or damaged.
    """
    places = retrievers_of(folder)
    for name in legs or ():
        if name not in places:
            raise Misuse(f"{folder}: no retriever {name!r}; it has {', '.join(places)}{nearest(name, list(places))}")
    texts = Collection.open(folder / "store").documents
    models: dict[str, Encoding] = {}
    opened = [_leg(name, places[name], texts, models, precision, device) for name in legs or places]
    named, scorer = _reranker(folder, reranker, precision, device)
    return Retriever(texts, opened, journal or folder / "live", scorer, named)


def retrievers_of(folder: Path) -> dict[str, Place]:
    """A run's retrievers by name, the recipe's first index first; a companion's first has its name, others NAME-INDEX.

    Raises:
        Misuse: not the folder of a run, or one without an index.
    """
    found = {name: Place(folder, name) for name in _indexes(folder)}
    for other in _companions(folder):
        own = [name for name in _indexes(other) if name != "bm25"]
        for number, name in enumerate(own):
            found.setdefault(other.name if not number else f"{other.name}-{name}", Place(other, name))
    if not found:
        raise Misuse(f"{folder}: it has no index to search; finish its run first")
    return found


def rerankers_of(folder: Path) -> dict[str, Path]:
    """A run's cross-encoders by name: its own (`cross`), and its companions'."""
    found = {"cross": _cross(folder), **{other.name: _cross(other) for other in _companions(folder)}}
    return {name: place for name, place in found.items() if place is not None}


def _recipe(folder: Path) -> Recipe:
    if not (folder / "recipe.toml").is_file():
        raise Misuse(f"{folder}: not the folder of a run; give one that flatcoat run made")
    return load_recipe(folder / "recipe.toml")


def _companions(folder: Path) -> list[Path]:
    others = [folder / "also" / other.name for other in _recipe(folder).also]
    return [other for other in others if (other / "recipe.toml").is_file()]


def _indexes(folder: Path) -> list[str]:
    """The indexes that a run has, the one that is searched without a name first."""
    recipe = _recipe(folder)
    there = {path.name for path in (folder / "index").glob("*") if path.is_dir() and not path.name.startswith(".")}
    order = ["bm25"]
    if recipe.model.kind != "cross":
        order = [*(table.label for table in recipe.indexes), "exact", "late", "sparse", "bm25"]
    return [name for name in dict.fromkeys(order) if name in there]


def _cross(folder: Path) -> Path | None:
    own = _recipe(folder).model.kind == "cross"
    place = folder / "model" if own else beside(folder / "model", "cross")
    return place if place.is_dir() else None


def _reranker(folder: Path, wanted: str | None, precision: str | None, device: str) -> tuple[str | None, Any]:
    there = rerankers_of(folder)
    name = next(iter(there), NONE) if wanted is None else wanted
    if name == NONE:
        return None, None
    from flatcoat.models.base import runtime_of
    from flatcoat.models.cross_checkpoint import is_cross, load_cross
    from flatcoat.models.source import resolve

    source = str(there.get(name, name))
    if not is_cross(resolve(source)):
        raise Misuse(f"{source} is not a cross-encoder; it has {', '.join(there) or 'none of its own'}")
    model = load_cross(source)
    model.runtime = runtime_of(device, precision or "fp32")
    return name, model.to(model.runtime.device)


def _leg(name: str, place: Place, texts: Any, models: dict[str, Encoding], precision: str | None, device: str) -> Leg:
    model, path, _ = of_run(place.run, place.index)
    folder = open_index(path)
    enforce(belongs(path, folder.facts["of"], corpus=texts.fingerprint), None)
    if folder.facts["of"].get("updated") or len(folder.index) != len(texts):
        raise FlatcoatError(f"{path}: has other documents than {place.run / 'store'}; index the collection again")
    if isinstance(folder.index, Bm25Index):
        return Leg(name, "lexical", "bm25", LexicalView(Base(folder.index, texts.texts())))
    encoding = _encoding(model, folder, models, precision, device)
    of: Any = {"dense": DenseView, "sparse": SparseView, "late": LateView}[encoding.kind]
    view: View = of.of(folder.index, encoding.key)
    twin = _twin(place.run, folder)
    return Leg(name, encoding.kind, folder.kind, view, encoding, twin is not None, twin)


def _encoding(
    source: str, folder: IndexFolder, models: dict[str, Encoding], precision: str | None, device: str
) -> Encoding:
    """The model that an index's documents were encoded with; indexes of the same share it."""
    of, kind, index = folder.facts["of"], holds(folder), folder.index
    kept = stored(index) if kind == "late" else None
    names = ("model", "tower", "query_tower", "precision", "queries")
    key = f"{kind}:{digest([*(of.get(name) for name in names), precision, str(kept)])[:16]}"
    if key not in models:
        model = model_of(source, folder, precision, device)
        models[key] = Encoding(key, kind, str(of.get("model_source", source)), model, kept)
    return models[key]


def _twin(run: Path, folder: IndexFolder) -> Callable[[], Any] | None:
    """What makes the exact index over the vectors of one that approximates, when it is first asked for."""
    index = folder.index
    if folder.kind == "exact" or (folder.kind == "inverted" and index.settings.bits == 32):
        return None
    if isinstance(index, InvertedIndex):
        return lambda: _exact_sparse(run, folder)
    full = getattr(index, "full", None) if folder.kind == "multivector" else None
    if folder.kind == "multivector":
        return lambda: MaxSimExact(full or _vectors(run, folder), folder.path)
    return lambda: ExactIndex(index.vectors, folder.path)


def _exact_sparse(run: Path, folder: IndexFolder) -> InvertedIndex:
    """The run's own exact index, or a small one built now. Raises Misuse where that would hold up who else asks."""
    beside_it = run / "index" / "exact"
    if beside_it.is_dir():
        other = open_index(beside_it)
        same = other.facts["of"].get("model") == folder.facts["of"].get("model")
        if same and isinstance(other.index, InvertedIndex) and other.index.settings.bits == 32:
            return other.index
    vectors = _vectors(run, folder)
    if len(vectors.terms) > MOST_POSTINGS:
        raise Misuse(
            f"{folder.path.name}: no exact index to compare it with, and its {len(vectors.terms)} postings are too many to build one "
            f"while it serves (at most {MOST_POSTINGS}); make index/exact with flatcoat index --kind exact"
        )
    return InvertedIndex.build(vectors, InvertedSettings(bits=32))


def _vectors(run: Path, folder: IndexFolder) -> Any:
    """The vectors that an index was built from. Raises Misuse where they are gone."""
    from flatcoat.app.family import open_vectors

    for name in (f"vectors-{folder.path.name}", *VECTORS):
        if (run / name).is_dir():
            opened = open_vectors(run / name)
            if opened.facts.get("model") == folder.facts["of"].get("model"):
                return opened.vectors
    raise Misuse(f"{folder.path}: the vectors that it was built from are gone, so there is nothing to compare it with")
