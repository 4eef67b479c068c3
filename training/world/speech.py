"""Spoken sentences: two voices, thousands of short lines, and who says which.

A voice says a line phrase by phrase, and every phrase in step with the latents of the codec, so that it sounds the
same, and is the same numbers, wherever it stands: what is learnt of it in one line holds in all.
"""

import random
from dataclasses import dataclass
from functools import cache

import numpy as np

from training.world.held_out import Key, Split, split_of
from training.world.sound_pack import SAMPLE_RATE, Samples, louder, recording, to_grid
from training.world.spoken_lines import lines, phrases_spoken

__all__ = ["VOICES", "Saying", "lines_of", "sample_saying", "speak", "spoken_text"]

VOICES = {"joe": "man", "slt": "woman"}  # the first speaks where no voice is asked for
TALK_SHARE = 0.15  # of the lines that are drawn; phrases that are a line by themselves


@dataclass(frozen=True)
class Saying:
    """A line and the voice that says it.

    Args:
        voice: one of VOICES.
        line: in lower case but for names and "I", without a full stop.
    """

    voice: str
    line: str

    @property
    def who(self) -> str:
        """What a listener calls the voice: "man" or "woman"."""
        return VOICES[self.voice]

    @property
    def keys(self) -> tuple[Key, ...]:
        """The combination that may be held out; no line of one phrase, so that every phrase stays in training."""
        return (("speech", self.voice, self.line),) if len(lines()[self.line]) > 1 else ()

    @property
    def split(self) -> Split:
        """The split to which it belongs."""
        return split_of(*self.keys[0]) if self.keys else "train"


@cache
def lines_of(voice: str, split: Split | None = None, *, start: str = "") -> tuple[str, ...]:
    """Return the lines that a voice speaks, of one split or all; those that begin with `start`."""
    return tuple(
        line for line in lines() if line.startswith(start) and (not split or Saying(voice, line).split == split)
    )


@cache
def _alone(voice: str, split: Split | None) -> tuple[str, ...]:
    return tuple(line for line in lines_of(voice, split) if len(lines()[line]) == 1)


def sample_saying(rng: random.Random, split: Split | None = "train", *, voice: str = "", start: str = "") -> Saying:
    """Draw a line and a voice that belong together to a split; None takes whatever comes.

    Args:
        start: how the line begins, "draw a".
    """
    voice = voice or rng.choice(tuple(VOICES))
    alone = () if start else _alone(voice, split)
    return Saying(
        voice, rng.choice(alone if alone and rng.random() < TALK_SHARE else lines_of(voice, split, start=start))
    )


def speak(rng: random.Random, saying: Saying) -> Samples:
    """Let a voice say its line, phrase by phrase, each as long as a whole number of latents; float32 [T]."""
    said = [recording(saying.voice, f"{phrases_spoken()[phrase]:03d}") for phrase in lines()[saying.line]]
    return louder(rng, np.concatenate([np.pad(x, (0, to_grid(len(x) / SAMPLE_RATE) - len(x))) for x in said]))


def spoken_text(line: str) -> str:
    """Write a line as a sentence: "A red fox."."""
    return f"{line[:1].upper()}{line[1:]}."
