from __future__ import annotations

from pathlib import Path

import pytest

from flatcoat.app.recipe import format_recipe, load_recipe, parse_recipe
from flatcoat.app.verbs_recipe import draw
from flatcoat.errors import Misuse

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "recipes").glob("*.toml"))
LEAST = {"collection": {"source": "x"}, "model": {"start": "y"}}


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_the_recipes_load_and_come_back_equal(path, tmp_path):
    recipe = load_recipe(path)
    (tmp_path / "r.toml").write_text(format_recipe(recipe))
    assert load_recipe(tmp_path / "r.toml") == recipe


def test_odd_strings_and_no_indexes_come_back(tmp_path):
    recipe = parse_recipe({**LEAST, "model": {"start": 'a"\\\n\tü'}, "indexes": []}, "here")
    (tmp_path / "r.toml").write_text(format_recipe(recipe), encoding="utf-8")
    assert load_recipe(tmp_path / "r.toml") == recipe


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("training.stpes=3", "training.stpes: unknown key; did you mean 'steps'"),
        ("training.steps=-1", "training.steps: .*greater than or equal to 0, not -1"),
        ("training.schedule=sqrt", "training.schedule: .*'constant', 'linear', 'cosine' or 'wsd', not 'sqrt'"),
        ("trainng.steps=1", "trainng: unknown key; did you mean 'training'"),
        ("steps", "want KEY=VALUE"),
        ("training.scale=0", "scale 0 is not a number above 0"),
    ],
)
def test_wrong_keys_and_values_say_what_would_be_right(change, message):
    with pytest.raises(Misuse, match=message):
        load_recipe(ROOT / "recipes" / "dpr.toml", [change])


def test_set_and_scale():
    recipe = load_recipe(
        ROOT / "recipes" / "dpr.toml", ["training.scale=20", "collection.source=/a b", "model.separate=false"]
    )
    assert recipe.training.temperature == pytest.approx(0.05)
    assert recipe.collection.source == "/a b" and recipe.model.separate is False


def test_both_scale_and_temperature_are_refused():
    with pytest.raises(Misuse, match="both scale and temperature"):
        parse_recipe({**LEAST, "training": {"scale": 20, "temperature": 0.05}}, "here")


def test_a_table_may_not_be_missing():
    with pytest.raises(Misuse, match="here: model: Field required"):
        parse_recipe({"collection": {"source": "x"}}, "here")


def test_two_indexes_of_one_name_are_refused():
    with pytest.raises(Misuse, match="each wants its own name"):
        parse_recipe({**LEAST, "indexes": [{"kind": "scan"}, {"kind": "scan"}]}, "here")


@pytest.mark.parametrize("text", ["[collection", "\xff"])
def test_not_toml(tmp_path, text):
    (tmp_path / "r.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(Misuse, match="not valid TOML"):
        load_recipe(tmp_path / "r.toml")


def test_the_schedule_is_drawn():
    drawn = draw(parse_recipe({**LEAST, "training": {"steps": 100, "warmup": 10, "rate": 1e-4, "floor": 0.2}}, "here"))
    assert "1.00e-05 at step 1, 1.00e-04 at its peak, 2.00e-05 at step 100 (linear)" in drawn


def test_recipes_that_come_with_flatcoat_are_found_from_anywhere(tmp_path, monkeypatch):
    here = load_recipe(ROOT / "recipes" / "quickstart.toml")
    monkeypatch.chdir(tmp_path)
    assert load_recipe(Path("recipes/quickstart.toml")) == here
    assert Path(here.also[0].recipe).is_file()
    with pytest.raises(Misuse, match="no such recipe"):
        load_recipe(Path("recipes/none-such.toml"))
    with pytest.raises(Misuse, match="no such recipe"):
        load_recipe(Path("elsewhere/quickstart.toml"))


def test_a_recipe_of_ones_own_goes_before_the_one_that_comes_with_flatcoat(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "dpr.toml").write_text('[collection]\nsource = "mine"\n[model]\nstart = "y"\n')
    assert load_recipe(Path("recipes/dpr.toml")).collection.source == "mine"
