"""Peers that are asked one query at a time, in a process of their own and where asked under an interpreter of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any


def timed(ask: Callable[[int], Sequence[int]], queries: int, warm: int) -> tuple[list[list[int]], list[float]]:
    """Rows found and processor milliseconds, query by query; the first `warm` are asked once before."""
    found, spent = [], []
    for i in range(min(warm, queries)):
        ask(i)
    for i in range(queries):
        begin = time.process_time_ns()
        rows = ask(i)
        spent.append((time.process_time_ns() - begin) / 1e6)
        found.append([int(row) for row in rows])
    return found, spent


def said_by(name: str, command: list[str], file: Path, threads: Iterable[str], limit: int) -> list[dict[str, Any]]:
    """What a peer left in a file; nothing, and a word of why, where it is not installed or took longer than `limit` seconds.

    It is given one thread by the variables named in `threads`.
    """
    file.unlink(missing_ok=True)
    alone = {**os.environ, **dict.fromkeys(threads, "1")}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, env=alone)
        if done.returncode:
            print(f"{name}: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
    except subprocess.TimeoutExpired:
        print(f"{name}: not done in {limit} s", file=sys.stderr)
    return json.loads(file.read_text()) if file.exists() else []
