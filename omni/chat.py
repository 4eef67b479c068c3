"""Messages <-> documents: the chat template, as data.

A document is <|bos|>, then for each message its role, its parts and <|end|>. A medium is written as its kind and
its shape, one number each (see HEADER_FIELDS), its block, and <|media_end|>. An action is <|action|> and a number.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from einops import rearrange
from torch import Tensor

from omni.errors import InputError
from omni.sequence import Grid, Medium, Segment, TextRun
from omni.text import TextTokenizer

__all__ = [
    "ACTIONS",
    "HEADER_FIELDS",
    "ChatTemplate",
    "FilmClock",
    "Turn",
    "continued_film",
    "medium_from_latents",
    "open_reply",
    "to_document",
    "to_latents",
    "to_tokens",
]

ROLES = ("system", "user", "assistant")
LARGEST_NUMBER = 255
# What a header says after its kind, each as one number. Shapes are counted in latent tokens, sound too (0: silent).
# "continue" goes on with the film before it, whose rows, columns and frames per second it keeps.
HEADER_FIELDS: Mapping[str, tuple[str, ...]] = {
    "image": ("rows", "columns"),
    "video": ("frames", "rows", "columns", "fps", "sound"),
    "audio": ("sound",),
    "continue": ("frames", "sound"),
}
# What a player of a world can do; the number of an action is its place here.
ACTIONS = ("stay", "left", "right", "up", "down", "jump")


@dataclass(frozen=True)
class Turn:
    """One message, ready for the model.

    Attributes:
        role: "system", "user" or "assistant".
        items: its parts in order; text as str, media as blocks, actions as runs of control ids.
    """

    role: str
    items: tuple[str | Medium | TextRun, ...]


class ChatTemplate:
    """The control ids that the template uses.

    Args:
        control: maps a control token's name to its id.
    """

    def __init__(self, control: Callable[[str], int]) -> None:
        self.bos = control("<|bos|>")
        self.end = control("<|end|>")
        self.media_end = control("<|media_end|>")
        self.roles = {role: control(f"<|{role}|>") for role in ROLES}
        self.kinds = {kind: control(f"<|{kind}|>") for kind in HEADER_FIELDS}
        self.first_number = control("<|0|>")
        self.action = control("<|action|>")

    def kind_of(self, token: int) -> str | None:
        """Return the modality that an id announces, or None."""
        return next((kind for kind, known in self.kinds.items() if known == token), None)

    def number(self, value: int) -> int:
        """Return the id that writes a number.

        Raises:
            InputError: no id writes it.
        """
        if not 0 <= value <= LARGEST_NUMBER:
            raise InputError(f"a shape of {value} tokens cannot be written; at most {LARGEST_NUMBER} along an axis")
        return self.first_number + value

    def header(self, kind: str, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the ids that announce a medium of a shape, numbers in the order of HEADER_FIELDS."""
        return (self.kinds[kind], *(self.number(value) for value in shape))

    def read_header(self, header: Sequence[int]) -> dict[str, int]:
        """Return a header's numbers by their names, those that are written so far."""
        kind = self.kind_of(header[0])
        assert kind is not None, f"{header[0]} announces nothing"
        return {name: token - self.first_number for name, token in zip(HEADER_FIELDS[kind], header[1:], strict=False)}

    def action_run(self, name: str) -> TextRun:
        """Return the ids of a player's action.

        Raises:
            InputError: it is not one of ACTIONS.
        """
        if name not in ACTIONS:
            raise InputError(f"action {name!r} is unknown; the actions are {', '.join(ACTIONS)}")
        return TextRun((self.action, self.number(ACTIONS.index(name))))


@dataclass(frozen=True)
class FilmClock:
    """When the latent frames and sound of a film are, from what its codecs say; all of it in seconds.

    Attributes:
        fps: frames a second.
        frames_per_latent: pictures that a latent frame stands for, but the film's first, which stands for one.
        latents_per_second: of the sound.
    """

    fps: float
    frames_per_latent: int = 4
    latents_per_second: float = 25.0

    def num_frames(self, num_latents: int) -> int:
        """Return the pictures of a film's first latent frames."""
        return max(0, 1 + (num_latents - 1) * self.frames_per_latent) if num_latents else 0

    def frame_seconds(self, num_latents: int, *, before: int = 0) -> tuple[float, ...]:
        """Return the middle of the pictures that each latent frame stands for.

        Args:
            num_latents: latent frames.
            before: latent frames of the film that come earlier.
        """
        ends = [self.num_frames(before + number + 1) - 1 for number in range(num_latents)]
        starts = [self.num_frames(before + number) for number in range(num_latents)]
        return tuple((start + end) / 2 / self.fps for start, end in zip(starts, ends, strict=True))

    def sound_latents(self, num_latents: int, *, before: int = 0) -> int:
        """Return how many latents of sound go with latent frames, so that a film's blocks add up."""

        def total(latents: int) -> int:
            return math.ceil(self.num_frames(latents) / self.fps * self.latents_per_second - 1e-6)

        return total(before + num_latents) - total(before)

    def sound_seconds(self, num_sounds: int, *, before: int = 0) -> tuple[float, ...]:
        """Return the middle of what each latent of sound stands for; before: latents that come earlier."""
        return tuple((before + number + 0.5) / self.latents_per_second for number in range(num_sounds))


