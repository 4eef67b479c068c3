"""Named sounds: a bell, rain, a helicopter; alone, several times, or one after another."""

import random
from dataclasses import dataclass
from functools import cache

from training.world.held_out import Key, Split, split_of_all
from training.world.sound_pack import SAMPLE_RATE, Samples, faded, louder, members, mix, recording, to_grid

__all__ = ["CALLED", "SHORT", "SOUNDS", "Noise", "make_noise", "sample_noise"]

# name -> how English speaks of it, the model's own words first; what can be counted has an article.
CALLED = {
    "bell": ("a bell", "a bell ringing"), "drum": ("a drum", "a beat of a drum"), "snare drum": ("a snare drum",),
    "cymbal": ("a cymbal", "a crash of a cymbal"), "cowbell": ("a cowbell",), "clap": ("a clap", "a clap of hands"),
    "applause": ("applause", "people clapping"), "whistle": ("a whistle", "a whistle blowing"),
    "triangle": ("a triangle",), "wood block": ("a wood block",), "crow": ("a crow", "a crow calling"),
    "door": ("a door", "a door closing"), "bird": ("a bird", "a bird singing"),
    "telephone": ("a telephone", "a phone ringing"), "helicopter": ("a helicopter", "a helicopter flying"),
    "rain": ("rain", "falling rain"), "wind": ("wind", "a cold wind"), "thunder": ("thunder", "a roll of thunder"),
    "siren": ("a siren",), "clock": ("a clock", "a ticking clock"), "beep": ("a beep",),
    "cat": ("a cat", "a cat meowing"), "dog": ("a dog", "a dog barking"), "train": ("a train", "a train whistle"),
    "car horn": ("a car horn", "a car honking"), "glass": ("breaking glass", "a glass that breaks"),
    "bubbles": ("bubbles", "bubbles in water"), "knock": ("a knock", "a knock on a door"), "burp": ("a burp",),
    "cash register": ("a cash register",), "drum roll": ("a drum roll",),
}  # fmt: skip
SOUNDS = tuple(CALLED)
# Those that can sound several times in one recording.
SHORT = ("drum", "snare drum", "cowbell", "clap", "wood block", "crow", "beep", "bell", "whistle", "cymbal", "triangle",
         "burp")  # fmt: skip
EVERY_S, SHORT_S = 0.64, 0.56  # of several same sounds: from one to the next, and how long each lasts
LEAD_S, TAIL_S, LONGEST_S, GAP_S = 0.08, 0.08, 1.6, 0.2


@dataclass(frozen=True)
class Noise:
    """A named sound.

    Args:
        name: one of SOUNDS.
        count: how often it sounds, 1 to 4.
        then: another one of SOUNDS that follows, or "".
    """

    name: str
    count: int = 1
    then: str = ""

    @property
    def keys(self) -> tuple[Key, ...]:
        """The combinations that may be held out: a count, or a sequence of two."""
        if self.then:
            return (("sounds", self.name, self.then),)
        return (("sound", self.name, str(self.count)),) if self.count > 1 else ()

    @property
    def slots(self) -> dict[str, str | int]:
        """What a caption says of it."""
        slots: dict[str, str | int] = {"kind": "sound", "sound": self.name}
        return slots | ({"then": self.then} if self.then else {"count": self.count})


@cache
def takes(name: str) -> tuple[str, ...]:
    """Name the recordings of a sound."""
    return tuple(member for member in members("sounds") if member.startswith(f"{name}/"))


def _take(rng: random.Random, name: str, longest_s: float) -> Samples:
    samples = recording("sounds", rng.choice(takes(name)))
    return faded(samples, longest_s) if len(samples) > longest_s * SAMPLE_RATE else samples


def make_noise(rng: random.Random, noise: Noise) -> tuple[Samples, tuple[float, ...]]:
    """Make a recording of it; float32 [T], and the second at which each sound begins."""
    if noise.count > 1:
        once = _take(rng, noise.name, SHORT_S)
        onsets = tuple(round(LEAD_S + EVERY_S * number, 3) for number in range(noise.count))
        seconds = to_grid(onsets[-1] + max(SHORT_S, len(once) / SAMPLE_RATE) + TAIL_S) / SAMPLE_RATE
        return louder(rng, mix([(onset, once) for onset in onsets], seconds)), onsets
    names = (noise.name, noise.then) if noise.then else (noise.name,)
    parts, second, end = [], LEAD_S, 0.0
    for name in names:
        samples = _take(rng, name, LONGEST_S if noise.then else 2.0)
        parts.append((second, samples))
        end = second + len(samples) / SAMPLE_RATE
        second = to_grid(end + GAP_S) / SAMPLE_RATE
    seconds = to_grid(end + TAIL_S) / SAMPLE_RATE
    return louder(rng, mix(parts, seconds)), tuple(onset for onset, _ in parts)


def sample_noise(rng: random.Random, split: Split | None = "train") -> Noise:
    """Draw a sound whose combinations belong to a split; None takes whatever comes."""
    while True:
        if rng.random() < 0.5 and split in ("train", None):
            return Noise(rng.choice(SOUNDS))
        # Of the splits that training does not see, fewer counts than sequences: there are few of them.
        if rng.random() < (0.5 if split in ("train", None) else 0.3):
            noise = Noise(rng.choice(SHORT), rng.choice((2, 3, 4)))
        else:
            first, second = rng.sample(SOUNDS, 2)
            noise = Noise(first, then=second)
        if split is None or split_of_all(noise.keys) == split:
            return noise
