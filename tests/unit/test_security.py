"""What others give cannot run code, leave its folder, or take memory that it only promises. SECURITY.md names these tests."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from flatcoat.arrays import read_array
from flatcoat.data.formats import front_matter
from flatcoat.data.problems import Problems
from flatcoat.data.store import StoreBuilder
from flatcoat.errors import FlatcoatError
from flatcoat.index.ciff import read_ciff

ROOT = Path(__file__).resolve().parents[2]
OUTSIDE = ["../x", "/etc", "a/../../x", "..", "..\\x", "C:\\x", "a\0b"]


def altered(folder: Path, name: str, change) -> Path:
    """A JSON file of a folder, changed by a function; its seal, where it has one, is taken off."""
    path = folder / name
    said = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(change(said) or said))
    own = folder / "flatcoat.json"
    if own.exists():
        kept = {key: value for key, value in json.loads(own.read_text()).items() if key not in ("files", "sha256")}
        own.write_text(json.dumps(kept))
    return folder


def copied(tiny: Path, to: Path) -> Path:
    import shutil

    return Path(shutil.copytree(tiny, to))


# --- checkpoints -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", OUTSIDE)
def test_modules_stay_in_the_models_folder(tiny, tmp_path, path):
    from flatcoat.models.load import load_model

    folder = altered(copied(tiny, tmp_path / "m"), "modules.json", lambda said: [{**said[0], "path": path}, *said[1:]])
    with pytest.raises(FlatcoatError, match=r"modules\.json.*leads out of the model's folder"):
        load_model(str(folder))


@pytest.mark.parametrize("path", OUTSIDE)
def test_a_routers_places_stay_in_the_models_folder(tmp_path, path):
    from flatcoat.models.checkpoint import describe
    from flatcoat.models.splade_checkpoint import describe_sparse

    types = {path: "sentence_transformers.models.Transformer"}
    (tmp_path / "modules.json").write_text(json.dumps([{"type": "sentence_transformers.models.Router", "path": ""}]))
    (tmp_path / "router_config.json").write_text(
        json.dumps({"types": types, "structure": {"query": [path], "document": [path]}})
    )
    for read in (describe, describe_sparse):
        with pytest.raises(FlatcoatError, match=r"router_config\.json.*leads out"):
            read(tmp_path)


def test_weights_in_parts_stay_in_the_models_folder(tiny, tmp_path):
    from flatcoat.models.load import load_model

    folder = copied(tiny, tmp_path / "m")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../../x.safetensors"}}))
    with pytest.raises(FlatcoatError, match="leads out"):
        load_model(str(folder))


def planted(folder: Path, name: str) -> Path:
    """Code in a model's folder, and the file that it would write."""
    mark = folder / "it-was-run"
    (folder / f"{name}.py").write_text(
        f"from pathlib import Path\nPath({str(mark)!r}).write_text('x')\nclass Own: pass\n"
    )
    return mark


def test_code_of_a_checkpoint_is_never_run(tiny, tmp_path):
    from flatcoat.models.load import load_model

    folder = copied(tiny, tmp_path / "m")
    mark = planted(folder, "modeling_own")
    own = {"AutoConfig": "modeling_own.Own", "AutoModel": "modeling_own.Own"}
    altered(folder, "config.json", lambda said: {**said, "model_type": "own", "auto_map": own})
    with pytest.raises(FlatcoatError, match=r"config\.json: asks for code of its own .auto_map., which is never run"):
        load_model(str(folder))
    altered(folder, "config.json", lambda said: {**said, "model_type": "bert"})
    load_model(str(folder))  # transformers has this architecture: its own code is used
    assert not mark.exists()


def test_code_of_a_tokenizer_is_never_run(tiny, tmp_path):
    from flatcoat.models.load import load_model

    folder = copied(tiny, tmp_path / "m")
    mark = planted(folder, "tokenization_own")
    own = {"AutoTokenizer": ["tokenization_own.Own", "tokenization_own.Own"]}
    for kind in ("OwnTokenizer", "PreTrainedTokenizerFast"):
        altered(
            folder, "tokenizer_config.json", lambda said, kind=kind: {**said, "tokenizer_class": kind, "auto_map": own}
        )
        try:
            load_model(str(folder))
        except FlatcoatError as error:
            assert str(folder) in str(error)
    assert not mark.exists()


def test_pickled_weights_are_never_read(tiny, tmp_path):
    from flatcoat.models.load import load_model

    folder = copied(tiny, tmp_path / "m")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04cposix\nsystem\n")
    with pytest.raises(
        FlatcoatError, match=r"only pytorch_model\.bin; it is pickled, and never read\. To convert it: python -c"
    ):
        load_model(str(folder))


@pytest.mark.slow
def test_the_conversion_that_is_told_works(tiny, tmp_path):
    import torch
    from safetensors.torch import load_file

    from flatcoat.models.load import load_model

    folder = copied(tiny, tmp_path / "m")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(FlatcoatError) as told:
        load_model(str(folder))
    _, *words = shlex.split(str(told.value).partition("To convert it: ")[2])
    subprocess.run([sys.executable, *words], cwd=folder, check=True, capture_output=True)
    load_model(str(folder))


