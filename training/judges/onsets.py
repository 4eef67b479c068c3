"""When sounds begin, by spectral flux: how much the spectrum grows from one moment to the next.

flux(t) = sum over frequencies of max(0, log(1 + c |S(t, f)|) - log(1 + c |S(t - 1, f)|))
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from training.judges.fetched import mono, resample

__all__ = ["matched", "onsets_of"]

RATE = 16000
WINDOW, HOP = 512, 80  # samples
STEP = 3  # hops between the spectra that are compared
COMPRESSION = 100.0
# A beginning stands out by this share of the strongest one, and by this factor over what surrounds it.
SHARE, FACTOR = 0.2, 1.8
NEAR, AROUND = 10, 30  # hops on either side: where it is the highest, and what surrounds it
FAINT = 1e-3  # of full scale: what is fainter is silence


def _flux(sound: NDArray[np.float32]) -> NDArray[np.float64]:
    """How much every hop's spectrum has grown, [hops]."""
    padded = np.pad(sound, (WINDOW // 2 + STEP * HOP, WINDOW // 2))
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]
    loud = np.log1p(COMPRESSION * np.abs(np.fft.rfft(frames * np.hanning(WINDOW))) / (WINDOW / 4))
    return (loud[STEP:] - loud[:-STEP]).clip(min=0.0).sum(axis=1)


def onsets_of(samples: NDArray[np.floating], sample_rate: int = RATE) -> list[float]:
    """List the seconds at which sounds begin, in order.

    Args:
        samples: [T] or [channels, T], in [-1, 1].
        sample_rate: in Hz.

    Raises:
        InputError: the samples cannot be judged.
    """
    sound = resample(mono(samples), sample_rate, RATE)
    if not len(sound) or float(np.abs(sound).max()) < FAINT:
        return []
    flux = _flux(sound)
    near = np.lib.stride_tricks.sliding_window_view(np.pad(flux, NEAR), 2 * NEAR + 1).max(axis=1)
    around = np.lib.stride_tricks.sliding_window_view(np.pad(flux, AROUND), 2 * AROUND + 1).mean(axis=1)
    # Where the recording is cut off, every sound that goes on looks like a click.
    flux[len(flux) - WINDOW // HOP :] = 0.0
    is_onset = (flux == near) & (flux >= SHARE * flux.max()) & (flux >= FACTOR * around)
    # The spectrum has grown most once the middle of the window has passed the beginning by half the step.
    return [float((hop - STEP / 2) * HOP / RATE) for hop in np.flatnonzero(is_onset)]


def matched(truth: Sequence[float], found: Sequence[float], *, within_s: float) -> bool:
    """Tell whether every true onset was found within some seconds, each by its own, and no other was found."""
    return len(truth) == len(found) and all(
        abs(one - other) <= within_s for one, other in zip(sorted(truth), sorted(found), strict=True)
    )
