"""Combine what the model says with and without its conditions into one velocity.

Branches hold velocities [..., L, C]; the last two axes are one block, everything before them is batch.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Literal

import torch
from torch import Tensor

from omni.errors import ConfigError
from omni.flow import to_clean, to_velocity

__all__ = ["APG", "Branch", "GuidanceConfig", "GuidanceState", "branches_needed", "combine", "require_effect"]


class Branch(StrEnum):
    """A view of the document: what of it the model may look at."""

    FULL = "full"
    WITHOUT_TEXT = "without_text"
    UNCONDITIONAL = "unconditional"

    @property
    def drops_text(self) -> bool:
        """Whether the words of the document are removed (headers stay)."""
        return self is not Branch.FULL

    @property
    def drops_media(self) -> bool:
        """Whether the given media of the document are removed too."""
        return self is Branch.UNCONDITIONAL


@dataclass(frozen=True)
class APG:
    """Adaptive projected guidance (arXiv:2410.02416): strong guidance without its burnt colours.

    Attributes:
        eta: share kept of the part parallel to the conditional prediction; 1 keeps all of it.
        norm_threshold: greatest length of a difference, per block, in latent units; infinite for no bound.
        momentum: weight of earlier differences; negative pushes away from them.
    """

    eta: float = 0.0
    norm_threshold: float = math.inf
    momentum: float = -0.5

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise ConfigError(f"apg.eta is {self.eta}; it must lie in [0, 1]")
        if not self.norm_threshold > 0:
            raise ConfigError(f"apg.norm_threshold is {self.norm_threshold}; it must be positive")
        if not -1 < self.momentum < 1:
            raise ConfigError(f"apg.momentum is {self.momentum}; it must lie between -1 and 1")
        if self.eta == 1 and self.norm_threshold == math.inf and self.momentum == 0:
            raise ConfigError("apg with eta 1, momentum 0 and no norm_threshold has no effect; leave apg out")


@dataclass(frozen=True)
class GuidanceConfig:
    """How strongly, where and in which manner conditions are enforced.

    Attributes:
        scale: of the text (arXiv:2207.12598), or of the media where they are the only condition;
            1 means the conditional prediction alone.
        image_scale: of given media beside text, the second scale of arXiv:2211.09800; 1 leaves them alone.
        interval: lowest and highest sigma at which guidance is active (arXiv:2404.07724).
        rescale: share in [0, 1] of the result that gets the conditional prediction's standard deviation
            back (arXiv:2305.08891).
        renorm: shrink the result to at most the conditional prediction's length, "block" or "token" wise.
        apg: projected guidance in place of the plain difference.
    """

    scale: float = 4.0
    image_scale: float = 1.0
    interval: tuple[float, float] = (0.0, 1.0)
    rescale: float = 0.0
    renorm: Literal["block", "token"] | None = None
    apg: APG | None = None

    def __post_init__(self) -> None:
        self._check_ranges()
        if self.scale == 1 and self.image_scale == 1:
            for setting in fields(self):
                value = getattr(self, setting.name)
                if setting.name not in ("scale", "image_scale") and value != setting.default:
                    raise ConfigError(f"{setting.name} is {value} but has no effect at scale 1; raise scale")

    def _check_ranges(self) -> None:
        for name, value in (("scale", self.scale), ("image_scale", self.image_scale)):
            if not 0 <= value < math.inf:
                raise ConfigError(f"guidance {name} is {value}; it must be finite, at least 0 (1 is off)")
        low, high = self.interval
        if not 0 <= low < high <= 1:
            raise ConfigError(f"guidance interval is {self.interval}; it must rise within [0, 1]")
        if not 0 <= self.rescale <= 1:
            raise ConfigError(f"guidance rescale is {self.rescale}; it must lie in [0, 1]")
        if self.renorm not in (None, "block", "token"):
            raise ConfigError(f"guidance renorm is {self.renorm!r}; choose 'block', 'token' or None")
        if self.rescale and self.renorm:
            raise ConfigError("guidance rescale and renorm both set the length of the result; choose one")


@dataclass
class GuidanceState:
    """Memory of one block's run (the momentum of APG); make a new one for every block."""

    averages: dict[str, Tensor] = field(default_factory=dict)


def require_effect(guidance: GuidanceConfig, *, has_media: bool) -> None:
    """Refuse a scale that nothing in a whole request can feel; call it once a request.

    Args:
        guidance: the caller's settings.
        has_media: whether media are given, or written and then read, anywhere in the conversation.

    Raises:
        ConfigError: image_scale is set and no media are there to guide.
    """
    if guidance.image_scale != 1 and not has_media:
        raise ConfigError(
            f"image_scale is {guidance.image_scale} but only text is given; add a picture or leave it at 1"
        )


