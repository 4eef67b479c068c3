"""Time stamps become one steady rate, exact where they allow it."""

from fractions import Fraction

import numpy as np
import pytest

from omni.clock import nearest, steady


def choose(durations: list[float], *, tick_s: float = 0.01, declared: tuple[Fraction, ...] = ()) -> tuple:
    times = np.cumsum([0.0, *durations[:-1]])
    rate, chosen = steady(times, last_s=durations[-1], tick_s=tick_s, declared=declared)
    return rate, chosen.tolist()


@pytest.mark.parametrize(
    ("durations", "rate", "chosen"),
    [
        ([0.1] * 4, 10, [0, 1, 2, 3]),
        ([0.12, 0.13] * 3, 8, [0, 1, 2, 3, 4, 5]),
        ([0.03, 0.03, 0.04] * 2, 30, [0, 1, 2, 3, 4, 5]),
        ([0.08, 0.08], Fraction(25, 2), [0, 1]),
        ([0.1, 0.05, 0.2], 20, [0, 0, 1, 2, 2, 2, 2]),
        ([0.1, 0.1, 0.5], 10, [0, 1, 2, 2, 2, 2, 2]),
        ([0.5], 2, [0]),
        ([0.0], 1, [0]),
    ],
)
def test_steady_finds_the_rate(durations, rate, chosen):
    assert choose(durations) == (rate, chosen)


def test_steady_believes_a_declared_rate_that_fits():
    ntsc = Fraction(30_000, 1_001)
    stamps = [round(k / ntsc * 1_000) / 1_000 for k in range(7)]
    durations = np.diff(stamps).tolist()
    assert choose(durations, tick_s=0.001, declared=(ntsc,))[0] == ntsc
    assert choose([0.1] * 5, declared=(Fraction(7), Fraction(0), Fraction(90_000)))[0] == 10


def test_steady_repeats_frames_over_gaps():
    rate, chosen = choose([0.04, 0.12, 0.04, 0.04], tick_s=0.001, declared=(Fraction(25),))
    assert (rate, chosen) == (25, [0, 1, 1, 1, 2, 3])


def test_steady_smooths_what_trembles():
    rng = np.random.default_rng(0)
    rate, chosen = choose((1 / 30 + rng.normal(0, 0.002, 90)).tolist(), tick_s=1 / 90_000)
    assert abs(float(rate) - 30) < 0.5 and len(set(chosen)) >= 85


def test_nearest_takes_the_earlier_of_two():
    times = np.array([0.0, 1.0, 4.0])
    assert nearest(times, np.array([-1, 0.4, 0.5, 0.6, 2.5, 2.6, 9])).tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert nearest(times[:1], np.array([0.0, 5.0])).tolist() == [0, 0]
