"""Solvers against a field with a known answer, and against diffusers."""

import math

import pytest
import torch

from omni import flow, solvers
from omni.errors import ConfigError

MEAN, SPREAD = 0.7, 0.4


def _gaussian_velocity(latents: torch.Tensor, sigma: float) -> torch.Tensor:
    """Velocity of the flow from standard noise to N(MEAN, SPREAD^2), in closed form."""
    alpha = 1 - sigma
    slope = (sigma - alpha * SPREAD**2) / (alpha**2 * SPREAD**2 + sigma**2)
    return slope * (latents - alpha * MEAN) - MEAN


def _noise() -> torch.Tensor:
    return torch.randn(1, 6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def _bent_velocity(latents: torch.Tensor, sigma: float) -> torch.Tensor:
    """A field bent in both arguments, along which tan(latents) - sin(2 * sigma) stays constant."""
    return 2 * math.cos(2 * sigma) * torch.cos(latents) ** 2


def _error(solver: str, num_steps: int, start: float, end: float) -> float:
    origin = torch.linspace(-1.2, 1.2, 9, dtype=torch.float64)[None, :, None]
    expected = torch.atan(torch.tan(origin) + math.sin(2 * end) - math.sin(2 * start))
    # Float64 sigmas: float32 ones would hide the error of the fourth order.
    sigmas = torch.linspace(start, end, num_steps + 1, dtype=torch.float64)
    return (solvers.integrate(_bent_velocity, origin, sigmas, solver=solver) - expected).abs().max().item()


@pytest.mark.parametrize("solver", solvers.SOLVERS)
def test_solver_converges_with_its_order(solver):
    errors = [_error(solver, num_steps, 0.95, 0.05) for num_steps in (64, 128)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(solvers.SOLVERS[solver].order, abs=0.1)


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2), ("midpoint", 2), ("rk4", 4), ("dpm++", 1.6)])
def test_the_last_step_costs_no_order(solver, order):
    errors = [_error(solver, num_steps, 1, 0) for num_steps in (128, 256)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize("solver", solvers.SOLVERS)
def test_gaussian_flow_arrives_at_the_data(solver):
    reached = solvers.integrate(_gaussian_velocity, _noise(), flow.sigma_schedule(100), solver=solver)
    torch.testing.assert_close(reached, MEAN + SPREAD * _noise(), rtol=0, atol=0.02)


@pytest.mark.parametrize("solver", solvers.SOLVERS)
def test_true_velocity_lands_on_the_clean_latents(solver):
    clean, noise = torch.randn(1, 6, 4, dtype=torch.float64), _noise()
    schedule, truth = flow.sigma_schedule(5, shift=1.7), flow.velocity(clean, noise)
    reached = solvers.integrate(lambda latents, sigma: truth, noise, schedule, solver=solver)
    torch.testing.assert_close(reached, clean)


@pytest.mark.parametrize("solver", solvers.SOLVERS)
def test_evaluations_are_as_announced_and_never_at_sigma_zero(solver):
    asked = []

    def velocity_fn(latents, sigma):
        asked.append(sigma)
        return _gaussian_velocity(latents, sigma)

    solvers.integrate(velocity_fn, _noise(), flow.sigma_schedule(4), solver=solver)
    assert len(asked) == solvers.num_evaluations(solver, 4)
    assert min(asked) > 0 and asked[0] == 1


@pytest.mark.parametrize("solver", solvers.SOLVERS)
def test_given_tokens_stay(solver):
    given = torch.zeros(1, 6, 1, dtype=torch.float64)
    given[:, 2:4] = 1
    reached = solvers.integrate(
        lambda latents, sigma: (1 - given) * _gaussian_velocity(latents, sigma),
        _noise(),
        flow.sigma_schedule(3),
        solver=solver,
    )
    torch.testing.assert_close(reached[:, 2:4], _noise()[:, 2:4])


def test_euler_agrees_with_diffusers():
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler(shift=2.0)
    scheduler.set_timesteps(sigmas=torch.linspace(1, 0, 9)[:-1].tolist())
    schedule = flow.sigma_schedule(8, shift=2.0)
    torch.testing.assert_close(schedule, scheduler.sigmas)
    theirs = noise = _noise().float()
    for timestep, sigma in zip(scheduler.timesteps, schedule.tolist(), strict=False):
        theirs = scheduler.step(_gaussian_velocity(theirs, sigma), timestep, theirs).prev_sample
    torch.testing.assert_close(solvers.integrate(_gaussian_velocity, noise, schedule), theirs)


def test_steps_carry_an_estimate_that_ends_at_the_result():
    steps = list(solvers.trajectory(_gaussian_velocity, _noise(), flow.sigma_schedule(5)))
    assert [step.index for step in steps] == [1, 2, 3, 4, 5] and steps[-1].sigma == 0
    torch.testing.assert_close(steps[-1].clean, steps[-1].latents)


def test_on_step_stops_the_run():
    seen = []
    noise = _noise()

    def on_step(step):
        seen.append(step)
        return step.index == 2

    reached = solvers.integrate(_gaussian_velocity, noise, flow.sigma_schedule(5), on_step=on_step)
    assert len(seen) == 2 and torch.equal(reached, seen[-1].latents)


def test_on_step_may_raise():
    def on_step(step):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        solvers.integrate(_gaussian_velocity, _noise(), flow.sigma_schedule(5), on_step=on_step)


def test_unknown_solver_and_rising_sigmas_are_refused():
    with pytest.raises(ConfigError, match="'ddim' is unknown; choose one of euler"):
        solvers.integrate(_gaussian_velocity, _noise(), flow.sigma_schedule(2), solver="ddim")
    with pytest.raises(ConfigError, match="must fall"):
        solvers.integrate(_gaussian_velocity, _noise(), torch.tensor([0.0, 1.0]))
