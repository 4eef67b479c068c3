"""Documents -> blocks -> packed rows.

A document is a list of text runs and media. Flattened it is a sequence of blocks: a text token is a block of
one, a medium a block of many, between its header (what it is and its shape, as text tokens) and its end token.
B rows, L tokens in a row, N tokens of a stream, C numbers in a latent token, S distinct sigmas.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from omni.config import MODALITIES, OmniConfig
from omni.flow import add_noise, shift_for_tokens
from omni.masks import PAD_DOCUMENT, AttentionIds

__all__ = [
    "Document",
    "FlatDocument",
    "FlatGrid",
    "Grid",
    "Medium",
    "PackedBatch",
    "Segment",
    "TextRun",
    "block_positions",
    "block_shift",
    "drop_conditions",
    "flatten",
    "pack",
    "pack_rows",
]

TEXT = MODALITIES.index("text")


@dataclass(frozen=True)
class TextRun:
    """Consecutive text or control ids.

    Attributes:
        ids: the ids.
        is_target: whether the model is trained to write them.
    """

    ids: tuple[int, ...]
    is_target: bool = False


@dataclass(frozen=True, eq=False)
class Grid:
    """The latents of one modality within a block.

    Attributes:
        modality: "image", "video" or "audio".
        latents: clean latent tokens, [frames, rows, columns, C].
        seconds: of each latent frame, from the beginning of the film or recording; (0.0,) for a picture.
        given: tokens of a block that is made which are not made but given, [frames, rows, columns]; None for none.
    """

    modality: str
    latents: Tensor
    seconds: tuple[float, ...] = (0.0,)
    given: Tensor | None = None

    def __post_init__(self) -> None:
        frames = self.latents.shape[0]
        assert len(self.seconds) == frames, f"{len(self.seconds)} seconds for {frames} latent frames"
        assert self.given is None or self.given.shape == self.latents.shape[:3], "given: one value a token"

    @property
    def num_tokens(self) -> int:
        """Return the number of latent tokens."""
        return math.prod(self.latents.shape[:3])

    @property
    def is_given(self) -> Tensor:
        """Return for each token whether it is given, [tokens]."""
        if self.given is None:
            return torch.zeros(self.num_tokens, dtype=torch.bool)
        return self.given.flatten()


@dataclass(frozen=True, eq=False)
class Medium:
    """One block of latents with its header; a film and its sound are two grids of one block.

    Attributes:
        header: ids that announce modality and shape.
        end: the id after the block; what follows the block is predicted from it.
        grids: the latents, one grid a modality.
        is_target: whether the model is trained to make it.
        continues: whether it goes on with the film of the medium before it, on one clock.
    """

    header: tuple[int, ...]
    end: int
    grids: tuple[Grid, ...]
    is_target: bool = False
    continues: bool = False

    @property
    def modality(self) -> str:
        """Return the modality of the first grid."""
        return self.grids[0].modality

    @property
    def num_tokens(self) -> int:
        """Return the number of latent tokens of all grids."""
        return sum(grid.num_tokens for grid in self.grids)


Segment = TextRun | Medium
Document = Sequence[Segment]


POSITIONS_PER_SECOND = 25.0


def block_positions(start: float, seconds: Sequence[float], rows: int, columns: int) -> Tensor:
    """Return time, row and column of each token of a grid, [frames * rows * columns, 3], float32.

    Time runs in real seconds, 25 positions each, so that a film and its sound share the clock. Rows and columns are
    counted from the middle, whatever stands before, so that sizes and aspect ratios generalise, and the same place of
    two pictures is nothing apart on these axes: a picture that goes back to an earlier one finds there what it keeps.

    Args:
        start: position at which the film or picture begins.
        seconds: of each latent frame since then.
        rows: latent tokens from top to bottom.
        columns: latent tokens from left to right.
    """
    time = start + POSITIONS_PER_SECOND * torch.tensor(tuple(seconds), dtype=torch.float32)
    row = torch.arange(rows, dtype=torch.float32) - (rows - 1) / 2
    column = torch.arange(columns, dtype=torch.float32) - (columns - 1) / 2
    return torch.stack(torch.meshgrid(time, row, column, indexing="ij"), dim=-1).reshape(-1, 3)


@dataclass
class FlatGrid:
    """One copy of a grid's latents, one entry a token.

    Attributes:
        stream: whose latents they are.
        latents: clean, [tokens, C].
        sigma_slot: of each token, [tokens]; 0 is sigma 0.
        shape: latent frames, rows, columns.
        reads_previous: whether the stream reads what was last known at a token's place.
        before: of a noisy copy, the latest readable grid of the stream, where its frames are of the same size.
    """

    stream: str
    latents: Tensor
    sigma_slot: Tensor
    shape: tuple[int, int, int]
    reads_previous: bool = False
    before: "FlatGrid | None" = None

    def renumbered(self, offset: int) -> "FlatGrid":
        """Return the grid with other sigma slots, so many later; slot 0 stays."""
        return replace(self, sigma_slot=torch.where(self.sigma_slot > 0, self.sigma_slot + offset, 0))

    def previous(self) -> tuple[Tensor, Tensor]:
        """Return for each noisy token what was last known at its place, [tokens, C], and whether anything was.

        That is the latest frame before its own that is given, of its block or else of the grid before.
        """
        is_noisy = (self.sigma_slot > 0).view(self.shape)
        frames = self.latents.view(*self.shape, -1)
        latest = (
            torch.zeros_like(frames[0]) if self.before is None else self.before.latents.view(*self.before.shape, -1)[-1]
        )
        known = torch.full(self.shape[1:], self.before is not None)
        seen, is_known = [], []
        for frame, noisy in zip(frames, is_noisy, strict=True):
            is_known.append(known & noisy)
            seen.append(latest * is_known[-1].unsqueeze(-1))
            latest, known = torch.where(noisy.unsqueeze(-1), latest, frame), known | ~noisy
        return torch.stack(seen).view_as(self.latents), torch.stack(is_known).flatten()


@dataclass
class FlatDocument:
    """A document as columns of numbers, one entry a token.

    Attributes:
        ids, modality, block, copy, sigma_slot, labels: integers; labels are -1 where nothing is predicted.
        readable: booleans.
        positions: one [tokens, 3] tensor for each piece.
        latents: of each grid, in order.
        latest: the latest readable grid of each stream.
        shifts: of each sigma slot; slot 0 is sigma 0.
        next_position: of the next text token.
        film_start: position at which the latest medium, or the film it goes on with, began; None before the first.
    """

    ids: list[int] = field(default_factory=list)
    modality: list[int] = field(default_factory=list)
    block: list[int] = field(default_factory=list)
    copy: list[int] = field(default_factory=list)
    sigma_slot: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    readable: list[bool] = field(default_factory=list)
    positions: list[Tensor] = field(default_factory=list)
    latents: list[FlatGrid] = field(default_factory=list)
    latest: dict[str, FlatGrid] = field(default_factory=dict)
    shifts: list[float] = field(default_factory=lambda: [0.0])
    next_position: float = 0.0
    film_start: float | None = None
    num_blocks: int = 0

    def __len__(self) -> int:
        return len(self.ids)

    def add_text(self, ids: Sequence[int], *, is_target: bool = False) -> None:
        """Append text tokens, each a block of its own; targets are predicted from the token before."""
        count = len(ids)
        if is_target and self.ids:
            self.labels[-1:] = [ids[0]]
            self.labels += [*ids[1:], -1]
        else:
            self.labels += [-1] * count
        self.ids += ids
        self.modality += [TEXT] * count
        self.block += range(self.num_blocks, self.num_blocks + count)
        self.copy += [0] * count
        self.sigma_slot += [0] * count
        self.readable += [True] * count
        steps = self.next_position + torch.arange(count, dtype=torch.float32)
        self.positions.append(steps.unsqueeze(-1).expand(-1, 3))
        self.next_position += count
        self.num_blocks += count

    def add_block(self, medium: Medium, config: OmniConfig, *, copy: int, slot: int) -> None:
        """Append one copy of a medium's latents; `advance` closes the block after its last copy.

        Args:
            medium: its grids share the block's sigma; tokens that are given stay clean.
            config: which stream holds which modality.
            copy: 0 for the readable copy, 1 and up for noisy ones.
            slot: of the sigma; 0 is sigma 0.
        """
        start = self._start_of(medium)
        for grid in medium.grids:
            frames, rows, columns, channels = grid.latents.shape
            count = grid.num_tokens
            stream = config.stream_of[grid.modality]
            slots = torch.where(grid.is_given, 0, slot)
            self.ids += [0] * count
            self.modality += [MODALITIES.index(grid.modality)] * count
            self.block += [self.num_blocks] * count
            self.copy += [copy] * count
            self.sigma_slot += slots.tolist()
            self.labels += [-1] * count
            self.readable += [copy == 0] * count
            self.positions.append(block_positions(start, grid.seconds, rows, columns))
            flat = FlatGrid(stream, grid.latents.reshape(count, channels), slots, (frames, rows, columns))
            flat.reads_previous = bool(config.streams[stream].get("reads_previous"))
            flat.before = self._before(flat) if copy > 0 else None
            self.latents.append(flat)
        if copy == 0:
            self.latest = self.latest | {flat.stream: flat for flat in self.latents[-len(medium.grids) :]}

    def _before(self, grid: FlatGrid) -> FlatGrid | None:
        """Return the latest readable grid of a grid's stream, if its frames are of the same size."""
        latest = self.latest.get(grid.stream)
        return latest if latest is not None and latest.shape[1:] == grid.shape[1:] else None

    def _start_of(self, medium: Medium) -> float:
        """Return where a medium begins; one that goes on with a film, where the film began."""
        return self.film_start if medium.continues and self.film_start is not None else self.next_position

    def advance(self, medium: Medium) -> None:
        """Close a block: what follows stands behind its last moment, and half its larger side behind its beginning."""
        self.film_start = self._start_of(medium)
        shapes = [(grid.seconds[-1] * POSITIONS_PER_SECOND, *grid.latents.shape[1:3]) for grid in medium.grids]
        largest = max(max(time, (rows - 1) / 2, (columns - 1) / 2) for time, rows, columns in shapes)
        self.next_position = max(self.next_position, math.ceil(self.film_start + largest) + 1)
        self.num_blocks += 1


