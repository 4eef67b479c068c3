"""The one attention rule, as a dense mask and as a flex block mask.

A token attends to its own block, and to every earlier readable block of its document. B rows, L tokens.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["AttentionIds", "dense_mask", "flex_mask"]

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
