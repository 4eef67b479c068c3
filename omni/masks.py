"""The one attention rule, as a dense mask, as dense masks of single documents, and as a flex block mask.

A token attends to its own block, and to every earlier readable block of its document. B rows, L tokens.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

__all__ = ["AttentionIds", "DocumentMasks", "dense_mask", "document_masks", "flex_mask"]

PAD_DOCUMENT = -1


@dataclass(frozen=True)
class AttentionIds:
    """The four integers a token that decide who sees whom, each [B, L].

    Attributes:
        document: which document of the row; PAD_DOCUMENT for padding, which sees nothing but padding.
        block: number of the block in its document, rising.
        copy: 0 for the readable copy of a block, 1 and up for its noisy copies.
        readable: whether later blocks may see the token; a property of the copy, never of a token's sigma.
    """

    document: Tensor
    block: Tensor
    copy: Tensor
    readable: Tensor


def dense_mask(queries: AttentionIds, keys: AttentionIds | None = None) -> Tensor:
    """Return the rule as a boolean mask, True = attend, [B, 1, L_queries, L_keys].

    Args:
        queries: of the tokens that look.
        keys: of the tokens that are looked at; the queries themselves where left out.
    """
    keys = keys or queries

    def both(ids: str) -> tuple[Tensor, Tensor]:
        return getattr(queries, ids).unsqueeze(-1), getattr(keys, ids).unsqueeze(-2)

    (document_q, document_k), (block_q, block_k), (copy_q, copy_k) = (
        both("document"),
        both("block"),
        both("copy"),
    )
    earlier = keys.readable.unsqueeze(-2) & (block_k < block_q)
    own = (block_k == block_q) & (copy_k == copy_q)
    return ((document_q == document_k) & (earlier | own)).unsqueeze(1)


@dataclass(frozen=True)
class DocumentMasks:
    """The rule for one document after the other: in packed rows most pairs of tokens are of two documents.

    Attributes:
        lengths: tokens of each document, in the order of the flattened batch; the padding of a row counts as one.
        masks: the rule within each, True = attend, [1, 1, length, length].
    """

    lengths: tuple[int, ...]
    masks: tuple[Tensor, ...]


def document_masks(ids: AttentionIds) -> DocumentMasks:
    """Return the rule document by document.

    Args:
        ids: of a packed batch.
    """
    begins = torch.ones_like(ids.document, dtype=torch.bool)
    begins[:, 1:] = ids.document[:, 1:] != ids.document[:, :-1]
    places = [*begins.flatten().nonzero().flatten().tolist(), begins.numel()]
    lengths = tuple(stop - start for start, stop in pairwise(places))
    columns = [x.flatten().unsqueeze(0).split(lengths, 1) for x in (ids.document, ids.block, ids.copy, ids.readable)]
    return DocumentMasks(lengths, tuple(dense_mask(AttentionIds(*one)) for one in zip(*columns, strict=True)))


def flex_mask(ids: AttentionIds) -> Any:
    """Return the rule as a BlockMask for torch's flex_attention, one for all heads and layers.

    Args:
        ids: of a packed batch.
    """
    from torch.nn.attention.flex_attention import create_block_mask

    document, block, copy, readable = ids.document, ids.block, ids.copy, ids.readable

    def visible(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        earlier = readable[b, k] & (block[b, k] < block[b, q])
        own = (block[b, k] == block[b, q]) & (copy[b, k] == copy[b, q])
        return (document[b, q] == document[b, k]) & (earlier | own)

    rows, length = document.shape
    create = torch.compile(create_block_mask) if document.is_cuda else create_block_mask
    return create(visible, rows, None, length, length, device=document.device)
