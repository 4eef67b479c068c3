"""Rectified flow as plain tensor maths: sigma 0 is clean, sigma 1 is noise.

B rows, L tokens in a row, C latent channels. Conversions come in pairs that undo each other.
"""

import math

import torch
from torch import Tensor

from omni.errors import ConfigError

__all__ = [
    "SIGMA_FLOOR",
    "add_noise",
    "sample_sigma",
    "shift_for_tokens",
    "shift_sigma",
    "sigma_schedule",
    "to_clean",
    "to_noise",
    "to_velocity",
    "velocity",
]

# Dividing by sigma magnifies the error of a clean prediction without bound; below this it stays as it is.
SIGMA_FLOOR = 0.05


def _per_channel(sigma: Tensor | float, latents: Tensor) -> Tensor:
    """Give sigma the trailing channel axis, so that it broadcasts over latents."""
    if not isinstance(sigma, Tensor):
        return torch.tensor(sigma, dtype=latents.dtype, device=latents.device)
    if sigma.shape != latents.shape[:-1]:
        shapes = f"{tuple(sigma.shape)} against latents {tuple(latents.shape)}"
        raise ValueError(f"sigma needs one number a token, or one for all: {shapes}")
    return sigma.to(latents.dtype).unsqueeze(-1)


def _check_same_shape(one: Tensor, other: Tensor) -> None:
    if one.shape != other.shape:
        raise ValueError(f"the latents have different shapes: {tuple(one.shape)} and {tuple(other.shape)}")


def add_noise(clean: Tensor, noise: Tensor, sigma: Tensor | float) -> Tensor:
    """Move clean latents along the straight line towards noise.

    noisy = (1 - sigma) * clean + sigma * noise   (rectified flow, arXiv:2209.03003)

    Args:
        clean: codec latents, [B, L, C], about unit variance.
        noise: standard normal, same shape.
        sigma: noise level of each token, [B, L] or one for all, in [0, 1]; 0 leaves a token clean.

    Raises:
        ValueError: the shapes do not agree.
    """
    _check_same_shape(clean, noise)
    level = _per_channel(sigma, clean)
    return (1 - level) * clean + level * noise


def velocity(clean: Tensor, noise: Tensor) -> Tensor:
    """Return the change of the noisy latents per unit of sigma: noise - clean.

    Args:
        clean: codec latents, [B, L, C].
        noise: standard normal, same shape.

    Raises:
        ValueError: the shapes do not agree.
    """
    _check_same_shape(clean, noise)
    return noise - clean


def to_clean(noisy: Tensor, velocity: Tensor, sigma: Tensor | float) -> Tensor:
    """Return the clean latents that a velocity points back to: noisy - sigma * velocity.

    Args:
        noisy: latents at sigma, [B, L, C].
        velocity: their velocity, same shape.
        sigma: noise level of each token, [B, L] or one for all.

    Raises:
        ValueError: the shapes do not agree.
    """
    _check_same_shape(noisy, velocity)
    return noisy - _per_channel(sigma, noisy) * velocity


def to_noise(noisy: Tensor, velocity: Tensor, sigma: Tensor | float) -> Tensor:
    """Return the noise that a velocity points forward to: noisy + (1 - sigma) * velocity.

    Args:
        noisy: latents at sigma, [B, L, C].
        velocity: their velocity, same shape.
        sigma: noise level of each token, [B, L] or one for all.

    Raises:
        ValueError: the shapes do not agree.
    """
    _check_same_shape(noisy, velocity)
    return noisy + (1 - _per_channel(sigma, noisy)) * velocity


def to_velocity(noisy: Tensor, clean: Tensor, sigma: Tensor | float, *, floor: float = SIGMA_FLOOR) -> Tensor:
    """Return the velocity that a clean prediction implies: (noisy - clean) / max(sigma, floor).

    The inverse of to_clean for sigma >= floor. A loss on velocities of a network that predicts clean
    latents (arXiv:2511.13720) passes prediction and target through here, so that both meet one floor.

    Args:
        noisy: latents at sigma, [B, L, C].
        clean: predicted or true clean latents, same shape.
        sigma: noise level of each token, [B, L] or one for all.
        floor: least divisor; bounds the magnification of the prediction's error.

    Raises:
        ValueError: the shapes do not agree.
    """
    _check_same_shape(noisy, clean)
    return (noisy - clean) / _per_channel(sigma, noisy).clamp(min=floor)


def shift_for_tokens(num_tokens: int, *, base_tokens: int, base_shift: float = 1.0) -> float:
    """Return the shift of a block: base_shift * sqrt(num_tokens / base_tokens)   (arXiv:2403.03206).

    More tokens show the same scene more often, so the same sigma hides less of it: large blocks need
    more noise to be as hard as small ones.

    Args:
        num_tokens: latent tokens in the block.
        base_tokens: latent tokens of a block whose shift is base_shift.
        base_shift: shift at base_tokens.

    Raises:
        ConfigError: a number is not positive.
    """
    for name, value in (("num_tokens", num_tokens), ("base_tokens", base_tokens), ("base_shift", base_shift)):
        if not value > 0:
            raise ConfigError(f"{name} is {value}; it must be positive")
    return base_shift * math.sqrt(num_tokens / base_tokens)


def shift_sigma(sigma: Tensor, shift: Tensor | float) -> Tensor:
    """Move sigmas towards noise: shift * sigma / (1 + (shift - 1) * sigma). 1/shift undoes it.

    Args:
        sigma: noise levels in [0, 1], any shape.
        shift: one for all, or one each; 1 changes nothing.
    """
    return shift * sigma / (1 + (shift - 1) * sigma)


def sample_sigma(shifts: Tensor, *, generator: torch.Generator | None, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Draw one training sigma a block: sigmoid of a normal, then shifted   (arXiv:2403.03206).

    Args:
        shifts: shift of each block, [N], on the generator's device; see shift_for_tokens.
        generator: source of randomness; the same state gives the same sigmas.
        mean: of the normal; above 0 leans towards noise.
        std: of the normal; a larger one visits the ends more often.

    Raises:
        ConfigError: std is not positive.
    """
    if not std > 0:
        raise ConfigError(f"std of the logit-normal is {std}; it must be positive")
    normal = torch.randn(shifts.shape, generator=generator, device=shifts.device)
    return shift_sigma(torch.sigmoid(mean + std * normal), shifts)


def sigma_schedule(num_steps: int, *, shift: float = 1.0) -> Tensor:
    """Return the sigmas between which a solver steps, [num_steps + 1], from exactly 1 to exactly 0.

    Args:
        num_steps: solver steps.
        shift: as in training; above 1 spends more steps near noise.

    Raises:
        ConfigError: fewer than one step, or a shift that is not positive.
    """
    if num_steps < 1:
        raise ConfigError(f"steps is {num_steps}; a picture needs at least 1")
    if not 0 < shift < math.inf:
        raise ConfigError(f"shift is {shift}; it must be positive and finite")
    return shift_sigma(torch.linspace(1, 0, num_steps + 1, dtype=torch.float64), shift).float()
