"""Read documents into a cache, each part once; and look at what noise becomes behind them.

R rows of a pass, N latent tokens of a block (all its grids), C numbers in each (of the widest grid; the others are
padded with zeros), V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from omni.cache import KVCache
from omni.decode import TextStep, text_step
from omni.model import OmniModel
from omni.sequence import FlatDocument, FlatGrid, Medium, Segment, TextRun, pack

__all__ = ["Item", "Reader", "join_grids", "split_grids", "to_items"]

Item = int | Medium


def to_items(document: Sequence[Segment]) -> list[Item]:
    """Return a document as ids and blocks, headers and ends spelled out."""
    items: list[Item] = []
    for segment in document:
        items += segment.ids if isinstance(segment, TextRun) else [*segment.header, segment, segment.end]
    return items


def join_grids(grids: Sequence[Tensor]) -> Tensor:
    """Lay the tokens of several grids, [R, N_i, C_i] each, one behind the other: [R, N, C], padded with zeros."""
    widest = max(grid.shape[-1] for grid in grids)
    return torch.cat([torch.nn.functional.pad(grid, (0, widest - grid.shape[-1])) for grid in grids], dim=1)


def split_grids(latents: Tensor, block: Medium) -> list[Tensor]:
    """Undo join_grids for the grids of a block: [R, N_i, C_i] each."""
    pieces = latents.split([grid.num_tokens for grid in block.grids], dim=1)
    return [x[..., : grid.latents.shape[-1]] for x, grid in zip(pieces, block.grids, strict=True)]


@dataclass(frozen=True, eq=False)
class _After:
    """Where a document stands after an item.

    Attributes:
        position: of the next text token.
        film_start: where the film before it began.
        latest: the latest grid of each stream.
    """

    position: float = 0.0
    film_start: float | None = None
    latest: dict[str, FlatGrid] = field(default_factory=dict)


@dataclass
class _Row:
    """What a row of the cache holds: its items, and for each the tokens and what follows needs to know after it."""

    items: list[Item] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    after: list[_After] = field(default_factory=list)

    @property
    def state(self) -> _After:
        """Return what the next token needs to know."""
        return self.after[-1] if self.after else _After()

    def follow(self) -> FlatDocument:
        """Return an empty document that goes on here."""
        state = self.state
        return FlatDocument(next_position=state.position, film_start=state.film_start, latest=state.latest)


class Reader:
    """Read documents into a cache, each part once.

    Args:
        model: in evaluation mode.
        num_rows: documents held side by side.
    """

    def __init__(self, model: OmniModel, *, num_rows: int) -> None:
        weight = model.embed_tokens.weight
        self.model = model
        self.cache = KVCache(model.config, num_rows=num_rows, device=weight.device, dtype=weight.dtype)
        self.rows = [_Row() for _ in range(num_rows)]
        self._text_step: TextStep | None = None

    def sync(self, rows: Sequence[int], documents: Sequence[Sequence[Segment]]) -> Tensor:
        """Make rows hold exactly these documents, keeping what they share with what is held.

        Returns:
            logits after the last token of each, [R, V].
        """
        missing = []
        for row, document in zip(rows, documents, strict=True):
            items, held = to_items(document), self.rows[row]
            shared = 0
            limit = min(len(held.items), len(items) - 1)
            while shared < limit and held.items[shared] == items[shared]:
                shared += 1
            self._truncate(row, shared)
            missing.append(items[shared:])
        self._text_step = text_step(self.model)
        return self.append(rows, missing)

    def _truncate(self, row: int, num_items: int) -> None:
        held = self.rows[row]
        for column in (held.items, held.lengths, held.after):
            del column[num_items:]
        self.cache.truncate(row, held.lengths[-1] if held.lengths else 0)

    def append(self, rows: Sequence[int], items: Sequence[Sequence[Item]]) -> Tensor:
        """Read more items into rows; at least one each, the last an id.

        Returns:
            logits after the last token of each, [R, V].
        """
        ids = [more[0] for more in items if len(more) == 1 and isinstance(more[0], int)]
        if self._text_step is not None and len(ids) == len(items):
            return self._append_ids(self._text_step, rows, ids)
        flats = [self._flatten(row, more) for row, more in zip(rows, items, strict=True)]
        length = max(map(len, flats))
        batch = pack([[flat] for flat in flats], length=length)
        device = self.cache.keys.device
        batch = batch.to(device)
        ends = [number * length + len(flat) - 1 for number, flat in enumerate(flats)]
        batch.logit_index = torch.tensor(ends, device=device)
        view = self.cache.view(rows, length)
        mask = None if length == 1 and view.is_even else "rule"
        logits = self.model(batch, cache=view, mask=mask).logits
        for row, flat in zip(rows, flats, strict=True):
            self.cache.commit(row, len(flat))
        return logits

    def _append_ids(self, step: TextStep, rows: Sequence[int], ids: Sequence[int]) -> Tensor:
        """Read one id into each row."""
        if not step.is_current():
            self._text_step = text_step(self.model)
            return self.append(rows, [[token] for token in ids])
        held = [self.rows[row] for row in rows]
        logits = step(ids, [int(row.state.position) for row in held], self.cache.view(rows, 1))
        for number, row, token in zip(rows, held, ids, strict=True):
            row.items.append(token)
            row.lengths.append(self.cache.lengths[number] + 1)
            row.after.append(replace(row.state, position=row.state.position + 1))
            self.cache.commit(number, 1)
        return logits

    def _flatten(self, row: int, items: Sequence[Item]) -> FlatDocument:
        held = self.rows[row]
        flat = held.follow()
        start = held.lengths[-1] if held.lengths else 0
        for item in items:
            if isinstance(item, Medium):
                flat.add_block(item, self.model.config, copy=0, slot=0)
                flat.advance(item)
            else:
                flat.add_text((item,))
            held.items.append(item)
            held.lengths.append(start + len(flat))
            held.after.append(_After(flat.next_position, flat.film_start, flat.latest))
        return flat

    def velocity_field(self, rows: Sequence[int], blocks: Sequence[Medium]) -> Callable[[Tensor, float], Tensor]:
        """Return the function that maps noisy latents [R, N, C] of a block behind each row to their velocity.

        Tokens that are given have no noise and no velocity.

        Args:
            rows: whose documents condition the blocks.
            blocks: modality and shape of each row's block, the same for all; their latents are not looked at.
        """
        config = self.model.config
        flats = []
        for row, block in zip(rows, blocks, strict=True):
            flat = self.rows[row].follow()
            flat.shifts.append(1.0)
            flat.add_block(block, config, copy=1, slot=1)
            flats.append([flat])
        batch = pack(flats, sample_sigma=torch.zeros_like).to(self.cache.keys.device)
        # All that is made has one sigma, the second; the first is that of given tokens.
        batch.sigma_index, batch.sigmas = batch.sigma_index.clamp(max=1), batch.sigmas[:2]
        view = self.cache.view(rows, blocks[0].num_tokens, is_aligned=True)
        plan = self.model.plan(batch, cache=view, mask=view.open_mask())
        streams = [config.stream_of[grid.modality] for grid in blocks[0].grids]
        is_made = torch.stack([torch.cat([~grid.is_given for grid in block.grids]) for block in blocks])
        is_made = is_made.unsqueeze(-1).to(batch.sigmas.device)

        def velocity(latents: Tensor, sigma: float) -> Tensor:
            grids = split_grids(latents, blocks[0])
            batch.latents = {stream: grid.flatten(0, 1) for stream, grid in zip(streams, grids, strict=True)}
            batch.sigmas = batch.sigmas.new_tensor([0.0, sigma])
            said = self.model(batch, plan=plan, with_logits=False).velocity
            pairs = zip(streams, grids, strict=True)
            return join_grids([said[stream].view_as(grid) for stream, grid in pairs]) * is_made

        return velocity
