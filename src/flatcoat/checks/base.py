"""What a check finds: an error where the answer would be wrong, a warning where it would be weaker."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
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


def to_stderr(text: str) -> None:
    """Write a line to stderr, after the program's name."""
    sys.stderr.write(f"flatcoat: {text}\n")


def enforce(
    findings: Sequence[Finding], allow: Sequence[str] | None = (), note: Callable[[str], None] = to_stderr
) -> None:
    """Say warnings to `note` and raise on the first error, unless its check is allowed by name; then it is said on stderr.

    `allow` None: whoever asks has no --allow, and none is proposed.

    Raises:
        FlatcoatError: an error that is not allowed.
    """
    for finding in findings:
        if finding.level == "error" and finding.check not in (allow or ()):
            accept = "" if allow is None else f" (or accept it: --allow {finding.check})"
            raise FlatcoatError(finding.line()[7:] + accept)
        if finding.level != "ok":
            (note if finding.level == "warning" else to_stderr)(finding.line())


def lowered(findings: Sequence[Finding], reason: str) -> list[Finding]:
    """Errors as warnings, with the reason why they are to be put up with: a model that is to be trained need not be good yet."""
    return [
        Finding("warning", f.check, f"{f.message} ({reason})", f.cure) if f.level == "error" else f for f in findings
    ]
