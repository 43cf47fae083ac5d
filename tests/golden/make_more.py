"""Write the golden folders of models and of what training, mining and serving keep: `python tests/golden/make_more.py`.

What is there already stays as it is. What today's code makes of each is in `answers-1/NAME.json`.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from flatcoat.data.trec import write_qrels, write_run
from flatcoat.index.inverted import InvertedSettings
from flatcoat.index.store import write_inverted
from flatcoat.records import Ranking
from flatcoat.representations import Dense, MultiVector, Sparse
from flatcoat.search.journal import Document, Journal, Record
from flatcoat.sparse_vectors import SparseFolder
from flatcoat.testing.index import unit
from flatcoat.testing.tiny import write_tiny

QUERIES = ["Where does the heron eat?", "young fox"]
DOCUMENTS = ["The heron eats fish by the river.", "A young fox sleeps.", ""]
PAIRS = [(q, d) for q in QUERIES for d in DOCUMENTS]
FACTS = {"corpus": "golden"}
DENSE = Dense(np.arange(6, dtype=np.float32).reshape(3, 2))
SPARSE = Sparse(np.array([0, 2, 2, 3]), np.array([1, 4, 0], np.int32), np.array([1, 2, 3], np.float32), 5)
MULTI = MultiVector(np.array([0, 2, 2, 3]), np.arange(6, dtype=np.float16).reshape(3, 2))
RUN = {"q1": Ranking.of({"d2": 1.5, "d1": 0.25}), "q2": Ranking.of({"d3": -1e-7})}
QRELS = {"q1": {"d1": 1, "d2": 0}, "q2": {"d3": 2}}


def small(folder: Path) -> str:
    """A random encoder of a few kilobytes, its maps made large, so that a text's words show in every vector."""
    from safetensors.torch import load_file, save_file

    made = write_tiny(folder / "tiny", dim=8, layers=1) / "model.safetensors"
    weights = {name: 20 * w if w.ndim == 2 and "embeddings" not in name else w for name, w in load_file(made).items()}
    save_file(weights, made, {"format": "pt"})
    return str(made.parent)


def dense(out: Path, work: Path) -> dict[str, Any]:
    from flatcoat.models.checkpoint import Overrides, load_dense, save_dense

    save_dense(load_dense(small(work), Overrides(query_prompt="find ", query_length=12, document_length=20)), out)
    return encoded(load_dense(str(out)))


def sparse(out: Path, work: Path) -> dict[str, Any]:
    import torch

    from flatcoat.models.mlm import calibrate, load_mlm, save_mlm
    from flatcoat.models.splade_checkpoint import load_splade, save_splade

    network, tokenizer = load_mlm(Path(small(work)))
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "transform" in name or "decoder" in name:
                parameter.add_(0.5 * torch.randn_like(parameter))
    calibrate(network, 20)
    save_mlm(network, tokenizer, work / "mlm", 32)
    save_splade(load_splade(str(work / "mlm")), out)
    return encoded(load_splade(str(out)))


def late(out: Path, work: Path) -> dict[str, Any]:
    from flatcoat.models.colbert_checkpoint import LateOverrides, load_late, save_late

    save_late(load_late(small(work), LateOverrides(dim=4, query_length=12)), out)
    return encoded(load_late(str(out)))


def cross(out: Path, work: Path) -> dict[str, Any]:
    import torch

    from flatcoat.models.cross_checkpoint import load_cross, save_cross

    made = load_cross(small(work))
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "pooler" in name or "classifier" in name:
                parameter.mul_(20)  # so that pairs score apart
    save_cross(made, out)
    return {"scores": load_cross(str(out)).score(*map(list, zip(*PAIRS, strict=True))).tolist()}


def encoded(model: Any) -> dict[str, Any]:
    """Each text's vector, or vectors, as lists."""
    return {
        side: [plainly(made[i : i + 1]) for i in range(len(made))]
        for side, made in (("queries", model.encode_queries(QUERIES)), ("documents", model.encode_documents(DOCUMENTS)))
    }


def plainly(one: Any) -> list[Any]:
    """One item's numbers."""
    if isinstance(one, Sparse):
        return one.array()[0].tolist()
    return np.asarray(one.vectors, np.float64).tolist()


def learner() -> tuple[Any, Any]:
    """A module and its optimizer, one step in."""
    import torch

    module = torch.nn.Linear(3, 2)
    with torch.no_grad():
        module.weight.copy_(torch.arange(6.0).reshape(2, 3) / 4)
        module.bias.zero_()
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.125)
    step(module, optimizer)
    return module, optimizer


