"""Spoken sentences: two voices, a thousand short lines, and who says which."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from training.world.held_out import Key, Split, split_of
from training.world.pack import DATA
from training.world.sound_pack import SAMPLE_RATE, Samples, faded, louder, mix, recording, to_grid

__all__ = ["VOICES", "Saying", "lines_of", "number_of", "sample_saying", "speak", "spoken_text"]

VOICES = {"joe": "man", "slt": "woman"}  # the first speaks where no voice is asked for
LEAD_S, TAIL_S = 0.04, 0.04


RARE = 5  # lines: a word in fewer is taught by the first of them


@cache
def number_of() -> Mapping[str, int]:
    """Return every line with its number, by which recordings are named."""
    lines = (DATA / "speech.txt").read_text(encoding="utf-8").splitlines()
    return {line: number for number, line in enumerate(lines)}


@cache
def _lessons() -> frozenset[str]:
    """The lines that are never held out, so that every word stays in training: a word alone, or a rare one's first."""
    lines_with: dict[str, list[str]] = {}
    for line in number_of():
        for word in dict.fromkeys(line.split()):
            lines_with.setdefault(word, []).append(line)
    firsts = {lines[0] for lines in lines_with.values() if len(lines) < RARE}
    return frozenset(firsts | {line for line in number_of() if " " not in line})


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
        """The combination that may be held out, unless the line is what teaches a rare word."""
        return () if self.line in _lessons() else (("speech", self.voice, self.line),)

    @property
    def split(self) -> Split:
        """The split to which it belongs."""
        return split_of(*self.keys[0]) if self.keys else "train"


@cache
def lines_of(voice: str, split: Split | None = None, *, start: str = "") -> tuple[str, ...]:
    """Return the lines that a voice speaks, of one split or all; those that begin with `start`."""
    return tuple(
        line for line in number_of() if line.startswith(start) and (not split or Saying(voice, line).split == split)
    )


def sample_saying(rng: random.Random, split: Split | None = "train", *, voice: str = "", start: str = "") -> Saying:
    """Draw a line and a voice that belong together to a split; None takes whatever comes.

    Args:
        start: how the line begins, "draw a".
    """
    voice = voice or rng.choice(tuple(VOICES))
    return Saying(voice, rng.choice(lines_of(voice, split, start=start)))


def speak(rng: random.Random, saying: Saying) -> Samples:
    """Let a voice say its line; float32 [T], with a little silence before and after."""
    samples = recording(saying.voice, f"{number_of()[saying.line]:04d}")
    seconds = to_grid(LEAD_S + len(samples) / SAMPLE_RATE + TAIL_S) / SAMPLE_RATE
    return louder(rng, mix([(LEAD_S, faded(samples, len(samples) / SAMPLE_RATE))], seconds))


def spoken_text(line: str) -> str:
    """Write a line as a sentence: "A red fox."."""
    return f"{line[:1].upper()}{line[1:]}."