def flatten(document: Document, config: OmniConfig, *, num_noisy: int = 1, start: int = 0) -> FlatDocument:
    """Lay a document out as blocks.

    A medium that is trained appears as `num_noisy` noisy copies, each visible to itself alone, and, where
    anything after it learns from it, as one readable copy, all at the same positions.

    Args:
        document: text runs and media.
        config: which stream holds which modality.
        num_noisy: noisy copies of each trained medium.
        start: position of the first token.
    """
    flat = FlatDocument(next_position=float(start))
    for index, segment in enumerate(document):
        if isinstance(segment, TextRun):
            flat.add_text(segment.ids, is_target=segment.is_target)
            continue
        flat.add_text(segment.header, is_target=segment.is_target and _is_written(document))
        for copy in range(1, num_noisy + 1 if segment.is_target else 1):
            flat.shifts.append(block_shift(segment, config))
            flat.add_block(segment, config, copy=copy, slot=len(flat.shifts) - 1)
        is_read = any(later.is_target for later in document[index + 1 :])
        if not segment.is_target or is_read:
            flat.add_block(segment, config, copy=0, slot=0)
        flat.advance(segment)
        if is_read or not segment.is_target:
            flat.add_text((segment.end,))
    return flat


def block_shift(medium: Medium, config: OmniConfig) -> float:
    """Return the shift of a block's sigma, from the size of its first grid; see flow.shift_for_tokens."""
    grid = medium.grids[0]
    return shift_for_tokens(grid.num_tokens, base_tokens=config.streams[config.stream_of[grid.modality]]["base_tokens"])


