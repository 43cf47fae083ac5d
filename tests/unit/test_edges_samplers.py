"""What the samplers' other tests leave open: default settings, when they refresh, what they keep, and refusals."""

from __future__ import annotations

import numpy as np
import pytest
from drawing import ALL, NONE, RNG, defaults

from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.mining.cache import NegativeCache, unlike
from flatcoat.mining.draws import (
    Choosing,
)
from flatcoat.mining.exhaustive import A_SCORE, Exhaustive
from flatcoat.mining.given import Given
from flatcoat.mining.mine import MineSettings
from flatcoat.mining.periodic import Periodic
from flatcoat.mining.simans import SimANS
from flatcoat.mining.stochastic import Stochastic, part_size
from flatcoat.mining.uniform import Uniform
from flatcoat.mining.warmup import Warmed
from flatcoat.testing.sampler import DOCUMENTS, FixedEncode


class Counting(FixedEncode):
    """Remembers what it encoded."""

    def __init__(self):
        self.asked = []

    def queries(self, rows):
        self.asked.append(rows.tolist())
        return 3 * super().queries(rows)

    def documents(self, rows=None):
        self.asked.append(rows if rows is None else rows.tolist())
        return super().documents(rows)


def test_defaults_of_samplers():
    assert defaults(Exhaustive.__init__) == {"every": 1, "choosing": None, "known": None, "score_bytes": 1 << 28}
    assert defaults(NegativeCache.__init__) == {"replace": "fifo", "beta": 20.0, "seed": 0}
    made = Stochastic(10, FixedEncode(), every=1, size=2)
    assert (made.choosing.how, made.seed, made.known) == ("top", 0, None)
    said = {name: value for name, value in defaults(SimANS.__init__).items() if not callable(value)}
    assert said == {"a": 0.5, "b": 0.0, "beta": 20.0, "every": None, "keys": None, "refuse": None}
    assert Exhaustive(DOCUMENTS, FixedEncode()).choosing == Choosing()


def test_before_the_first_step_there_is_nothing_to_draw_from():
    for sampler, says in [
        (Exhaustive(DOCUMENTS, FixedEncode()), "the corpus is not encoded yet"),
        (Stochastic(DOCUMENTS, FixedEncode(), every=1, size=3), "no part of the corpus is encoded yet"),
        (NegativeCache(DOCUMENTS, FixedEncode(), size=3, refresh=1), "the cache is empty"),
        (SimANS(ALL, [np.array([q]) for q in ALL], DOCUMENTS, MineSettings(1, 9)), "no ranking is mined yet"),
    ]:
        with pytest.raises(FlatcoatError, match=says):
            sampler.draw(ALL, ALL, 2, RNG(0))


def test_exhaustive_scores_in_blocks_that_change_nothing():
    whole = Exhaustive(DOCUMENTS, FixedEncode())
    few = Exhaustive(DOCUMENTS, FixedEncode(), score_bytes=5 * DOCUMENTS * A_SCORE)
    assert (
        few.block == 5
        and A_SCORE == 24
        and Exhaustive(DOCUMENTS, FixedEncode(), score_bytes=DOCUMENTS * A_SCORE).block == 1
    )
    for sampler in (whole, few):
        sampler.after_step(0, FixedEncode())
    a, b = (sampler.draw(ALL, ALL, 6, RNG(2)) for sampler in (whole, few))
    np.testing.assert_array_equal(a.rows, b.rows)
    np.testing.assert_allclose(a.log_q, b.log_q, rtol=1e-5)
    for wrong, says in (
        ({"every": 0}, "every=0"),
        ({"score_bytes": DOCUMENTS * A_SCORE - 1}, "score_bytes=959 does not hold one query's 40"),
    ):
        with pytest.raises(Misuse, match=says):
            Exhaustive(DOCUMENTS, FixedEncode(), **wrong)


STEPS = [(1, [0, 1, 2, 3, 4, 5, 6]), (3, [0, 3, 6]), (None, [0])]
KINDS = [(kind, *steps) for kind in ("exhaustive", "stochastic", "simans") for steps in STEPS][:5] + [
    ("simans", *steps) for steps in STEPS
]