# --- promises of size ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape", ["(1000000000000,)", "(1000000, 1000000)", "(-1,)", "(1e12,)", "(9223372036854775807, 2)"]
)
def test_an_array_is_no_larger_than_its_file(tmp_path, shape):
    head = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + b"\0" * 16)
    for mapped in (True, False):
        with pytest.raises(FlatcoatError, match=r"x\.npy: cannot be read"):
            read_array(tmp_path / "x.npy", mapped=mapped)


def test_an_array_of_objects_is_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(FlatcoatError, match=r"x\.npy"):
        read_array(tmp_path / "x.npy")
    np.savez(tmp_path / "x.npy", a=np.ones(2))
    (tmp_path / "x.npy.npz").rename(tmp_path / "y.npy")
    with pytest.raises(FlatcoatError, match=r"y\.npy.*where an array is right"):
        read_array(tmp_path / "y.npy")


@pytest.mark.parametrize(
    "said",
    [
        b"\x08\x01\x10\xff\xff\xff\xff\xff\x7f",
        b"\x08\x01\x18\xff\xff\xff\xff\xff\x7f",
        b"\x08\x01\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    ],
)
def test_a_ciff_header_promises_no_more_than_its_file(tmp_path, said):
    (tmp_path / "x.ciff").write_bytes(bytes([len(said)]) + said)
    with pytest.raises(FlatcoatError, match=r"x\.ciff: byte 0: .*not a CIFF file"):
        read_ciff(tmp_path / "x.ciff")


@pytest.mark.parametrize("size", [10**12, 2**63, 99_000_000])
def test_a_safetensors_header_promises_no_more_than_its_file(tmp_path, size):
    from flatcoat.models.backbone import read_tensor

    head = json.dumps({"w": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}}).encode()
    (tmp_path / "x.safetensors").write_bytes(size.to_bytes(8, "little") + head)
    with pytest.raises(FlatcoatError, match=r"x\.safetensors: cannot be read"):
        read_tensor(tmp_path / "x.safetensors", "w")
    (tmp_path / "x.safetensors").write_bytes(len(head).to_bytes(8, "little") + head)
    with pytest.raises(FlatcoatError, match=r"x\.safetensors: cannot be read"):
        read_tensor(tmp_path / "x.safetensors", "w")


def test_a_line_that_unfolds_without_end_is_given_up(tmp_path, monkeypatch):
    import gzip

    from flatcoat.data import lines

    monkeypatch.setattr(lines, "LONGEST", 1 << 20)
    with gzip.open(tmp_path / "x.jsonl.gz", "wb") as file:
        file.write(b"a" * (8 << 20))
    with pytest.raises(FlatcoatError, match=r"x\.jsonl\.gz:1: a line of more than 1 MiB"):
        list(lines.json_lines(tmp_path / "x.jsonl.gz", Problems()))


# --- places and names --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["../x", "a/b", "..", ".hidden", "", "a\0b", "a\nb"])
def test_a_splits_name_is_a_files_name(tmp_path, split):
    for note in ("judge", "unknown", "negative"):
        builder = StoreBuilder(tmp_path / note / "store", Problems())
        builder.add_document("d", "", "text", "x:1")
        builder.add_query("q", "text", "x:1")
        if note == "negative":
            builder.negative(split, "q", "d", "x:1")
        else:
            builder.judge(split, "q", "d" if note == "judge" else "elsewhere", 1, "x:1")
        with pytest.raises(FlatcoatError, match="not usable as a file name"):
            builder.close({"spec": "x"})
        assert [path.name for path in (tmp_path / note).iterdir()] == ["store"]


def test_front_matter_makes_no_objects(tmp_path):
    for matter in ("a: !!python/object/apply:os.system [id]", "a: &x [1]\nb: [*x, *x]", "a: !!python/name:os.system"):
        problems = Problems()
        assert front_matter(f"---\n{matter}\n---\ntext", "x.md", problems)[0] == {} and problems.counts


@pytest.mark.parametrize("said", [
    b"[]", b"{}", b"null", b'{"sequence": 1}', b'{"sequence": "x", "documents": [], "deleted": [], "vectors": []}',
    b'{"sequence": 1, "documents": [[1, 2, 3, 4, 5]], "deleted": [], "vectors": []}',
    b'{"sequence": 1, "documents": [], "deleted": [], "vectors": [{"key": "m", "kind": "Dense", "arrays": [["|O", [1]]]}]}',
    b'{"sequence": 1, "documents": [], "deleted": [], "vectors": [{"key": "m", "kind": "Dense", "arrays": [["<f4", [1000000000000]]]}]}',
])  # fmt: skip
def test_a_journal_with_right_checksums_and_wrong_content_is_named(tmp_path, said):
    from flatcoat.search import journal as j

    journal = j.Journal(tmp_path, {"of": "x"})
    with journal.writing():
        pass
    with (tmp_path / "journal").open("ab") as file:
        file.write(j._framed(said, b""))
    reader = j.Journal(tmp_path, {"of": "x"})
    with pytest.raises(FlatcoatError, match="journal: cannot be read"):
        list(reader.follow()[1])
    reader.close()


def test_errors_do_not_steer_a_terminal():
    said = str(FlatcoatError("id 'a\x1b[2J\n\u2028\x85\ud800'"))
    assert said == "id 'a\\x1b[2J\\n\\u2028\\x85\\ud800'"
