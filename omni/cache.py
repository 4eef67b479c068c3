"""Keys and values of what was read, so that nothing is read twice.

R rows of the cache, B rows of a forward pass, L new tokens in a row, H key-value heads, K head width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from omni.config import OmniConfig

__all__ = ["CacheView", "KVCache"]

GROWTH = 128


class KVCache:
    """Keys and values of every layer for some rows, each with its own length.

    A forward pass writes behind the length of its rows. Only `commit` moves a length, so what a noisy step
    wrote is overwritten by the next one and never read by a later block.

    Args:
        config: number of layers, of key-value heads, and their width.
        num_rows: sequences held side by side.
        device: where the tensors live.
        dtype: of keys and values.
    """

    def __init__(
        self,
        config: OmniConfig,
        *,
        num_rows: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
    ) -> None:
        self.lengths = [0] * num_rows
        shape = (config.num_layers, num_rows, config.num_kv_heads, GROWTH, config.head_dim)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)

    @property
    def num_rows(self) -> int:
        """Return how many sequences the cache holds."""
        return len(self.lengths)

    def reserve(self, num_tokens: int) -> None:
        """Make room for rows of num_tokens; what is there stays."""
        held = self.keys.shape[3]
        if num_tokens <= held:
            return
        extra = max(num_tokens - held, held)
        for name in ("keys", "values"):
            old = getattr(self, name)
            setattr(self, name, torch.cat([old, old.new_zeros(*old.shape[:3], extra, old.shape[4])], dim=3))

    def commit(self, row: int, num_tokens: int) -> None:
        """Keep the first num_tokens that the last pass wrote to the row."""
        self.lengths[row] += num_tokens

    def truncate(self, row: int, length: int) -> None:
        """Forget all but the first `length` tokens of the row."""
        assert length <= self.lengths[row], f"row {row} holds {self.lengths[row]} tokens, not {length}"
        self.lengths[row] = length

    def view(self, rows: Sequence[int], num_new: int, *, is_aligned: bool = False) -> "CacheView":
        """Prepare a pass that writes num_new tokens to each of the rows.

        Args:
            rows: which ones.
            num_new: tokens of the pass in each of them, padding included.
            is_aligned: write to the same places in every row, behind the longest. It is faster, but what was
                written cannot be committed.
        """
        lengths = [self.lengths[row] for row in rows]
        longest = max(lengths)
        self.reserve(longest + num_new)
        starts = [longest] * len(lengths) if is_aligned else lengths
        return CacheView(self, list(rows), lengths, starts, num_new)


@dataclass(frozen=True)
class CacheView:
    """Some rows of a cache during one or more forward passes.

    Attributes:
        cache: the cache.
        rows: which of its rows.
        lengths: tokens already held by each of them.
        starts: where a pass writes in each of them.
        num_new: tokens a pass writes to each of them (padding included).
    """

    cache: KVCache
    rows: list[int]
    lengths: list[int]
    starts: list[int]
    num_new: int

    @property
    def is_even(self) -> bool:
        """Return whether all rows hold equally many tokens, so that no mask has to hide a difference."""
        return min(self.lengths) == max(self.lengths)

    @property
    def num_keys(self) -> int:
        """Return how many places a pass looks at."""
        return max(self.lengths) + self.num_new

    def write(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write [B, H, L, K] behind what is held and return all keys and values, [B, H, L_keys, K]."""
        for stores, slots, new in zip(self._stores, self._slots, (keys, values), strict=True):
            if slots is not None:
                slots[layer].copy_(new.detach())
            else:
                rows, places = self._places
                stores[layer][rows, :, places] = new.detach().transpose(1, 2).to(self.cache.keys.dtype)
        if self._range is not None:
            return self._held[0][layer], self._held[1][layer]
        rows = self._places[0].squeeze(1)
        return self._held[0][layer][rows], self._held[1][layer][rows]

    @cached_property
    def _range(self) -> slice | None:
        """The rows as a slice, where they are evenly spaced: reading them copies nothing."""
        step = self.rows[1] - self.rows[0] if len(self.rows) > 1 else 1
        places = range(self.rows[0], self.rows[-1] + 1, step) if step > 0 else range(0)
        return slice(places.start, places.stop, step) if list(places) == self.rows else None

    @cached_property
    def _stores(self) -> tuple[tuple[Tensor, ...], ...]:
        return self.cache.keys.unbind(), self.cache.values.unbind()

    @cached_property
    def _held(self) -> tuple[tuple[Tensor, ...], ...]:
        """Keys and values of each layer, of the rows where they are a range and of all rows otherwise."""
        rows = self._range or slice(None)
        return tuple(store[:, rows, :, : self.num_keys].unbind() for store in (self.cache.keys, self.cache.values))

    @cached_property
    def _slots(self) -> tuple[tuple[Tensor, ...] | None, ...]:
        """Where the new keys and values of each layer go, where that is one slice."""
        if self._range is None or min(self.starts) < max(self.starts):
            return None, None
        new = slice(self.starts[0], self.starts[0] + self.num_new)
        return tuple(store[:, self._range, :, new].unbind() for store in (self.cache.keys, self.cache.values))

    @cached_property
    def _places(self) -> tuple[Tensor, Tensor]:
        """Rows [B, 1] and places [B, L] of the new tokens."""
        device = self.cache.keys.device
        starts = torch.tensor(self.starts, device=device).unsqueeze(1)
        return torch.tensor(self.rows, device=device).unsqueeze(1), starts + torch.arange(self.num_new, device=device)

    def open_mask(self) -> Tensor | None:
        """Return the mask of new tokens that all see each other and all that is held; None where all is open."""
        if self.is_even:
            return None
        shape = (len(self.lengths), 1, self.num_new, self.num_new)
        return self.mask(torch.ones(shape, dtype=torch.bool, device=self.cache.keys.device))

    def mask(self, new: Tensor) -> Tensor:
        """Return who sees what, [B, 1, L, L_keys]: all that is held, and the new tokens by their own mask.

        Args:
            new: the rule among the new tokens, [B, 1, L, L].
        """
        mask = torch.zeros(*new.shape[:3], self.num_keys, dtype=torch.bool, device=new.device)
        for number, (length, start) in enumerate(zip(self.lengths, self.starts, strict=True)):
            mask[number, ..., :length] = True
            mask[number, ..., start : start + self.num_new] = new[number]
        return mask
