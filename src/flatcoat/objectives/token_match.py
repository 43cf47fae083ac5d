"""Token by token: late interaction's similarities are to point where a cross-encoder looks.

    L = mean over pairs of (1/m) Σ_i KL( A_ce[i,:] ‖ A_li[i,:] ),
    A_ce   the cross-encoder's attention from query token i, re-normalised over the document's tokens,
    A_li = softmax_j( ⟨H_q[i], H_d[j]⟩ / τ ) over the same tokens

(the L^att of ERNIE-Search's cascade: Lu et al. 2022, arXiv 2205.09153, §3.3; compare VIRT, Li et al. 2021, arXiv 2112.04195.) The
two read text in different frames (special tokens, markers, expansion), so tokens are matched by their place among the text's
own: the r-th of a query is row r of the attention, the r-th of a document column r, and what only one of the two read is left out.
The cross-encoder gets no gradient.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from flatcoat.objectives.total import check_above_zero


def token_match(
    attention: Float[Tensor, "p m n"],
    queries: Float[Tensor, "p i k"],
    query_content: Bool[Tensor, "p i"],
    documents: Float[Tensor, "p j k"],
    document_content: Bool[Tensor, "p j"],
    temperature: float,
) -> Float[Tensor, ""]:
    """The mean divergence over pairs that have a query token in common whose attention to common document tokens is above zero.

    `attention` is zero where a pair has no such token; the content masks say which vectors stand for the text's own tokens.
    Raises ValueError where temperature is not above 0.
    """
    check_above_zero("temperature", temperature)
    teacher = attention.detach().to(queries.dtype)
    asked, own_rows = _left(queries, query_content, teacher.shape[1])
    found, own_columns = _left(documents, document_content, teacher.shape[2])
    teacher = teacher[:, : asked.shape[1], : found.shape[1]]
    columns = own_columns & _reached(teacher)
    teacher = teacher.masked_fill(~(own_rows[:, :, None] & columns[:, None, :]), 0.0)
    mass = teacher.sum(2)
    rows = mass > 0
    given = teacher / torch.where(rows, mass, 1)[:, :, None]
    similar = torch.einsum("pmk,pnk->pmn", asked, found) / temperature
    own = similar.masked_fill(~columns[:, None, :], torch.finfo(similar.dtype).min).log_softmax(2)
    divergence = torch.where(given > 0, torch.xlogy(given, given) - given * own, 0).sum(2)
    a_pair = torch.where(rows, divergence, 0).sum(1) / rows.sum(1).clamp_min(1)
    return a_pair.sum() / rows.any(1).sum().clamp_min(1)


def _left(vectors: Tensor, content: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """The vectors of content, at most `most` of a text, moved to the left; and which places hold one."""
    count = content.sum(1)
    width = min(most, int(count.max()) if len(count) else 0)
    order = torch.argsort((~content).to(torch.int8), dim=1, stable=True)[:, :width]
    there = torch.arange(width, device=vectors.device) < count[:, None]
    return vectors.gather(1, order[:, :, None].expand(-1, -1, vectors.shape[2])), there


def _reached(teacher: Tensor) -> Tensor:
    """Which columns the teacher read: all up to the last that any row attends to."""
    looked = (teacher > 0).any(1)
    return looked.flip(1).to(torch.int8).cummax(1).values.flip(1).bool()
