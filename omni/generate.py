"""Generation: one small state machine that yields events.

Text phase: sample ids with the cache. Block phase: integrate the flow from sigma 1 to 0; no key or value of a
noisy step is kept. Commit: read the finished clean block once, and go back to text. Many conversations run side
by side; guidance branches are further rows of the same cache.

R rows of a pass, N latent tokens of a block, C numbers in each, V template.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from omni.chat import HEADER_FIELDS, LARGEST_NUMBER, ChatTemplate, to_latents
from omni.codecs.vision import VisionCodec
from omni.config import MODALITIES
from omni.errors import ConfigError
from omni.flow import shift_for_tokens, sigma_schedule
from omni.guidance import Branch, GuidanceConfig, GuidanceState, branches_needed, combine
from omni.model import OmniModel
from omni.parts import Image
from omni.reader import Reader
from omni.sequence import Medium, Segment, TextRun, drop_conditions
from omni.solvers import SOLVERS, trajectory
from omni.text import StreamDecoder, TextTokenizer

__all__ = [
    "Event",
    "GenerationSettings",
    "Generator",
    "MediaFinished",
    "MediaPreview",
    "MediaStarted",
    "Request",
    "TextDelta",
]


@dataclass(frozen=True)
class TextDelta:
    """More words."""

    text: str


@dataclass(frozen=True)
class MediaStarted:
    """A medium begins. shape: of the picture, (height, width) in pixels."""

    modality: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class MediaPreview:
    """A rough look at a medium that is being made. image: uint8 [H, W, 3], smaller than the medium."""

    image: np.ndarray
    step: int
    num_steps: int


@dataclass(frozen=True)
class MediaFinished:
    """A medium is done."""

    part: Image


Event = TextDelta | MediaStarted | MediaPreview | MediaFinished


@dataclass(frozen=True)
class GenerationSettings:
    """How to generate.

    Attributes:
        steps: of the solver, for each medium.
        solver: a key of solvers.SOLVERS.
        guidance: how strongly conditions are enforced.
        temperature: of text; 0 takes the likeliest id.
        top_p: share of probability kept when sampling text (arXiv:1904.09751).
        max_new_tokens: ids written at most, headers included.
        max_media: media made at most; 0 forbids them.
        max_block_tokens: latent tokens of one medium at most.
        shape: the only header numbers allowed, such as (rows, columns) of a picture; the model's choice where None.
        previews: whether to yield MediaPreview.

    Raises:
        ConfigError: a value is of the wrong kind or out of range.
    """

    steps: int = 24
    solver: str = "euler"
    guidance: GuidanceConfig = GuidanceConfig()
    temperature: float = 0.0
    top_p: float = 1.0
    max_new_tokens: int = 256
    max_media: int = 4
    max_block_tokens: int = 64
    shape: tuple[int, ...] | None = None
    previews: bool = False

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("max_new_tokens", 0), ("max_media", 0), ("max_block_tokens", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ConfigError(f"{name} is {value!r}; give a whole number from {least} on")
        for name, is_legal, legal in (
            ("temperature", lambda value: 0 <= value < math.inf, "0 or more"),
            ("top_p", lambda value: 0 < value <= 1, "above 0 and at most 1"),
        ):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or not is_legal(value):
                raise ConfigError(f"{name} is {value!r}; give a number, {legal}")
        shape = self.shape if self.shape is not None else (1, 1)
        if len(shape) != 2 or not all(isinstance(number, int) and 1 <= number <= LARGEST_NUMBER for number in shape):
            raise ConfigError(f"shape is {shape!r}; give (rows, columns) of a picture, each from 1 to {LARGEST_NUMBER}")
        if self.solver not in SOLVERS:
            raise ConfigError(f"solver is {self.solver!r}; choose one of {', '.join(SOLVERS)}")
        if not isinstance(self.guidance, GuidanceConfig):
            raise ConfigError(f"guidance is {self.guidance!r}; give a GuidanceConfig, or guidance_scale, a number")


@dataclass(frozen=True)
class Request:
    """One conversation to go on with.

    Attributes:
        document: up to and including the assistant's role.
        seed: of the noise and of sampled text.
        forced: (modality, header numbers) of a medium to begin with, after which the reply ends; or None.
    """

    document: Sequence[Segment]
    seed: int
    forced: tuple[str, tuple[int, ...]] | None = None


@dataclass
class _Conversation:
    """One request on its way: what is written, and what comes next."""

    request: Request
    decoder: StreamDecoder
    document: list[Segment]
    written: list[int] = field(default_factory=list)
    header: list[int] = field(default_factory=list)
    num_written: int = 0
    num_media: int = 0
    is_done: bool = False

    def flush(self) -> None:
        """Close the run of words that is being written."""
        if self.written:
            self.document.append(TextRun(tuple(self.written)))
            self.written = []


class Generator:
    """The state machine over a batch of conversations.

    Args:
        model: in evaluation mode.
        tokenizer: of the text.
        codecs: stream -> codec.
    """

    def __init__(self, model: OmniModel, tokenizer: TextTokenizer, codecs: Mapping[str, VisionCodec]) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.codecs = codecs
        self.template = ChatTemplate(tokenizer.control)

    @torch.inference_mode()
    def run(
        self,
        requests: Sequence[Request],
        settings: GenerationSettings,
        *,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Iterator[tuple[int, Event]]:
        """Yield (number of the conversation, event) until every reply has ended.

        Args:
            requests: the conversations; results do not depend on who else is in the batch.
            settings: shared by all of them.
            should_stop: asked before every token and every step; what is done by then stays.
        """
        reader = Reader(self.model, num_rows=len(Branch) * len(requests))
        talks = [_Conversation(r, self.tokenizer.stream_decoder(), list(r.document)) for r in requests]
        for talk in talks:
            self._force(talk)
        logits = reader.sync(range(len(talks)), [self._so_far(talk) for talk in talks])
        pending = dict(enumerate(logits))
        while pending or any(self._wants_block(talk) for talk in talks):
            while pending:
                if should_stop():
                    return
                yield from self._write(talks, pending, settings)
                going = [n for n in pending if not talks[n].is_done and not self._wants_block(talks[n])]
                last = [[(talks[n].header or talks[n].written)[-1]] for n in going]
                pending = dict(zip(going, reader.append(going, last), strict=True)) if going else {}
            for group in self._groups(talks):
                yield from self._make(reader, talks, group, settings, should_stop)
                if should_stop():
                    return
            going = [n for n, talk in enumerate(talks) if not talk.is_done]
            if going:
                logits = reader.sync(going, [self._so_far(talks[n]) for n in going])
                pending = dict(zip(going, logits, strict=True))

    def _force(self, talk: _Conversation) -> None:
        if talk.request.forced is not None:
            kind, numbers = talk.request.forced
            talk.header = list(self.template.header(kind, numbers))

    def _so_far(self, talk: _Conversation) -> list[Segment]:
        tail = [TextRun(tuple(ids)) for ids in (talk.written, talk.header) if ids]
        return [*talk.document, *tail]

    def _wants_block(self, talk: _Conversation) -> bool:
        if talk.is_done or not talk.header:
            return False
        kind = self.template.kind_of(talk.header[0])
        return kind is not None and len(talk.header) == 1 + len(HEADER_FIELDS[kind])

    # Text phase.

    def _write(
        self, talks: Sequence[_Conversation], pending: Mapping[int, Tensor], settings: GenerationSettings
    ) -> Iterator[tuple[int, Event]]:
        """Choose the next id of every pending conversation."""
        for number, logits in pending.items():
            talk = talks[number]
            if self._wants_block(talk):
                continue
            if talk.num_written >= settings.max_new_tokens:
                token = self.template.end
            else:
                token = self._choose(logits, talk, settings)
            talk.num_written += 1
            if token == self.template.end:
                talk.flush()
                talk.is_done = True
                text = talk.decoder.flush()
            elif talk.header or self.template.kind_of(token) is not None:
                talk.flush()
                talk.header.append(token)
                text = talk.decoder.flush()
            else:
                talk.written.append(token)
                text = talk.decoder.push(token)
            if text:
                yield number, TextDelta(text)

    def _choose(self, logits: Tensor, talk: _Conversation, settings: GenerationSettings) -> int:
        legal = self._legal(talk, settings)
        masked = torch.full_like(logits, -math.inf)
        for place in legal:
            masked[place] = logits[place]
        if settings.temperature == 0 or talk.header:
            return int(masked.argmax())
        probabilities = (masked.float() / settings.temperature).softmax(-1).cpu()
        ordered, ids = probabilities.sort(descending=True)
        ordered[ordered.cumsum(0) - ordered >= settings.top_p] = 0
        generator = _generator(talk.request.seed, 2 * talk.num_written + 1)
        return int(ids[torch.multinomial(ordered, 1, generator=generator)])

    def _legal(self, talk: _Conversation, settings: GenerationSettings) -> list[int | slice]:
        """Return the ids that may come next: words and kinds, or the numbers of a legal shape."""
        words = self.template
        if talk.header:
            if settings.shape is not None:
                return [words.number(settings.shape[len(talk.header) - 1])]
            taken = [token - words.first_number for token in talk.header[1:]]
            largest = settings.max_block_tokens // math.prod(taken)
            return [slice(words.number(1), words.number(min(largest, 255)) + 1)]
        # A medium needs room for its header too.
        room = settings.max_new_tokens - talk.num_written > max(map(len, HEADER_FIELDS.values()))
        kinds = [words.kinds[kind] for kind in words.kinds if kind in self.model.config.stream_of]
        media = kinds if room and talk.num_media < settings.max_media else []
        return [slice(0, self.tokenizer.num_text_ids), words.end, *media]

    # Block phase.

    def _groups(self, talks: Sequence[_Conversation]) -> list[list[int]]:
        """Group the conversations that wait for a block by what can run as one batch."""
        groups: dict[object, list[int]] = {}
        for number, talk in enumerate(talks):
            if self._wants_block(talk):
                key = (tuple(talk.header), *self._conditions(talk))
                groups.setdefault(key, []).append(number)
        return list(groups.values())

    def _conditions(self, talk: _Conversation) -> tuple[bool, bool]:
        """Return whether words, and whether media, come before the block."""
        runs = [segment for segment in talk.document if isinstance(segment, TextRun)]
        has_text = any(token < self.tokenizer.num_text_ids for run in runs for token in run.ids)
        return has_text, any(isinstance(segment, Medium) for segment in talk.document)

    def _make(
        self,
        reader: Reader,
        talks: Sequence[_Conversation],
        group: list[int],
        settings: GenerationSettings,
        should_stop: Callable[[], bool],
    ) -> Iterator[tuple[int, Event]]:
        """Make one block for each conversation of a group."""
        block = self._empty_block(talks[group[0]])
        codec = self.codecs[self.model.config.stream_of[block.modality]]
        rows, columns = block.latents.shape[1:3]
        size = self._patch_size(block) * codec.spatial_factor
        for number in group:
            yield number, MediaStarted(block.modality, (rows * size, columns * size))
        has_text, has_media = self._conditions(talks[group[0]])
        field_ = self._guided_field(reader, talks, group, block, settings)
        noise = torch.stack([self._noise(talks[number], block) for number in group])
        base = self.model.config.streams[self.model.config.stream_of[block.modality]]["base_tokens"]
        shift = shift_for_tokens(block.num_tokens, base_tokens=base)
        latents = noise
        for step in trajectory(field_, noise, sigma_schedule(settings.steps, shift=shift), solver=settings.solver):
            latents = step.latents
            if should_stop():
                return
            if settings.previews and step.index < step.num_steps:
                images = codec.preview(self._to_codec(step.clean, block))
                for number, image in zip(group, images, strict=True):
                    yield number, MediaPreview(_first_frame(image), step.index, step.num_steps)
        pixels = codec.decode(self._to_codec(latents, block))
        for number, tokens, picture in zip(group, latents, pixels, strict=True):
            talk = talks[number]
            medium = replace(block, latents=tokens.view_as(block.latents))
            talk.document.append(medium)
            talk.header, talk.num_media = [], talk.num_media + 1
            talk.is_done = talk.request.forced is not None
            yield number, MediaFinished(Image(_first_frame(picture)))

    def _guided_field(
        self,
        reader: Reader,
        talks: Sequence[_Conversation],
        group: list[int],
        block: Medium,
        settings: GenerationSettings,
    ) -> Callable[[Tensor, float], Tensor]:
        """Return the guided velocity of a group's blocks; all branches run as rows of one batch."""
        has_text, has_media = self._conditions(talks[group[0]])
        guidance, state = settings.guidance, GuidanceState()

        def branches_at(sigma: float | None) -> tuple[Branch, ...]:
            return branches_needed(guidance, has_text=has_text, has_media=has_media, sigma=sigma)

        places = {branch: [n + index * len(talks) for n in group] for index, branch in enumerate(Branch)}
        for branch in branches_at(None)[1:]:
            reader.sync(places[branch], [self._branch(talks[n], branch) for n in group])
        fields: dict[tuple[Branch, ...], Callable[[Tensor, float], Tensor]] = {}

        def guided(latents: Tensor, sigma: float) -> Tensor:
            branches = branches_at(sigma)
            if branches not in fields:
                rows = [row for branch in branches for row in places[branch]]
                fields[branches] = reader.velocity_field(rows, block)
            said = fields[branches](latents.repeat(len(branches), 1, 1), sigma).chunk(len(branches))
            return combine(
                dict(zip(branches, said, strict=True)),
                guidance=guidance,
                sigma=sigma,
                has_text=has_text,
                has_media=has_media,
                noisy=latents,
                state=state,
            )

        return guided

    def _branch(self, talk: _Conversation, branch: Branch) -> list[Segment]:
        return drop_conditions(
            self._so_far(talk),
            text=branch.drops_text,
            media=branch.drops_media,
            num_text_ids=self.tokenizer.num_text_ids,
        )

    def _empty_block(self, talk: _Conversation) -> Medium:
        kind = self.template.kind_of(talk.header[0])
        assert kind is not None
        rows, columns = (token - self.template.first_number for token in talk.header[1:])
        channels = self.model.config.token_dim(self.model.config.stream_of[kind])
        return Medium(kind, tuple(talk.header), self.template.media_end, torch.zeros(1, rows, columns, channels))

    def _noise(self, talk: _Conversation, block: Medium) -> Tensor:
        """Draw a block's noise, [N, C], from the conversation's own seed: the same alone and in a batch."""
        generator = _generator(talk.request.seed, 2 * talk.num_media)
        noise = torch.randn(block.num_tokens, block.latents.shape[-1], generator=generator)
        return noise.to(self.model.embed_tokens.weight.device)

    def _patch_size(self, block: Medium) -> int:
        return self.model.config.streams[self.model.config.stream_of[block.modality]]["patch_size"]

    def _to_codec(self, tokens: Tensor, block: Medium) -> Tensor:
        """Bring tokens [R, N, C] to codec latents [R, F, H, W, channels]."""
        grids = tokens.unflatten(1, block.latents.shape[:3])
        return torch.stack([to_latents(grid, patch_size=self._patch_size(block)) for grid in grids])


def _first_frame(pixels: Tensor | np.ndarray) -> np.ndarray:
    """Return the only frame of a picture, uint8 [H, W, 3]."""
    array = pixels.cpu().numpy() if isinstance(pixels, Tensor) else pixels
    return array[0] if array.ndim == 4 else array


def _generator(seed: int, number: int) -> torch.Generator:
    """Return a generator for one draw of one conversation."""
    return torch.Generator().manual_seed((seed * 1_000_003 + number) % 2**63)


assert set(HEADER_FIELDS) <= set(MODALITIES)
