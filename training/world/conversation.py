"""Conversations under construction, and the examples they become."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from training.world.held_out import Key, split_of
from training.world.scene import Scene, render

__all__ = ["SHAPES", "Example", "Part", "Talk"]

SHAPES = {
    "square": (64, 64),
    "wide": (64, 96),
    "tall": (96, 64),
    "icon": (48, 48),
}  # (height, width) in pixels
Part = str | Scene


@dataclass(frozen=True)
class Example:
    """One conversation.

    Args:
        task: one of TASKS.
        seed: the number it was made from.
        messages: chat form; pictures are uint8 arrays [H, W, 3].
        truth: "shape" (a key of SHAPES), "scenes" (one Scene for each picture, in order), "keys" (the
            combinations that occur), "held_out" (those of them that training never contains), and by task
            "asked" (text_to_image: the slots that the request names; edit: those the instruction names),
            "caption" (caption_image), "question" (a Question), "edit" (an Edit), "exchange" (chat),
            "turns" (dialogue: a list of (kind, value) as above).
    """

    task: str
    seed: int
    messages: list[dict[str, Any]]
    truth: dict[str, Any]


class Talk:
    """A conversation under construction; pictures stay scenes until it is finished."""

    def __init__(self, shape: str = "square") -> None:
        self.shape = shape
        self.turns: list[tuple[str, list[Part]]] = []
        self.keys: dict[Key, None] = {}
        self.truth: dict[str, Any] = {}

    def say(self, role: str, *parts: Part, keys: tuple[Key, ...] = ()) -> None:
        """Add a message, and the combinations that come with it."""
        self.turns.append((role, list(parts)))
        for part in parts:
            if isinstance(part, Scene):
                self.keys |= dict.fromkeys(part.keys)
        self.keys |= dict.fromkeys(keys)

    def texts(self) -> Iterator[str]:
        """Every text part, in order."""
        return (part for _, parts in self.turns for part in parts if isinstance(part, str))

    def finish(self, task: str, seed: int) -> Example:
        """Render the pictures and gather the truth."""
        height, width = SHAPES[self.shape]
        messages = [
            {"role": role, "content": [
                {"type": "text", "text": part} if isinstance(part, str)
                else {"type": "image", "image": render(part, height, width)} for part in parts
            ]} for role, parts in self.turns
        ]  # fmt: skip
        truth = {
            "shape": self.shape,
            "scenes": [part for _, parts in self.turns for part in parts if isinstance(part, Scene)],
            "keys": list(self.keys),
            "held_out": [key for key in self.keys if split_of(*key) != "train"],
        }
        return Example(task, seed, messages, truth | self.truth)