def _is_written(document: Document) -> bool:
    """Whether the document trains text at all; one whose conditions were dropped trains latents alone."""
    return any(isinstance(segment, TextRun) and segment.is_target for segment in document)


@dataclass
class PackedBatch:
    """What the model reads, and what it is to say.

    Attributes:
        ids: [B, L]; 0 at latent tokens and padding.
        modality: index into MODALITIES, [B, L].
        positions: time, row, column, [B, L, 3], float32.
        attention: who sees whom.
        latents: stream -> noisy latents of its tokens in reading order, [N, C].
        sigmas: distinct noise levels, [S].
        sigma_index: which of them each token has, [B, L].
        logit_index: flat places at which logits are wanted, [M].
        labels: the id that follows each of those places, [M].
        velocity: stream -> velocity to be learnt, [N, C]; None when nothing is.
        is_noisy: stream -> whether each token is trained, [N].
        previous: stream -> what was last known at the place of each noisy token, [N, C]; zeros where nothing was.
        is_known: stream -> whether anything was, [N].
        is_causal: whether plain causal attention is the whole rule here (text alone, one document a row).
    """

    ids: Tensor
    modality: Tensor
    positions: Tensor
    attention: AttentionIds
    latents: dict[str, Tensor]
    sigmas: Tensor
    sigma_index: Tensor
    logit_index: Tensor
    labels: Tensor | None = None
    velocity: dict[str, Tensor] | None = None
    is_noisy: dict[str, Tensor] | None = None
    previous: dict[str, Tensor] = field(default_factory=dict)
    is_known: dict[str, Tensor] = field(default_factory=dict)

    def to(self, device: torch.device | str) -> "PackedBatch":
        """Return the batch on another device."""

        def move(value: object) -> object:
            if isinstance(value, Tensor):
                return value.to(device, non_blocking=True)
            if isinstance(value, dict):
                return {key: move(item) for key, item in value.items()}
            if isinstance(value, AttentionIds):
                return AttentionIds(*(move(getattr(value, name)) for name in value.__dataclass_fields__))  # type: ignore[arg-type]
            return value

        return PackedBatch(**{name: move(getattr(self, name)) for name in self.__dataclass_fields__})  # type: ignore[arg-type]

    @property
    def num_tokens(self) -> int:
        """Return how many places hold a real token."""
        return int((self.attention.document != PAD_DOCUMENT).sum())


