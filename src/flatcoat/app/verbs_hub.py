"""The verb that sends a model to the Hub: push."""

from __future__ import annotations

import sys
from pathlib import Path

from flatcoat.app.progress import say
from flatcoat.errors import Misuse


def push(
    model: str, repo: str, private: bool, dry_run: bool, out: Path | None, license: str | None, quiet: bool
) -> None:
    """`flatcoat push`."""
    from flatcoat.app import hub

    if dry_run:
        folder = hub.write_push(model, repo, out or Path(f"{repo.split('/')[-1]}-push"), license=license)
        say(f"nothing was sent; look at {folder / hub.CARD}, then: flatcoat push {folder} {repo}", quiet)
        sys.stdout.write(f"{folder}\n")
        return
    if out is not None:
        raise Misuse("--out is where --dry-run writes; a push goes to the Hub")
    url = hub.push(model, repo, private=private, license=license)
    sys.stdout.write(f"{url}\n")
