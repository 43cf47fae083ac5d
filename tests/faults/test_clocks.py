"""Clocks that jump, and sources whose times are set back."""

from __future__ import annotations

import ast
import os
import re
import time
from pathlib import Path

from flatcoat import files
from flatcoat.data.collection import changed_files, open_collection

SOURCE = Path(__file__).resolve().parents[2] / "src" / "flatcoat"


def test_nothing_but_a_date_asks_what_time_it_is():
    """Durations, rates and limits are of clocks that never jump (perf_counter, monotonic)."""
    asked = {}
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and re.fullmatch(r"(time\.)?time(_ns)?", ast.unparse(node.func)):
                asked.setdefault(path.name, []).append(node.lineno)
    # files.py: whether a file may be remembered; a jump either way only makes it be read again. metrics: what Prometheus defines
    assert asked.keys() <= {"files.py", "metrics.py"}, asked


def test_after_a_jump_back_no_changed_file_is_taken_for_known(tmp_path, monkeypatch):
    real = time.time_ns
    monkeypatch.setattr(files.time, "time_ns", lambda: real() - 10**12)
    file = tmp_path / "x"
    sums = set()
    for number in range(20):
        file.write_bytes(b"%04d" % number)
        sums.add(files.sum_of(file))
    assert len(sums) == 20
    os.utime(file, ns=(0, 0))
    file.write_bytes(b"last")
    os.utime(file, ns=(0, 0))
    assert files.sum_of(file) == files.sha256_of(file)


def rewritten(path: Path, old: bytes, new: bytes) -> None:
    """Change a file's content, and nothing of its size and time."""
    before = path.stat()
    data = path.read_bytes()
    assert old in data and len(old) == len(new)
    path.write_bytes(data.replace(old, new))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_source_of_the_same_size_and_time_but_other_content_is_read_again(toy, tmp_path):
    import shutil

    source = tmp_path / "toy"
    shutil.copytree(toy, source)
    before = open_collection(str(source))
    fingerprint = before.documents.fingerprint
    rewritten(source / "corpus.jsonl", b"badger makes", b"beaver makes")
    assert changed_files(before) == [str(source / "corpus.jsonl")]
    after = open_collection(str(source))
    assert fingerprint != after.documents.fingerprint
    assert any("beaver makes" in text for text in after.documents.texts([0]))


def test_a_source_whose_inode_alone_was_touched_is_not_read_again(toy, tmp_path):
    import shutil

    source = tmp_path / "toy"
    shutil.copytree(toy, source)
    opened = open_collection(str(source))
    (source / "corpus.jsonl").chmod(0o600)
    assert changed_files(opened) == []
