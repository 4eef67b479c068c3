"""Recordings of the omni world for the audio codec: what it is fitted on, and what it is measured by."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, islice

import numpy as np

from training.world.held_out import Split
from training.world.notes import play, sample_music
from training.world.sound_classes import make_noise, sample_noise
from training.world.sound_pack import SAMPLE_RATE, Samples
from training.world.speech import sample_saying, speak

__all__ = ["Recording", "recordings", "spoken", "played"]

PAUSE_S = 0.3  # between two lines of one recording


@dataclass(frozen=True)
class Recording:
    """A sound and what is known of it.

    Args:
        samples: float32 [T] at the world's sample rate.
        text: what is said in it.
        notes: (second, MIDI number) of what is played in it.
    """

    samples: Samples
    text: str = ""
    notes: tuple[tuple[float, int], ...] = ()


def spoken(split: Split | None, count: int, *, lines: int = 1, voice: str = "", seed: int = 0) -> list[Recording]:
    """Let voices say lines, several in one recording; no line twice in a split that is held out.

    Args:
        split: of (voice, line).
        count: recordings.
        lines: in each; of more than two words where there are several, because a recogniser guesses at words alone.
        voice: of all of them; without it, any.
        seed: of the choice.
    """
    rng, seen, made = random.Random(f"codec/speech/{split}/{seed}"), set(), []
    while len(made) < count:
        said, pieces = [], []
        while len(said) < lines:
            saying = sample_saying(rng, split, voice=voice)
            is_short = lines > 1 and len(saying.line.split()) < 3
            if is_short or (split != "train" and saying in seen):
                continue
            seen.add(saying)
            said.append(saying.line)
            pause = round(PAUSE_S * SAMPLE_RATE) if lines > 1 else 0
            pieces.append(np.pad(speak(rng, saying), (0, pause)))
        made.append(Recording(np.concatenate(pieces), " ".join(said)))
    return made


def played(split: Split | None, count: int, *, seed: int = 0) -> list[Recording]:
    """Play music of a few notes."""
    rng = random.Random(f"codec/notes/{split}/{seed}")
    pieces = [sample_music(rng, split) for _ in range(count)]
    notes = [tuple(zip(music.onsets, music.notes, strict=True)) for music in pieces]
    return [Recording(play(rng, music), notes=each) for music, each in zip(pieces, notes, strict=True)]


def _sounded(split: Split | None, count: int, *, seed: int = 0) -> list[Recording]:
    rng = random.Random(f"codec/sounds/{split}/{seed}")
    return [Recording(make_noise(rng, sample_noise(rng, split))[0]) for _ in range(count)]


def recordings(split: Split | None, count: int, *, seed: int = 0) -> Iterator[Recording]:
    """Yield speech, music and named sounds by turns, `count` in all."""
    each = -(-count // 3)
    kinds = [make(split, each, seed=seed) for make in (spoken, played, _sounded)]
    turns = cycle([iter(kind) for kind in kinds])
    return islice((next(turn) for turn in turns), count)