def step(module: Any, optimizer: Any) -> None:
    """One step of training."""
    import torch

    optimizer.zero_grad()
    module(torch.tensor([[1.0, -2.0, 0.5]])).square().sum().backward()
    optimizer.step()


def checkpoint(out: Path, work: Path) -> dict[str, Any]:
    from flatcoat.training.state import save_state

    module, optimizer = learner()
    sampler = {"rows": np.array([3, 1, 2]), "vectors": unit(3, 2)}
    save_state(out, module, optimizer, sampler, {"step": 1, "epoch": 0})
    step(module, optimizer)
    return {"weight": module.weight.tolist(), "bias": module.bias.tolist()}


def tree(out: Path, work: Path) -> dict[str, Any]:
    from flatcoat.mining.sg_tree import SGTree

    made = SGTree.build(unit(40, 6))
    made.save(out)
    return {name: value.tolist() for name, value in made.state().items()}


def journal(out: Path, work: Path) -> dict[str, Any]:
    out.mkdir()
    writer = Journal(out, FACTS)
    documents = tuple(Document(f"d{i}", "a title", f"text {i} ü", {"n": i}) for i in range(3))
    vectors = {"dense": DENSE, "sparse": SPARSE, "late": MULTI}
    for record in (Record(1, documents, (), vectors), Record(2, (), ("d1",))):
        with writer.writing():
            list(writer.follow()[1])
            writer.append(record)
    writer.close()
    return {}


def lines(out: Path, work: Path) -> dict[str, Any]:
    """What is lines of JSON or of TREC, and a teacher's kept scores."""
    from flatcoat.training.teacher import RECORD

    out.mkdir()
    kept = np.array([(0, 1, 2.5), (0, 2, -1.25), (3, 0, 0.5)], RECORD)
    (out / "teacher-key.scores").write_bytes(kept.tobytes())
    made = {
        "teacher": {
            "query_id": "q-heron-home",
            "document_ids": ["d-heron-home", "d-otter-home"],
            "scores": [2.0, -1.0],
        },
        "mined": {"query_id": "q-heron-home", "negatives": ["d-otter-home", "d-heron-food"], "scores": [0.75, 0.5]},
        "drawn": {"query_id": "q-heron-home", "negatives": ["d-otter-home", "d-otter-home"], "log_q": [-1.5, -1.5]},
    }
    for name, record in made.items():
        (out / f"{name}.jsonl").write_text(json.dumps(record) + "\n")
    write_run(out / "run.trec", RUN)
    write_qrels(out / "qrels.trec", QRELS)
    return {}


def inverted(bits: int) -> Callable[[Path, Path], dict[str, Any]]:
    """The inverted index whose weights have other bits."""

    def write(out: Path, work: Path) -> dict[str, Any]:
        write_inverted(out, SparseFolder.open(Path(__file__).parent / "sparse-1"), InvertedSettings(bits=bits))  # pyright: ignore[reportArgumentType]
        return {}

    return write


def engine(out: Path, work: Path) -> dict[str, Any]:
    """The folder of a collection in an engine; the engine itself is not kept."""
    from flatcoat.index.remote.address import parse_address
    from flatcoat.index.remote.base import RemoteSettings
    from flatcoat.index.remote.store import Place, write_remote
    from flatcoat.vectors import VectorFolder

    vectors = VectorFolder.open(Path(__file__).resolve().parent / "vectors-1")
    place = Place(parse_address("qdrant::memory:"), "golden")
    write_remote(out, place, {"dense": vectors}, RemoteSettings(), vectors.ids, np.zeros(0, np.int64))
    return {}


GOLDEN: dict[str, Callable[[Path, Path], dict[str, Any]]] = {
    "model-dense-1": dense, "model-sparse-1": sparse, "model-late-1": late, "model-cross-1": cross, "checkpoint-1": checkpoint,
    "sg-tree-1": tree, "journal-1": journal, "lines-1": lines, "index-inverted-16-1": inverted(16),
    "index-inverted-32-1": inverted(32), "index-qdrant-1": engine,
}  # fmt: skip


def main(out: Path) -> None:
    """Write what is not there."""
    (out / "answers-1").mkdir(exist_ok=True)
    for name, write in GOLDEN.items():
        if (out / name).exists():
            continue
        with tempfile.TemporaryDirectory() as work:
            answers = write(out / name, Path(work))
        if answers:
            (out / "answers-1" / f"{name}.json").write_text(json.dumps(answers) + "\n")


if __name__ == "__main__":
    main(Path(__file__).resolve().parent)
