"""What would ten million, a billion, a hundred billion passages take?  Bytes, machines, hours and money, from measured rates.

    python benchmarks/plan_scale.py

Rates are read from benchmarks/results/*.tsv; what has not been measured is a named assumption below, and the page says so. The
tables go into docs/scale.md between its marks, and a test compares the two.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "scale.md"
SIZES = {"10M": 10**7, "1B": 10**9, "100B": 10**11}
DIM = 384


class Assumed(NamedTuple):
    """What was not measured here: prices are round figures of rented machines, to be replaced by one's own."""

    core_hour: float = 0.04  # dollars, a processor core with its share of memory
    gpu_hour: float = 3.0  # dollars, one data-centre GPU with its host
    gpu_rate: float = 5000.0  # passages a second of the same small encoder on one
    memory_month: float = 3.0  # dollars a GB of memory, with the cores beside it
    disk_month: float = 0.08  # dollars a GB of SSD
    machine_cores: int = 64
    machine_memory: float = 512.0  # GB, of which the share below holds the index
    memory_share: float = 0.8
    encode_days: float = 3.0  # the time that machines are counted for
    network: float = 1.25  # GB a second, 10 Gbit/s
    disk: float = 1.0  # GB a second, one writer on a shared file system


SAID = {
    "core_hour": "dollars a core and hour",
    "gpu_hour": "dollars a GPU and hour",
    "gpu_rate": "passages a second on one GPU",
    "memory_month": "dollars a GB of memory and month, with cores",
    "disk_month": "dollars a GB of SSD and month",
    "machine_cores": "cores a machine",
    "machine_memory": "GB of memory a machine",
    "memory_share": "share of it that an index may fill",
    "encode_days": "days that encoding may take",
    "network": "GB a second between machines",
    "disk": "GB a second that one process writes",
}


def rows(name: str) -> tuple[list[str], list[dict[str, str]]]:
    """A results file: its notes, and its rows by heading."""
    lines = (ROOT / "benchmarks" / "results" / f"{name}.tsv").read_text(encoding="utf-8").splitlines()
    header, *table = [line.split("\t") for line in lines if not line.startswith("# ")]
    return [line[2:] for line in lines if line.startswith("# ")], [
        dict(zip(header, row, strict=False)) for row in table
    ]


def pick(table: list[dict[str, str]], **said: str) -> dict[str, str]:
    """The last row whose columns (a space for each _) begin so."""
    found = [row for row in table if all(row[name.replace("_", " ")].startswith(value) for name, value in said.items())]
    if not found:
        raise SystemExit(f"no row of {said}")
    return found[-1]


def number(pattern: str, notes: list[str]) -> float:
    """The first number that a note has in this place."""
    return float(next(found[1].replace(",", "") for note in notes if (found := re.search(pattern, note))))


class Measured(NamedTuple):
    """Rates and sizes of the committed benchmarks, a core or a document each."""

    fp32: float  # passages a second and core
    bf16: float
    exact: float  # cpu seconds a query and document
    scan: float
    scan_bytes: float  # of the index, a document
    bits: float
    bits_bytes: float
    inverted: float
    pruned: float
    terms: float
    posting: float  # bytes
    pruned_posting: float
    late: float
    late_vectors: float
    late_dim: float
    late_bytes: float
    late_build: float  # cpu seconds a document


