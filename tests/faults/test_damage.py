"""No damaged file gives another answer; the long form is `python tests/faults/damaging.py --times 1000 --seed 7`."""

from __future__ import annotations

import random

import damaging
import pytest

from flatcoat.errors import FlatcoatError
from flatcoat.files import read_manifest, write_manifest


def test_damaged_folders_answer_the_same_or_name_the_file(tmp_path):
    seen = damaging.rounds(damaging.folders(tmp_path) + damaging.kept(tmp_path), tmp_path, 190, seed=0)
    assert sum(n for key, n in seen.items() if key[2] == "refused") > 150


def test_damaged_models_and_checkpoints_answer_the_same_or_name_the_file(tmp_path):
    seen = damaging.rounds(damaging.models(tmp_path), tmp_path, 90, seed=1)
    assert sum(n for key, n in seen.items() if key[2] == "refused") > 80


def test_the_harness_finds_a_reader_that_does_not_look(tmp_path):
    thing = damaging.Thing("blind", tmp_path / "a", lambda folder: (folder / "x").read_bytes())
    thing.folder.mkdir()
    (thing.folder / "x").write_bytes(bytes(64))
    with pytest.raises(AssertionError, match="another answer"):
        damaging.rounds([thing], tmp_path, 40, seed=0)


def test_every_bit_of_a_manifest_counts(tmp_path):
    (tmp_path / "data").write_bytes(b"12345")
    write_manifest(tmp_path, "thing", 1, {"items": 5, "settings": {"mass": 0.5, "ok": True}})
    whole, wanted = (tmp_path / "manifest.json").read_bytes(), read_manifest(tmp_path, "thing", 1)
    for at in range(len(whole)):
        altered = bytearray(whole)
        altered[at] ^= 1 << random.Random(at).randrange(8)
        (tmp_path / "manifest.json").write_bytes(altered)
        try:
            assert read_manifest(tmp_path, "thing", 1) == wanted
        except FlatcoatError as error:
            assert str(tmp_path) in str(error)


def test_a_manifest_without_its_own_digest_still_opens(tmp_path):
    (tmp_path / "data").write_bytes(b"12345")
    (tmp_path / "manifest.json").write_text(
        '{"format": "thing", "version": 1, "files": {"data": {"bytes": 5, "sha256": '
        '"5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5"}}}'
    )
    assert read_manifest(tmp_path, "thing", 1)["version"] == 1
