"""Integrate the flow from noise to clean latents: one interface, five solvers.

No solver asks for the velocity at sigma 0: to the model, sigma 0 marks a token that is given. Where a method
would, its last step is one order lower, which leaves the order of the whole run as it is.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor

from omni.errors import ConfigError
from omni.flow import to_clean

__all__ = ["SOLVERS", "Solver", "Step", "integrate", "num_evaluations", "trajectory"]

VelocityFn = Callable[[Tensor, float], Tensor]


@dataclass(frozen=True)
class Step:
    """What a solver knows after a step.

    Attributes:
        index: steps done, 1 to num_steps.
        num_steps: steps of the whole run.
        sigma: noise level of latents.
        latents: the noisy latents reached, [..., L, C].
        clean: estimate of the clean latents made at the start of the step, same shape; for previews.
    """

    index: int
    num_steps: int
    sigma: float
    latents: Tensor
    clean: Tensor


@dataclass(frozen=True)
class _Estimate:
    """A clean estimate and the sigma at which it was made; what a multistep method remembers."""

    clean: Tensor
    sigma: float


Before = _Estimate | None
# (velocity_fn, latents, its velocity, sigma, next sigma, the step before) -> latents at the next sigma
StepFn = Callable[[VelocityFn, Tensor, Tensor, float, float, Before], Tensor]


def _euler(velocity_fn: VelocityFn, latents: Tensor, first: Tensor, start: float, end: float, before: Before) -> Tensor:
    return latents + (end - start) * first


def _heun(velocity_fn: VelocityFn, latents: Tensor, first: Tensor, start: float, end: float, before: Before) -> Tensor:
    reached = latents + (end - start) * first
    if end == 0:  # the last step of EDM, arXiv:2206.00364
        return reached
    return latents + (end - start) * (first + velocity_fn(reached, end)) / 2


def _midpoint(
    velocity_fn: VelocityFn, latents: Tensor, first: Tensor, start: float, end: float, before: Before
) -> Tensor:
    half = (end - start) / 2
    return latents + 2 * half * velocity_fn(latents + half * first, start + half)


def _ralston3(velocity_fn: VelocityFn, latents: Tensor, first: Tensor, start: float, end: float) -> Tensor:
    """Third order from nodes 0, 1/2 and 3/4: the best that stays clear of the end."""
    width = end - start
    second = velocity_fn(latents + width / 2 * first, start + width / 2)
    third = velocity_fn(latents + width * 3 / 4 * second, start + width * 3 / 4)
    return latents + width / 9 * (2 * first + 3 * second + 4 * third)


def _rk4(velocity_fn: VelocityFn, latents: Tensor, first: Tensor, start: float, end: float, before: Before) -> Tensor:
    if end == 0:
        return _ralston3(velocity_fn, latents, first, start, end)
    width = end - start
    second = velocity_fn(latents + width / 2 * first, start + width / 2)
    third = velocity_fn(latents + width / 2 * second, start + width / 2)
    fourth = velocity_fn(latents + width * third, end)
    return latents + width / 6 * (first + 2 * second + 2 * third + fourth)


def _dpmpp_2m(
    velocity_fn: VelocityFn, latents: Tensor, first: Tensor, start: float, end: float, before: Before
) -> Tensor:
    """DPM-Solver++(2M), arXiv:2211.01095, for alpha = 1 - sigma.

    Its steps are even in the log of alpha/sigma, which is infinite at both ends of the flow; there the weight
    of the step before has the limit 0 (or none, at the last step, where the method prescribes first order).
    The order holds between the ends; over even steps from 1 to 0 the logarithm slows it a little.
    """
    clean = to_clean(latents, first, start)
    if before is not None and end > 0 and before.sigma < 1:
        previous, now, following = (_log_snr(s) for s in (before.sigma, start, end))
        weight = (following - now) / (2 * (now - previous))
        clean = clean + weight * (clean - before.clean)
    keep = end / start
    return keep * latents + (1 - keep) * clean


def _log_snr(sigma: float) -> float:
    return math.log((1 - sigma) / sigma)


@dataclass(frozen=True)
class Solver:
    """A way to step, with its cost.

    Attributes:
        order: the error of a run falls with the step width to this power, in smooth fields.
        evaluations: velocities asked for in a step.
        last_evaluations: those of a step that ends at sigma 0.
        step: the rule itself.
    """

    order: int
    evaluations: int
    last_evaluations: int
    step: StepFn


SOLVERS = {
    "euler": Solver(order=1, evaluations=1, last_evaluations=1, step=_euler),
    "heun": Solver(order=2, evaluations=2, last_evaluations=1, step=_heun),
    "midpoint": Solver(order=2, evaluations=2, last_evaluations=2, step=_midpoint),
    "rk4": Solver(order=4, evaluations=4, last_evaluations=3, step=_rk4),
    "dpm++": Solver(order=2, evaluations=1, last_evaluations=1, step=_dpmpp_2m),
}


def _find(solver: str) -> Solver:
    if solver not in SOLVERS:
        raise ConfigError(f"solver {solver!r} is unknown; choose one of {', '.join(SOLVERS)}")
    return SOLVERS[solver]


def num_evaluations(solver: str, num_steps: int) -> int:
    """Return how many velocities a run from sigma 1 to 0 asks for.

    Args:
        solver: a key of SOLVERS.
        num_steps: steps of the run, at least 1.

    Raises:
        ConfigError: the solver is unknown.
    """
    method = _find(solver)
    return (num_steps - 1) * method.evaluations + method.last_evaluations


def trajectory(velocity_fn: VelocityFn, latents: Tensor, sigmas: Tensor, *, solver: str = "euler") -> Iterator[Step]:
    """Yield the state after each step; leaving the loop stops the run.

    A token whose velocity is zero stays where it is, whatever the solver: so are given tokens kept.

    Args:
        velocity_fn: maps (noisy latents, sigma) to their velocity, same shape.
        latents: noise to start from, at sigmas[0], [..., L, C].
        sigmas: noise levels to visit, [num_steps + 1], falling; see flow.sigma_schedule.
        solver: a key of SOLVERS.

    Raises:
        ConfigError: the solver is unknown, or the sigmas do not fall within [0, 1].
    """
    method, levels = _find(solver), sigmas.tolist()
    falling = all(start > end for start, end in zip(levels, levels[1:], strict=False))
    if len(levels) < 2 or not falling or levels[0] > 1 or levels[-1] < 0:
        raise ConfigError(f"sigmas {levels} must fall, from at most 1 to at least 0; see sigma_schedule")
    before = None
    for index, (start, end) in enumerate(zip(levels, levels[1:], strict=False), start=1):
        first = velocity_fn(latents, start)
        clean = to_clean(latents, first, start)
        latents = method.step(velocity_fn, latents, first, start, end, before)
        before = _Estimate(clean, start)
        yield Step(index, len(levels) - 1, end, latents, clean)


def integrate(
    velocity_fn: VelocityFn,
    latents: Tensor,
    sigmas: Tensor,
    *,
    solver: str = "euler",
    on_step: Callable[[Step], bool | None] | None = None,
) -> Tensor:
    """Return the latents at the last sigma, or where on_step stopped.

    Args:
        velocity_fn: maps (noisy latents, sigma) to their velocity, same shape.
        latents: noise to start from, at sigmas[0], [..., L, C].
        sigmas: noise levels to visit, [num_steps + 1], falling; see flow.sigma_schedule.
        solver: a key of SOLVERS.
        on_step: called after each step; a true answer stops the run there, an exception passes through.

    Raises:
        ConfigError: the solver is unknown, or the sigmas do not fall within [0, 1].
    """
    for step in trajectory(velocity_fn, latents, sigmas, solver=solver):
        latents = step.latents
        if on_step is not None and on_step(step):
            break
    return latents