@pytest.mark.parametrize(("kind", "every", "steps"), KINDS)
def test_refreshes_are_due_after_0_n_2n_steps(kind, every, steps):
    encode = Counting()
    made = {
        "exhaustive": lambda: Exhaustive(DOCUMENTS, encode, every=every),
        "stochastic": lambda: Stochastic(DOCUMENTS, encode, every=every or 1, size=5),
        "simans": lambda: SimANS(ALL, [np.array([q]) for q in ALL], DOCUMENTS, MineSettings(1, 9), every=every),
    }[kind]()
    due = []
    for step in range(7):
        for _ in range(2):  # a step that is told twice refreshes once
            before = len(encode.asked)
            made.after_step(step, encode)
            due += [step] if len(encode.asked) > before else []
        if kind != "simans":
            assert made.told(step) == {"negatives/stale": float(step - due[-1])}
    assert due == steps


def test_how_large_a_part_is():
    assert part_size(10, 3, None) == 3 and part_size(10, 10, None) == 10 and part_size(10, 1, None) == 1
    assert part_size(10, None, 0.25) == 3 and part_size(10, None, 1.0) == 10 and part_size(1000, None, 1e-9) == 1
    assert part_size(100, None, 0.07) == 7  # 7.000000000000001 is not rounded up
    for given, says in [((10, None, None), "say one of them"), ((10, 2, 0.5), "say one of them"), ((10, None, 0.0), "share=0.0"),
                        ((10, None, 1.1), "share=1.1"), ((10, 0, None), "size=0"), ((10, 11, None), "size=11: want 1 to 10")]:  # fmt: skip
        with pytest.raises(Misuse, match=says):
            part_size(*given)
    with pytest.raises(Misuse, match="every=0"):
        Stochastic(10, FixedEncode(), every=0, size=2)


def test_a_part_is_of_its_seed_and_step_and_rises():
    parts = []
    for seed in (0, 0, 1):
        made = Stochastic(DOCUMENTS, FixedEncode(), every=2, size=9, seed=seed)
        made.after_step(0, FixedEncode())
        parts.append(made.rows.tolist())
        assert parts[-1] == sorted(set(parts[-1]))
        made.after_step(2, FixedEncode())
        assert made.rows.tolist() != parts[-1]
    assert parts[0] == parts[1] != parts[2]


def test_top_of_a_part_leaves_out_positives():
    made = Stochastic(
        DOCUMENTS,
        FixedEncode(),
        every=1,
        size=DOCUMENTS,
        choosing=Choosing("top", pool=3),
        known=lambda q: np.array([q + 1]),
    )
    made.after_step(0, FixedEncode())
    drawn = made.draw(ALL, ALL, 200, RNG(0))
    assert not (drawn.rows == ALL[:, None]).any() and not (drawn.rows == ALL[:, None] + 1).any()
    assert all(len(set(row)) == 3 for row in drawn.rows.tolist())


def test_a_cache_says_how_stale_it_is_and_is_copied():
    made = NegativeCache(DOCUMENTS, FixedEncode(), size=4, refresh=2)
    for step in range(3):
        made.after_step(step, FixedEncode())
        made.after_step(step, FixedEncode())
    assert made.told(2) == {"negatives/stale": 0.5} and sorted((2 - made.encoded_at).tolist()) == [0, 0, 1, 1]
    kept = {name: value.copy() for name, value in made.state().items()}
    held = made.state()
    made.after_step(3, FixedEncode())
    assert all(np.array_equal(kept[name], held[name]) for name in kept)
    other = NegativeCache(DOCUMENTS, FixedEncode(), size=4, refresh=2)
    other.restore(held)
    other.after_step(3, FixedEncode())
    assert all(np.array_equal(value, other.state()[name]) for name, value in made.state().items())
    assert NegativeCache(DOCUMENTS, FixedEncode(), size=4, refresh=4).refresh == 4


def test_newcomers_when_all_but_one_are_taken():
    assert unlike(np.arange(1, 10), 1, 10, RNG(0)).tolist() == [0]
    assert unlike(np.arange(4), 0, 10, RNG(0)).tolist() == []