def _differences(guidance: GuidanceConfig, *, has_text: bool, has_media: bool) -> list[tuple[Branch, Branch, float]]:
    """List (with, without, scale), each adding (scale - 1) * (with - without) to the full velocity."""
    full, without_text, unconditional = Branch.FULL, Branch.WITHOUT_TEXT, Branch.UNCONDITIONAL
    if has_text and has_media:
        pairs = [(full, without_text, guidance.scale), (without_text, unconditional, guidance.image_scale)]
    elif has_text or has_media:
        # With one kind of condition, the document without it is the unconditional one.
        pairs = [(full, unconditional, guidance.scale)]
    else:
        pairs = []
    return [pair for pair in pairs if pair[2] != 1]


def _is_active(guidance: GuidanceConfig, sigma: float) -> bool:
    low, high = guidance.interval
    return low <= sigma <= high


def branches_needed(
    guidance: GuidanceConfig, *, has_text: bool, has_media: bool, sigma: float | None = None
) -> tuple[Branch, ...]:
    """List the branches to compute, FULL first, and none whose value would not be used.

    Args:
        guidance: the caller's settings.
        has_text: whether words come before the block.
        has_media: whether readable media come before the block or are given within it.
        sigma: noise level of this evaluation; None asks for all that any sigma needs (to build caches).
    """
    if sigma is not None and not _is_active(guidance, sigma):
        return (Branch.FULL,)
    pairs = _differences(guidance, has_text=has_text, has_media=has_media)
    used = {branch for first, second, _ in pairs for branch in (first, second)} | {Branch.FULL}
    return tuple(branch for branch in Branch if branch in used)


def _length(x: Tensor) -> Tensor:
    return x.float().square().sum(dim=(-2, -1), keepdim=True).sqrt()


def _project(difference: Tensor, *, onto: Tensor, apg: APG, key: str, state: GuidanceState) -> Tensor:
    """Return APG's version of a difference between clean predictions."""
    if apg.momentum and key in state.averages:
        difference = difference + apg.momentum * state.averages[key]
    state.averages[key] = difference
    shrink = (apg.norm_threshold / _length(difference).clamp(min=1e-12)).clamp(max=1)
    difference = difference * shrink.to(difference.dtype)
    unit = onto / _length(onto).clamp(min=1e-12).to(onto.dtype)
    parallel = (difference * unit).sum(dim=(-2, -1), keepdim=True) * unit
    return difference - (1 - apg.eta) * parallel


def _limit(guided: Tensor, conditional: Tensor, guidance: GuidanceConfig) -> Tensor:
    """Give the result (part of) the conditional prediction's spread or length."""
    if guidance.rescale:
        spread = [x.float().std(dim=(-2, -1), keepdim=True) for x in (conditional, guided)]
        factor = (spread[0] / spread[1].clamp(min=1e-12)).to(guided.dtype)
        return guided * (guidance.rescale * factor + 1 - guidance.rescale)
    if guidance.renorm is None:
        return guided
    dims = (-1,) if guidance.renorm == "token" else (-2, -1)
    lengths = [torch.linalg.vector_norm(x.float(), dim=dims, keepdim=True) for x in (conditional, guided)]
    return guided * (lengths[0] / lengths[1].clamp(min=1e-12)).clamp(max=1).to(guided.dtype)


def combine(
    branches: Mapping[Branch, Tensor],
    *,
    guidance: GuidanceConfig,
    sigma: float,
    has_text: bool,
    has_media: bool,
    noisy: Tensor | None = None,
    state: GuidanceState | None = None,
) -> Tensor:
    """Return the guided velocity.

    guided = full + (scale - 1) * (full - without_text) + (image_scale - 1) * (without_text - unconditional)

    which is arXiv:2211.09800 rearranged, and with one kind of condition arXiv:2207.12598.

    Args:
        branches: velocity of each branch that branches_needed names, [..., L, C].
        guidance: the caller's settings.
        sigma: noise level of this evaluation.
        has_text: as given to branches_needed.
        has_media: as given to branches_needed.
        noisy: latents at which the velocities were taken, same shape; APG alone needs them.
        state: memory of this block's run; APG alone needs it.
    """
    conditional = branches[Branch.FULL]
    pairs = _differences(guidance, has_text=has_text, has_media=has_media)
    if not pairs or not _is_active(guidance, sigma):
        return conditional
    if guidance.apg is None:
        change = sum((scale - 1) * (branches[first] - branches[second]) for first, second, scale in pairs)
        assert isinstance(change, Tensor)
        return _limit(conditional + change, conditional, guidance)
    assert noisy is not None and state is not None, "APG works on clean predictions and remembers: pass both"
    clean = {branch: to_clean(noisy, velocity, sigma) for branch, velocity in branches.items()}
    guided = clean[Branch.FULL]
    for first, second, scale in pairs:
        change = clean[first] - clean[second]
        guided = guided + (scale - 1) * _project(
            change, onto=clean[Branch.FULL], apg=guidance.apg, key=second, state=state
        )
    # Both predictions were made from this velocity at this sigma, so no floor is needed to undo it.
    return _limit(to_velocity(noisy, guided, sigma, floor=1e-6), conditional, guidance)
