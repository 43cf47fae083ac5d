"""What was wrong with the input, counted by kind, with the first places of each; refused where strict."""

from __future__ import annotations

from collections import Counter, defaultdict

from flatcoat.errors import FlatcoatError, visible

EXAMPLES = 5


class Problems:
    """Collects what a reader had to skip or mend."""

    def __init__(self, strict: bool = False):
        self.strict = strict
        self.counts: Counter[str] = Counter()
        self.examples: defaultdict[str, list[str]] = defaultdict(list)

    def add(self, kind: str, where: str, message: str) -> None:
        """Note a problem. Raises FlatcoatError at once where strict."""
        if self.strict:
            raise FlatcoatError(f"{where}: {message}")
        self.counts[kind] += 1
        if len(self.examples[kind]) < EXAMPLES:
            self.examples[kind].append(visible(f"{where}: {message}"))

    def lines(self) -> list[str]:
        """One line a kind, and its first places."""
        said = []
        for kind, count in self.counts.items():
            said.append(f"{count} × {kind}, for example {self.examples[kind][0]}")
        return said

    def summary(self) -> dict[str, object]:
        """What a manifest keeps."""
        return {kind: {"count": n, "examples": self.examples[kind]} for kind, n in self.counts.items()}
