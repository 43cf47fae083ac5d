"""A model card: what a model is, how to use it, what it was trained on and what was measured; its metadata as the Hub reads it.

Everything it says is read from the model's folder and from the run that made it; what is not known is left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flatcoat import __version__
from flatcoat.app.card_numbers import Numbers, numbers_table, read_numbers, resolved_recipe, short_name
from flatcoat.app.card_use import use_section
from flatcoat.errors import Misuse
from flatcoat.files import read_json

HUB_ID = re.compile(r"[\w.\-]+/[\w.\-]+")
PIPELINES = {
    "dense": "sentence-similarity",
    "sparse": "feature-extraction",
    "late": "sentence-similarity",
    "cross": "text-ranking",
}
TAGS = {
    "dense": ["sentence-transformers", "sentence-similarity", "feature-extraction", "dense"],
    "sparse": ["sentence-transformers", "sparse-encoder", "sparse", "splade"],
    "late": ["sentence-transformers", "PyLate", "ColBERT", "late-interaction", "multi-vector"],
    "cross": ["sentence-transformers", "cross-encoder", "reranker"],
}
METRICS = {"RR": "mrr", "R": "recall", "P": "precision", "AP": "map"}
CALLED = {
    "dense": "A dense dual encoder: one vector a text",
    "sparse": "A learned-sparse encoder: weights of terms",
    "late": "A late-interaction model: a vector for each token, scored by MaxSim",
    "cross": "A cross-encoder: it reads a query and a document together, and re-ranks",
}


@dataclass(frozen=True)
class Story:
    """A model and where it comes from: `run` is the folder of the run that made it, where it is known."""

    folder: Path
    kind: str
    model: Any
    run: Path | None = None

    @property
    def name(self) -> str:
        """Which of its run's models it is: model, or model-late and the like, which learnt beside it."""
        names = [place.name for place in (self.folder.absolute(), self.folder.resolve())]
        return next((name for name in names if name.startswith("model")), names[0])

    @property
    def recipe(self) -> dict[str, Any] | None:
        """The tables of its run's resolved recipe."""
        return None if self.run is None else resolved_recipe(self.run)

    @property
    def fits(self) -> bool:
        """Whether the folder is in sentence-transformers' layout."""
        return (self.folder / "modules.json").is_file()


def story_of(source: str) -> Story:
    """What is known of a model, or of the model of a run's folder; the model is loaded, so that what is pushed does load.

    Raises:
        Misuse: neither, or a run that trained nothing.
        FlatcoatError: a folder that does not load.
    """
    from flatcoat.models.load import kind_of, load_model

    folder = Path(source)
    if not folder.is_dir():
        raise Misuse(f"{source}: no such folder; want a model's, or a run's")
    if (folder / "recipe.toml").is_file():
        if not (folder / "model").is_dir():
            raise Misuse(f"{source}: this run trained no model; there is nothing to push")
        folder = folder / "model"
    if not any((folder / name).is_file() for name in ("modules.json", "config.json")):
        raise Misuse(f"{source}: not the folder of a model (it has neither modules.json nor config.json)")
    return Story(folder, kind_of(folder), load_model(str(folder)), _run_of(folder))


def _run_of(folder: Path) -> Path | None:
    """The run whose model lies in a folder: under that name, or where a link leads."""
    for place in (folder.absolute(), folder.resolve()):
        if re.fullmatch(r"model(-\w+)?", place.name) and (place.parent / "recipe.toml").is_file():
            return place.parent
    return None


def model_card(story: Story, repo: str, license: str | None = None) -> str:
    """The whole card, for a repository OWNER/NAME. `license` is the Hub's name of one; without it the card says nothing."""
    numbers = read_numbers(story.run, story.name) if story.run else None
    data = card_data(story, repo, license, numbers)
    sections = [
        f"# {repo.split('/')[-1]}\n",
        f"{CALLED[story.kind]}, {_trained(story)}.\n",
        "\n".join(f"* {line}" for line in facts(story)) + "\n",
        use_section(story, repo),
        _numbers(numbers),
        _recipe(story),
        f"Card by Flatcoat {__version__}.\n",
    ]
    return f"---\n{data.to_yaml().rstrip()}\n---\n\n" + "\n".join(part for part in sections if part)


def card_data(story: Story, repo: str, license: str | None, numbers: Numbers | None) -> Any:
    """The card's metadata, a `ModelCardData`: only what is known."""
    from huggingface_hub import ModelCardData

    name = repo.split("/")[-1]
    results = None
    if numbers is not None and numbers.best is not None:
        results = [_result(numbers, measure, value) for measure, value in numbers.best.means.items()]
    return ModelCardData(
        base_model=base_of(story), datasets=_dataset(story.recipe), eval_results=results, license=license,
        library_name="sentence-transformers" if story.fits else "flatcoat", model_name=name if results else None,
        pipeline_tag=PIPELINES[story.kind],
        tags=["flatcoat", *(tag for tag in TAGS[story.kind] if story.fits or tag != "sentence-transformers")],
    )  # fmt: skip


