"""A running average of weights (EMA), over whatever tensors an engine holds: whole weights, or a rank's share.

The same figures and the same state as diffusers' EMAModel, whose module takes seconds to import.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["Average"]

POWER = 0.8


class Average:
    """shadow <- decay * shadow + (1 - decay) * weight, the decay rising as 1 - (1 + step)^-0.8 up to its full value.

    Args:
        weights: what is averaged.
        decay: the full one.
    """

    def __init__(self, weights: Sequence[Tensor], *, decay: float) -> None:
        self.decay = decay
        self.optimization_step = 0
        self.shadow_params = [weight.detach().clone() for weight in weights]
        self._stored: list[Tensor] | None = None

    def decay_at(self, step: int) -> float:
        """Return the decay of the step-th update, counted from 1."""
        return min(self.decay, 1 - step**-POWER) if step > 1 else 0.0

    @torch.no_grad()
    def step(self, weights: Sequence[Tensor]) -> None:
        """Move the averages towards the weights."""
        self.optimization_step += 1
        weights = [weight.detach() for weight in weights]
        difference = torch._foreach_sub(self.shadow_params, weights)
        torch._foreach_sub_(self.shadow_params, difference, alpha=1 - self.decay_at(self.optimization_step))

    @torch.no_grad()
    def swap_in(self, weights: Sequence[Tensor]) -> None:
        """Put the averages in place of the weights, which are kept."""
        assert self._stored is None, "swapped in already"
        self._stored = [weight.detach().clone() for weight in weights]
        torch._foreach_copy_([weight.detach() for weight in weights], self.shadow_params)

    @torch.no_grad()
    def swap_out(self, weights: Sequence[Tensor]) -> None:
        """Put the weights back."""
        assert self._stored is not None, "not swapped in"
        torch._foreach_copy_([weight.detach() for weight in weights], self._stored)
        self._stored = None

    def state_dict(self) -> dict[str, Any]:
        """Return the averages and how far they are."""
        return {
            "decay": self.decay,
            "min_decay": 0.0,
            "optimization_step": self.optimization_step,
            "update_after_step": 0,
            "use_ema_warmup": True,
            "inv_gamma": 1.0,
            "power": POWER,
            "shadow_params": self.shadow_params,
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a state_dict was taken, with this one's own decay."""
        self.optimization_step = int(state["optimization_step"])
        for mine, theirs in zip(self.shadow_params, state["shadow_params"], strict=True):
            mine.copy_(theirs)
