"""Music of a few notes: instruments, the names of notes, patterns, and how they sound.

A note without a number is in the lower of an instrument's two octaves ("C" on a piano is C4, on a bass C2);
a note of the upper octave has its number ("C5").
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from training.world.held_out import Key, Split, split_of
from training.world.sound_pack import FADE_S, SAMPLE_RATE, Samples, faded, louder, mix, recording, to_grid

__all__ = [
    "INSTRUMENTS",
    "NAMED_TUNES",
    "TEMPOS",
    "Music",
    "midi_of",
    "name_of",
    "play",
    "play_at",
    "read_notes",
    "sample_music",
]

# name -> the lowest of its two octaves, as a MIDI number.
INSTRUMENTS = {
    "piano": 60, "guitar": 48, "violin": 60, "flute": 60, "trumpet": 60, "accordion": 60, "xylophone": 72, "bass": 36,
    "saxophone": 60, "choir": 60,
}  # fmt: skip
NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
MAJOR = (0, 2, 4, 5, 7, 9, 11, 12)
TEMPOS = {"slow": 0.56, "": 0.4, "fast": 0.24}  # seconds from one note to the next, whole latents
LEAD_S, TAIL_S, ALONE_S = 0.08, 0.2, 1.0
# The beginnings of tunes that everybody knows, as degrees of a major scale.
NAMED_TUNES = {
    "Twinkle Twinkle Little Star": (0, 0, 4, 4, 5, 5),
    "Ode to Joy": (2, 2, 3, 4, 4, 3),
    "Mary Had a Little Lamb": (2, 1, 0, 1, 2, 2),
    "Brother John": (0, 1, 2, 0),
    "Jingle Bells": (2, 2, 2, 2, 4, 0),
    "When the Saints": (0, 2, 3, 4),
    "London Bridge": (4, 5, 4, 3, 2, 3),
}


@dataclass(frozen=True)
class Music:
    """Some notes on one instrument, one after another.

    Args:
        instrument: one of INSTRUMENTS.
        notes: MIDI numbers, in the instrument's two octaves.
        tempo: one of TEMPOS.
        title: how the pattern is called: "a C major scale going up", the name of a tune, or "".
    """

    instrument: str
    notes: tuple[int, ...]
    tempo: str = ""
    title: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its notes."""
        return tuple(name_of(midi, self.instrument) for midi in self.notes)

    @property
    def onsets(self) -> tuple[float, ...]:
        """The second at which each note begins."""
        return tuple(round(LEAD_S + number * TEMPOS[self.tempo], 3) for number in range(len(self.notes)))

    @property
    def seconds(self) -> float:
        """How long its recording lasts."""
        last = ALONE_S if len(self.notes) == 1 else TEMPOS[self.tempo] + TAIL_S
        return to_grid(self.onsets[-1] + last) / SAMPLE_RATE

    @property
    def keys(self) -> tuple[Key, ...]:
        """The combination that may be held out."""
        return (("notes", self.instrument, " ".join(self.names)),)

    @property
    def direction(self) -> str:
        """Whether its notes go "up", "down", stay the "same", or neither ("")."""
        steps = [after - before for before, after in zip(self.notes, self.notes[1:], strict=False)]
        if not steps:
            return ""
        return "up" if min(steps) > 0 else "down" if max(steps) < 0 else "same" if not any(steps) else ""


def name_of(midi: int, instrument: str, *, octave: bool = False) -> str:
    """Name a note; with its octave where it is not the instrument's lower one, or always."""
    name, number = NAMES[midi % 12], midi // 12 - 1
    return f"{name}{number}" if octave or midi >= INSTRUMENTS[instrument] + 12 else name


def midi_of(name: str, instrument: str) -> int | None:
    """Read the name of a note ("C", "c#4", "Bb", "F sharp"); None where it is none."""
    match = re.fullmatch(r"([A-G])[ -]?(#|SHARP|B|FLAT)?([0-9])?", name.upper())
    if not match:
        return None
    shift = {"#": 1, "SHARP": 1, "B": -1, "FLAT": -1, None: 0}[match[2]]
    degree, lowest = NAMES.index(match[1]) + shift, INSTRUMENTS[instrument]
    return 12 * (int(match[3]) + 1) + degree if match[3] else lowest + (degree - lowest) % 12