def _result(numbers: Numbers, measure: str, value: float) -> Any:
    from huggingface_hub import EvalResult

    return EvalResult(
        task_type="text-retrieval", task_name="Retrieval", dataset_type=numbers.dataset or "custom",
        dataset_name=numbers.collection, dataset_split=numbers.split, metric_type=metric_of(measure), metric_name=measure,
        metric_value=round(value, 4),
    )  # fmt: skip


def metric_of(measure: str) -> str:
    """A measure by the name that cards on the Hub use, as ndcg@10, mrr@10, recall@100."""
    name, at, k = measure.partition("@")
    return f"{METRICS.get(name, name.lower())}{at}{k}"


def start_of(story: Story) -> str | None:
    """What training began with, as the recipe names it; a cross-encoder that learnt beside a model has a start of its own."""
    recipe = story.recipe
    if recipe is None:
        return None
    if story.name == "model-cross":
        return recipe.get("cascade", {}).get("cross")
    return recipe["model"]["start"]


def base_of(story: Story) -> str | None:
    """The Hub id that training began with; None where it began with a folder or a package."""
    start = start_of(story) or ""
    return start if HUB_ID.fullmatch(start) and not Path(start).exists() else None


def _dataset(recipe: dict[str, Any] | None) -> list[str] | None:
    scheme, _, rest = (recipe["collection"]["source"] if recipe is not None else "").partition(":")
    return [rest] if scheme == "hf" and HUB_ID.fullmatch(rest) else None


def _trained(story: Story) -> str:
    start, base = start_of(story), base_of(story)
    if start is None:
        return "written by Flatcoat"
    begun = f"[{base}](https://huggingface.co/{base})" if base else f"`{short_name(start)}`"
    return f"trained from {begun} with Flatcoat"


def facts(story: Story) -> list[str]:
    """What the model is, line by line."""
    model, count = story.model, sum(parameter.numel() for parameter in story.model.parameters())
    lines = [f"{count:,} parameters".replace(",", " ")]
    if story.kind == "cross":
        settings = model.tower.settings
        lines.append(f"pairs of up to {settings.max_length} tokens" + _cut(settings.query_length))
        return lines + ([f"prompt of queries: `{settings.prompt}`"] if settings.prompt else [])
    query, document = model.query.settings, model.document.settings
    lines.append(f"{model.dim} {'terms in the vocabulary' if story.kind == 'sparse' else 'dimensions'}")
    if story.kind == "dense":
        scored = "cosine: vectors are of unit length" if document.normalise else "dot product"
        lines.append(f"pooling {document.pooling}; scored by {scored}")
    lines.append(f"queries of up to {query.max_length} tokens, documents of up to {document.max_length}")
    if query.prompt or document.prompt:
        lines.append(f"prompts: queries `{query.prompt}`, documents `{document.prompt}`")
    return lines


def _cut(query_length: int | None) -> str:
    return f", of which at most {query_length} are the query's" if query_length else ""


def _numbers(numbers: Numbers | None) -> str:
    return "" if numbers is None else f"## Measured\n\n{numbers_table(numbers)}"


def _recipe(story: Story) -> str:
    """The data, and the resolved recipe, folders by their last name alone: a card is public, a home is not."""
    if story.run is None or story.recipe is None:
        return ""
    recipe, told = story.recipe, ""
    results = story.run / "results.json"
    if results.is_file():
        collection = read_json(results)["collection"]
        told = f", {collection['documents']} documents, {collection['test_queries']} test queries"
    text, training = without_folders((story.run / "recipe.toml").read_text(encoding="utf-8")), recipe["training"]
    return (
        f"## Trained\n\nOn `{short_name(recipe['collection']['source'])}`{told}; {training['steps']} steps of {training['batch']} "
        f"queries, seed {training['seed']}. The recipe, every setting said:\n\n"
        f"<details><summary>recipe.toml</summary>\n\n```toml\n{text}```\n\n</details>\n"
    )


def without_folders(text: str) -> str:
    """TOML in which a path of this machine, absolute or from home, is its last name."""
    return re.sub(
        r'"(?:[\w]+:)?(?:/|~|[A-Za-z]:\\)[^"\n]*"', lambda found: f'"{short_name(found.group()[1:-1])}"', text
    )
