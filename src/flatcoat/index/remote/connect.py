"""From an address to an engine."""

from __future__ import annotations

from flatcoat.index.remote.address import Address
from flatcoat.index.remote.base import Engine, check_name


def connect(address: Address, name: str) -> Engine:
    """One collection of the engine at an address; the library for it is imported here.

    Raises:
        Misuse: a name that cannot be, or the engine's library is not installed.
        FlatcoatError: the engine does not answer, or refuses the password.
    """
    check_name(name)
    if address.engine == "qdrant":
        from flatcoat.index.remote.qdrant import open_qdrant

        return open_qdrant(address, name)
    if address.engine == "postgresql":
        from flatcoat.index.remote.postgres import open_postgres

        return open_postgres(address, name)
    from flatcoat.index.remote.milvus import open_milvus

    return open_milvus(address, name)
