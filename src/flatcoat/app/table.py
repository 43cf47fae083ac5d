"""What every table of a recipe is."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Table(BaseModel):
    """One table of a recipe: frozen, and nothing in it that is not known."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())
