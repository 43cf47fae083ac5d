from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.mining import nystrom
from flatcoat.mining.corrector import Affine, Network, Ridge
from flatcoat.mining.nystrom import Budget, Landmarks, apart, choose_landmarks, recode, recode_plainly, refresh, to_unit

HOWS = ["uniform", "kmeans", "leverage", "pivots"]


def spectrum(n: int, dim: int, seed: int = 0, decay: float = 1.0) -> np.ndarray:
    """Unit vectors whose k-th direction has a variance of k ** (-2 decay)."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(np.random.default_rng(99).standard_normal((dim, dim)))[0]
    return to_unit((rng.standard_normal((n, dim)) * np.arange(1, dim + 1) ** -decay @ turn).astype(np.float32))


def rotation(dim: int, angle: float, seed: int = 5) -> np.ndarray:
    """A rotation by about `angle` (the Cayley transform of a random skew matrix)."""
    skew = np.random.default_rng(seed).standard_normal((dim, dim))
    skew = angle * (skew - skew.T) / (2 * np.sqrt(dim))
    return np.linalg.solve(np.eye(dim) + skew, np.eye(dim) - skew)


def drifted(vectors: np.ndarray, angle: float = 0.8, noise: float = 0.02, seed: int = 3) -> np.ndarray:
    noisy = vectors @ rotation(vectors.shape[1], angle) + noise * np.random.default_rng(seed).standard_normal(
        vectors.shape
    )
    return to_unit(noisy.astype(np.float32))


def pairs_apart(landmarks: Landmarks, vectors: np.ndarray, codes: np.ndarray) -> float:
    """Root of the mean squared difference of inner products, the query side by the landmarks."""
    queries = vectors[:40]
    return float(np.sqrt(((queries @ vectors.T - landmarks.code(queries) @ codes.T.astype(np.float32)) ** 2).mean()))


# codes


def test_the_symmetric_form_is_the_papers_two_sided_form():
    vectors, queries = spectrum(50, 24), spectrum(9, 24, seed=1)
    landmarks = Landmarks.of(vectors[:12])
    wide = vectors[:12].astype(np.float64)
    q, t = queries @ wide.T, vectors @ wide.T @ np.linalg.inv(wide @ wide.T)
    np.testing.assert_allclose(landmarks.code(queries) @ landmarks.code(vectors).T, q @ t.T, atol=2e-6)


@pytest.mark.parametrize("m", [16, 40])
def test_landmarks_of_full_rank_lose_nothing(m):
    vectors, queries = spectrum(80, 16, decay=0.3), spectrum(9, 16, seed=1, decay=0.3)
    landmarks = Landmarks.of(vectors[:m])
    assert landmarks.approximation_error(vectors, queries)["largest"] < 1e-5
    np.testing.assert_allclose(landmarks.decode(landmarks.code(vectors)), vectors, atol=1e-5)


def test_the_error_is_its_definition():
    vectors, queries = spectrum(60, 24), spectrum(7, 24, seed=1)
    landmarks = Landmarks.of(vectors[:6])
    for unit in (False, True):
        gap = queries @ vectors.T - landmarks.code(queries, unit=unit) @ landmarks.code(vectors, unit=unit).T
        error = landmarks.approximation_error(vectors, queries, unit=unit)
        assert error["rms"] == pytest.approx(float(np.sqrt((gap**2).mean())), rel=1e-5)
        assert error["largest"] == pytest.approx(float(np.abs(gap).max()), rel=1e-5)


@pytest.mark.parametrize("how", HOWS)
def test_more_landmarks_err_less(how):
    vectors, queries = spectrum(400, 48), spectrum(50, 48, seed=1)
    errors = []
    for m in (4, 12, 24, 48):
        rows = choose_landmarks(vectors, m, how, np.random.default_rng(0))
        errors.append(Landmarks.of(vectors[rows]).approximation_error(vectors, queries)["rms"])
    assert all(late < 0.7 * early for early, late in pairwise(errors)), errors


def test_codes_are_no_longer_than_their_vectors_and_unit_if_asked():
    vectors = spectrum(60, 24)
    landmarks = Landmarks.of(vectors[:6])
    lengths = np.linalg.norm(landmarks.code(vectors), axis=1)
    assert lengths.max() <= 1 + 1e-5
    assert lengths.min() < 0.99
    np.testing.assert_allclose(np.linalg.norm(landmarks.code(vectors, unit=True), axis=1), 1, atol=1e-6)
    assert not Landmarks.of(np.eye(3, dtype=np.float32)[:2]).code(np.eye(3, dtype=np.float32)[2:], unit=True).any()


def test_blocks_change_nothing(monkeypatch):
    vectors = spectrum(61, 24)
    landmarks, affine = Landmarks.of(vectors[:6]), Affine(np.ones((6, 24), np.float32), np.zeros(24, np.float32))
    codes = landmarks.code(vectors)
    whole = [codes, recode(codes, affine, landmarks), choose_landmarks(vectors, 5, "kmeans", np.random.default_rng(0))]
    error = landmarks.approximation_error(vectors, vectors[20:25])
    monkeypatch.setattr(nystrom, "BLOCK", 7)
    assert landmarks.approximation_error(vectors, vectors[20:25]) == pytest.approx(error, rel=1e-5)
    parts = [landmarks.code(vectors), recode(codes, affine, landmarks)]
    parts.append(choose_landmarks(vectors, 5, "kmeans", np.random.default_rng(0)))
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_landmarks_that_stand_twice_or_are_nothing():
    vectors = spectrum(20, 8)
    twice = Landmarks.of(vectors[[0, 1, 1, 2]])
    once = Landmarks.of(vectors[:3])
    np.testing.assert_allclose(
        twice.code(vectors) @ twice.code(vectors).T, once.code(vectors) @ once.code(vectors).T, atol=1e-4
    )
    for bad in (np.zeros((2, 3), np.float32), np.full((2, 3), np.nan, np.float32)):
        with pytest.raises(FlatcoatError, match="2 landmarks"):
            Landmarks.of(bad)
    with pytest.raises(Misuse, match="9 dimensions, landmarks of 8"):
        once.code(np.zeros((1, 9), np.float32))


# choices


@pytest.mark.parametrize("how", HOWS)
def test_choices_are_distinct_rows_that_the_generator_decides(how):
    vectors = spectrum(70, 12)
    for m in (1, 10, 30, 70):  # more than the rank, too
        rows = choose_landmarks(vectors, m, how, np.random.default_rng(1))
        assert rows.dtype == np.int64
        assert len(set(rows.tolist())) == m
        assert 0 <= rows.min() <= rows.max() < 70
        np.testing.assert_array_equal(rows, choose_landmarks(vectors, m, how, np.random.default_rng(1)))
    with pytest.raises(Misuse, match="71 landmarks of 70"):
        choose_landmarks(vectors, 71, how, np.random.default_rng(1))
    with pytest.raises(Misuse, match="0 landmarks"):
        choose_landmarks(vectors, 0, how, np.random.default_rng(1))


@pytest.mark.parametrize("how", HOWS)
def test_choices_of_equal_rows(how):
    vectors = np.repeat(np.eye(3, dtype=np.float32), 4, axis=0)
    rows = choose_landmarks(vectors, 6, how, np.random.default_rng(0))
    assert len(set(rows.tolist())) == 6


def test_an_unknown_choice():
    with pytest.raises(Misuse, match="did you mean 'pivots'"):
        choose_landmarks(spectrum(5, 3), 2, "pivot", np.random.default_rng(0))


def test_pivots_are_those_of_a_cholesky_factorisation_by_hand():
    vectors = spectrum(40, 12) * np.linspace(0.5, 1, 40, dtype=np.float32)[:, None]
    residual, expected = (vectors @ vectors.T).astype(np.float64), []
    for _ in range(8):
        pivot = int(np.argmax(np.diag(residual)))
        expected.append(pivot)
        residual = residual - np.outer(residual[:, pivot], residual[pivot]) / residual[pivot, pivot]
    assert choose_landmarks(vectors, 8, "pivots", np.random.default_rng(0)).tolist() == expected


def test_centres_of_clear_clusters_are_found():
    noise = 0.01 * np.random.default_rng(0).standard_normal((200, 4)).astype(np.float32)
    groups = np.repeat(np.eye(4, dtype=np.float32), 50, axis=0) + noise
    rows = choose_landmarks(groups, 40, "kmeans", np.random.default_rng(0))
    assert set(rows // 50) == {0, 1, 2, 3}


def test_the_one_centre_is_the_mean_and_its_row_the_nearest():
    vectors = spectrum(50, 8)
    expected = np.argmin(((vectors - vectors.mean(0)) ** 2).sum(1))
    assert choose_landmarks(vectors, 1, "kmeans", np.random.default_rng(0)).tolist() == [expected]


def test_the_first_landmark_by_leverage_is_as_frequent_as_its_score():
    vectors = spectrum(12, 5) * np.linspace(0.3, 1, 12, dtype=np.float32)[:, None]
    gram = (vectors @ vectors.T).astype(np.float64)
    penalty = np.sort(np.linalg.eigvalsh(gram))[:-1].sum()
    scores = np.diag(gram @ np.linalg.inv(gram + penalty * np.eye(12)))
    drawn = [choose_landmarks(vectors, 1, "leverage", np.random.default_rng(seed))[0] for seed in range(3000)]
    expected = 3000 * scores / scores.sum()
    assert (
        (np.bincount(drawn, minlength=12) - expected) ** 2 / expected
    ).sum() < 31.3  # chi-squared, 11 degrees, p = 0.001


# refresh


def planted(
    unit: bool = False, dtype: str = "float32"
) -> tuple[np.ndarray, np.ndarray, Landmarks, np.ndarray, np.ndarray]:
    """Stale and fresh vectors, landmarks and codes of the stale ones, and sampled rows."""
    stale = spectrum(900, 32)
    fresh = drifted(stale)
    chosen = choose_landmarks(stale, 24, "pivots", np.random.default_rng(0))
    landmarks = Landmarks.of(stale[chosen])
    codes = landmarks.code(stale, unit=unit).astype(dtype)
    return fresh, chosen, landmarks, codes, np.random.default_rng(1).choice(900, 300, replace=False)


@pytest.mark.parametrize("corrector", [Ridge(), Network(hidden=16, epochs=5)], ids=["ridge", "network"])
@pytest.mark.parametrize("unit", [False, True])
def test_the_fast_way_is_predict_and_then_code(corrector, unit):
    fresh, _, landmarks, codes, rows = planted(unit)
    found = refresh(codes, landmarks, rows, fresh[rows], np.random.default_rng(0), corrector=corrector, unit=unit)
    slow = recode_plainly(codes, found.correction, found.landmarks, unit=unit)
    np.testing.assert_allclose(found.codes, slow, atol=2e-5)


@pytest.mark.parametrize("exact", [False, True])
def test_a_refresh_is_better_than_nothing(exact):
    fresh, chosen, landmarks, codes, rows = planted()
    given = fresh[chosen] if exact else None
    found = refresh(codes, landmarks, rows, fresh[rows], np.random.default_rng(0), landmark_vectors=given)
    assert found.error < 0.5 * found.baseline_error
    assert found.cosine > found.baseline_cosine
    if exact:
        np.testing.assert_array_equal(found.landmarks.vectors, fresh[chosen])
    else:
        np.testing.assert_allclose(found.landmarks.vectors, found.correction.predict(codes[chosen]), atol=1e-5)
    unseen = np.setdiff1d(np.arange(900), rows)
    after = pairs_apart(found.landmarks, fresh[unseen], found.codes[unseen])
    before = pairs_apart(landmarks, fresh[unseen], codes[unseen])
    best = pairs_apart(found.landmarks, fresh[unseen], found.landmarks.code(fresh[unseen]))
    assert best < after < 0.5 * before


def test_the_held_out_error_is_near_the_error_on_the_rows_never_seen():
    fresh, _, landmarks, codes, rows = planted()
    found = refresh(codes, landmarks, rows, fresh[rows], np.random.default_rng(0))
    unseen = np.setdiff1d(np.arange(900), rows)
    error, cosine = apart(found.correction.predict(codes[unseen]), fresh[unseen], fresh)
    assert found.error == pytest.approx(error, rel=0.35)
    assert found.cosine == pytest.approx(cosine, abs=0.02)


def test_what_is_measured_was_held_out():
    fresh, _, landmarks, codes, rows = planted()
    found = refresh(codes, landmarks, rows, fresh[rows], np.random.default_rng(0), corrector=Ridge(1e-4))
    order = np.random.default_rng(0).permutation(300)
    held, kept = np.sort(order[:30]), np.sort(order[30:])
    ridge = Ridge(1e-4).fit(codes[rows[kept]], fresh[rows[kept]])
    gap = ridge.predict(codes[rows[held]]) - fresh[rows[held]]
    spread = ((fresh[rows] - fresh[rows].mean(0)) ** 2).sum(1).mean()
    assert found.error == pytest.approx((gap**2).sum(1).mean() / spread, rel=1e-4)
    lost = codes[rows[held]] @ landmarks.factor - fresh[rows[held]]
    assert found.baseline_error == pytest.approx((lost**2).sum(1).mean() / spread, rel=1e-4)


def test_without_drift_doing_nothing_costs_what_lies_outside_the_span():
    stale = spectrum(300, 16, decay=0.3)
    landmarks = Landmarks.of(stale[:16])
    found = refresh(landmarks.code(stale), landmarks, np.arange(100), stale[:100], np.random.default_rng(0))
    assert found.baseline_error < 1e-9
    assert found.error < 1e-6
    assert found.baseline_cosine == pytest.approx(1)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("unit", [False, True])
def test_in_place_is_the_same_and_the_dtype_is_kept(dtype, unit, monkeypatch):
    monkeypatch.setattr(nystrom, "BLOCK", 64)
    fresh, _, landmarks, codes, rows = planted(unit, dtype)
    kept = codes.copy()
    apart_from = refresh(codes, landmarks, rows, fresh[rows], np.random.default_rng(0), unit=unit)
    np.testing.assert_array_equal(codes, kept)
    own = refresh(codes, landmarks, rows, fresh[rows], np.random.default_rng(0), unit=unit, in_place=True)
    assert own.codes is codes
    assert codes.dtype == apart_from.codes.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(codes, apart_from.codes)
    if unit:
        np.testing.assert_allclose(np.linalg.norm(codes.astype(np.float32), axis=1), 1, atol=2e-3)


def test_codes_on_disk_are_moved_in_place(tmp_path):
    fresh, _, landmarks, codes, rows = planted()
    np.save(tmp_path / "codes.npy", codes)
    plain = refresh(codes, landmarks, rows, fresh[rows], np.random.default_rng(0))
    mapped = np.load(tmp_path / "codes.npy", mmap_mode="r+")
    refresh(mapped, landmarks, rows, fresh[rows], np.random.default_rng(0), in_place=True)
    mapped.flush()
    np.testing.assert_array_equal(np.load(tmp_path / "codes.npy"), plain.codes)
    with pytest.raises(Misuse, match="read-only"):
        read = np.load(tmp_path / "codes.npy", mmap_mode="r")
        refresh(read, landmarks, rows, fresh[rows], np.random.default_rng(0), in_place=True)


def test_refreshes_that_cannot_be_meant():
    fresh, _, landmarks, codes, rows = planted()
    rng = np.random.default_rng(0)
    with pytest.raises(Misuse, match="9 targets"):
        refresh(codes, landmarks, rows[:9], fresh[rows[:9]], rng)
    with pytest.raises(Misuse, match="of 900 codes"):
        refresh(codes, landmarks, rows + 800, fresh[rows], rng)
    with pytest.raises(Misuse, match="codes of 23 numbers, 24 landmarks"):
        refresh(np.ascontiguousarray(codes[:, 1:]), landmarks, rows, fresh[rows], rng)
    broken = fresh[rows]
    broken[0, 0] = np.inf
    before = codes.copy()
    with pytest.raises(FlatcoatError, match="1 of 300 fresh encodings"):
        refresh(codes, landmarks, rows, broken, rng, in_place=True)
    np.testing.assert_array_equal(codes, before)


def test_landmarks_come_back_from_their_arrays():
    vectors = spectrum(30, 12)
    landmarks = Landmarks.of(vectors[:7])
    again = Landmarks.from_arrays({name: array.copy() for name, array in landmarks.arrays().items()})
    np.testing.assert_array_equal(again.code(vectors), landmarks.code(vectors))
    np.testing.assert_array_equal(again.vectors, landmarks.vectors)


def test_a_budget():
    assert not Budget().full(9.0)
    assert not Budget(0.5).full(0.5)
    assert Budget(0.5).full(0.51)
    assert Budget(0.5).full(float("nan"))
    with pytest.raises(Misuse, match="budget"):
        Budget(0.0)
