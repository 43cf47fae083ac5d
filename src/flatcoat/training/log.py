"""What training said: a line of JSON a step, and TensorBoard where it is asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from flatcoat.errors import need


class Log:
    """Appends to `log.jsonl`; on resume, lines of steps not yet done are taken out first."""

    def __init__(self, folder: Path, done: int, *, tensorboard: bool = False):
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "log.jsonl"
        kept = [line for line in self._lines() if json.loads(line)["step"] <= done]
        self.path.write_text("".join(kept), encoding="utf-8")
        self.file = self.path.open("a", encoding="utf-8")
        self.board: Any = None
        if tensorboard:
            need("tensorboard", "logs")
            from torch.utils.tensorboard.writer import SummaryWriter

            self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=done + 1)

    def _lines(self) -> list[str]:
        if not self.path.is_file():
            return []
        whole = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        return [line for line in whole if line.endswith("\n")]  # a kill may have cut the last

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Note the values of a step."""
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
