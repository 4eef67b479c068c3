"""From encoded documents to packed batches, in an order that can be resumed."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from omni.chat import ChatTemplate, FilmClock, Turn, medium_from_latents, to_document
from omni.config import OmniConfig
from omni.errors import ConfigError
from omni.flow import add_noise, sample_sigma
from omni.sequence import (
    FlatDocument,
    Medium,
    PackedBatch,
    Segment,
    TextRun,
    drop_conditions,
    flatten,
    pack,
    pack_rows,
)
from omni.text import TextTokenizer
from training.config import TrainConfig
from training.folders import BadDocument

__all__ = ["DocumentMaker", "PackedLoader", "noisy_batch"]


NOISY_READINGS = 0.3  # of the documents, where objective.read_noise is set


class Documents(Protocol):
    """A data set: messages in chat form, media as latents."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> list[dict[str, Any]]: ...


@dataclass
class DocumentMaker:
    """Turn a data set's documents into flat ones, with conditions dropped at random.

    Attributes:
        dataset: messages with latents.
        tokenizer: of the text.
        model: streams and patch sizes.
        config: probabilities of dropping, number of noisy copies, seed.
    """

    dataset: Documents
    tokenizer: TextTokenizer
    model: OmniConfig
    config: TrainConfig

    def __call__(self, epoch: int, index: int) -> FlatDocument:
        """Make one document; the same epoch and index give the same one."""
        chance = random.Random(f"{self.config.seed}/{epoch}/{index}")
        draw = chance.random()
        objective = self.config.objective
        document = self._chained(self.document(index), chance)
        if any(isinstance(segment, Medium) and segment.is_target for segment in document):
            for share, text, media in (
                (objective.drop_text, True, False),
                (objective.drop_media, False, True),
                (objective.drop_both, True, True),
            ):
                if draw < share:
                    document = drop_conditions(document, text=text, media=media, num_text_ids=self.model.num_text_ids)
                    break
                draw -= share
        if chance.random() < objective.drop_end:
            document = _without_end(document, self.model.num_text_ids)
        flat = self._flat(document, start=round(objective.max_start * chance.random() ** 3))
        if objective.read_noise and chance.random() < NOISY_READINGS:
            _add_read_noise(flat, objective.read_noise, chance)
        return flat

    def _flat(self, document: Sequence[Segment], *, start: int = 0) -> FlatDocument:
        return flatten(document, self.model, num_noisy=self.config.batch.num_noisy, start=start)

    def _chained(self, document: list[Segment], chance: random.Random) -> list[Segment]:
        """Let others go on with the conversation, each without the token that begins a document."""
        while chance.random() < self.config.objective.chain:
            try:
                longer = [*document, *self.document(chance.randrange(len(self.dataset)))[1:]]
            except BadDocument:  # reported when its own turn comes
                break
            if len(self._flat(longer)) > self.config.batch.row_length:
                break
            document = longer
        return document

    def document(self, index: int) -> list[Segment]:
        """Return a document with every condition in place."""
        template = ChatTemplate(self.tokenizer.control)
        film: list[Medium] = []
        turns = []
        for message in self.dataset[index]:
            items = tuple(self._item(item, template, film) for item in message["content"])
            turns.append(Turn(message["role"], items))
        return to_document(turns, tokenizer=self.tokenizer, template=template, is_training=True)

    def _item(self, item: dict[str, Any], template: ChatTemplate, film: list[Medium]) -> str | TextRun | Medium:
        """Make a text, an action or a block; film: the blocks of the film that may go on."""
        if item["type"] == "text":
            return str(item["text"])
        if item["type"] == "action":
            return template.action_run(item["action"])
        modality = item["type"]
        given = item.get("given")
        continues = item.get("continues", False)
        medium = medium_from_latents(
            item.get("latents"),
            template=template,
            modality=modality,
            patch_size=self.model.streams[self.model.stream_of[modality]]["patch_size"],
            sound=item.get("sound"),
            clock=FilmClock(item.get("fps", 1), item.get("frames_per_latent", 1), item.get("latents_per_second", 25.0)),
            given=None if given is None else given.bool(),
            after=film if continues else (),
        )
        if modality == "video":
            film[:] = [*film, medium] if continues else [medium]
        return medium


