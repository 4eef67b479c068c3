"""What a knock sounds like: modes that ring and die away, as the material of the thing decides.

sound = sum over modes of a * exp(-t / d) * sin(2 pi f t), and a short burst of noise where the bodies touch.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from training.world.sound_pack import SAMPLE_RATE, Samples

__all__ = ["SOUNDING", "impact"]


@dataclass(frozen=True)
class Material:
    """How a material rings.

    Args:
        hertz: of its lowest mode.
        ratios: of its modes to the lowest.
        decay_s: in which the lowest mode falls to 1/e; higher ones are faster.
        dullness: how much weaker each mode is than the one before.
        click: loudness of the noise of the touch, and its decay in seconds.
    """

    hertz: float
    ratios: tuple[float, ...]
    decay_s: float
    dullness: float
    click: tuple[float, float]


SOUNDING = {
    "wood": Material(310, (1, 2.57, 4.3, 6.1), 0.045, 0.55, (0.5, 0.004)),
    "metal": Material(720, (1, 1.51, 2.33, 2.93, 4.17, 5.4), 0.3, 0.85, (0.3, 0.002)),
    "glass": Material(1900, (1, 1.63, 2.41, 3.1), 0.12, 0.8, (0.35, 0.002)),
    "rubber": Material(140, (1, 1.9), 0.07, 0.5, (0.15, 0.006)),
    "stone": Material(540, (1, 1.37, 2.1, 3.4, 4.9), 0.018, 0.8, (0.8, 0.006)),
    "soft": Material(90, (1, 1.6, 2.7), 0.035, 0.5, (0.6, 0.012)),
}
LONGEST_S = 0.6
LOUDEST, QUIETEST = 0.85, 0.3


@lru_cache(maxsize=256)
def _knock(material: str, take: int) -> Samples:
    made = SOUNDING[material]
    rng = np.random.default_rng([take, *material.encode()])
    t = np.arange(int(LONGEST_S * SAMPLE_RATE)) / SAMPLE_RATE
    sound = np.zeros_like(t)
    for number, ratio in enumerate(made.ratios):
        hertz = made.hertz * ratio * (1 + 0.02 * rng.standard_normal())
        if hertz < SAMPLE_RATE / 2:
            decay = made.decay_s / ratio**0.5
            sound += made.dullness**number * np.exp(-t / decay) * np.sin(2 * np.pi * hertz * t + rng.uniform(0, 0.6))
    loudness, decay = made.click
    sound += loudness * rng.standard_normal(len(t)) * np.exp(-t / decay)
    sound *= np.minimum(1, (LONGEST_S - t) / 0.05)
    return (sound / np.abs(sound).max()).astype(np.float32)


def impact(material: str, strength: float, *, take: int = 0) -> Samples:
    """Sound one impact; float32 [T], beginning with the touch.

    Args:
        material: one of `materials.MATERIALS`.
        strength: 0 for the faintest that is heard, 1 for the hardest.
        take: which of the many knocks of this material.

    Raises:
        KeyError: the material is unknown.
    """
    loudness = QUIETEST + (LOUDEST - QUIETEST) * min(1.0, max(0.0, strength))
    return _knock(material, take) * np.float32(loudness)
