"""Which of AudioSet's 521 classes a sound belongs to, by YAMNet. For evaluation only: its package names no licence."""

import csv
from functools import cache

import numpy as np
from numpy.typing import NDArray

from training.judges.fetched import Samples, fetched, mono, resample, session

__all__ = ["classify"]

RATE = 16000
WINDOW, HOP, FFT = 400, 160, 512
PATCH, PATCH_HOP = 96, 48  # frames
BANDS, LOWEST_HZ, HIGHEST_HZ = 64, 125.0, 7500.0
OFFSET = 1e-3
# The network takes and gives bytes: value = scale * (byte - zero).
IN_SCALE, IN_ZERO = 0.047937885, 144
OUT_SCALE, OUT_ZERO = 0.7565417, 190
QUIET = 0.02  # of the peak: what is trimmed at both ends


@cache
def _labels() -> tuple[str, ...]:
    with fetched("yamnet_class_map.csv").open(encoding="utf-8", newline="") as file:
        return tuple(row["display_name"] for row in csv.DictReader(file))


@cache
def _filters() -> NDArray[np.float64]:
    """Build triangles on the mel scale, [257, 64]; the constant component belongs to none."""

    def mel(hertz: NDArray[np.float64] | float) -> NDArray[np.float64]:
        return 1127.0 * np.log1p(np.asarray(hertz) / 700.0)

    corners = np.linspace(mel(LOWEST_HZ), mel(HIGHEST_HZ), BANDS + 2)
    places = mel(np.linspace(0.0, RATE / 2, FFT // 2 + 1))[:, None]
    rising = (places - corners[:-2]) / (corners[1:-1] - corners[:-2])
    falling = (corners[2:] - places) / (corners[2:] - corners[1:-1])
    filters = np.minimum(rising, falling).clip(min=0.0)
    filters[0] = 0.0
    return filters


def _patches(sound: Samples) -> NDArray[np.float64]:
    """Cut the log-mel spectrogram into overlapping patches, [patches, 96, 64]."""
    shortest = WINDOW + (PATCH - 1) * HOP
    sound = np.pad(sound, (0, max(0, shortest - len(sound))))
    frames = np.lib.stride_tricks.sliding_window_view(sound, WINDOW)[::HOP]
    window = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(WINDOW) / WINDOW)
    spectrum = np.abs(np.fft.rfft(frames * window, n=FFT))
    log_mel = np.log(spectrum @ _filters() + OFFSET)
    return np.stack([log_mel[k : k + PATCH] for k in range(0, len(log_mel) - PATCH + 1, PATCH_HOP)])


def _normalised(sound: Samples) -> Samples:
    """Trim quiet ends, and bring the peak to 1."""
    peak = float(np.abs(sound).max())
    loud = np.flatnonzero(np.abs(sound) > QUIET * peak)
    return sound[loud[0] : loud[-1] + 1] / peak if len(loud) else sound


def classify(samples: NDArray[np.floating], sample_rate: int = RATE) -> list[tuple[str, float]]:
    """Name what a recording sounds like, most likely first.

    Args:
        samples: [T] or [channels, T], in [-1, 1].
        sample_rate: in Hz.

    Returns:
        (AudioSet's label, score in [0, 1]) of every class; the score is the highest of the recording's patches.

    Raises:
        ConfigError: the judge has not been fetched.
        InputError: the samples cannot be judged.
    """
    sound = mono(samples)
    fetched("model.data")  # weights beside the network, which name them by this file
    judge = session(fetched("model.onnx"))
    patches = _patches(_normalised(resample(sound, sample_rate, RATE)))
    given = np.round(patches / IN_SCALE + IN_ZERO).clip(0, 255).astype(np.uint8)
    answers = np.concatenate([judge.run(None, {"audio": patch[None, None]})[0] for patch in given])
    scores = (1.0 / (1.0 + np.exp(-OUT_SCALE * (answers.astype(np.float64) - OUT_ZERO)))).max(0)
    return sorted(zip(_labels(), map(float, scores), strict=True), key=lambda pair: -pair[1])
