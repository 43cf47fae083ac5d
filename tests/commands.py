"""Running Flatcoat's commands within the process of the tests."""

from __future__ import annotations

import sys

from flatcoat.app.cli import main


def call(*words) -> int:
    """Run a command in this process; its exit code."""
    before, sys.argv = sys.argv, ["flatcoat", *map(str, words)]
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    finally:
        sys.argv = before
    return 0
