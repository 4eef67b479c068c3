"""Where each named sound of the omni world comes from: recordings, a sound font, or a few lines of arithmetic."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RATE = 16000
Samples = NDArray[np.float32]


@dataclass(frozen=True)
class Take:
    """One recording of a sound.

    Args:
        kind: "file" (of sonic-pi-samples), "midi" (of the sound font) or "made".
        seconds: how much of it is kept; 0 for at most 2.
        bank: 128 is the drum kit of the sound font.
    """

    kind: str
    file: str = ""
    seconds: float = 0.0
    program: int = 0
    midi: int = 60
    bank: int = 0
    make: Callable[[int], Samples] | None = None
    seed: int = 0


def _time(seconds: float) -> NDArray[np.float64]:
    return np.arange(int(seconds * RATE)) / RATE


def _band(rng: np.random.Generator, seconds: float, low: float, high: float) -> NDArray[np.float64]:
    """Noise between two frequencies, unit variance."""
    count = int(seconds * RATE)
    spectrum = np.fft.rfft(rng.standard_normal(count))
    hertz = np.fft.rfftfreq(count, 1 / RATE)
    spectrum *= 1 / (1 + (hertz / high) ** 8) / (1 + (low / np.maximum(hertz, 1)) ** 8)
    noise = np.fft.irfft(spectrum, count)
    return noise / noise.std()


def _put(track: NDArray[np.float64], sound: NDArray[np.float64], second: float) -> None:
    start = int(second * RATE)
    part = sound[: max(0, len(track) - start)]
    track[start : start + len(part)] += part


def _steep(rng: np.random.Generator, seconds: float, low: float, high: float, slope: float) -> NDArray[np.float64]:
    """Noise whose power falls as 1 / f^slope between two frequencies, unit variance."""
    count = int(seconds * RATE)
    spectrum = np.fft.rfft(rng.standard_normal(count))
    hertz = np.maximum(np.fft.rfftfreq(count, 1 / RATE), 1)
    spectrum *= np.maximum(hertz, 20) ** (-slope / 2) / (1 + (hertz / high) ** 8) / (1 + (low / hertz) ** 8)
    noise = np.fft.irfft(spectrum, count)
    return noise / noise.std()


def _voiced(hertz: NDArray[np.float64], overtones: int, tilt: float) -> NDArray[np.float64]:
    """A tone rich in overtones whose pitch follows `hertz`, [T]."""
    phase = 2 * np.pi * np.cumsum(hertz) / RATE
    heard = (k for k in range(1, overtones + 1) if k * hertz.max() < 7800)
    return np.sum([np.sin(k * phase) / k**tilt for k in heard], axis=0)


def _rain(seed: int) -> Samples:
    rng = np.random.default_rng(seed)
    track = 0.6 * _steep(rng, 2.0, 300, 7900, 0.5)
    t = _time(0.02)
    for _ in range(500):
        drop = np.sin(2 * np.pi * rng.uniform(1500, 7000) * t) * np.exp(-t / 0.002)
        _put(track, drop * rng.uniform(0.2, 2.0) ** 2, rng.uniform(0, 1.98))
    return track.astype(np.float32)


def _wind(seed: int) -> Samples:
    rng = np.random.default_rng(seed)
    swell = 0.8 + 0.5 * np.sin(2 * np.pi * (0.5 * _time(2.0) + rng.random()))
    return (_steep(rng, 2.0, 20, 8000, 3.0) * swell).astype(np.float32)


def _applause(seed: int) -> Samples:
    rng = np.random.default_rng(seed)
    track = np.zeros(2 * RATE)
    fall = np.exp(-_time(0.03) / 0.006)
    for _ in range(24):
        hertz, every, loudness = rng.uniform(700, 2200), rng.uniform(0.12, 0.3), rng.uniform(0.2, 1)
        second = rng.uniform(0, every)
        while second < 2:
            _put(track, _band(rng, 0.03, hertz * 0.6, hertz * 1.8) * fall * loudness * rng.uniform(0.6, 1), second)
            second += every * rng.uniform(0.85, 1.15)
    return track.astype(np.float32)


def _cat(seed: int) -> Samples:
    t = _time(0.8)
    arch = np.sin(np.pi * t / 0.8)
    phase = 2 * np.pi * np.cumsum((600 + 60 * seed) + (250 - 40 * seed) * arch) / RATE
    tones = ((1, 0.6), (2, 1.0), (3, 0.7), (4, 0.3))
    return (np.sum([loud * np.sin(k * phase) for k, loud in tones], axis=0) * arch).astype(np.float32)


def _dog(seed: int) -> Samples:
    rng = np.random.default_rng(seed)
    t = _time(0.18)
    throat = _voiced((350 - 170 * t / 0.18) * (1 + 0.1 * seed), 30, 0.4) + 2 * _band(rng, 0.18, 300, 4000)
    spectrum, hertz = np.fft.rfft(throat), np.fft.rfftfreq(len(t), 1 / RATE)
    mouth = 1 / (1 + ((hertz - 800) / 300) ** 2) + 0.7 / (1 + ((hertz - 1600) / 400) ** 2)
    bark = np.fft.irfft(spectrum * mouth, len(t)) * np.sin(np.pi * t / 0.18) ** 0.7
    track = np.zeros(int(0.7 * RATE))
    for beat in range(2):
        _put(track, bark, beat * 0.45)
    return track.astype(np.float32)


def _train(seed: int) -> Samples:
    t = _time(1.4)
    horn = np.sum([np.sin(2 * np.pi * hertz * (1 + 0.04 * seed) * t) for hertz in (311, 370, 415, 466)], axis=0)
    return ((horn + 0.5 * np.sign(horn)) * np.minimum(1, t / 0.05) * np.minimum(1, (1.4 - t) / 0.15)).astype(np.float32)


def _car_horn(seed: int) -> Samples:
    t = _time(0.8)
    horn = np.sum([np.sign(np.sin(2 * np.pi * hertz * (1 + 0.05 * seed) * t)) for hertz in (400, 500)], axis=0)
    return (horn * np.minimum(1, t / 0.01) * np.minimum(1, (0.8 - t) / 0.04)).astype(np.float32)


def _thunder(seed: int) -> Samples:
    rng = np.random.default_rng(seed)
    t = _time(2.0)
    rolls = [(0.0, 1.0), *((rng.uniform(0.1, 1.3), rng.uniform(0.4, 0.9)) for _ in range(5))]
    loudness = np.sum([loud * np.exp(-np.maximum(0, t - start) / 0.35) * (t >= start) for start, loud in rolls], axis=0)
    return (_steep(rng, 2.0, 30, 3000, 2.0) * loudness).astype(np.float32)


def _siren(seed: int) -> Samples:
    t = _time(2.0)
    sweep = 850 + 350 * np.sin(2 * np.pi * (0.9 + 0.2 * seed) * t - np.pi / 2)
    phase = 2 * np.pi * np.cumsum(sweep) / RATE
    return (np.sin(phase) + 0.3 * np.sin(2 * phase) + 0.15 * np.sin(3 * phase)).astype(np.float32)


def _clock(seed: int) -> Samples:
    rng = np.random.default_rng(seed)
    track = np.zeros(int(2.0 * RATE))
    for number in range(8):
        hertz = (2600, 2100)[number % 2] + 150 * seed
        t = _time(0.03)
        ring = np.sin(2 * np.pi * hertz * t) * np.exp(-t / 0.004)
        _put(track, ring + 0.6 * _band(rng, 0.03, 2500, 7000) * np.exp(-t / 0.002), number * 0.25)
    return track.astype(np.float32)


def _beep(seed: int) -> Samples:
    t = _time(0.3)
    return np.sin(2 * np.pi * (1000, 880, 1200)[seed % 3] * t).astype(np.float32)


def _glass(seed: int) -> Samples:
    rng = np.random.default_rng(seed)
    track = np.zeros(int(1.1 * RATE))
    burst = _band(rng, 0.08, 2500, 7800) * np.exp(-_time(0.08) / 0.015)
    _put(track, burst, 0)
    for _ in range(26):
        t = _time(0.35)
        hertz = rng.uniform(2400, 7400)
        shard = np.sin(2 * np.pi * hertz * t) * np.exp(-t / rng.uniform(0.015, 0.07))
        _put(track, shard * rng.uniform(0.2, 0.9), abs(rng.normal(0, 0.22)))
    return track.astype(np.float32)


def _bubbles(seed: int) -> Samples:
    rng = np.random.default_rng(seed)
    track = np.zeros(int(1.6 * RATE))
    for _ in range(16):
        t = _time(0.09)
        low = rng.uniform(400, 1300)
        blip = np.sin(2 * np.pi * np.cumsum(low * (1 + 5 * t)) / RATE) * np.exp(-t / 0.025) * np.minimum(1, t / 0.004)
        _put(track, blip * rng.uniform(0.4, 1), rng.uniform(0, 1.5))
    return track.astype(np.float32)


def _knock(seed: int) -> Samples:
    rng = np.random.default_rng(seed)
    track = np.zeros(int(0.9 * RATE))
    t = _time(0.12)
    for beat in range(3):
        knock = sum(a * np.sin(2 * np.pi * f * t) * np.exp(-t / d) for f, a, d in
                    ((180 + 15 * seed, 1.0, 0.03), (410, 0.6, 0.02), (930, 0.3, 0.01)))  # fmt: skip
        _put(track, knock + 0.3 * _band(rng, 0.12, 500, 4000) * np.exp(-t / 0.004), beat * 0.24)
    return track.astype(np.float32)


def _whistle(seed: int) -> Samples:
    rng = np.random.default_rng(seed)
    t = _time(0.8)
    trill = 2300 + 120 * seed + 90 * np.sin(2 * np.pi * 28 * t)
    tone = np.sin(2 * np.pi * np.cumsum(trill) / RATE) + 0.1 * _band(rng, 0.8, 1800, 5000)
    return (tone * np.minimum(1, t / 0.02) * np.minimum(1, (0.8 - t) / 0.05)).astype(np.float32)


def _file(name: str, seconds: float = 0.0) -> Take:
    return Take("file", file=name, seconds=seconds)


def _kit(midi: int, seconds: float = 0.8) -> Take:
    return Take("midi", bank=128, midi=midi, seconds=seconds)


def _gm(program: int, midi: int, seconds: float = 1.6) -> Take:
    return Take("midi", program=program, midi=midi, seconds=seconds)


def _made(make: Callable[[int], Samples], seconds: float = 2.0, takes: int = 3) -> tuple[Take, ...]:
    return tuple(Take("made", make=make, seconds=seconds, seed=seed) for seed in range(takes))


SOUNDS: dict[str, tuple[Take, ...]] = {
    "bell": (_file("perc_bell", 1.6), _gm(14, 72), _gm(14, 67)),
    "drum": (_file("drum_tom_mid_hard", 0.7), _file("drum_tom_lo_hard", 0.8), _gm(116, 60, 1.0)),
    "snare drum": (_file("drum_snare_hard", 0.44), _kit(38, 0.5), _kit(40, 0.5)),
    "cymbal": (_file("drum_cymbal_hard", 1.5), _file("drum_splash_hard", 1.4), _kit(49, 1.5)),
    "cowbell": (_file("drum_cowbell", 0.35), _kit(56, 0.5)),
    "clap": (_kit(39, 0.5), _file("perc_snap", 0.31)),
    "applause": _made(_applause),
    "whistle": (*_made(_whistle, 0.8, 2), _kit(72, 0.8)),
    "triangle": (_kit(81, 1.4), _gm(10, 84, 1.2)),
    "wood block": (_kit(76, 0.4), _kit(77, 0.4), _file("elec_wood", 0.4)),
    "crow": (_file("misc_crow", 0.48),),
    "door": (_file("perc_door", 1.8),),
    "bird": (_gm(123, 60, 1.6), _gm(123, 67, 1.6)),
    "telephone": (_gm(124, 60, 1.8), _gm(124, 64, 1.8)),
    "helicopter": (_gm(125, 60, 2.0), _gm(125, 64, 2.0)),
    "rain": _made(_rain),
    "wind": _made(_wind),
    "thunder": _made(_thunder),
    "siren": _made(_siren),
    "clock": _made(_clock),
    "beep": _made(_beep, 0.3),
    "cat": _made(_cat, 0.8),
    "dog": _made(_dog, 0.7),
    "train": _made(_train, 1.4),
    "car horn": _made(_car_horn, 0.8),
    "glass": _made(_glass, 1.1),
    "bubbles": _made(_bubbles, 1.6),
    "knock": _made(_knock, 0.9),
    "burp": (_file("misc_burp", 0.79),),
    "cash register": (_file("perc_till", 1.8),),
    "drum roll": (_file("drum_roll", 2.0),),
}
