"""What do Nyström codes lose, and what does a regression from stale codes to fresh encodings win back?

    python benchmarks/negatives/nystrom.py --vectors FOLDER [--queries FOLDER]
    python benchmarks/negatives/nystrom.py --stale FOLDER --fresh FOLDER [--queries FOLDER] [--rate DOCUMENTS_PER_SECOND]

The first writes results/nystrom-landmarks.tsv: the error of inner products for each choice of landmarks (chosen among a sample
of 10 000 rows) at 32 to 256 of them, on rows that were not in the sample; the second results/nystrom-refresh.tsv: how far
corrected codes are from the truth on rows no regression saw, for doing nothing, the ridge and the network, at samples of 256 to
8192, and their seconds beside those of the encoder (`--rate`). Folders are of `flatcoat encode`; a stale and a fresh one hold the
same ids. Query vectors are of the fresh model; without `--queries` unseen documents stand in.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from flatcoat.errors import FlatcoatError
from flatcoat.mining.corrector import Network, Ridge
from flatcoat.mining.nystrom import Landmarks, apart, choose_landmarks, refresh
from flatcoat.vectors import VectorFolder

HOWS, SIZES, SAMPLES, SEEDS, SEEN, UNSEEN, ASKED = (
    ["uniform", "kmeans", "leverage", "pivots"], [32, 64, 128, 256], [256, 1024, 8192], 3, 10_000, 2000, 500,
)  # fmt: skip


def split(vectors: np.ndarray, queries: Path | None, most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows that may be learnt from, rows that may not, and queries."""
    if len(vectors) < 2 * UNSEEN:
        raise FlatcoatError(f"{len(vectors)} vectors; want {2 * UNSEEN} or more, of which {UNSEEN} are kept apart")
    order = np.random.default_rng(0).permutation(len(vectors))
    unseen, seen = order[:UNSEEN], order[UNSEEN : UNSEEN + most]
    if queries is None:
        return np.sort(seen), np.sort(unseen[ASKED:]), vectors[np.sort(unseen[:ASKED])]
    asked = VectorFolder.open(queries).vectors
    rows = np.random.default_rng(1).permutation(len(asked))[:ASKED]
    return np.sort(seen), np.sort(unseen), asked[np.sort(rows)]


def of_landmarks(folder: Path, queries: Path | None) -> list[list[Any]]:
    vectors = VectorFolder.open(folder).vectors
    seen, unseen, asked = split(vectors, queries, SEEN)
    sample, others, rows = np.asarray(vectors[seen]), np.asarray(vectors[unseen]), []
    for how in HOWS:
        for m in (size for size in SIZES if size <= len(sample)):
            found, seconds = [], []
            for seed in range(SEEDS):
                start = time.perf_counter()
                chosen = choose_landmarks(sample, m, how, np.random.default_rng(seed))
                seconds.append(time.perf_counter() - start)
                landmarks = Landmarks.of(sample[chosen])
                found.append([*landmarks.approximation_error(others, asked).values(),
                              landmarks.approximation_error(others, asked, unit=True)["rms"],
                              float(np.linalg.norm(landmarks.code(others), axis=1).mean())])  # fmt: skip
            rms, largest, unit, length = np.mean(found, axis=0)
            low, high = np.min(found, axis=0)[0], np.max(found, axis=0)[0]
            rows.append([how, m, f"{rms:.4f}", f"{low:.4f}", f"{high:.4f}", f"{largest:.3f}", f"{unit:.4f}", f"{length:.3f}",
                         f"{np.median(seconds):.2f}"])  # fmt: skip
            print(rows[-1], file=sys.stderr, flush=True)
    return rows


def scores_apart(asked: np.ndarray, truth: np.ndarray, landmarks: Landmarks, codes: np.ndarray) -> list[float]:
    """Of fresh queries' scores by codes against by vectors: root-mean-square error; how much of the true best 20 is kept."""
    exact, guess = asked @ truth.T, landmarks.code(asked) @ codes.T
    best, found = (np.argsort(-scores, axis=1)[:, :20] for scores in (exact, guess))
    kept = np.mean([len(np.intersect1d(a, b)) / 20 for a, b in zip(best, found, strict=True)])
    return [float(np.sqrt(np.square(exact - guess).mean())), float(kept)]