def measured() -> Measured:
    """Read the results."""
    notes, encode = rows("encode_dense_scifact")
    cores = number(r"(\d+) cores", notes)
    scan_notes, scan = rows("scan")
    each = number(r"(\d+) vectors of", scan_notes)
    sparse_notes, sparse = rows("sparse_scale")
    _, postings = rows("sparse_search")
    late_notes, late = rows("multivector_search")
    docs = number(r"(\d+) documents of \d+ vectors", late_notes)
    late_row = pick(late, engine="Flatcoat", setting="2 bits, 32 cells probed, 1024 candidates, MaxSim of 100")
    late_row = next(row for row in late if row["setting"] == "2 bits, 32 cells probed, 1024 candidates, MaxSim of 100")
    rate = lambda engine: float(next(r["documents/s"] for r in encode if r["engine"] == engine)) / cores  # noqa: E731
    second = lambda row, column, count: float(row[column]) / 1e3 / count  # noqa: E731
    quick, coarse = pick(scan, index="scan rescore=10"), pick(scan, index="bits rescore=10")
    return Measured(
        rate("flatcoat"), rate("flatcoat-bf16"), second(pick(scan, index="exact"), "cpu ms", each),
        second(quick, "cpu ms", each), float(quick["MB"]) * 1e6 / each,
        second(coarse, "cpu ms", each), float(coarse["MB"]) * 1e6 / each,
        float(pick(sparse, kind="inverted")["ns a document"]) / 1e9, float(pick(sparse, kind="pruned")["ns a document"]) / 1e9,
        number(r"(\d+) terms a document", sparse_notes),
        float(pick(postings, engine="Flatcoat inverted", setting="8 bits")["bytes a posting"]),
        float(pick(postings, engine="Flatcoat pruned")["bytes a posting"]),
        second(late_row, "cpu ms p50", docs), number(r"documents of (\d+) vectors", late_notes),
        number(r"vectors of (\d+) \(", late_notes), float(late_row["index MB"]) * 1e6 / docs,
        float(late_row["build cpu s"]) / docs,
    )  # fmt: skip


