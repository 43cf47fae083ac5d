"""Every implementation runs its protocol's contract."""

from __future__ import annotations

import numpy as np
import pytest

from flatcoat.index.exact import ExactIndex
from flatcoat.index.multivector import MultiVectorIndex, MultiVectorSettings
from flatcoat.index.multivector_exact import MaxSimExact
from flatcoat.index.vector import VectorIndex, VectorSettings
from flatcoat.mining.given import Given
from flatcoat.mining.mine import MineSettings
from flatcoat.mining.periodic import Periodic
from flatcoat.mining.uniform import Uniform
from flatcoat.models.checkpoint import Overrides, load_dense
from flatcoat.testing.encoder import EncoderContract
from flatcoat.testing.index import IndexContract
from flatcoat.testing.multi_index import MultiIndexContract
from flatcoat.testing.sampler import DOCUMENTS, QUERIES, SamplerContract


class TestExact(IndexContract):
    def build(self, vectors):
        return ExactIndex(vectors)


class TestScan(IndexContract):
    least_recall = 0.95

    def build(self, vectors):
        return VectorIndex.build(vectors, VectorSettings("scan", rescore=10))


class TestBits(IndexContract):
    least_recall = 0.9

    def build(self, vectors):
        return VectorIndex.build(vectors, VectorSettings("bits", rescore=10))


class TestSq(IndexContract):
    least_recall = 0.99

    def build(self, vectors):
        return VectorIndex.build(vectors, VectorSettings("sq"))


class TestHnsw(IndexContract):
    least_recall = 0.95

    def build(self, vectors):
        return VectorIndex.build(vectors, VectorSettings("hnsw"))


class TestIvf(IndexContract):
    least_recall = 1.0

    def build(self, vectors):
        cells = min(4, len(vectors))
        return VectorIndex.build(vectors, VectorSettings("ivf", cells=cells, nprobe=cells))


class TestMaxSimExact(MultiIndexContract):
    def build(self, vectors):
        return MaxSimExact(vectors)


class TestMultiVector(MultiIndexContract):
    def build(self, vectors):
        return MultiVectorIndex.build(vectors, MultiVectorSettings(nprobe=10**6, candidates=10**6, rescore=10**6))


class TestMultiVectorDefault(MultiIndexContract):
    least_recall = 0.99

    def build(self, vectors):
        return MultiVectorIndex.build(vectors)


class TestUniform(SamplerContract):
    def build(self):
        return Uniform(DOCUMENTS)


class TestGiven(SamplerContract):
    def build(self):
        pairs = np.array([(q, (q * 3 + i) % DOCUMENTS) for q in range(1, QUERIES) for i in range(6)])
        return Given(pairs, QUERIES, DOCUMENTS)


class TestPeriodic(SamplerContract):
    def build(self):
        positives = [np.array([q]) for q in range(QUERIES)]
        return Periodic(np.arange(QUERIES), positives, DOCUMENTS, MineSettings(2, 9), every=5)


class TestPeriodicApproximate(SamplerContract):
    def build(self):
        positives = [np.array([q]) for q in range(QUERIES)]
        settings = VectorSettings("scan", rescore=10)
        return Periodic(
            np.arange(QUERIES), positives, DOCUMENTS, MineSettings(1, 9), index=lambda v: VectorIndex.build(v, settings)
        )


@pytest.mark.parametrize("pooling", ["cls", "mean", "max", "last"])
class TestEncoder:
    def test_contract(self, tiny, pooling):
        contract = EncoderContract()
        contract.encoder = lambda: load_dense(str(tiny), Overrides(pooling=pooling, document_prompt="young "))
        contract.test_order_is_kept()
        contract.test_the_batch_does_not_matter()
        contract.test_nothing_gives_nothing()
        contract.test_twice_is_the_same()
