"""What a check finds: an error where the answer would be wrong, a warning where it would be weaker."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from flatcoat.errors import FlatcoatError

Level = Literal["error", "warning", "ok"]


@dataclass(frozen=True)
class Finding:
    """One check's word. `cure` says what to do."""

    level: Level
    check: str
    message: str
    cure: str = ""

    def line(self) -> str:
        """The finding on one line."""
        return f"{self.level}: {self.check}: {self.message}" + (f"; {self.cure}" if self.cure else "")


def ok(check: str, message: str) -> Finding:
    """Nothing wrong."""
    return Finding("ok", check, message)


def enforce(findings: Sequence[Finding], allow: Sequence[str] = ()) -> None:
    """Print warnings to stderr and raise on the first error, unless its check is allowed by name.

    Raises:
        FlatcoatError: an error that is not allowed.
    """
    for finding in findings:
        if finding.level == "error" and finding.check not in allow:
            raise FlatcoatError(f"{finding.line()[7:]} (or accept it: --allow {finding.check})")
        if finding.level != "ok":
            sys.stderr.write(f"flatcoat: {finding.line()}\n")


def lowered(findings: Sequence[Finding], reason: str) -> list[Finding]:
    """Errors as warnings, with the reason why they are to be put up with: a model that is to be trained need not be good yet."""
    return [
        Finding("warning", f.check, f"{f.message} ({reason})", f.cure) if f.level == "error" else f for f in findings
    ]
