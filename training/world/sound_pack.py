"""The packed recordings: zips of Ogg Opus files that scripts/build_sound_packs.py makes, and how sounds are mixed.

All sound of the world is mono, float32 in [-1, 1], at SAMPLE_RATE.
"""

import io
import random
import zipfile
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

from training.world.pack import DATA

__all__ = [
    "FADE_S", "GRID_S", "MAX_SECONDS", "SAMPLE_RATE", "Samples", "faded", "louder", "members", "mix", "recording",
    "to_grid",
]  # fmt: skip

Samples = NDArray[np.float32]
SAMPLE_RATE = 16000
MAX_SECONDS = 4.0
GRID_S = 0.08  # a latent: recordings last a whole number of these, and what sounds in them begins with one
FADE_S = 0.02


@cache
def _pack(name: str) -> zipfile.ZipFile:
    # In memory: processes that are forked would share the place in an open file.
    return zipfile.ZipFile(io.BytesIO((DATA / f"{name}.zip").read_bytes()))


@cache
def members(pack: str) -> tuple[str, ...]:
    """Name every recording of a pack ("joe", "slt", "notes" or "sounds"), without ".ogg"."""
    return tuple(name.removesuffix(".ogg") for name in _pack(pack).namelist())


@lru_cache(maxsize=1 << 12)
def _decoded(pack: str, name: str) -> NDArray[np.int16]:
    import soundfile

    samples, rate = soundfile.read(io.BytesIO(_pack(pack).read(f"{name}.ogg")), dtype="int16")
    assert rate == SAMPLE_RATE, f"{pack}/{name} has {rate} Hz"
    return samples


def recording(pack: str, name: str) -> Samples:
    """Return one recording of a pack, [T].

    Raises:
        KeyError: the pack has no such recording.
    """
    return _decoded(pack, name).astype(np.float32) / 32768


def to_grid(seconds: float) -> int:
    """Return the number of samples of the shortest recording on the grid that lasts at least this long."""
    return -int(-seconds // GRID_S) * round(GRID_S * SAMPLE_RATE)


def faded(samples: Samples, seconds: float) -> Samples:
    """Cut a sound to its first seconds and let it fade out at the end."""
    samples = samples[: round(seconds * SAMPLE_RATE)].copy()
    fade = min(len(samples), round(FADE_S * SAMPLE_RATE))
    samples[len(samples) - fade :] *= np.linspace(1, 0, fade, dtype=np.float32)
    return samples


def mix(parts: list[tuple[float, Samples]], seconds: float) -> Samples:
    """Add sounds that begin at given seconds; what does not fit in is cut off.

    Args:
        parts: (second, samples) of each.
        seconds: length of the whole.
    """
    track = np.zeros(round(seconds * SAMPLE_RATE), np.float32)
    for second, samples in parts:
        start = round(second * SAMPLE_RATE)
        end = min(len(track), start + len(samples))
        track[start:end] += samples[: max(0, end - start)]
    peak = float(np.abs(track).max(initial=0.0))
    return track / peak * np.float32(0.95) if peak > 0.95 else track


def louder(rng: random.Random, samples: Samples) -> Samples:
    """Change the loudness a little, so that no two takes are alike."""
    return samples * np.float32(rng.uniform(0.75, 1.0))
