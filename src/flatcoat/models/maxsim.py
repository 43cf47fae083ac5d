"""Late interaction's score for training, without the tensor of queries × documents × their tokens.

    s(q, d) = Σ_i max_j ⟨q_i, d_j⟩        (ColBERT: Khattab & Zaharia 2020, arXiv 2004.12832)

Only the token that wins has a gradient, so the way back needs the winners' places and nothing else:

    ∂L/∂q_i = Σ_d g_qd d_{w(i,d)}        ∂L/∂d_j = Σ_{(q,i): w(i,d) = j} g_qd q_i        g = ∂L/∂s

The way there takes a block of documents at a time and keeps those places, two bytes each. Documents are taken by falling length, each
block as wide as its longest, with absent tokens moved out: padding costs next to nothing and cannot win. What is left of it in a
block repeats the document's first token, which changes no maximum. `maxsim_slowly` is the definition and the oracle of the tests.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK = {"cpu": 2**20, "cuda": 2**26}  # products held at once, unless the caller says how many documents

QueryTokens = Float[Tensor, "q m k"]
QueryPresent = Bool[Tensor, "q m"]
DocumentTokens = Float[Tensor, "d n k"]
DocumentPresent = Bool[Tensor, "d n"]
Scores = Float[Tensor, "q d"]


def maxsim_slowly(
    queries: QueryTokens, query_present: QueryPresent, documents: DocumentTokens, document_present: DocumentPresent
) -> Scores:
    """Scores by the definition, holding every product: the slow twin of `maxsim`."""
    products = torch.einsum("qmk,dnk->qdmn", queries, documents)
    products = products.masked_fill(~document_present[None, :, None], float("-inf"))
    if not products.shape[3]:
        return products.sum((2, 3))
    best = products.max(3).values  # of equals the first, as in `maxsim`
    counts = query_present[:, None] & document_present.any(1)[None, :, None]
    return best.masked_fill(~counts, 0.0).sum(2)


def maxsim(
    queries: QueryTokens,
    query_present: QueryPresent,
    documents: DocumentTokens,
    document_present: DocumentPresent,
    block: int | None = None,
) -> Scores:
    """Scores of every query with every document: values and gradients of `maxsim_slowly` (1e-5) and a block of its memory.

    Absent document tokens never win, absent query tokens do not count, and a side without any token scores 0. Half
    precision is raised to float32; autocast does not reach inside. Of equal products the first token's wins.

    Args:
        queries: token vectors; those that are absent may hold anything.
        query_present: which of them count.
        documents: token vectors; those that are absent may hold anything.
        document_present: which of them may win.
        block: documents scored at once; None takes as many as keep `BLOCK` products.
    """
    with torch.autocast(queries.device.type, enabled=False):
        queries, documents = _full(queries), _full(documents)
        if block is None:
            block = max(1, BLOCK[queries.device.type] // max(1, query_present.numel() * document_present.shape[1]))
        return _MaxSim.apply(queries, query_present, documents, document_present, block)  # pyright: ignore[reportReturnType]


def _full(vectors: Tensor) -> Tensor:
    return vectors if vectors.dtype == torch.float64 else vectors.float()


def places_first(present: Tensor) -> tuple[Tensor, Tensor]:
    """Places of each row's present tokens [d, n], in order, the first of them repeated to the end; and their number [d].

    A row without any holds its places in order: there is nothing to repeat.
    """
    counts = present.sum(1)
    places = torch.argsort(~present, dim=1, stable=True)
    column = torch.arange(present.shape[1], device=present.device)
    return torch.where((column >= counts[:, None]) & (counts > 0)[:, None], places[:, :1], places), counts


def winners(
    rows: Float[Tensor, "r k"], documents: DocumentTokens, present: DocumentPresent, block: int
) -> tuple[Tensor, Tensor]:
    """Each vector's greatest product with the present tokens of each document [r, d], and the place of that token.

    A document without any has product 0 and place 0.
    """
    places, counts = places_first(present)
    kind = torch.int16 if present.shape[1] <= torch.iinfo(torch.int16).max else torch.int32
    best = rows.new_zeros(len(rows), len(documents))
    won = torch.zeros(best.shape, dtype=kind, device=rows.device)
    order = torch.argsort(counts, descending=True, stable=True)[: int((counts > 0).sum())]
    for start in range(0, len(order), block):
        chosen = order[start : start + block]
        here = places[chosen, : int(counts[chosen[0]])]
        tokens = documents[chosen[:, None], here]
        products = (rows @ tokens.flatten(0, 1).T).view(len(rows), *here.shape)
        values, at = products.max(2)
        best[:, chosen] = values
        won[:, chosen] = here[torch.arange(len(chosen), device=at.device), at].to(kind)
    return best, won


class _MaxSim(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, queries: Tensor, query_present: Tensor, documents: Tensor, document_present: Tensor, block: int
    ) -> Tensor:
        best, won = winners(queries[query_present], documents, document_present, block)
        ctx.save_for_backward(queries, query_present, documents, document_present, won)
        scores = best.new_zeros(*query_present.shape, len(documents))
        scores[query_present] = best
        return scores.sum(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        queries, query_present, documents, document_present, won = ctx.saved_tensors
        width = documents.shape[1]
        alive = document_present.any(1).nonzero().squeeze(1)
        amount = gradients[0][query_present.nonzero()[:, 0]][:, alive].contiguous()  # [row, document]: ∂L/∂score
        token = won[:, alive].long() + alive * width
        to_queries = to_documents = None
        if ctx.needs_input_grad[0]:
            to_queries = torch.zeros_like(queries)
            to_queries[query_present] = _by_row(token, amount, documents.flatten(0, 1))
        if ctx.needs_input_grad[2]:
            rows = queries[query_present]
            to_documents = _by_winner(token, amount, rows, documents[..., 0].numel()).view(documents.shape)
        return to_queries, None, to_documents, None, None


def _by_row(token: Tensor, amount: Tensor, vectors: Tensor) -> Tensor:
    """out[i] = Σ_d amount[i, d] · vectors[token[i, d]]: [row, k]."""
    if not token.numel():
        return vectors.new_zeros(len(token), vectors.shape[1])
    return F.embedding_bag(token, vectors, mode="sum", per_sample_weights=amount)


def _by_winner(token: Tensor, amount: Tensor, rows: Tensor, size: int) -> Tensor:
    """out[j] = Σ over (i, d) with token[i, d] = j of amount[i, d] · rows[i]: [size, k]; the same sum at every call."""
    if not token.numel():
        return rows.new_zeros(size, rows.shape[1])
    flat = token.flatten()
    order = torch.argsort(flat, stable=True)
    starts = torch.zeros(size, dtype=torch.long, device=flat.device)
    starts[1:] = torch.bincount(flat, minlength=size).cumsum(0)[:-1]
    weights = amount.flatten()[order]
    return F.embedding_bag(order // token.shape[1], rows, starts, mode="sum", per_sample_weights=weights)
