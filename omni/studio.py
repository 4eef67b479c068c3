"""Between parts and blocks: what comes in is fitted and encoded, what was made is decoded.

F frames, H rows, W columns of pixels; N latent tokens, C numbers in each.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import cast
from weakref import WeakKeyDictionary

import numpy as np
import torch
from PIL import Image as PILImage
from torch import Tensor

from omni.chat import LARGEST_NUMBER, ChatTemplate, FilmClock, medium_from_latents, to_latents
from omni.codecs import AudioCodec, Codec, VisionCodec
from omni.codecs.vision import FilmDecoder
from omni.config import OmniConfig
from omni.errors import InputError
from omni.parts import Audio, Image, Video
from omni.sequence import Medium

__all__ = ["DEFAULT_FPS", "Studio"]

DEFAULT_FPS = 8
DEFAULT_LATENTS_PER_SECOND = 25.0


class Studio:
    """The codecs of a model, and the sizes it was made for.

    Args:
        config: streams and what they hold.
        codecs: stream -> codec.
        template: control ids.
        max_block_tokens: latent tokens of one picture, or latent frame, at most.
        max_video_tokens: latent tokens of one block of a film at most.
        max_audio_tokens: latents of one recording at most.
    """

    def __init__(
        self,
        config: OmniConfig,
        codecs: Mapping[str, Codec],
        template: ChatTemplate,
        *,
        max_block_tokens: int,
        max_video_tokens: int,
        max_audio_tokens: int,
    ) -> None:
        self.config = config
        self.codecs = dict(codecs)
        self.template = template
        self.max_block_tokens = max_block_tokens
        self.max_video_tokens = max_video_tokens
        self.max_audio_tokens = max_audio_tokens
        self._film_decoders: WeakKeyDictionary[Medium, FilmDecoder] = WeakKeyDictionary()

    @property
    def frames_per_latent(self) -> int:
        """Return how many pictures a latent frame stands for; 1 where the model has no films."""
        return self.vision("video").frames_per_latent if "video" in self.config.stream_of else 1

    @property
    def latents_per_second(self) -> float:
        """Return the rate of sound latents."""
        return self.audio().latents_per_second if "audio" in self.config.stream_of else DEFAULT_LATENTS_PER_SECOND

    def clock(self, fps: float) -> FilmClock:
        """Return the clock of a film."""
        return FilmClock(fps, self.frames_per_latent, self.latents_per_second)

    def vision(self, modality: str = "image") -> VisionCodec:
        """Return the codec of pictures or films.

        Raises:
            InputError: the model has none.
        """
        return cast(VisionCodec, self.codecs[self._stream(modality)])

    def audio(self) -> AudioCodec:
        """Return the codec of sound.

        Raises:
            InputError: the model has none.
        """
        return cast(AudioCodec, self.codecs[self._stream("audio")])

    def _stream(self, modality: str) -> str:
        stream = self.config.stream_of.get(modality)
        if stream is None:
            noun = {"image": "pictures", "video": "video", "audio": "sound"}[modality]
            raise InputError(f"this model has no {noun}; choose another model")
        return stream

    def patch_size(self, modality: str) -> int:
        """Return the latent positions along each side of a token."""
        return cast(int, self.config.streams[self._stream(modality)]["patch_size"])

    def token_side(self, modality: str = "image") -> int:
        """Return the pixels along each side of a token."""
        return self.patch_size(modality) * self.vision(modality).spatial_factor

    # From parts to blocks.

    def encode(self, part: Image | Video | Audio) -> list[Medium]:
        """Return the blocks of a part: one, or several that go on with one film.

        Raises:
            InputError: the model has no such modality, or the part is too long for it.
        """
        if isinstance(part, Image):
            pixels = torch.tensor(self.fit(part.pixels))
            return [self._medium(self.vision().encode(pixels[None, None])[0], "image")]
        if isinstance(part, Audio):
            return [self._medium(None, "audio", sound=self._sound(part), clock=self.clock(1.0))]
        return self._film(part)

    def _medium(self, latents: Tensor | None, modality: str, **rest: object) -> Medium:
        patch_size = 1 if latents is None else self.patch_size(modality)
        return medium_from_latents(
            latents,
            template=self.template,
            modality=modality,
            patch_size=patch_size,
            **rest,  # type: ignore[arg-type]
        )

    def fit(self, pixels: np.ndarray, modality: str = "image") -> np.ndarray:
        """Resize a picture [H, W, 3] to sides that are multiples of a token's, with at most max_block_tokens."""
        step, height, width = self.token_side(modality), *pixels.shape[:2]
        rows, columns = self._rows_and_columns(height, width, step)
        if (height, width) == (rows * step, columns * step):
            return pixels
        picture = PILImage.fromarray(pixels)
        return np.array(picture.resize((columns * step, rows * step), PILImage.Resampling.LANCZOS))

    def _rows_and_columns(self, height: int, width: int, step: int) -> tuple[int, int]:
        most = self.max_block_tokens
        shrink = min(1.0, (most * step * step / (height * width)) ** 0.5)
        rows, columns = round(height * shrink / step), round(width * shrink / step)
        if rows * columns > most:  # rounded up; a little smaller keeps the proportions
            rows, columns = int(height * shrink / step), int(width * shrink / step)
        largest = min(most, LARGEST_NUMBER)
        return min(max(rows, 1), largest), min(max(columns, 1), largest)

    def _sound(self, audio: Audio) -> Tensor:
        codec = self.audio()
        samples = torch.from_numpy(audio.resampled(codec.sample_rate, mono=True).samples)
        most = self.max_audio_tokens * codec.samples_per_latent
        if samples.shape[1] > most:
            seconds, limit = samples.shape[1] / codec.sample_rate, most / codec.sample_rate
            raise InputError(f"the recording lasts {seconds:.1f} s; this model hears {limit:.1f} s: cut it")
        return codec.encode(samples)[0]

    def _film(self, video: Video) -> list[Medium]:
        """Cut a film into blocks of at most max_video_tokens, on one clock."""
        codec = self.vision("video")
        fps = min(max(1, round(min(video.fps, DEFAULT_FPS))), LARGEST_NUMBER)
        video = video.resampled(fps=fps)
        frames = torch.from_numpy(np.stack([self.fit(frame, "video") for frame in video.frames]))
        factor = codec.frames_per_latent
        spare = (len(frames) - 1) % factor
        frames = frames[: len(frames) - spare]  # whole latent frames only
        latents = codec.encode(frames[None])[0]
        sound = None
        if video.audio is not None and "audio" in self.config.stream_of:
            sound = self.audio().encode(torch.from_numpy(video.audio.resampled(self.audio().sample_rate).samples))[0]
        return self._blocks(latents, sound, self.clock(fps))

    def _blocks(self, latents: Tensor, sound: Tensor | None, clock: FilmClock) -> list[Medium]:
        rows, columns = (side // self.patch_size("video") for side in latents.shape[1:3])
        step = min(max(1, self.max_video_tokens // (rows * columns)), LARGEST_NUMBER)
        film: list[Medium] = []
        for start in range(0, len(latents), step):
            part = latents[start : start + step]
            own = None
            if sound is not None:
                begin, count = clock.sound_latents(start), clock.sound_latents(len(part), before=start)
                own = sound[begin : begin + count]
                own = own if len(own) == count else None
            film.append(self._medium(part, "video", sound=own, clock=clock, after=list(film)))
        return film

    # From blocks to parts.

    def shape(self, block: Medium) -> tuple[int, ...]:
        """Return the size of a block: (height, width), (frames, height, width), or (samples,)."""
        frames, rows, columns = block.grids[0].latents.shape[:3]
        if block.modality == "audio":
            return (frames * self.audio().samples_per_latent,)
        side = self.token_side(block.modality)
        if block.modality == "image":
            return rows * side, columns * side
        count = frames * self.frames_per_latent
        return count if block.continues else count - self.frames_per_latent + 1, rows * side, columns * side

    def preview(self, block: Medium, tokens: Tensor) -> np.ndarray:
        """Return a rough picture, uint8 [H, W, 3], of the first grid's latents [N, C]; a film's middle frame."""
        grid = tokens.view_as(block.grids[0].latents)
        if block.modality == "audio":
            return self.audio().preview(grid[None, :, 0, 0])[0].cpu().numpy()
        latents = to_latents(grid, patch_size=self.patch_size(block.modality))
        pictures = self.vision(block.modality).preview(latents[None])[0].cpu().numpy()
        return cast(np.ndarray, pictures[len(pictures) // 2])

    def decode(self, blocks: Sequence[Medium], films: Sequence[Sequence[Medium]]) -> list[Image | Video | Audio]:
        """Decode blocks of one shape; those that go on with a film give its new frames alone.

        Args:
            blocks: latents filled in.
            films: for each the blocks of the film that it goes on with; empty where it begins one.
        """
        first = blocks[0]
        if first.modality == "audio":
            samples = self._samples([block.grids[0].latents for block in blocks])
            return [Audio(sound[None], self.audio().sample_rate) for sound in samples]
        patch_size = self.patch_size(first.modality)
        latents = torch.stack([to_latents(block.grids[0].latents, patch_size=patch_size) for block in blocks])
        if first.modality == "image":
            return [Image(pixels[0]) for pixels in self.vision().decode(latents).cpu().numpy()]
        pixels = self._frames(blocks, films, latents)
        sounds: dict[int, np.ndarray] = defaultdict(lambda: np.zeros(0, np.float32))
        if len(first.grids) > 1:
            sounds |= enumerate(self._samples([block.grids[1].latents for block in blocks]))
        parts: list[Image | Video | Audio] = []
        for number, (block, film) in enumerate(zip(blocks, films, strict=True)):
            fps = self.template.read_header((film or [block])[0].header)["fps"]
            rate = self.audio().sample_rate if number in sounds else 0
            length = round(len(pixels[number]) / fps * rate)
            audio = Audio(_with_length(sounds[number], length)[None], rate) if rate else None
            parts.append(Video(pixels[number], float(fps), audio))
        return parts

    def _frames(self, blocks: Sequence[Medium], films: Sequence[Sequence[Medium]], latents: Tensor) -> list[np.ndarray]:
        codec = self.vision("video")
        if not any(films):
            return list(codec.decode(latents).cpu().numpy())
        frames = []
        for block, film, new in zip(blocks, films, latents, strict=True):
            first = film[0] if film else block
            decoder = self._film_decoders.get(first)
            if decoder is None or decoder.num_latents != sum(len(medium.grids[0].latents) for medium in film):
                decoder = codec.film_decoder()
                for medium in film:
                    decoder.decode(to_latents(medium.grids[0].latents, patch_size=self.patch_size("video"))[None])
                self._film_decoders[first] = decoder
            frames.append(decoder.decode(new[None])[0].cpu().numpy())
        return frames

    def _samples(self, grids: Sequence[Tensor]) -> list[np.ndarray]:
        latents = torch.stack([grid[:, 0, 0] for grid in grids])
        return list(self.audio().decode(latents).cpu().numpy())


def _with_length(samples: np.ndarray, length: int) -> np.ndarray:
    """Cut a sound, or let it end in silence."""
    return np.pad(samples[:length], (0, max(0, length - len(samples))))
