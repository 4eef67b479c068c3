"""Generation: one small state machine that yields events.

Text phase: sample ids with the cache. Block phase: integrate the flow from sigma 1 to 0; no key or value of a
noisy step is kept. Commit: read the finished clean block once, and go back to text. Many conversations run side
by side; guidance branches are further rows of the same cache.

R rows of a pass, N latent tokens of a block, C numbers in each, V template.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from omni.chat import HEADER_FIELDS, ChatTemplate, continued_film
from omni.events import Event, MediaFinished, MediaPreview, MediaStarted, TextDelta
from omni.flow import sigma_schedule
from omni.grammar import Grammar, ShapeLimits
from omni.guidance import Branch, GuidanceState, branches_needed, combine
from omni.model import OmniModel
from omni.reader import Reader, join_grids, split_grids
from omni.sequence import Medium, Segment, TextRun, block_shift, drop_conditions
from omni.settings import GenerationSettings
from omni.solvers import trajectory
from omni.studio import Studio
from omni.text import StreamDecoder, TextTokenizer

__all__ = ["Forced", "Generator", "Request"]


@dataclass(frozen=True)
class Forced:
    """A medium that a reply must contain.

    Attributes:
        kind: "image", "video", "audio", or "continue".
        shape: the numbers of its header.
        given: clean tokens of its first grid and which of them are given, [frames, rows, columns, C] and
            [frames, rows, columns]; None where all of it is made.
        max_words: how many ids of words the model may say before it, of the reply's first medium; the likeliest ones.
    """

    kind: str
    shape: tuple[int, ...]
    given: tuple[Tensor, Tensor] | None = None
    max_words: int = 0


@dataclass(frozen=True)
class Request:
    """One conversation to go on with.

    Attributes:
        document: up to and including the assistant's role.
        seed: of the noise and of sampled text.
        forced: media that the reply consists of; none where the model chooses.
        num_blocks: blocks made before with the same seed, so that their noise is not drawn again.
    """

    document: Sequence[Segment]
    seed: int
    forced: tuple[Forced, ...] = ()
    num_blocks: int = 0


@dataclass
class _Conversation:
    """One request on its way: what is written, and what comes next."""

    request: Request
    decoder: StreamDecoder
    document: list[Segment]
    forced: list[Forced]
    written: list[int] = field(default_factory=list)
    header: list[int] = field(default_factory=list)
    num_written: int = 0
    num_media: int = 0
    num_blocks: int = 0
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
        studio: the codecs.
    """

    def __init__(self, model: OmniModel, tokenizer: TextTokenizer, studio: Studio) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.studio = studio
        self.template = ChatTemplate(tokenizer.control)
        self.grammar = Grammar(model.config, self.template, studio.frames_per_latent, studio.latents_per_second)

    @torch.inference_mode()
    def run(
        self,
        requests: Sequence[Request],
        settings: GenerationSettings,
        *,
        should_stop: Callable[[], bool] = lambda: False,
        reader: Reader | None = None,
        on_document: Callable[[int, list[Segment]], None] = lambda number, document: None,
    ) -> Iterator[tuple[int, Event]]:
        """Yield (number of the conversation, event) until every reply has ended.

        Args:
            requests: the conversations; results do not depend on who else is in the batch.
            settings: shared by all of them.
            should_stop: asked before every token and every step; what is done by then stays.
            reader: of an earlier run whose documents these go on with; what it holds is not read again.
            on_document: called with what each conversation has become, before its last event.
        """
        reader = reader or Reader(self.model, num_rows=len(Branch) * len(requests))
        talks = [
            _Conversation(r, self.tokenizer.stream_decoder(), list(r.document), list(r.forced), num_blocks=r.num_blocks)
            for r in requests
        ]
        for talk in talks:
            if talk.forced and not talk.forced[0].max_words:
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
            for number, talk in enumerate(talks):
                on_document(number, talk.document)
            going = [n for n, talk in enumerate(talks) if not talk.is_done]
            if going:
                logits = reader.sync(going, [self._so_far(talks[n]) for n in going])
                pending = dict(zip(going, logits, strict=True))

    def _force(self, talk: _Conversation) -> None:
        if talk.forced:
            talk.header = list(self.template.header(talk.forced[0].kind, talk.forced[0].shape))

    def _so_far(self, talk: _Conversation) -> list[Segment]:
        tail = [TextRun(tuple(ids)) for ids in (talk.written, talk.header) if ids]
        return [*talk.document, *tail]

    def _wants_block(self, talk: _Conversation) -> bool:
        return not talk.is_done and self.grammar.is_complete(talk.header)

    # Text phase.

    def _write(
        self, talks: Sequence[_Conversation], pending: Mapping[int, Tensor], settings: GenerationSettings
    ) -> Iterator[tuple[int, Event]]:
        """Choose the next id of every pending conversation."""
        for number, logits in pending.items():
            talk = talks[number]
            if self._wants_block(talk):
                continue
            if talk.num_written >= settings.max_new_tokens and not talk.header:  # a header, once begun, is written out
                token = self.template.end
            else:
                token = self._choose(logits, talk, settings)
            talk.num_written += 1
            is_word = token < self.tokenizer.num_text_ids
            if talk.forced and not talk.header and not (is_word and talk.num_written <= talk.forced[0].max_words):
                talk.flush()
                self._force(talk)
                text = talk.decoder.flush()
            elif token == self.template.end:
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
        masked = torch.full_like(logits, -math.inf)
        for place in self._legal(talk, settings):
            masked[place] = logits[place]
        if settings.temperature == 0 or talk.header or talk.forced:
            return int(masked.argmax())
        probabilities = (masked.float() / settings.temperature).softmax(-1).cpu()
        ordered, ids = probabilities.sort(descending=True)
        ordered[ordered.cumsum(0) - ordered >= settings.top_p] = 0
        generator = _generator(talk.request.seed, 2 * talk.num_written + 1)
        return int(ids[torch.multinomial(ordered, 1, generator=generator)])

    def _legal(self, talk: _Conversation, settings: GenerationSettings) -> list[int | slice]:
        """Return the ids that may come next: words and kinds, or the numbers of a legal shape."""
        film = continued_film(talk.document)
        if talk.header:
            limits = ShapeLimits(
                settings.max_block_tokens,
                settings.max_video_tokens,
                settings.max_audio_tokens,
                settings.shape,
                settings.sound,
            )
            going_on = film if talk.header[0] == self.template.kinds["continue"] else []
            numbers = self.grammar.legal_numbers(talk.header, going_on, limits)
            first, last = min(numbers), max(numbers)
            if len(numbers) == last - first + 1:
                return [slice(self.template.number(first), self.template.number(last) + 1)]
            return [self.template.number(number) for number in numbers]
        # A medium needs room for its header too.
        room = settings.max_new_tokens - talk.num_written > max(map(len, HEADER_FIELDS.values()))
        kinds = self.grammar.kinds(film) if room and settings.max_media else []
        if talk.num_media >= settings.max_media:
            kinds = [kind for kind in kinds if kind == self.template.kinds["continue"]]
        return [slice(0, self.tokenizer.num_text_ids), self.template.end, *kinds]

    # Block phase.

    def _groups(self, talks: Sequence[_Conversation]) -> list[list[int]]:
        """Group the conversations that wait for a block by what can run as one batch."""
        groups: dict[object, list[int]] = {}
        for number, talk in enumerate(talks):
            if self._wants_block(talk):
                shapes = tuple((grid.modality, *grid.latents.shape) for grid in self._block(talk).grids)
                groups.setdefault((shapes, *self._conditions(talk)), []).append(number)
        return list(groups.values())

    def _block(self, talk: _Conversation) -> Medium:
        """Return the block that a conversation waits for: zeros, and what is given of it."""
        block = self.grammar.block(talk.header, continued_film(talk.document))
        if talk.forced and talk.forced[0].given is not None:
            latents, given = talk.forced[0].given
            first = replace(block.grids[0], latents=latents, given=given)
            block = replace(block, grids=(first, *block.grids[1:]))
        return block

    def _conditions(self, talk: _Conversation) -> tuple[bool, bool]:
        """Return whether words, and whether media, come before the block or are given within it."""
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
        blocks = [self._block(talks[number]) for number in group]
        for number, block in zip(group, blocks, strict=True):
            yield number, MediaStarted(block.modality, self.studio.shape(block))
        field_ = self._guided_field(reader, talks, group, blocks, settings)
        start = torch.stack([self._start(talks[n], block) for n, block in zip(group, blocks, strict=True)])
        sigmas = sigma_schedule(settings.steps, shift=block_shift(blocks[0], self.model.config))
        latents = start
        for step in trajectory(field_, start, sigmas, solver=settings.solver):
            latents = step.latents
            if should_stop():
                return
            if settings.previews and step.index < step.num_steps:
                clean = split_grids(step.clean, blocks[0])[0]
                for number, block, tokens in zip(group, blocks, clean, strict=True):
                    yield number, MediaPreview(self.studio.preview(block, tokens), step.index, step.num_steps)
        per_grid = split_grids(latents, blocks[0])
        made = [_fill(block, [grid[i] for grid in per_grid]) for i, block in enumerate(blocks)]
        films = [continued_film(talks[n].document) if m.continues else [] for n, m in zip(group, made, strict=True)]
        parts = self.studio.decode(made, films)
        for number, medium, part in zip(group, made, parts, strict=True):
            talk = talks[number]
            talk.document.append(medium)
            talk.header, talk.num_blocks = [], talk.num_blocks + 1
            talk.num_media += not medium.continues
            if talk.forced:
                del talk.forced[0]
                talk.is_done = not talk.forced
                self._force(talk)
            yield number, MediaFinished(part, medium.continues)

    def _guided_field(
        self,
        reader: Reader,
        talks: Sequence[_Conversation],
        group: list[int],
        blocks: Sequence[Medium],
        settings: GenerationSettings,
    ) -> Callable[[Tensor, float], Tensor]:
        """Return the guided velocity of a group's blocks; all branches run as rows of one batch."""
        has_text, has_media = self._conditions(talks[group[0]])
        guidance, state = settings.guidance, GuidanceState()

        def branches_at(sigma: float | None) -> tuple[Branch, ...]:
            return branches_needed(guidance, has_text=has_text, has_media=has_media, sigma=sigma)

        places = {branch: [n + index * len(talks) for n in group] for index, branch in enumerate(Branch)}
        for branch in branches_at(None):  # the first too: the last number of a header that was written is not read yet
            reader.sync(places[branch], [self._branch(talks[n], branch) for n in group])
        fields: dict[tuple[Branch, ...], Callable[[Tensor, float], Tensor]] = {}

        def guided(latents: Tensor, sigma: float) -> Tensor:
            branches = branches_at(sigma)
            if branches not in fields:
                rows = [row for branch in branches for row in places[branch]]
                fields[branches] = reader.velocity_field(rows, [*blocks] * len(branches))
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

    def _start(self, talk: _Conversation, block: Medium) -> Tensor:
        """Return a block's noise, given tokens clean, [N, C]; from its own seed, alone and in a batch."""
        generator = _generator(talk.request.seed, 2 * talk.num_blocks)
        grids = []
        for grid in block.grids:
            noise = torch.randn(grid.num_tokens, grid.latents.shape[-1], generator=generator)
            clean = grid.latents.reshape(noise.shape).to(noise)
            grids.append(torch.where(grid.is_given.unsqueeze(-1), clean, noise).unsqueeze(0))
        return join_grids(grids)[0].to(self.model.embed_tokens.weight.device)


def _fill(block: Medium, latents: Sequence[Tensor]) -> Medium:
    """Return a block with latents, [N, C] of each grid."""
    grids = [replace(grid, latents=x.view_as(grid.latents)) for grid, x in zip(block.grids, latents, strict=True)]
    return replace(block, grids=tuple(grids))


def _generator(seed: int, number: int) -> torch.Generator:
    """Return a generator for one draw of one conversation."""
    return torch.Generator().manual_seed((seed * 1_000_003 + number) % 2**63)