def read_notes(text: str, instrument: str) -> tuple[int, ...]:
    """Read the notes that a text ends with, "A piano plays C E G."; gives MIDI numbers."""
    words = re.findall(r"[A-Ga-g](?:#|b)?[0-9]?(?![\w#])", text.partition("play")[2])
    found = (midi_of(word, instrument) for word in words)
    return tuple(midi for midi in found if midi is not None)


def play_at(rng: random.Random, music: Music, onsets: Sequence[float], seconds: float) -> Samples:
    """Play the notes so that each begins at its second and lasts until the next; float32 [T]."""
    parts = []
    for midi, onset, end in zip(music.notes, onsets, (*onsets[1:], seconds), strict=True):
        held = min(ALONE_S + TAIL_S, end - onset + FADE_S)
        parts.append((onset, faded(recording("notes", f"{music.instrument}/{midi}"), held)))
    return louder(rng, mix(parts, seconds))


def play(rng: random.Random, music: Music) -> Samples:
    """Play it; float32 [T]. Notes begin where `onsets` says."""
    return play_at(rng, music, music.onsets, music.seconds)


def _from_degrees(lowest: int, root: int, degrees: Sequence[int]) -> tuple[int, ...]:
    return tuple(lowest + root + MAJOR[degree] for degree in degrees)


def _titled(rng: random.Random, instrument: str) -> tuple[str, tuple[int, ...]]:
    """A pattern that has a name: a scale, an arpeggio, a known tune."""
    lowest, root = INSTRUMENTS[instrument], rng.choice((0, 2, 4, 5, 7, 9))
    way = rng.choice(("up", "down"))
    draw = rng.random()
    if draw < 0.4:
        degrees, title = (0, 1, 2, 3, 4), f"a {NAMES[root]} major scale going {way}"
    elif draw < 0.7:
        degrees, title = (0, 2, 4, 7), f"a {NAMES[root]} major arpeggio going {way}"
    else:
        title = rng.choice(tuple(NAMED_TUNES))
        return title, _from_degrees(lowest, 0, NAMED_TUNES[title])
    return title, _from_degrees(lowest, root, degrees if way == "up" else degrees[::-1])


def _tune(rng: random.Random, lowest: int) -> tuple[int, ...]:
    """A short tune: small steps in C major, now and then the same note again or a leap."""
    white = [degree for degree in range(25) if degree % 12 in MAJOR]
    place = rng.randrange(8)
    notes = [white[place]]
    for _ in range(rng.choice((1, 2, 2, 3, 4, 5))):
        place += rng.choice((-4, -2, -1, -1, 0, 1, 1, 2, 4))
        place = max(0, min(place, 9))
        notes.append(white[place])
    return tuple(lowest + degree for degree in notes)


def sample_music(rng: random.Random, split: Split | None = "train", instrument: str = "") -> Music:
    """Draw some music whose (instrument, pattern) belongs to a split; None takes whatever comes."""
    while True:
        name = instrument or rng.choice(tuple(INSTRUMENTS))
        draw, title = rng.random(), ""
        if draw < 0.25:
            notes: tuple[int, ...] = (INSTRUMENTS[name] + rng.randrange(25),)
        elif draw < 0.5:
            title, notes = _titled(rng, name)
        elif draw < 0.6:
            notes = _from_degrees(INSTRUMENTS[name], 0, range(*rng.choice(((0, 3), (0, 4), (2, 5), (3, 6), (4, 8)))))
            notes = notes if rng.random() < 0.5 else notes[::-1]
        else:
            notes = _tune(rng, INSTRUMENTS[name])
        tempo = "" if len(notes) == 1 or rng.random() < 0.7 else rng.choice(("slow", "fast"))
        music = Music(name, notes, tempo, title)
        if split is None or split_of(*music.keys[0]) == split:
            return music