def of_refresh(stale: Path, fresh: Path, queries: Path | None, m: int, rate: float | None) -> list[list[Any]]:
    old, new = VectorFolder.open(stale), VectorFolder.open(fresh)
    if old.ids != new.ids:
        raise FlatcoatError(f"{stale} and {fresh} hold vectors of different ids, or in another order")
    seen, unseen, asked = split(new.vectors, queries, len(new))
    train_asked, asked = asked[::2], asked[1::2]
    truth, rng = np.asarray(new.vectors[unseen]), np.random.default_rng(2)
    places = np.sort(rng.choice(seen, m, replace=False))
    landmarks, exact = Landmarks.of(old.vectors[places]), Landmarks.of(new.vectors[places])
    codes = landmarks.code(old.vectors)
    error, cosine = apart(landmarks.decode(codes[unseen]), truth, truth)
    cells = scores_apart(asked, truth, landmarks, codes[unseen])
    rows = [line("nothing", None, [error, cosine, *cells], 0.0, 0, rate)]
    for size in (size for size in SAMPLES if size <= len(seen)):
        sample = np.sort(rng.choice(seen, size, replace=False))
        for name, corrector in (
            ("ridge", Ridge()),
            ("network", Network()),
            ("network, queries", Network(queries=train_asked)),
        ):
            start = time.perf_counter()
            found = refresh(codes, landmarks, sample, new.vectors[sample], np.random.default_rng(3), corrector=corrector,
                            landmark_vectors=new.vectors[places])  # fmt: skip
            seconds = time.perf_counter() - start
            error, cosine = apart(found.correction.predict(codes[unseen]), truth, truth)
            cells = scores_apart(asked, truth, found.landmarks, found.codes[unseen])
            rows.append(line(name, size, [error, cosine, *cells], seconds, size + m, rate))
            print(rows[-1], file=sys.stderr, flush=True)
    error, cosine = apart(exact.decode(exact.code(truth)), truth, truth)
    cells = scores_apart(asked, truth, exact, exact.code(truth))
    return [*rows, line("all encoded anew", None, [error, cosine, *cells], 0.0, len(new), rate)]


def line(
    name: str, size: int | None, cells: list[float], seconds: float, encoded: int, rate: float | None
) -> list[Any]:
    encoder = "-" if rate is None else f"{encoded / rate:.1f}"
    return [name, size or "-", *(f"{cell:.4f}" for cell in cells), f"{seconds:.2f}", encoded, encoder]


def main() -> None:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from common import write_table

    parser = argparse.ArgumentParser()
    parser.add_argument("--vectors", type=Path)
    parser.add_argument("--stale", type=Path)
    parser.add_argument("--fresh", type=Path)
    parser.add_argument("--queries", type=Path)
    parser.add_argument("--landmarks", type=int, default=128)
    parser.add_argument("--rate", type=float, help="documents a second of the encoder, for the last column")
    args = parser.parse_args()
    if not args.vectors and not (args.stale and args.fresh):
        parser.error("give --vectors FOLDER, or --stale FOLDER and --fresh FOLDER")
    queries = f"{ASKED} queries" if args.queries else f"{ASKED} documents as queries"
    if args.vectors:
        rows = of_landmarks(args.vectors, args.queries)
        header = [
            "landmarks",
            "m",
            "rms error",
            "least",
            "most",
            "largest",
            "rms, unit codes",
            "length of codes",
            "seconds to choose",
        ]
        note = f"{len(VectorFolder.open(args.vectors))} vectors, {UNSEEN} unseen, {queries}; means of {SEEDS} seeds"
        write_table("nystrom-landmarks", "negatives/nystrom", header, rows, note)
    if args.stale and args.fresh:
        rows = of_refresh(args.stale, args.fresh, args.queries, args.landmarks, args.rate)
        header = [
            "codes by",
            "sample",
            "error",
            "cosine",
            "rms of scores",
            "best 20 kept",
            "seconds",
            "encoded",
            "encoder seconds",
        ]
        rate = "unknown" if args.rate is None else f"{args.rate:g} documents/s"
        note = (f"{len(VectorFolder.open(args.fresh))} vectors, {args.landmarks} uniform landmarks encoded anew, {UNSEEN} unseen, "
                f"{queries} (half for training, half asked); encoder: {rate}\n"
                "error: mean squared distance of predicted and fresh encodings over the fresh ones' variance")  # fmt: skip
        write_table("nystrom-refresh", "negatives/nystrom", header, rows, note)


if __name__ == "__main__":
    main()