def pack_rows(lengths: Iterable[int], row_length: int, num_rows: int) -> list[list[int]]:
    """Choose which documents share a row, best fit, largest first.

    Args:
        lengths: tokens of each document.
        row_length: room in a row.
        num_rows: rows of the batch.

    Returns:
        for each row the indices of its documents; documents that found no room are in none.
    """
    rows: list[list[int]] = [[] for _ in range(num_rows)]
    room = [row_length] * num_rows
    for index, length in sorted(enumerate(lengths), key=lambda pair: -pair[1]):
        fitting = [row for row in range(num_rows) if room[row] >= length]
        if fitting:
            best = min(fitting, key=room.__getitem__)
            rows[best].append(index)
            room[best] -= length
    return rows


SigmaSampler = Callable[[Tensor], Tensor]


def pack(
    rows: Sequence[Sequence[FlatDocument]],
    *,
    length: int | None = None,
    sample_sigma: SigmaSampler | None = None,
    generator: torch.Generator | None = None,
) -> PackedBatch:
    """Lay flat documents into the rows of a batch, and add noise to what is trained.

    Args:
        rows: the documents of each row.
        length: tokens of a row; the longest row's where left out.
        sample_sigma: maps the shifts of the noisy blocks [N] to their sigmas [N]; needed with noisy copies.
        generator: source of the noise.
    """
    length = length or max(sum(map(len, row)) for row in rows)
    columns = {name: torch.zeros(len(rows), length, dtype=torch.long) for name in _COLUMNS}
    columns["labels"].fill_(-1)
    columns["document"] = torch.full((len(rows), length), PAD_DOCUMENT)
    columns["block"].copy_(torch.arange(length))  # a padding token sees the padding before it, so no row is empty
    positions = torch.zeros(len(rows), length, 3)
    readable = torch.zeros(len(rows), length, dtype=torch.bool)
    shifts = [0.0]
    grids: list[FlatGrid] = []
    for number, row in enumerate(rows):
        start = 0
        for document, flat in enumerate(row):
            place = slice(start, start + len(flat))
            for name in _COLUMNS:
                columns[name][number, place] = torch.tensor(getattr(flat, name), dtype=torch.long)
            slots = columns["sigma_slot"][number, place]
            slots[slots > 0] += len(shifts) - 1
            columns["document"][number, place] = document
            readable[number, place] = torch.tensor(flat.readable)
            positions[number, place] = torch.cat(flat.positions)
            grids += [grid.renumbered(len(shifts) - 1) for grid in flat.latents]
            shifts += flat.shifts[1:]
            start += len(flat)
    sigmas = torch.zeros(len(shifts))
    if len(shifts) > 1:
        assert sample_sigma is not None, "noisy copies need a sampler of sigmas"
        sigmas[1:] = sample_sigma(torch.tensor(shifts[1:]))
    flat_labels = columns["labels"].flatten()
    logit_index = (flat_labels >= 0).nonzero().squeeze(1)
    latents, target, is_noisy = _add_noise(grids, sigmas, generator)
    previous, is_known = _previous(grids)
    return PackedBatch(
        ids=columns["ids"],
        modality=columns["modality"],
        positions=positions,
        attention=AttentionIds(columns["document"], columns["block"], columns["copy"], readable),
        latents=latents,
        sigmas=sigmas,
        sigma_index=columns["sigma_slot"],
        logit_index=logit_index,
        labels=flat_labels[logit_index],
        velocity=target,
        is_noisy=is_noisy,
        previous=previous,
        is_known=is_known,
    )