def _add_read_noise(flat: FlatDocument, largest: float, chance: random.Random) -> None:
    """Add noise to the readable copy of every medium, of a sigma of its own, which the model is not told."""
    generator = torch.Generator().manual_seed(chance.getrandbits(63))
    for grid in flat.latents:
        if not grid.sigma_slot.any():
            noise = torch.randn(grid.latents.shape, generator=generator)
            grid.latents = add_noise(grid.latents.float(), noise, chance.uniform(0.0, largest))


def _without_end(document: list[Segment], num_text_ids: int) -> list[Segment]:
    """Leave out what follows the last medium, unless it holds words."""
    last = max((k for k, segment in enumerate(document) if isinstance(segment, Medium)), default=len(document))
    rest = [segment.ids for segment in document[last + 1 :] if isinstance(segment, TextRun)]
    return document if any(i < num_text_ids for ids in rest for i in ids) else document[: last + 1]


@dataclass
class PackedLoader:
    """Deal documents, shuffled anew each epoch, into the rows of batches; none is lost or repeated.

    Attributes:
        make: (epoch, index) -> flat document; None for one to be left out.
        num_documents: documents of an epoch.
        row_length, num_rows: shape of a batch.
        seed: of the order.
        lookahead: batches of tokens to choose from; more pack more tightly.
    """

    make: Callable[[int, int], FlatDocument | None]
    num_documents: int
    row_length: int
    num_rows: int
    seed: int = 0
    lookahead: float = 1.5
    epoch: int = 0
    position: int = 0
    num_skipped: int = 0
    waiting: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.num_documents < 1:
            raise ConfigError("the data set is empty; encode documents first")
        self._order = self._shuffle()
        self._flat: dict[tuple[int, int], FlatDocument] = {}

    def _shuffle(self) -> list[int]:
        generator = torch.Generator().manual_seed(self.seed * 100_003 + self.epoch)
        return torch.randperm(self.num_documents, generator=generator).tolist()

    def _draw(self) -> None:
        if self.position == self.num_documents:
            self.epoch, self.position = self.epoch + 1, 0
            self._order = self._shuffle()
        key = (self.epoch, self._order[self.position])
        self.position += 1
        flat = self.make(*key)
        if flat is None:
            return
        if len(flat) > self.row_length:
            self.num_skipped += 1
            if self.num_skipped > 100 and self.num_skipped > self.epoch * self.num_documents + self.position // 2:
                raise ConfigError(f"most documents are longer than batch.row_length {self.row_length}; raise it")
            return
        self.waiting.append(key)
        self._flat[key] = flat

    def next_rows(self) -> list[list[FlatDocument]]:
        """Return the documents of each row of the next batch."""
        while sum(len(self._flat[key]) for key in self.waiting) < self.lookahead * self.row_length * self.num_rows:
            self._draw()
        chosen = pack_rows([len(self._flat[key]) for key in self.waiting], self.row_length, self.num_rows)
        rows = [[self._flat[self.waiting[index]] for index in row] for row in chosen]
        used = {self.waiting[index] for row in chosen for index in row}
        self.waiting = [key for key in self.waiting if key not in used]
        for key in used:
            del self._flat[key]
        return rows

    def state_dict(self) -> dict[str, Any]:
        """Return where the loader stands."""
        return {
            "epoch": self.epoch,
            "position": self.position,
            "waiting": [list(key) for key in self.waiting],
            "num_skipped": self.num_skipped,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a state_dict was taken."""
        self.epoch, self.position, self.num_skipped = state["epoch"], state["position"], state["num_skipped"]
        self.waiting = [(epoch, index) for epoch, index in state["waiting"]]
        self._order = self._shuffle()
        self._flat = {key: flat for key in self.waiting if (flat := self.make(*key)) is not None}


def noisy_batch(rows: Sequence[Sequence[FlatDocument]], config: TrainConfig, *, seed: int) -> PackedBatch:
    """Pack rows and draw sigmas and noise from one seed.

    Args:
        rows: documents of each row.
        config: row length, distribution of sigma.
        seed: the same seed gives the same noise.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(shifts: Tensor) -> Tensor:
        objective = config.objective
        return sample_sigma(shifts, generator=generator, mean=objective.sigma_mean, std=objective.sigma_std)

    return pack(rows, length=config.batch.row_length, sample_sigma=draw, generator=generator)