def size(count: float) -> str:
    """Bytes for people, three digits."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} PB" if count < 1000 else f"{count:,.0f} PB"


def much(value: float) -> str:
    """A number for people, three digits above ten."""
    if value >= 1000:
        digits = len(str(int(value))) - 3
        return f"{round(value, -digits):,.0f}"
    return f"{value:.3g}"


def table(heading: list[str], body: list[list[str]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in [heading, ["---"] * len(heading), *body])


def bytes_table(m: Measured) -> str:
    """What each representation weighs."""
    kinds = [
        (f"dense, fp32 ({DIM} dimensions)", 4.0 * DIM), ("dense, fp16", 2.0 * DIM), ("dense, int8", 1.0 * DIM),
        ("dense, `scan` index (measured)", m.scan_bytes), ("dense, 1 bit", DIM / 8), ("dense, `bits` index (measured)", m.bits_bytes),
        (f"sparse, {m.terms:.0f} postings of {m.posting:.2f} B (`inverted`, 8 bits)", m.terms * m.posting),
        (f"sparse, postings of {m.pruned_posting:.2f} B (`pruned`)", m.terms * m.pruned_posting),
        (f"late, {m.late_vectors:.0f} vectors of {m.late_dim:.0f}, fp16", m.late_vectors * m.late_dim * 2),
        ("late, `multivector` index, 2 bits (measured)", m.late_bytes),
    ]  # fmt: skip
    body = [[name, f"{each:,.0f} B", *(size(each * n) for n in SIZES.values())] for name, each in kinds]
    return table(["representation", "a passage", *SIZES], body)


def encode_table(m: Measured, a: Assumed) -> str:
    """What encoding takes."""
    body = []
    for name, n in SIZES.items():
        for how, rate, price, unit in (
            ("CPU, fp32 (measured)", m.fp32, a.core_hour, a.machine_cores),
            ("CPU, bf16 (measured)", m.bf16, a.core_hour, a.machine_cores),
            ("GPU (assumed)", a.gpu_rate, a.gpu_hour, 1),
        ):
            hours = n / rate / 3600
            machines = math.ceil(hours / unit / (24 * a.encode_days))
            body.append(
                [name, how, much(hours), much(machines), much(hours / unit / machines), f"${much(hours * price)}"]
            )
    return table(["passages", "by", "core or GPU hours", "machines or GPUs", "hours", "cost"], body)


def move_table(m: Measured, a: Assumed) -> str:
    """What the driver and the network take."""
    each = 49 + 12 + 8  # bytes: a string of 12 characters (CPython 3.11; later ones take less), its place in a list
    body = []
    for name, n in SIZES.items():
        fp32, shards = 4.0 * DIM * n, -(-n // 4096)
        hours = n * m.late_build / 3600, fp32 / 1e9 / a.network / 3600, 2 * fp32 / 1e9 / a.disk / 3600
        late, copy, assemble = map(much, hours)
        body.append([name, much(shards), size(each * n), copy, assemble, late])
    heading = [
        "passages",
        "shards",
        "ids in the driver's memory",
        "hours to copy fp32 once",
        "hours to assemble fp32",
        "core hours, late index",
    ]
    return table(heading, body)


def search_table(m: Measured, a: Assumed) -> str:
    """What answering takes: the index in memory, the full vectors that re-score on SSD."""
    vectors, late = 4.0 * DIM, m.late_vectors * m.late_dim * 2
    kinds = [
        ("exact, fp32", vectors, 0.0, m.exact), ("`scan`", m.scan_bytes, vectors, m.scan), ("`bits`", m.bits_bytes, vectors, m.bits),
        ("`inverted`, 8 bits", m.terms * m.posting, 0.0, m.inverted), ("`pruned`", m.terms * m.pruned_posting, 0.0, m.pruned),
        ("`multivector`, 2 bits", m.late_bytes, late, m.late),
    ]  # fmt: skip
    body = []
    for name, n in SIZES.items():
        for kind, memory, disk, second in kinds:
            held = memory * n / 1e9
            machines = math.ceil(held / (a.machine_memory * a.memory_share))
            cores = machines * a.machine_cores
            latency, month = second * n / cores * 1e3, held * a.memory_month + disk * n / 1e9 * a.disk_month
            rates = map(much, (second * n, latency, cores / second / n))
            body.append(
                [
                    name,
                    kind,
                    size(memory * n),
                    size(disk * n) if disk else "",
                    much(machines),
                    *rates,
                    f"${much(month)}",
                ]
            )
    heading = [
        "passages",
        "index",
        "memory",
        "SSD",
        "machines",
        "cpu s a query",
        "ms, all cores on it",
        "queries a second",
        "a month",
    ]
    return table(heading, body)


def plan() -> str:
    """All that stands between the marks."""
    m, a = measured(), Assumed()
    notes = rows("encode_dense_scifact")[0]
    said = table(
        ["assumed", "value"], [[f"`{name}`: {SAID[name]}", f"{value:g}"] for name, value in a._asdict().items()]
    )
    return "\n\n".join([
        (f"**Measured** on {notes[0].split(', Python')[0]}: all-MiniLM-L6-v2 encodes {m.fp32:.1f} passages a second and core in fp32, "
         f"{m.bf16:.1f} in bf16; a query costs a core {m.exact * 1e9:.1f} ns a document by exact search, {m.scan * 1e9:.1f} by `scan`, "
         f"{m.bits * 1e9:.1f} by `bits`, {m.inverted * 1e9:.2f} by `inverted`, "
         f"{m.pruned * 1e9:.2f} by `pruned` and {m.late * 1e9:.0f} by `multivector`."),
        "**Bytes**", bytes_table(m),
        "**Encoding**, on as many machines as finish in the days assumed; linear in cores (assumed)", encode_table(m, a),
        "**What one process must carry or copy**", move_table(m, a),
        "**Searching**: documents divided among machines, each query asked of all; linear in documents (assumed past what was measured)",
        search_table(m, a), "**Assumed, not measured**", said,
    ])  # fmt: skip


def main() -> None:
    """Write the tables into the page."""
    page = PAGE.read_text(encoding="utf-8")
    pattern = re.compile(r"(<!-- plan -->\n).*?(<!-- /plan -->)", re.S)
    if not pattern.search(page):
        raise SystemExit(f"{PAGE}: no marks for the plan")
    PAGE.write_text(pattern.sub(lambda m: f"{m.group(1)}\n{plan()}\n\n{m.group(2)}", page), encoding="utf-8")


if __name__ == "__main__":
    main()
