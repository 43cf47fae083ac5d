"""What training said: a line of JSON a step, and TensorBoard where it is asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from flatcoat.errors import FlatcoatError, need
from flatcoat.files import telling, write_text


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; a last one that a kill cut off is left out. Raises FlatcoatError at one that was altered."""
    if not path.is_file():
        return []
    lines = path.read_bytes().decode("utf-8", "replace").splitlines(keepends=True)
    found = []
    for number, line in enumerate(lines, start=1):
        if not line.endswith("\n"):
            break
        try:
            said = json.loads(line)
            int(said["step"])
        except (ValueError, TypeError, KeyError) as error:
            raise FlatcoatError(f"{path}:{number}: not a step's line of a log; take the line out") from error
        found.append(said)
    return found


class Log:
    """Appends to `log.jsonl`; on resume, lines of steps not yet done are taken out first."""

    def __init__(self, folder: Path, done: int, *, tensorboard: bool = False):
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "log.jsonl"
        kept = [line for line in read_log(self.path) if line["step"] <= done]
        write_text(self.path, "".join(json.dumps(line) + "\n" for line in kept))
        self.file = self.path.open("a", encoding="utf-8")
        self.board: Any = None
        if tensorboard:
            need("tensorboard", "logs")
            from torch.utils.tensorboard.writer import SummaryWriter

            self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=done + 1)

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Note the values of a step."""
        with telling(self.path):
            self.file.write(json.dumps({"step": step, **values}) + "\n")
            self.file.flush()
        if self.board:
            for name, value in values.items():
                self.board.add_scalar(name, value, step)

    def close(self) -> None:
        """Finish."""
        self.file.close()
        if self.board:
            self.board.close()
