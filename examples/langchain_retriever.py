"""A LangChain chain over an index that Flatcoat made: retrieve, re-rank, hand the texts on.

    python examples/langchain_retriever.py MODEL INDEX COLLECTION RERANKER "a question"

MODEL, INDEX and COLLECTION are what `flatcoat search` takes; RERANKER is a cross-encoder, or any model that scores pairs.
"""

from __future__ import annotations

import sys

from langchain_core.runnables import Runnable, RunnableLambda

from flatcoat.app.integrations.langchain import FlatcoatReranker, FlatcoatRetriever


def build(model: str, index: str, collection: str, reranker: str) -> Runnable[str, str]:
    """From a question to the three best texts, which a prompt would take."""
    retriever = FlatcoatRetriever(source=model, index=index, collection=collection, k=10)
    best = FlatcoatReranker(model=reranker, top_n=3)

    def answer(question: str) -> str:
        documents = best.compress_documents(retriever.invoke(question), question)
        return "\n".join(document.page_content for document in documents)

    return RunnableLambda(answer)


if __name__ == "__main__":
    sys.stdout.write(build(*sys.argv[1:5]).invoke(sys.argv[5]) + "\n")
