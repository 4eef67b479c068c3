"""Keys and values of what was read, so that nothing is read twice.

R rows of the cache, B rows of a forward pass, L new tokens in a row, H key-value heads, K head width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from omni.config import OmniConfig

__all__ = ["CacheView", "KVCache"]

GROWTH = 256


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

    def view(self, rows: list[int], num_new: int) -> "CacheView":
        """Prepare a pass that writes num_new tokens to each of the rows."""
        lengths = [self.lengths[row] for row in rows]
        self.reserve(max(lengths) + num_new)
        is_range = rows == list(range(rows[0], rows[0] + len(rows)))
        index = slice(rows[0], rows[0] + len(rows)) if is_range else torch.tensor(rows, device=self.keys.device)
        return CacheView(self, index, lengths, num_new)


@dataclass(frozen=True)
class CacheView:
    """Some rows of a cache during one forward pass.

    Attributes:
        cache: the cache.
        rows: which of its rows.
        lengths: tokens already held by each of them.
        num_new: tokens this pass writes to each of them (padding included).
    """

    cache: KVCache
    rows: slice | Tensor
    lengths: list[int]
    num_new: int

    @property
    def is_even(self) -> bool:
        """Return whether all rows hold equally many tokens, so that no mask has to hide a difference."""
        return min(self.lengths) == max(self.lengths)

    def write(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write [B, H, L, K] behind what is held and return all keys and values, [B, H, L_keys, K]."""
        end = max(self.lengths) + self.num_new
        written = []
        for store, new in ((self.cache.keys[layer], keys), (self.cache.values[layer], values)):
            if self.is_even:
                store[self.rows, :, end - self.num_new : end] = new.to(store.dtype)
            else:
                for number, (row, length) in enumerate(zip(self._numbers(), self.lengths, strict=True)):
                    store[row, :, length : length + self.num_new] = new[number].to(store.dtype)
            written.append(store[self.rows, :, :end])
        return written[0], written[1]

    def _numbers(self) -> list[int]:
        if isinstance(self.rows, slice):
            return list(range(self.rows.start, self.rows.stop))
        return [int(row) for row in self.rows]

    def open_mask(self) -> Tensor | None:
        """Return the mask of new tokens that all see each other and all that is held; None where all is open."""
        if self.is_even:
            return None
        return self.mask(
            torch.ones(
                len(self.lengths),
                1,
                self.num_new,
                self.num_new,
                dtype=torch.bool,
                device=self.cache.keys.device,
            )
        )

    def mask(self, new: Tensor) -> Tensor:
        """Return who sees what, [B, 1, L, L_keys]: all that is held, and the new tokens by their own mask.

        Args:
            new: the rule among the new tokens, [B, 1, L, L].
        """
        end = max(self.lengths) + self.num_new
        mask = torch.zeros(*new.shape[:3], end, dtype=torch.bool, device=new.device)
        for number, length in enumerate(self.lengths):
            mask[number, ..., :length] = True
            mask[number, ..., length : length + self.num_new] = new[number]
        return mask
