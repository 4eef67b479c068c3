"""One thing at a time: a picture, a film, a sound, an edit; each is a conversation whose answer's form is settled.

H rows, W columns of pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from omni.chat import to_tokens
from omni.checkpoint import Defaults
from omni.errors import ConfigError, InputError
from omni.generate import Forced
from omni.messages import Message
from omni.parts import Audio, Image, Part, Text, Video
from omni.play import World
from omni.reply import Reply
from omni.studio import DEFAULT_FPS, Studio

__all__ = ["Crafts"]

CAPTION_REQUESTS = {
    Image: "Describe this picture.",
    Video: "Describe this film.",
    Audio: "Describe this sound.",
}
CONTINUE_REQUEST = "Go on with this film."
MAX_WORDS = 24  # ids of what the model may say before an edit, a continuation, a film with sound: what happens, when
GRAY = 128
REST_LATENTS = 2  # of a still, before its last latent is that of a film that has come to rest
Settled = ("shape", "size")
P = TypeVar("P", Image, Video, Audio)


class Crafts:
    """Methods of Omni that return one part, or a list of parts for a list of requests."""

    if TYPE_CHECKING:
        studio: Studio
        defaults: Defaults

        def _run(
            self,
            conversations: Sequence[Any],
            *,
            seed: Any,
            forced: Sequence[tuple[Forced, ...]] | None,
            settings: Mapping[str, Any],
        ) -> list[Reply]: ...
        def _settings(self, given: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]: ...
        def rows_and_columns(self, size: Any, modality: str = "image") -> tuple[int, int]: ...

    def image(self, prompt: Any, *, size: tuple[int, int] = (64, 64), seed: Any = None, **settings: Any) -> Any:
        """Draw a picture, or one for each prompt of a list.

        Args:
            prompt: what to draw.
            size: (height, width) in pixels, multiples of 16.
            seed: one for each prompt, or the first of as many consecutive ones.
            settings: as in chat.
        """
        forced = (Forced("image", self.rows_and_columns(size)),)
        return self._each(prompt, [_asked(one) for one in _as_list(prompt)], forced, Image, seed, settings)

    def video(
        self,
        prompt: Any,
        *,
        seconds: float | None = None,
        size: tuple[int, int] = (64, 64),
        sound: bool | None = None,
        block_frames: int | None = None,
        seed: Any = None,
        **settings: Any,
    ) -> Any:
        """Film something, or one film for each prompt of a list.

        Before a film with sound the model may say in a few words when something hits; picture and sound go by them.

        Args:
            prompt: what to film.
            seconds: length, to the nearest that the codec can make; the model's choice where left out.
            size: (height, width) in pixels, multiples of 16.
            sound: whether the film has sound; the model's choice where left out.
            block_frames: latent frames of one block; a longer film is made block by block. The most the model
                was made for where left out.
            seed, settings: as in image.
        """
        forced = self._film_headers(seconds, size, block_frames)
        if sound:
            self.studio.audio()  # a model without sound says so
            forced = (replace(forced[0], max_words=MAX_WORDS), *forced[1:])
        settled: dict[str, Any] = {"sound": sound}
        if seconds is None:
            settled["shape"] = self.rows_and_columns(size, "video")
        asked = [_asked(one) for one in _as_list(prompt)]
        return self._each(prompt, asked, forced, Video, seed, settings, settled)

    def audio(self, prompt: Any, *, seconds: float | None = None, seed: Any = None, **settings: Any) -> Any:
        """Say, play or sound something, or one recording for each prompt of a list.

        Args:
            prompt: what to sound.
            seconds: length; the model's choice where left out.
            seed, settings: as in image.
        """
        numbers: tuple[int, ...] = ()
        if seconds is not None:
            count = round(_positive("seconds", seconds) * self.studio.audio().latents_per_second)
            most = self.studio.max_audio_tokens
            if count > most:
                longest = most / self.studio.audio().latents_per_second
                raise ConfigError(f"seconds is {seconds}; this model makes at most {longest:.1f} s of sound")
            numbers = (max(1, count),)
        forced = (Forced("audio", numbers),)
        return self._each(prompt, [_asked(one) for one in _as_list(prompt)], forced, Audio, seed, settings)

    def edit(self, image: Any, instruction: Any, *, seed: Any = None, **settings: Any) -> Any:
        """Change a picture, or each of a list by its own instruction; the result has the picture's shape.

        The model may first tell itself in a few words what it is going to draw; the picture goes by them, and chat
        shows them.

        Args:
            image: anything Image.load takes, or a list.
            instruction: what to change, or as many.
            seed, settings: as in image.
        """
        images = self._load(Image, image, settings)
        wishes = _paired(images, instruction)
        asked = [[_user(one, Text(wish))] for one, wish in zip(images, wishes, strict=True)]
        forced: list[tuple[Forced, ...]] = [
            (Forced("image", self._shape_of(one), max_words=MAX_WORDS),) for one in images
        ]
        return self._each(image, asked, forced, Image, seed, settings)

    def inpaint(self, image: Any, mask: Any, instruction: str, *, seed: Any = None, **settings: Any) -> Image:
        """Paint a masked part of a picture anew; latents that the mask does not touch stay as they are.

        Args:
            image: anything Image.load takes.
            mask: booleans [H, W] of the picture, True where it is painted anew.
            instruction: what to paint there.
            seed, settings: as in image.

        Raises:
            InputError: the mask has another size, or covers nothing.
        """
        (picture,) = self._load(Image, image, settings)
        area = np.asarray(mask)
        if area.dtype != bool or area.shape != picture.pixels.shape[:2]:
            raise InputError(f"mask is {area.dtype} {list(area.shape)}; give booleans {list(picture.pixels.shape[:2])}")
        if not area.any():
            raise InputError("mask is False everywhere; mark what is to be painted anew")
        pixels = self.studio.fit(picture.pixels)
        height, width = pixels.shape[:2]
        rows = np.arange(height) * area.shape[0] // height
        columns = np.arange(width) * area.shape[1] // width
        area = area[rows][:, columns]
        shown = np.where(area[..., None], np.uint8(GRAY), pixels).astype(np.uint8)
        tokens = self._tokens_of(pixels)
        side = self.studio.token_side()
        touched = area.reshape(height // side, side, width // side, side).any(axis=(1, 3))
        forced = (Forced("image", tokens.shape[1:3], (tokens, torch.from_numpy(~touched)[None])),)
        asked = [[_user(Image(shown), Text(instruction))]]
        made: Image = self._each("", asked, forced, Image, seed, settings)
        return made

    def animate(
        self,
        image: Any,
        instruction: Any,
        *,
        last_image: Any = None,
        seconds: float = 2.0,
        sound: bool | None = None,
        seed: Any = None,
        **settings: Any,
    ) -> Any:
        """Bring a picture to life, or each of a list by its own instruction.

        The film's first frame is given, not made: it is the picture as the codec keeps it.

        Args:
            image: anything Image.load takes, or a list.
            instruction: what happens, or as many.
            last_image: how the film ends: anything Image.load takes, of the same shape, or as many. Its last latent
                frame (four frames of the shipped codec) is given too, and shows this picture at rest.
            seconds, sound: as in video.
            seed, settings: as in image.

        Raises:
            InputError: a last picture has another shape, or there are not as many as pictures.
            ConfigError: the film is too short to have a last picture beside its first.
        """
        settings = self._going_on(settings)
        images = self._load(Image, image, settings)
        wishes = _paired(images, instruction)
        lasts = [None] * len(images) if last_image is None else self._load(Image, last_image, settings)
        if len(lasts) != len(images):
            raise InputError(f"{len(images)} pictures need as many last ones, not {len(lasts)}")
        asked = [[_user(one, Text(wish))] for one, wish in zip(images, wishes, strict=True)]
        length = _positive("seconds", seconds)
        forced = [self._between(first, last, length) for first, last in zip(images, lasts, strict=True)]
        return self._each(image, asked, forced, Video, seed, settings, {"sound": sound})

    def _between(self, first: Image, last: Image | None, seconds: float) -> tuple[Forced, ...]:
        """Return the headers of a film whose first frame is given, and the last latent frame where there is one."""
        picture, side = self._tokens_of(self.studio.fit(first.pixels)), self.studio.token_side()
        size = (picture.shape[1] * side, picture.shape[2] * side)
        blocks = self._film_headers(seconds, size, None)
        total = sum(block.shape[0] for block in blocks)
        tokens = torch.cat([picture, picture.new_zeros(total - 1, *picture.shape[1:])])
        is_given = (torch.arange(total) == 0)[:, None, None].expand(tokens.shape[:3]).clone()
        if last is not None:
            pixels = self.studio.fit(last.pixels)
            if pixels.shape[:2] != size:
                raise InputError(f"the last picture becomes {pixels.shape[:2]}, the first {size}; give one shape")
            if total < 2:
                raise ConfigError(f"a film of {seconds:g} s has no last picture beside its first; give more seconds")
            tokens[-1], is_given[-1] = self._tokens_of(pixels, at_rest=True)[0], True
        lengths = [block.shape[0] for block in blocks]
        parts = zip(blocks, tokens.split(lengths), is_given.split(lengths), strict=True)
        return tuple(replace(block, given=(own, which)) if which.any() else block for block, own, which in parts)

    def continue_(self, video: Any, *, seconds: float = 2.0, seed: Any = None, **settings: Any) -> Any:
        """Go on with a film, or with each of a list; what is returned is the new part.

        As in edit, the model may first say what happens.

        Args:
            video: anything Video.load takes, or a list.
            seconds: length of what is new.
            seed, settings: as in image.
        """
        settings = self._going_on(settings)
        films = self._load(Video, video, settings)
        asked = [[_user(one, Text(CONTINUE_REQUEST))] for one in films]
        forced = []
        for one in films:
            blocks = self.studio.encode(one)
            fps = self.studio.template.read_header(blocks[0].header)["fps"]
            frames = max(1, round(_positive("seconds", seconds) * fps / self.studio.frames_per_latent))
            rows, columns = blocks[0].grids[0].latents.shape[1:3]
            first, *later = self._continuing(frames, rows * columns)
            forced.append((replace(first, max_words=MAX_WORDS), *later))
        return self._each(video, asked, forced, Video, seed, settings)

    def caption(self, part: Any, *, seed: Any = None, **settings: Any) -> Any:
        """Describe a picture, film or recording in words, or each of a list.

        Args:
            part: a part, or anything Image.load takes, or a list of these.
            seed, settings: as in image.
        """
        _, reading = self._settings(settings)
        given = [one if isinstance(one, (Video, Audio)) else Image.load(one, **reading) for one in _as_list(part)]
        asked = [[_user(one, Text(CAPTION_REQUESTS[type(one)]))] for one in given]
        replies = self._run(asked, seed=seed, forced=None, settings={"max_media": 0} | settings)
        captions = [reply.text.strip() for reply in replies]
        return captions if _is_list(part) else captions[0]

    def play(
        self,
        prompt: str,
        *,
        size: tuple[int, int] = (64, 64),
        memory: int = 6,
        seed: int | None = None,
        **settings: Any,
    ) -> World:
        """Open a world that is played: `world.send("left")` gives the next frames.

        Args:
            prompt: who is played, and where.
            size: (height, width) in pixels, multiples of 16.
            memory: how many answered actions, behind the first picture, the next frames go by; 0 for all. The
                shipped model was trained on seven and forgets what to do after many more.
            seed: the same one and the same actions give the same world; drawn where left out.
            settings: as in chat.
        """
        options, _ = self._settings(settings)
        shape = self.rows_and_columns(size, "video")
        return World(self, prompt, shape=shape, memory=memory, seed=seed, settings=options)  # type: ignore[arg-type]

    def _going_on(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Let given media that a film goes on with guide as strongly as the model needs, unless the caller says how."""
        is_said = "guidance" in settings or "image_scale" in settings
        return dict(settings) if is_said else {**settings, "image_scale": self.defaults.image_scale}

    def _load(self, kind: type[P], given: Any, settings: Mapping[str, Any]) -> list[P]:
        _, reading = self._settings(settings)
        return [kind.load(one, **reading) for one in _as_list(given)]

    def _tokens_of(self, pixels: np.ndarray, *, at_rest: bool = False) -> torch.Tensor:
        """Encode a picture, uint8 [H, W, 3], to clean tokens [1, rows, columns, C]; at rest as the end of a film."""
        modality = "video" if at_rest else "image"
        frames = 1 + REST_LATENTS * self.studio.frames_per_latent if at_rest else 1
        still = torch.from_numpy(pixels.copy())[None, None].expand(-1, frames, -1, -1, -1)
        latents = self.studio.vision(modality).encode(still)[0, -1:]
        return to_tokens(latents, patch_size=self.studio.patch_size(modality))

    def _shape_of(self, image: Image) -> tuple[int, int]:
        height, width = self.studio.fit(image.pixels).shape[:2]
        side = self.studio.token_side()
        return height // side, width // side

    def _film_headers(self, seconds: float | None, size: Any, block_frames: int | None) -> tuple[Forced, ...]:
        """Return the headers of a film: the first block, and those that go on with it."""
        rows, columns = self.rows_and_columns(size, "video")
        if seconds is None:
            if block_frames is not None:
                raise ConfigError("block_frames needs to know the length: give seconds too")
            return (Forced("video", ()),)
        clock = self.studio.clock(DEFAULT_FPS)
        num_frames = max(1, round(_positive("seconds", seconds) * DEFAULT_FPS))
        total = 1 + round((num_frames - 1) / clock.frames_per_latent)
        most = max(1, self.studio.max_video_tokens // (rows * columns))
        first = min(total, most if block_frames is None else block_frames)
        if block_frames is not None and not 1 <= block_frames <= most:
            raise ConfigError(f"block_frames is {block_frames}; give 1 to {most} latent frames of this size")
        numbers = (first, rows, columns, DEFAULT_FPS)
        later = self._continuing(total - first, rows * columns, block_frames)
        return (Forced("video", numbers), *later)

    def _continuing(self, frames: int, frame_tokens: int, block_frames: int | None = None) -> tuple[Forced, ...]:
        most = min(block_frames or self.studio.max_video_tokens, max(1, self.studio.max_video_tokens // frame_tokens))
        counts = [min(most, frames - start) for start in range(0, frames, most)]
        return tuple(Forced("continue", (count,)) for count in counts)

    def _each(
        self,
        given: Any,
        asked: list[Any],
        forced: tuple[Forced, ...] | list[tuple[Forced, ...]],
        kind: type[P],
        seed: Any,
        settings: Mapping[str, Any],
        settled: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run conversations whose answers are one part of a kind; a single one where a single thing was given."""
        if any(name in settings for name in Settled):
            raise ConfigError("the size is settled already; leave out shape and size")
        each = forced if isinstance(forced, list) else [forced] * len(asked)
        replies = self._run(asked, seed=seed, forced=each, settings={**settings, **(settled or {})})
        made = [
            replace(_only(reply.parts, kind), metadata={"prompt": turn[0].text, "seed": reply.seed})
            for reply, turn in zip(replies, asked, strict=True)
        ]
        return made if _is_list(given) else made[0]


def _only(parts: Sequence[Part], kind: type[P]) -> P:
    found = [part for part in parts if isinstance(part, kind)]
    assert len(found) == 1, f"{len(found)} parts of {kind.__name__} in the answer"
    return found[0]


def _user(*parts: Part) -> Message:
    return Message("user", parts)


def _asked(prompt: Any) -> list[Message]:
    return [_user(Text(prompt))]


def _paired(given: Sequence[Any], instruction: Any) -> list[Any]:
    wishes = _as_list(instruction)
    if len(given) != len(wishes):
        raise InputError(f"{len(given)} pictures need as many instructions, not {len(wishes)}")
    return wishes


def _positive(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise ConfigError(f"{name} is {value!r}; give a number above 0")
    return float(value)


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def _as_list(value: Any) -> list[Any]:
    return list(value) if _is_list(value) else [value]