def test_given_lists_are_drawn_without_replacement_while_they_last():
    made = Given(np.array([[1, 7], [1, 8], [1, 9], [3, 4]]), 5, 100)
    assert made.without == 3
    drawn = made.draw(np.array([1, 3, 0]), NONE, 3, RNG(0))
    assert sorted(drawn.rows[0].tolist()) == [7, 8, 9] and drawn.rows[1].tolist() == [4, 4, 4]
    np.testing.assert_allclose(drawn.log_q[:, 0], [-np.log(3), 0, -np.log(100)], rtol=1e-6)
    anywhere = made.draw(np.zeros(300, np.int64), NONE, 3, RNG(0)).rows
    assert anywhere.min() == 0 and anywhere.max() == 99
    assert made.state() == {}
    with pytest.raises(Misuse, match="no negatives are given"):
        Given(np.zeros((0, 2), np.int64), 5, 100)


def test_given_lists_keep_their_order():
    rows = RNG(0).permutation(400)
    pairs = np.stack([np.arange(400) % 3, rows], axis=1)
    made = Given(pairs, 3, 400)
    for query in range(3):
        assert made.rows[made.start[query] : made.start[query + 1]].tolist() == rows[query::3].tolist()


def test_periodic_draws_from_each_querys_own_list():
    notes = []
    positives = [np.array([q]) for q in (2, 5)]
    made = Periodic(np.array([2, 5]), positives, DOCUMENTS, MineSettings(1, 4), every=2, note=notes.append)
    cold = made.draw(np.array([5, 5]), NONE, 300, RNG(0))
    assert cold.rows.min() == 0 and cold.rows.max() == DOCUMENTS - 1 and np.allclose(cold.log_q, -np.log(DOCUMENTS))
    for step in range(3):
        made.after_step(step, FixedEncode())
        made.after_step(step, FixedEncode())
    assert [note.split(":")[0] for note in notes] == ["mined negatives after step 0", "mined negatives after step 2"]
    scores = FixedEncode().documents() @ FixedEncode().queries(np.array([5]))[0]
    best = [d for d in np.argsort(-scores).tolist() if d != 5][:4]
    drawn = made.draw(np.array([5]), NONE, 400, RNG(0))
    assert set(drawn.rows[0].tolist()) == set(best) and np.allclose(drawn.log_q, -np.log(4))
    once = Periodic(np.array([2, 5]), positives, DOCUMENTS, MineSettings(1, 4), note=notes.append)
    for step in range(3):
        once.after_step(step, FixedEncode())
    assert len(notes) == 3 and once.mined_at == 0
    other = Periodic(np.array([2, 5]), positives, DOCUMENTS, MineSettings(1, 4))
    other.restore(made.state())
    assert other.mined_at == 2 and np.array_equal(other.pool, made.pool)


def test_periodic_with_an_empty_list_draws_anywhere():
    notes = []
    refuse = lambda query, rows: np.full(len(rows), query == 0)  # noqa: E731
    made = Periodic(
        np.array([2, 5]),
        [np.array([2]), np.array([5])],
        DOCUMENTS,
        MineSettings(1, 4),
        note=notes.append,
        refuse=refuse,
    )
    made.after_step(0, FixedEncode())
    assert notes == ["mined negatives after step 0: 1 of 2 queries have none of their own"]
    drawn = made.draw(np.array([2, 5]), NONE, 500, RNG(0))
    assert len(set(drawn.rows[0])) > 20 and len(set(drawn.rows[1])) == 4
    np.testing.assert_allclose(drawn.log_q[:, 0], [-np.log(DOCUMENTS), -np.log(4)], rtol=1e-6)


@pytest.mark.parametrize("kind", [Periodic, SimANS])
def test_mined_lists_know_equal_texts_and_positives_below_the_first_ranks(kind):
    """By keys a document equal to a positive is no negative; by vectors a positive that the ranking does not reach has its score."""
    scores = FixedEncode().documents() @ FixedEncode().queries(np.array([5]))[0]
    order = np.argsort(-scores)
    positive, twin = int(order[30]), int(order[1])
    keys = np.arange(DOCUMENTS)
    keys[twin] = keys[positive]
    made = kind(
        np.array([5]), [np.array([positive])], DOCUMENTS, MineSettings(1, 4, absolute_margin=0.0), keys=keys, every=1
    )
    made.after_step(0, FixedEncode())
    assert set(made.pool[0].tolist()) <= {-1}  # all of the first four stand above the positive
    made = kind(np.array([5]), [np.array([positive])], DOCUMENTS, MineSettings(1, 4), keys=keys, every=1)
    made.after_step(0, FixedEncode())
    assert made.pool[0].tolist() == [int(order[at]) for at in (0, 2, 3, 4)]