def to_tokens(latents: Tensor, *, patch_size: int) -> Tensor:
    """Cut codec latents into tokens: [frames, height, width, channels] -> [frames, rows, columns, C]."""
    return rearrange(latents, "f (r p) (c q) d -> f r c (p q d)", p=patch_size, q=patch_size)


def to_latents(tokens: Tensor, *, patch_size: int) -> Tensor:
    """Undo the cutting of to_tokens: [frames, rows, columns, C] -> [frames, height, width, channels]."""
    return rearrange(tokens, "f r c (p q d) -> f (r p) (c q) d", p=patch_size, q=patch_size)


def medium_from_latents(
    latents: Tensor | None,
    *,
    template: ChatTemplate,
    modality: str,
    patch_size: int = 1,
    sound: Tensor | None = None,
    clock: FilmClock | None = None,
    given: Tensor | None = None,
    after: Sequence[Medium] = (),
) -> Medium:
    """Make a block of codec latents.

    Args:
        latents: of a picture or film, normalised, [frames, height, width, channels]; height and width multiples of
            patch_size. None for a recording.
        template: control ids.
        modality: "image", "video" or "audio".
        patch_size: latent positions along each side of a token.
        sound: latents of the film's sound, or of the recording, [L, channels].
        clock: of a film or recording.
        given: latents of a block that is made which are given, [frames, height, width]; a token is given where all
            of its latents are.
        after: the blocks of the film that this one goes on with.
    """
    grids = []
    clock = clock or FilmClock(fps=1.0)
    before = sum(grid.latents.shape[0] for medium in after for grid in medium.grids if grid.modality == "video")
    if latents is not None:
        tokens = to_tokens(latents, patch_size=patch_size)
        if given is not None:
            given = to_tokens(given.unsqueeze(-1), patch_size=patch_size).all(-1)
        seconds = clock.frame_seconds(len(tokens), before=before) if modality == "video" else (0.0,)
        grids.append(Grid(modality, tokens, seconds, given))
    if sound is not None and len(sound):
        heard = sum(grid.latents.shape[0] for medium in after for grid in medium.grids if grid.modality == "audio")
        grids.append(Grid("audio", sound[:, None, None], clock.sound_seconds(len(sound), before=heard)))
    if not grids:
        raise InputError("a recording of no samples cannot be used; give at least a moment of sound")
    frames, rows, columns = grids[0].latents.shape[:3]
    num_sounds = 0 if sound is None else len(sound)
    shape = {
        "image": (rows, columns),
        "video": (frames, rows, columns, round(clock.fps), num_sounds),
        "audio": (num_sounds,),
        "continue": (frames, num_sounds),
    }
    kind = "continue" if after else modality
    return Medium(template.header(kind, shape[kind]), template.media_end, tuple(grids), continues=bool(after))


def continued_film(document: Sequence[Segment]) -> list[Medium]:
    """Return the blocks of the film that a document ends with, past words and actions; empty where there is none."""
    film: list[Medium] = []
    for segment in reversed(document):
        if isinstance(segment, Medium):
            if segment.modality != "video":
                break
            film.insert(0, segment)
            if not segment.continues:
                return film
    return []


def to_document(
    turns: Sequence[Turn], *, tokenizer: TextTokenizer, template: ChatTemplate, is_training: bool = False
) -> list[Segment]:
    """Write messages as a document.

    Args:
        turns: the conversation.
        tokenizer: of the text.
        template: control ids.
        is_training: whether what the assistant wrote is to be learnt: its words, headers, media and ends.
    """
    document: list[Segment] = [TextRun((template.bos,))]
    for turn in turns:
        learns = is_training and turn.role == "assistant"
        document.append(TextRun((template.roles[turn.role],)))
        for item in turn.items:
            if isinstance(item, Medium):
                document.append(replace(item, is_target=learns))
            elif isinstance(item, TextRun):
                document.append(replace(item, is_target=learns))
            elif item:
                document.append(TextRun(tuple(tokenizer.encode(item)), is_target=learns))
        document.append(TextRun((template.end,), is_target=learns))
    return document


def open_reply(document: Sequence[Segment], template: ChatTemplate) -> list[Segment]:
    """Return the document with the assistant's turn begun."""
    return [*document, TextRun((template.roles["assistant"],))]
