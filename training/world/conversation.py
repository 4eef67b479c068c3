"""Conversations under construction, and the examples they become."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from training.world.held_out import Key, split_of
from training.world.motion import Film, render_film
from training.world.scene import Light, Scene, render

__all__ = ["MASK_COLOR", "SHAPES", "Example", "Item", "Masked", "Part", "Shot", "Snapshot", "Talk"]

SHAPES = {
    "square": (64, 64),
    "wide": (64, 96),
    "tall": (96, 64),
    "icon": (48, 48),
}  # (height, width) in pixels
MASK_COLOR = (128, 128, 128)  # of what is to be painted, in the picture that a person gives
TOKEN_SIDE = 16  # pixels of a latent token
FRAMES_PER_LATENT = 4

Item = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Shot:
    """A film, or a stretch of it, as one item of a message.

    Args:
        film: the whole.
        first: index of the first frame.
        stop: index behind the last frame; 0 for the film's end.
        continues: whether it goes on with the film of the item before.
        given: frames, counted in the shot, that are given rather than to be made.
        audio: its sound, float32 [T], 16 kHz; as long as the shot.
        unseen: frames before the first that are in no item; a codec that looks back needs them.
    """

    film: Film
    first: int = 0
    stop: int = 0
    continues: bool = False
    given: tuple[int, ...] = ()
    audio: np.ndarray | None = None
    unseen: int = 0

    @property
    def num_frames(self) -> int:
        """Frames of the shot."""
        return (self.stop or self.film.num_frames) - self.first

    def item(self) -> Item:
        """Render it."""
        film = render_film(self.film)
        item: Item = {"type": "video", "frames": film[self.first : self.stop or None], "fps": self.film.fps}
        if self.unseen:
            item["unseen"] = film[self.first - self.unseen : self.first]
        if self.audio is not None:
            item["audio"] = self.audio
        if self.continues:
            item["continues"] = True
        if self.given:
            item["given"] = list(self.given)
        return item


@dataclass(frozen=True)
class Masked:
    """A picture of which a box is to be made.

    Args:
        scene: the whole picture.
        box: top, left, height and width in pixels.
        is_whole: whether it is the answer, with everything outside the box given; else the box is gray.
    """

    scene: Scene
    box: tuple[int, int, int, int]
    is_whole: bool = False

    def item(self, height: int, width: int) -> Item:
        """Render it."""
        top, left, rows, columns = self.box
        picture, given = render(self.scene, height, width), np.ones((height, width), bool)
        given[top : top + rows, left : left + columns] = False
        if self.is_whole:
            return {"type": "image", "image": picture, "given": given}
        picture[~given] = MASK_COLOR
        return {"type": "image", "image": picture}


@dataclass(frozen=True)
class Snapshot:
    """A picture of a scene whose things look a little different from the ones that the model draws."""

    scene: Scene
    light: Light

    def item(self, height: int, width: int) -> Item:
        """Render it."""
        return {"type": "image", "image": render(self.scene, height, width, self.light)}


Picture = Scene | Masked | Snapshot
Part = str | Picture | Film | Shot | Item


@dataclass(frozen=True)
class Example:
    """One conversation.

    Args:
        task: one of TASKS.
        seed: the number it was made from.
        messages: chat form; pictures are uint8 arrays [H, W, 3], films uint8 [F, H, W, 3].
        truth: "shape" (a key of SHAPES), "scenes" (one Scene for each picture, in order), "films" (one Film for
            each film, in order; a film that is told in several items stands there as often), "keys" (the
            combinations that occur), "held_out" (those of them that training never contains), and by task
            "asked" (drawing, filming: the slots that the request names; edit: those the instruction names),
            "light" (pictures seen anew: a Light), "caption" (captions), "question" (a Question), "edit" (an Edit),
            "exchange" (chat), "recall" (a list of Recall), "box" (inpaint), "actions" (world), "story" (a Story),
            "turns" (dialogues: a list of (kind, value) as above).
    """

    task: str
    seed: int
    messages: list[dict[str, Any]]
    truth: dict[str, Any]


@dataclass
class Talk:
    """A conversation under construction; media stay descriptions until it is finished.

    Args:
        shape: of its pictures and films, a key of SHAPES.
    """

    shape: str = "square"
    turns: list[tuple[str, list[Part]]] = field(default_factory=list)
    keys: dict[Key, None] = field(default_factory=dict)
    truth: dict[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of its pictures and films, in pixels."""
        return SHAPES[self.shape]

    def say(self, role: str, *parts: Part, keys: tuple[Key, ...] = ()) -> None:
        """Add a message, and the combinations that come with it."""
        self.turns.append((role, list(parts)))
        for part in parts:
            known = part.film if isinstance(part, Shot) else part.scene if isinstance(part, Masked | Snapshot) else part
            if isinstance(known, Scene | Film):
                self.keys |= dict.fromkeys(known.keys)
        self.keys |= dict.fromkeys(keys)

    def texts(self) -> Iterator[str]:
        """Every text part, in order."""
        return (part for _, parts in self.turns for part in parts if isinstance(part, str))

    def num_tokens(self) -> int:
        """Estimate the tokens of a training row: text at three letters a token, the assistant's media twice."""
        rows, columns = (side // TOKEN_SIDE for side in self.size)
        count = 1
        for role, parts in self.turns:
            count += 2
            for part in parts:
                if isinstance(part, str):
                    count += 1 + len(part) // 3
                elif isinstance(part, Picture | Film | Shot):
                    frames = part.num_frames if isinstance(part, Film | Shot) else 1
                    latents = frames // FRAMES_PER_LATENT + (frames % FRAMES_PER_LATENT > 0)
                    count += 6 + latents * rows * columns * (2 if role == "assistant" else 1)
        return count

    def _item(self, part: Part) -> Item:
        if isinstance(part, str):
            return {"type": "text", "text": part}
        if isinstance(part, Scene):
            return {"type": "image", "image": render(part, *self.size)}
        if isinstance(part, Masked | Snapshot):
            return part.item(*self.size)
        if isinstance(part, Film):
            part = Shot(part)
        return part.item() if isinstance(part, Shot) else part

    def finish(self, task: str, seed: int) -> Example:
        """Render pictures and films and gather the truth."""
        messages = [{"role": role, "content": [self._item(part) for part in parts]} for role, parts in self.turns]
        parts = [part for _, parts in self.turns for part in parts]
        pictures = [part for part in parts if isinstance(part, Picture)]
        truth = {
            "shape": self.shape,
            "scenes": [part if isinstance(part, Scene) else part.scene for part in pictures],
            "films": [p.film if isinstance(p, Shot) else p for p in parts if isinstance(p, Film | Shot)],
            "keys": list(self.keys),
            "held_out": [key for key in self.keys if split_of(*key) != "train"],
        }
        return Example(task, seed, messages, truth | self.truth)