_COLUMNS = ("ids", "modality", "block", "copy", "sigma_slot", "labels")


def _add_noise(
    grids: Sequence[FlatGrid], sigmas: Tensor, generator: torch.Generator | None
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Return noisy latents, velocities and the mask of trained tokens of each stream."""
    noisy: dict[str, Tensor] = {}
    target: dict[str, Tensor] = {}
    is_noisy: dict[str, Tensor] = {}
    for stream in sorted({grid.stream for grid in grids}):
        clean = torch.cat([grid.latents.float() for grid in grids if grid.stream == stream])
        slots = torch.cat([grid.sigma_slot for grid in grids if grid.stream == stream])
        noise = torch.randn(clean.shape, generator=generator)
        noisy[stream] = add_noise(clean, noise, sigmas[slots])
        target[stream] = noise - clean
        is_noisy[stream] = slots > 0
    return noisy, target, is_noisy


def _previous(grids: Sequence[FlatGrid]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return what was last known at the place of each token of the streams that read it, and whether anything was."""
    streams = {grid.stream for grid in grids if grid.reads_previous}
    pairs = {s: [grid.previous() for grid in grids if grid.stream == s] for s in streams}
    latents = {s: torch.cat([latents.float() for latents, _ in each]) for s, each in pairs.items()}
    return latents, {s: torch.cat([known for _, known in each]) for s, each in pairs.items()}


def drop_conditions(document: Document, *, text: bool, media: bool, num_text_ids: int) -> list[Segment]:
    """Remove what conditions the media of a document, and keep its control ids and headers.

    The same function makes the guidance branches in generation and their training rows, in which no text is
    learnt and the media that are learnt stay.

    Args:
        document: text runs and media.
        text: remove the words.
        media: remove the media that are given.
        num_text_ids: ids below this are words, the others control.
    """
    kept: list[Segment] = []
    for segment in document:
        if isinstance(segment, Medium):
            if segment.is_target or not media:
                kept.append(segment)
        else:
            ids = tuple(i for i in segment.ids if i >= num_text_ids or not text)
            kept.append(TextRun(ids))
    return kept
