"""Muon for convolution kernels: momentum, then the nearest orthogonal matrix as the step.

Kernels of one shape are stacked and orthogonalised together, as one batch of matrix products.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor

__all__ = ["Muon", "orthogonalise"]


def orthogonalise(matrices: Tensor, *, steps: int = 4, dtype: torch.dtype | None = None) -> Tensor:
    """Push all singular values of [N, rows, columns] towards 1 by a quintic Newton-Schulz iteration.

    X <- P X with P = a + b A + c A A, A = X X^T   (Keller Jordan's Muon, 2024). As P commutes with A, only the small
    square A <- P A P is iterated, and X meets the product of all P at the end.

    Args:
        matrices: of one shape.
        steps: of the iteration.
        dtype: in which it runs; bfloat16 is enough. That of the matrices where left out.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    is_tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if is_tall else matrices
    x = (x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)).to(dtype or x.dtype)
    gram, product = x @ x.mT, None
    for step in range(steps):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=1, dim2=2).add_(a)
        product = factor if product is None else factor @ product
        if step < steps - 1:
            gram = factor @ (gram @ factor)
    x = x if product is None else product @ x
    return (x.mT if is_tall else x).to(matrices.dtype)


class Muon(torch.optim.Optimizer):
    """Step every kernel [out, in, ...] by the orthogonalised Nesterov momentum of its gradient.

    Args:
        params: parameters of two dimensions or more.
        lr: spectral length of a step, times sqrt(max(1, out / fan-in)).
        momentum: of the gradient's running average.
        weight_decay: decoupled, times lr.
        dtype: in which steps are orthogonalised; that of the parameters where left out.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        *,
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient."""
        assert closure is None, "no closures"
        for group in self.param_groups:
            stacks: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = defaultdict(list)
            for param in group["params"]:
                if param.grad is not None:
                    direction = self._momentum(param, group["momentum"]).flatten(1)
                    stacks[(direction.shape[0], direction.shape[1])].append((param, direction))
            for (rows, columns), members in stacks.items():
                directions = orthogonalise(torch.stack([direction for _, direction in members]), dtype=self.dtype)
                scale = group["lr"] * max(1.0, rows / columns) ** 0.5
                for (param, _), direction in zip(members, directions, strict=True):
                    param.mul_(1.0 - group["lr"] * group["weight_decay"])
                    param.add_(direction.view(param.shape), alpha=-scale)

    def _momentum(self, param: Tensor, momentum: float) -> Tensor:
        assert param.grad is not None
        buffer = self.state[param].setdefault("momentum", torch.zeros_like(param))
        buffer.lerp_(param.grad, 1.0 - momentum)
        return param.grad.lerp(buffer, momentum)
