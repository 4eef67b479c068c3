"""Where a judge of sound is sure: what it hears beside noise too faint to be heard."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["NUM_NOISES", "beside_noise"]

NOISE = 1e-3  # of full scale: -60 dB
NUM_NOISES = 3


def beside_noise(samples: NDArray[np.floating]) -> list[NDArray[np.float32]]:
    """Return a recording, [T] in [-1, 1], beside each of NUM_NOISES noises of -60 dB; always the same ones."""
    rngs = [np.random.default_rng(seed) for seed in range(NUM_NOISES)]
    return [(samples + rng.normal(0, NOISE, samples.shape)).astype(np.float32) for rng in rngs]
