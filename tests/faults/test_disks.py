"""Full and closed disks, in one process; the long form, by command, is `python tests/faults/disks.py --times 60 --seed 7`."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from flatcoat.app import cli
from flatcoat.errors import FlatcoatError
from flatcoat.files import atomic_file, atomic_folder, write_json, write_manifest
from flatcoat.models.backbone import check_folder
from flatcoat.testing.index import unit
from flatcoat.vectors import VectorFolder, write_vectors


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), r"no space left on device \(.* MB are free\); free some and run again"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "disk quota exceeded .* free some and run again"),
        (OSError("1024 requested and 512 written"), "no space left on device"),  # numpy
        (RuntimeError("I/O error: No space left on device (os error 28)"), "no space left on device"),  # safetensors
        (OSError(errno.EROFS, "Read-only file system"), "read-only file system; choose another place"),
        (OSError(errno.EIO, "Input/output error"), "input/output error; choose another place"),
    ],
)  # fmt: skip
def test_what_a_disk_refuses_is_one_line_and_changes_nothing(tmp_path, error, said):
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "old").write_text("old")
    for refuse in (atomic_folder, atomic_file):
        name = tmp_path / ("f" if refuse is atomic_folder else "x")
        with (
            pytest.raises(FlatcoatError, match=f"{name}: {said}.*; what was there is as it was") as caught,
            refuse(name),
        ):
            raise error
        assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == ["f"] and os.listdir(tmp_path / "f") == ["old"]


def test_an_inner_file_is_told_of_by_its_folder(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("flatcoat.files.os.fsync", full)
    with pytest.raises(FlatcoatError, match=f"^{tmp_path}/f: no space left"), atomic_folder(tmp_path / "f") as partial:
        write_json(partial / "a.json", {})


def test_other_errors_stay_what_they_are(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_folder(tmp_path / "f") as partial:
        (partial / "absent").read_text()
    with pytest.raises(PermissionError), atomic_folder(tmp_path / "f"):
        raise PermissionError(errno.EACCES, "Permission denied", "/a/source/elsewhere")


@pytest.mark.parametrize("size", [0, 60, 200, 2000])
def test_a_file_that_may_not_grow_leaves_the_old_vectors(tmp_path, size):
    """numpy, JSON and text meet the limit at different places."""
    write_vectors(tmp_path / "v", unit(60, 16), [f"old{i}" for i in range(60)], {"model": "m"})
    code = (
        "import resource, sys; from pathlib import Path; from flatcoat.vectors import write_vectors\n"
        "from flatcoat.testing.index import unit; from flatcoat.errors import FlatcoatError\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, -1))\n"
        "try:\n"
        f"    write_vectors(Path({str(tmp_path / 'v')!r}), unit(60, 16, 1), [f'new{{i}}' for i in range(60)], {{'model': 'm'}})\n"
        "except FlatcoatError as error:\n"
        "    sys.exit(str(error))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1 and "v: " in done.stderr and "free some and run again" in done.stderr, done.stderr
    assert done.stderr.count("\n") == 1 and VectorFolder.open(tmp_path / "v").ids[0] == "old0"
    assert [path.name for path in tmp_path.iterdir()] == ["v"]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device"),
            "flatcoat: No space left on device; free some and run again\n",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "/x/y"), "flatcoat: /x/y: Permission denied\n"),
        (OSError("a message\nof two lines"), "flatcoat: a message of two lines\n"),
        (MemoryError("Unable to allocate"), "flatcoat: out of memory; lower runtime.batch_tokens"),
    ],
)
def test_the_command_line_never_shows_a_traceback_for_a_disk(monkeypatch, capsys, error, said):
    def fails(**_):
        raise error

    monkeypatch.setattr(cli, "app", fails)
    with pytest.raises(SystemExit) as stop:
        cli.main()
    shown = capsys.readouterr().err
    assert stop.value.code == 1 and shown.startswith(said) and shown.count("\n") == 1


def test_a_store_that_nobody_may_write_beside_is_read(tmp_path, monkeypatch):
    from flatcoat.files import one_at_a_time

    def closed(self, *_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    (tmp_path / "store").mkdir()
    monkeypatch.setattr(Path, "open", closed)
    with one_at_a_time(tmp_path / "store"):
        pass
    with pytest.raises(PermissionError), one_at_a_time(tmp_path / "absent"):
        pass


def test_a_window_that_was_damaged_while_work_stood_still_is_made_again(tmp_path, monkeypatch):
    """Encoding that goes on over a flipped bit of what it had done would seal the damage into its manifest."""
    from flatcoat.models import encode_to as module

    facts = {"model": "m", "items": 8, "dim": 4}
    partial = tmp_path / "v.partial"
    partial.mkdir()
    monkeypatch.setattr(module.encoding, "WINDOW", 2)
    assert module._begin(partial, facts) == []
    made = np.arange(32, dtype=np.float32).reshape(8, 4)
    mapped = np.load(partial / "vectors.npy", mmap_mode="r+")
    mapped[:6] = made[:6]
    mapped.flush()
    sums = [module.zlib.crc32(made[i : i + 2].tobytes()) for i in (0, 2, 4)]
    write_json(partial / "done.json", module.sealed({"sums": sums, "facts": facts}))
    assert module._begin(partial, facts) == sums
    mapped[2, 1] += 1
    mapped.flush()
    assert module._begin(partial, facts) == sums[:1]
    (partial / "done.json").write_text("{")
    assert module._begin(partial, facts) == []
    write_manifest(tmp_path, "thing", 1, {})


def test_a_finished_folder_is_open_to_whom_it_lets_in(tmp_path):
    """Another user's server reads the models that this one trained: safetensors writes files that only their owner reads."""
    for umask, wanted in ((0o022, 0o644), (0o077, 0o600), (0o002, 0o664)):
        before = os.umask(umask)
        try:
            with atomic_folder(tmp_path / str(umask)) as partial:
                (partial / "in").mkdir()
                os.close(os.open(partial / "in" / "model.safetensors", os.O_CREAT, 0o600))
                (partial / "link").symlink_to("in/model.safetensors")
        finally:
            os.umask(before)
        made = tmp_path / str(umask)
        assert (made / "in" / "model.safetensors").stat().st_mode & 0o777 == wanted
        assert (made / "link").is_symlink()


def test_weights_that_may_not_be_read_are_named(tiny, monkeypatch):
    """safetensors says of them that there is no such file."""
    allowed = os.access
    closed = tiny / "model.safetensors"
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != closed and allowed(path, mode))
    with pytest.raises(FlatcoatError, match=rf"^{closed}: permission denied; its owner opens it with chmod a\+r$"):
        check_folder(tiny)
