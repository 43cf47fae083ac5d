"""The verb that answers over HTTP: serve."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from flatcoat.app.progress import say
from flatcoat.errors import Misuse


def serve(
    folder: Path | None, host: str, port: int, workers: int, retriever: list[str] | None, reranker: str | None, keys: Path | None,
    no_keys: bool, new_key: bool, read_only: bool, max_k: int, max_body: int, max_query: int, max_concurrent: int,
    precision: str | None, device: str, threads: int | None, quiet: bool,
) -> None:  # fmt: skip
    """`flatcoat serve`."""
    from flatcoat.app.serve.guard import Gate
    from flatcoat.app.serve.keys import new_key as make
    from flatcoat.app.serve.keys import read_keys
    from flatcoat.app.serve.limits import Limits
    from flatcoat.app.serve.supervise import Serving, bound, is_loopback, serve_here, serve_several

    if new_key:
        key, hashed = make()
        sys.stdout.write(f'{key}\n"{hashed}"\n')
        return
    folder = _folder(folder)
    _numbers({"--workers": workers, "--max-k": max_k, "--max-body": max_body, "--max-query": max_query,
              "--max-concurrent": max_concurrent, "--threads": threads}, port)  # fmt: skip
    if precision not in (None, "fp32", "bf16", "int8"):
        raise Misuse(f"--precision {precision}: want fp32, bf16 or int8")
    if keys is not None and no_keys:
        raise Misuse("--keys and --no-keys: say one of them")
    private = is_loopback(host)
    if not (private or keys is not None or no_keys):
        raise Misuse(
            f"--host {host} lets other machines ask, and write, without a key; say --keys FILE (flatcoat serve --new-key makes one), "
            "or --no-keys"
        )
    known = None if keys is None else read_keys(keys)
    limits = Limits(max_k=max_k, max_body=max_body, max_query=max_query, max_concurrent=max_concurrent)
    hosts = frozenset({"localhost", "127.0.0.1", "[::1]", _name(host)}) if private and known is None else None
    if threads is None and workers > 1:  # one worker has what torch takes, all cores
        threads = max(1, len(os.sched_getaffinity(0)) // workers)
    serving = Serving(
        folder, Gate(limits, known, read_only, hosts), _collection(folder), tuple(retriever) if retriever else None,
        reranker, precision, device, threads,
    )  # fmt: skip
    with bound(host, port) as listening:
        place = f"http://{_name(host)}:{listening.getsockname()[1]}/"
        say(f"{place} answers; opening {folder}", quiet)
        if workers > 1:
            serve_several(serving, listening, workers, lambda text: say(text, quiet))
            return

        def on_ready(opened: Any) -> None:
            say(f"{len(opened)} documents by {', '.join(opened.legs)} at {place}", quiet)

        serve_here(serving, listening, on_ready)


def _folder(folder: Path | None) -> Path:
    if folder is None:
        raise Misuse("serve wants FOLDER, the folder of a run")
    if not (folder / "recipe.toml").is_file():
        raise Misuse(f"{folder}: not the folder of a run; make one with flatcoat run RECIPE --out {folder}")
    return folder


def _numbers(counts: dict[str, int | None], port: int) -> None:
    for name, count in counts.items():
        if count is not None and count < 1:
            raise Misuse(f"{name} {count}: want at least 1")
    if not 0 <= port <= 65_535:
        raise Misuse(f"--port {port}: want 1 to 65535, or 0 for any that is free")


def _name(host: str) -> str:
    return f"[{host}]" if ":" in host else host.lower()


def _collection(folder: Path) -> str:
    """What the collection is called: the last part of its source."""
    from flatcoat.app.recipe import load_recipe

    source = load_recipe(folder / "recipe.toml").collection.source
    return source.rstrip("/").rpartition("/")[2] or source
