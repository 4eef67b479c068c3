"""From the time stamps of frames to one steady rate, exact where the stamps are steady."""

from collections.abc import Iterable, Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

__all__ = ["nearest", "steady"]

_MAX_RATE = 240  # that is guessed
_MAX_DECLARED_RATE = 1_000
_MAX_REPEATS = 4  # frames made of each on average, at most, where stamps are put on a grid
_LONG_HOLD = 1.5  # frames the last one may stand for and still be a single one
_MAX_DENOMINATOR = 1_001  # that of the television rates


def _grid(times: NDArray[np.float64], rate: Fraction, tick_s: float) -> NDArray[np.int64] | None:
    """Return the place of each time on the grid of a rate, or None where one is off it or two share a place."""
    places = np.rint(times * float(rate)).astype(np.int64)
    error = np.abs(times - places / float(rate)).max()
    steady_enough = error <= min(1.01 * tick_s, 0.3 / float(rate)) and (np.diff(places) > 0).all()
    return places if steady_enough else None


def _nice(rate: float) -> Iterable[Fraction]:
    """Yield rates that people use near a measured one, then the measured one."""
    yield Fraction(max(1, round(rate)))
    yield Fraction(max(1, round(rate * 1.001)) * 1000, 1001)
    yield Fraction(max(1, round(rate * 2)), 2)
    yield Fraction(rate).limit_denominator(_MAX_DENOMINATOR)


def _candidates(times: NDArray[np.float64], last_s: float, tick_s: float) -> Iterable[Fraction]:
    """Yield the rates that the stamps speak for: their mean, then their finest step."""
    ticks = np.maximum(1, np.rint(np.diff(times) / tick_s)).astype(np.int64)
    mean = (len(times) - 1) / float(times[-1])
    if ticks.min() == ticks.max():
        yield Fraction(mean).limit_denominator(_MAX_DENOMINATOR)
    elif 0.5 < last_s * mean < _LONG_HOLD:
        mean = len(times) / (float(times[-1]) + last_s)
    yield from _nice(mean)
    finest = 1 / (float(np.gcd.reduce(ticks)) * tick_s)
    if finest <= _MAX_RATE:
        yield Fraction(finest).limit_denominator(_MAX_DENOMINATOR)


def _usual(times: NDArray[np.float64]) -> Fraction:
    """Return the rate of the usual distance between frames: the mean where they merely tremble, else the median."""
    steps = np.diff(times)
    middle = float(np.median(steps))
    trembles = steps.max() < 2 * middle and steps.min() > middle / 2
    usual = min(1 / (float(steps.mean()) if trembles else middle), _MAX_RATE)
    close = [rate for rate in _nice(usual) if abs(float(rate) - usual) < 0.01 * usual]
    return close[0] if close else Fraction(usual)


def _count(times: NDArray[np.float64], last_s: float, rate: Fraction) -> int:
    """Return how many frames there are at a rate; a last one that is hardly shown counts as a whole one."""
    last = last_s if last_s * float(rate) > 0.5 else 1 / float(rate)
    return max(1, round((float(times[-1]) + last) * float(rate)))


def nearest(times: NDArray[np.float64], wanted: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return for each wanted time the index of the nearest of the sorted times, the earlier of two."""
    if len(times) == 1:
        return np.zeros(len(wanted), np.int64)
    after = np.searchsorted(times, wanted).clip(1, len(times) - 1)
    return np.where(wanted - times[after - 1] <= times[after] - wanted + 1e-9, after - 1, after)


def steady(
    times: NDArray[np.float64], *, last_s: float, tick_s: float, declared: Sequence[Fraction]
) -> tuple[Fraction, NDArray[np.int64]]:
    """Choose a frame rate, and for each frame at that rate one of those given.

    Stamps that lie on the grid of some rate keep it, and a frame is repeated until the next is due; of others
    the frame nearest in time is taken.

    Args:
        times: seconds, ascending, from 0.
        last_s: seconds the last frame is shown; 0 where unknown.
        tick_s: precision of the times.
        declared: rates the file claims, the likeliest first.

    Returns: frames a second, and the indices into times of its frames.
    """
    declared = [rate for rate in declared if 0 < rate <= _MAX_DECLARED_RATE]
    if len(times) == 1:
        shown = Fraction(1 / last_s).limit_denominator(_MAX_DENOMINATOR) if last_s else Fraction(1)
        rate = next(iter(declared), shown)
        return rate, np.zeros(_count(times, last_s, rate), np.int64)
    for rate in (*declared, *_candidates(times, last_s, tick_s)):
        places = _grid(times, rate, tick_s) if rate > 0 else None
        if places is not None and places[-1] < _MAX_REPEATS * len(times):
            has_gaps = len(times) < places[-1] + 1 or last_s * float(rate) > _LONG_HOLD
            count = _count(times, last_s, rate) if has_gaps else len(times)
            return rate, np.searchsorted(places, np.arange(count), side="right") - 1
    rate = _usual(times)
    return rate, nearest(times, np.arange(_count(times, last_s, rate)) / float(rate))
