"""Real processes for tests, as a launcher would start them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys


def launch(world: int, words: list[str], home) -> list[str]:
    """Run a script in `world` processes, with the environment that a launcher gives each; what each said on stderr."""
    heard = []
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
    group |= {"WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    running = [
        subprocess.Popen(
            [sys.executable, *words], stderr=subprocess.PIPE, text=True,
            env={**os.environ, **group, "RANK": str(rank), "LOCAL_RANK": str(rank), "HOME": str(home)},
        )
        for rank in range(world)
    ]  # fmt: skip
    try:
        for process in running:
            _, said = process.communicate(timeout=180)
            assert process.returncode == 0, said[-3000:]
            heard.append(said)
    finally:
        for process in running:
            process.kill()
    return heard