def test_a_query_whose_list_begins_with_document_0_has_one():
    notes = []
    near = int(
        np.argmax((FixedEncode().documents() @ FixedEncode().queries(ALL).T)[0])
    )  # document 0 stands highest here
    only = lambda query, rows: rows != 0  # noqa: E731
    for kind in (Periodic, SimANS):
        made = kind(
            ALL[near : near + 1], [np.array([7])], DOCUMENTS, MineSettings(1, DOCUMENTS), note=notes.append, refuse=only
        )
        made.after_step(0, FixedEncode())
        assert made.pool[0, 0] == 0 and (made.pool[0, 1:] < 0).all()
    assert notes == ["mined negatives after step 0: 0 of 1 queries have none of their own"] * 2


def test_simans_keeps_its_rankings():
    notes = []
    positives = [np.array([q, q + 20]) for q in ALL]
    made = SimANS(ALL, positives, DOCUMENTS, MineSettings(1, 9), note=notes.append)
    made.after_step(0, FixedEncode())
    assert notes == ["mined negatives after step 0: 0 of 12 queries have none of their own"]
    other = SimANS(ALL, positives, DOCUMENTS, MineSettings(1, 9))
    other.restore(made.state())
    assert other.mined_at == 0
    a, b = (sampler.draw(ALL, ALL + 20, 5, RNG(1)) for sampler in (made, other))
    assert np.array_equal(a.rows, b.rows) and np.array_equal(a.log_q, b.log_q)
    edge = SimANS(ALL, positives, DOCUMENTS, MineSettings(1, 9), a=0.0, b=-1.0, every=1)
    assert (edge.a, edge.b, edge.every) == (0.0, -1.0, 1)


def test_uniform_by_hand():
    made = Uniform(50)
    drawn = made.draw(ALL, ALL, 200, RNG(0))
    assert (
        drawn.rows.min() == 0
        and drawn.rows.max() == 49
        and np.allclose(drawn.log_q, -np.log(50))
        and made.state() == {}
    )


class Noting:
    """A sampler that counts what it is told."""

    def __init__(self):
        self.steps, self.restored = [], None

    def draw(self, queries, positives, n, rng):
        return Uniform(1).draw(queries, positives, n, rng)

    def after_step(self, step, encode):
        self.steps.append(step)

    def told(self, step):
        return {"said": float(step)}

    def state(self):
        return {"steps": np.array(self.steps)}

    def restore(self, state):
        self.restored = {name: value.tolist() for name, value in state.items()}


def test_a_warm_up_is_uniform_and_asks_nothing_of_the_other():
    inner = Noting()
    made = Warmed(inner, DOCUMENTS, 2)
    for step in (0, 1):
        made.after_step(step, FixedEncode())
        assert not made.warm and made.told(step) == {} and list(made.state()) == ["step"]
        assert len(set(made.draw(ALL, ALL, 50, RNG(0)).rows.reshape(-1))) > 30
    made.after_step(2, FixedEncode())
    assert made.warm and inner.steps == [2] and made.told(2) == {"said": 2.0}
    assert not made.draw(ALL, ALL, 50, RNG(0)).rows.any()
    kept = made.state()
    assert sorted(kept) == ["sampler.steps", "step"]
    other = Warmed(Noting(), DOCUMENTS, 2)
    other.restore(kept)
    assert other.warm and other.sampler.restored == {"steps": [2]}
    cold = Warmed(Noting(), DOCUMENTS, 2)
    assert not cold.warm
    cold.restore({"step": np.array([1])})
    assert cold.step == 1 and cold.sampler.restored is None
    assert Warmed(Uniform(3), 3, 1).told(5) == {} and not Warmed(Uniform(3), 3, 1).warm
    with pytest.raises(Misuse, match="until=0"):
        Warmed(inner, DOCUMENTS, 0)
