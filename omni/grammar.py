"""The header grammar: which ids may come next, and the block that a finished header asks for.

C numbers in a latent token.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch

from omni.chat import HEADER_FIELDS, LARGEST_NUMBER, ChatTemplate, FilmClock
from omni.config import OmniConfig
from omni.sequence import Grid, Medium

__all__ = ["Grammar", "ShapeLimits"]

MAX_FPS = 60


@dataclass(frozen=True)
class ShapeLimits:
    """What shapes may be written.

    Attributes:
        max_block_tokens: latent tokens of one picture, or of one latent frame of a film.
        max_video_tokens: latent tokens of one block of a film.
        max_audio_tokens: latents of one recording, or of the sound of one block of a film.
        size: the only (rows, columns) allowed; the model's choice where None.
        sound: whether films have sound; the model's choice where None.
    """

    max_block_tokens: int
    max_video_tokens: int
    max_audio_tokens: int
    size: tuple[int, int] | None = None
    sound: bool | None = None


@dataclass(frozen=True)
class Grammar:
    """Which headers are legal for a model.

    Attributes:
        config: streams and what they hold.
        template: control ids.
        frames_per_latent: of the vision codec.
        latents_per_second: of the audio codec.
    """

    config: OmniConfig
    template: ChatTemplate
    frames_per_latent: int = 1
    latents_per_second: float = 25.0

    def clock(self, fps: float) -> FilmClock:
        """Return the clock of a film."""
        return FilmClock(fps, self.frames_per_latent, self.latents_per_second)

    def kinds(self, film: Sequence[Medium]) -> list[int]:
        """Return the ids that may announce a medium; film: the blocks of a film that may go on."""
        known = [kind for kind in ("image", "video", "audio") if kind in self.config.stream_of]
        return [self.template.kinds[kind] for kind in (*known, *(["continue"] if film else []))]

    def is_complete(self, header: Sequence[int]) -> bool:
        """Whether a header says all that its kind asks for."""
        kind = self.template.kind_of(header[0]) if header else None
        return kind is not None and len(header) == 1 + len(HEADER_FIELDS[kind])

    def legal_numbers(self, header: Sequence[int], film: Sequence[Medium], limits: ShapeLimits) -> list[int]:
        """Return the numbers that may come next in a header that has begun."""
        kind = self.template.kind_of(header[0])
        assert kind is not None
        said = self.template.read_header(header)
        field = HEADER_FIELDS[kind][len(said)]
        if field == "fps":
            return self._legal_rates(said["frames"], limits)
        if field == "sound":
            return self._legal_sounds(kind, said, film, limits)
        if field in ("rows", "columns") and limits.size is not None:
            return [limits.size[("rows", "columns").index(field)]]
        if field == "frames":
            room = limits.max_video_tokens // self._frame_tokens(film) if film else limits.max_video_tokens
        else:
            room = limits.max_block_tokens
            if kind == "video":
                room = min(room, limits.max_video_tokens // said["frames"])
            room //= said.get("rows", 1)
        return list(range(1, min(max(room, 1), LARGEST_NUMBER) + 1))

    def _legal_rates(self, frames: int, limits: ShapeLimits) -> list[int]:
        """Any rate; where sound is asked for, those at which the film is short enough for it."""
        rates = list(range(1, MAX_FPS + 1))
        if not limits.sound:
            return rates
        most = min(limits.max_audio_tokens, LARGEST_NUMBER)
        return [fps for fps in rates if self.clock(fps).sound_latents(frames) <= most] or rates[-1:]

    def _legal_sounds(
        self, kind: str, said: Mapping[str, int], film: Sequence[Medium], limits: ShapeLimits
    ) -> list[int]:
        """A film is silent, or has as much sound as it has pictures; what goes on, goes on as it began."""
        most = min(limits.max_audio_tokens, LARGEST_NUMBER)
        if kind == "audio":
            return list(range(1, most + 1))
        fps = self.fps_of(film) if film else said["fps"]
        exact = self.clock(fps).sound_latents(said["frames"], before=_num_frames(film))
        if "audio" not in self.config.stream_of or exact > most:
            return [0]
        if film:
            return [exact if len(film[0].grids) > 1 else 0]
        return [0, exact] if limits.sound is None else [exact if limits.sound else 0]

    def fps_of(self, film: Sequence[Medium]) -> int:
        """Return the frames per second of a film."""
        return self.template.read_header(film[0].header)["fps"]

    def _frame_tokens(self, film: Sequence[Medium]) -> int:
        return prod(film[0].grids[0].latents.shape[1:3])

    def block(self, header: Sequence[int], film: Sequence[Medium]) -> Medium:
        """Return the block that a complete header asks for, its latents zero.

        Args:
            header: kind and numbers.
            film: the blocks of the film that it goes on with, where its kind is "continue".
        """
        kind, said = self.template.kind_of(header[0]), self.template.read_header(header)
        grids = []
        if kind == "image":
            grids.append(self._grid("image", (0.0,), said["rows"], said["columns"]))
        elif kind in ("video", "continue"):
            is_new = kind == "video"
            clock = self.clock(said["fps"] if is_new else self.fps_of(film))
            rows, columns = (said["rows"], said["columns"]) if is_new else film[0].grids[0].latents.shape[1:3]
            before = 0 if is_new else _num_frames(film)
            grids.append(self._grid("video", clock.frame_seconds(said["frames"], before=before), rows, columns))
        if said.get("sound"):
            heard = sum(grid.latents.shape[0] for medium in film for grid in medium.grids[1:])
            seconds = self.clock(1.0).sound_seconds(said["sound"], before=heard if kind == "continue" else 0)
            grids.append(self._grid("audio", seconds, 1, 1))
        return Medium(tuple(header), self.template.media_end, tuple(grids), continues=kind == "continue")

    def _grid(self, modality: str, seconds: tuple[float, ...], rows: int, columns: int) -> Grid:
        width = self.config.token_dim(self.config.stream_of[modality])
        return Grid(modality, torch.zeros(len(seconds), rows, columns, width), seconds)


def _num_frames(film: Sequence[Medium]) -> int:
    """Return the latent frames of a film."""
    return sum(medium.grids[0].latents.shape[0] for medium in film)
