"""Documents -> blocks -> packed rows.

A document is a list of text runs and media. Flattened it is a sequence of blocks: a text token is a block of
one, a medium a block of many, between its header (what it is and its shape, as text tokens) and its end token.
B rows, L tokens in a row, N tokens of a stream, C numbers in a latent token, S distinct sigmas.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from omni.config import MODALITIES, OmniConfig
from omni.flow import add_noise, shift_for_tokens
from omni.masks import PAD_DOCUMENT, AttentionIds

__all__ = [
    "Document",
    "FlatDocument",
    "Medium",
    "PackedBatch",
    "Segment",
    "TextRun",
    "block_positions",
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
class Medium:
    """One block of latents with its header.

    Attributes:
        modality: "image", "video" or "audio".
        header: ids that announce modality and shape.
        end: the id after the block; what follows the block is predicted from it.
        latents: clean latent tokens, [frames, rows, columns, C].
        is_target: whether the model is trained to make it.
    """

    modality: str
    header: tuple[int, ...]
    end: int
    latents: Tensor
    is_target: bool = False

    @property
    def num_tokens(self) -> int:
        """Return the number of latent tokens."""
        return math.prod(self.latents.shape[:3])


Segment = TextRun | Medium
Document = Sequence[Segment]


def block_positions(start: float, frames: int, rows: int, columns: int) -> Tensor:
    """Return time, row and column of each token of a block, [frames * rows * columns, 3], float32.

    Rows and columns are centred on the start, so that sizes and aspect ratios generalise.

    Args:
        start: place of the next text token.
        frames: latent frames; an image has one.
        rows: latent tokens from top to bottom.
        columns: latent tokens from left to right.
    """
    time = start + torch.arange(frames, dtype=torch.float32)
    row = start + torch.arange(rows, dtype=torch.float32) - (rows - 1) / 2
    column = start + torch.arange(columns, dtype=torch.float32) - (columns - 1) / 2
    return torch.stack(torch.meshgrid(time, row, column, indexing="ij"), dim=-1).reshape(-1, 3)


@dataclass
class FlatDocument:
    """A document as columns of numbers, one entry a token.

    Attributes:
        ids, modality, block, copy, sigma_slot, labels: integers; labels are -1 where nothing is predicted.
        readable: booleans.
        positions: one [tokens, 3] tensor for each piece.
        latents: (stream, clean latents [tokens, C], sigma slot) of each block, in order.
        shifts: of each sigma slot; slot 0 is sigma 0.
    """

    ids: list[int] = field(default_factory=list)
    modality: list[int] = field(default_factory=list)
    block: list[int] = field(default_factory=list)
    copy: list[int] = field(default_factory=list)
    sigma_slot: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    readable: list[bool] = field(default_factory=list)
    positions: list[Tensor] = field(default_factory=list)
    latents: list[tuple[str, Tensor, int]] = field(default_factory=list)
    shifts: list[float] = field(default_factory=lambda: [0.0])
    next_position: float = 0.0
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

    def add_block(self, medium: Medium, stream: str, *, copy: int, slot: int) -> None:
        """Append one copy of a medium's latents; `advance` closes the block after its last copy."""
        frames, rows, columns, channels = medium.latents.shape
        count = medium.num_tokens
        self.ids += [0] * count
        self.modality += [MODALITIES.index(medium.modality)] * count
        self.block += [self.num_blocks] * count
        self.copy += [copy] * count
        self.sigma_slot += [slot] * count
        self.labels += [-1] * count
        self.readable += [copy == 0] * count
        self.positions.append(block_positions(self.next_position, frames, rows, columns))
        self.latents.append((stream, medium.latents.reshape(count, channels), slot))

    def advance(self, medium: Medium) -> None:
        """Close a block: what follows stands behind its largest coordinate."""
        frames, rows, columns = medium.latents.shape[:3]
        largest = max(frames - 1, (rows - 1) / 2, (columns - 1) / 2)
        self.next_position = math.ceil(self.next_position + largest) + 1
        self.num_blocks += 1


def flatten(document: Document, config: OmniConfig, *, num_noisy: int = 1) -> FlatDocument:
    """Lay a document out as blocks.

    A medium that is trained appears as `num_noisy` noisy copies, each visible to itself alone, and, where
    anything after it learns from it, as one readable copy, all at the same positions.

    Args:
        document: text runs and media.
        config: which stream holds which modality.
        num_noisy: noisy copies of each trained medium.
    """
    flat = FlatDocument()
    for index, segment in enumerate(document):
        if isinstance(segment, TextRun):
            flat.add_text(segment.ids, is_target=segment.is_target)
            continue
        flat.add_text(segment.header, is_target=segment.is_target and _is_written(document))
        stream = config.stream_of[segment.modality]
        for copy in range(1, num_noisy + 1 if segment.is_target else 1):
            flat.shifts.append(shift_for_tokens(segment.num_tokens, base_tokens=config.streams[stream]["base_tokens"]))
            flat.add_block(segment, stream, copy=copy, slot=len(flat.shifts) - 1)
        is_read = any(later.is_target for later in document[index + 1 :])
        if not segment.is_target or is_read:
            flat.add_block(segment, stream, copy=0, slot=0)
        flat.advance(segment)
        if is_read or not segment.is_target:
            flat.add_text((segment.end,))
    return flat


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
    blocks: list[tuple[str, Tensor, int]] = []
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
            blocks += [(stream, x, slot + len(shifts) - 1 if slot else 0) for stream, x, slot in flat.latents]
            shifts += flat.shifts[1:]
            start += len(flat)
    sigmas = torch.zeros(len(shifts))
    if len(shifts) > 1:
        assert sample_sigma is not None, "noisy copies need a sampler of sigmas"
        sigmas[1:] = sample_sigma(torch.tensor(shifts[1:]))
    flat_labels = columns["labels"].flatten()
    logit_index = (flat_labels >= 0).nonzero().squeeze(1)
    latents, target, is_noisy = _add_noise(blocks, sigmas, generator)
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
    )


_COLUMNS = ("ids", "modality", "block", "copy", "sigma_slot", "labels")


def _add_noise(
    blocks: Sequence[tuple[str, Tensor, int]], sigmas: Tensor, generator: torch.Generator | None
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Return noisy latents, velocities and the mask of trained tokens of each stream."""
    noisy: dict[str, Tensor] = {}
    target: dict[str, Tensor] = {}
    is_noisy: dict[str, Tensor] = {}
    for stream in sorted({stream for stream, _, _ in blocks}):
        mine = [(x.float(), slot) for name, x, slot in blocks if name == stream]
        clean = torch.cat([x for x, _ in mine])
        slots = torch.cat([torch.full((len(x),), slot) for x, slot in mine])
        noise = torch.randn(clean.shape, generator=generator)
        noisy[stream] = add_noise(clean, noise, sigmas[slots])
        target[stream] = noise - clean
        is_noisy[stream] = slots > 0
    return noisy, target, is_noisy


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
