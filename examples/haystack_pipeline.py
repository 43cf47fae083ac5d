"""A Haystack pipeline over an index that Flatcoat made: retrieve, then re-rank.

    python examples/haystack_pipeline.py MODEL INDEX COLLECTION RERANKER "a question"

MODEL, INDEX and COLLECTION are what `flatcoat search` takes; RERANKER is a cross-encoder, or any model that scores pairs.
"""

from __future__ import annotations

import sys

from haystack import Pipeline

from flatcoat.app.integrations.haystack import FlatcoatRanker, FlatcoatRetriever


def build(model: str, index: str, collection: str, reranker: str) -> Pipeline:
    """Ten documents by the index, of them three by the re-ranker."""
    pipeline = Pipeline()
    pipeline.add_component("retriever", FlatcoatRetriever(model, index, collection, top_k=10))
    pipeline.add_component("ranker", FlatcoatRanker(reranker, top_k=3))
    pipeline.connect("retriever.documents", "ranker.documents")
    return pipeline


def main(model: str, index: str, collection: str, reranker: str, question: str) -> list[str]:
    """Ask; give the answers, best first."""
    asked = {"retriever": {"query": question}, "ranker": {"query": question}}
    found = build(model, index, collection, reranker).run(asked)["ranker"]["documents"]
    return [f"{document.score:.4f}  {document.id}  {document.content}" for document in found]


if __name__ == "__main__":
    sys.stdout.write("\n".join(main(*sys.argv[1:6])) + "\n")
