"""Flow maths: round trips, shapes, sampling and schedules."""

import pytest
import torch

from omni import flow
from omni.errors import ConfigError


def _latents(seed: int) -> torch.Tensor:
    return torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(seed))


def _sigma() -> torch.Tensor:
    return torch.rand(2, 5, generator=torch.Generator().manual_seed(9)) * 0.9 + 0.1


def test_add_noise_keeps_clean_at_zero_and_gives_noise_at_one():
    clean, noise = _latents(0), _latents(1)
    assert torch.equal(flow.add_noise(clean, noise, torch.zeros(2, 5)), clean)
    assert torch.equal(flow.add_noise(clean, noise, torch.ones(2, 5)), noise)


def test_add_noise_acts_on_each_token():
    clean, noise, sigma = _latents(0), _latents(1), torch.zeros(2, 5)
    sigma[0, 2] = 1
    noisy = flow.add_noise(clean, noise, sigma)
    assert torch.equal(noisy[0, 2], noise[0, 2])
    noisy[0, 2] = clean[0, 2]
    assert torch.equal(noisy, clean)


def test_noise_round_trip():
    clean, noise, sigma = _latents(0), _latents(1), _sigma()
    noisy, change = flow.add_noise(clean, noise, sigma), flow.velocity(clean, noise)
    torch.testing.assert_close(flow.to_clean(noisy, change, sigma), clean)
    torch.testing.assert_close(flow.to_noise(noisy, change, sigma), noise)


def test_to_velocity_undoes_to_clean_above_the_floor():
    noisy, change, sigma = _latents(0), _latents(1), _sigma()
    torch.testing.assert_close(flow.to_velocity(noisy, flow.to_clean(noisy, change, sigma), sigma), change)
    torch.testing.assert_close(flow.to_velocity(noisy, flow.to_clean(noisy, change, 0.4), 0.4), change)


def test_to_velocity_is_bounded_at_sigma_zero():
    noisy, clean = _latents(0), _latents(1)
    at_zero = flow.to_velocity(noisy, clean, torch.zeros(2, 5), floor=0.1)
    torch.testing.assert_close(at_zero, (noisy - clean) * 10)


@pytest.mark.parametrize("function", [flow.add_noise, flow.to_clean, flow.to_noise, flow.to_velocity])
def test_shapes_that_disagree_are_refused(function):
    with pytest.raises(ValueError, match="different shapes"):
        function(_latents(0), _latents(1)[:, :4], _sigma())
    with pytest.raises(ValueError, match="one number a token"):
        function(_latents(0), _latents(1), _sigma()[:, :1])


def test_shift_is_undone_by_its_inverse_and_keeps_the_ends():
    sigma = torch.linspace(0, 1, 11)
    shifted = flow.shift_sigma(sigma, 3.0)
    assert shifted[0] == 0 and shifted[-1] == 1 and (shifted[1:-1] > sigma[1:-1]).all()
    torch.testing.assert_close(flow.shift_sigma(shifted, 1 / 3.0), sigma)


def test_shift_grows_with_the_root_of_the_tokens():
    assert flow.shift_for_tokens(16, base_tokens=16) == 1
    assert flow.shift_for_tokens(64, base_tokens=16, base_shift=1.5) == 3
    with pytest.raises(ConfigError, match="num_tokens is 0"):
        flow.shift_for_tokens(0, base_tokens=16)


def test_sample_sigma_is_a_shifted_logit_normal():
    generator, shifts = torch.Generator().manual_seed(0), torch.full((20000,), 2.0)
    draw = flow.sample_sigma(shifts, generator=generator, mean=0.3, std=1.2)
    logits = torch.logit(flow.shift_sigma(draw.double(), 0.5))
    assert abs(logits.mean() - 0.3) < 0.03 and abs(logits.std() - 1.2) < 0.03


def test_sample_sigma_follows_the_generator():
    draws = [flow.sample_sigma(torch.ones(4), generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


def test_sigma_schedule_falls_from_one_to_zero():
    schedule = flow.sigma_schedule(7, shift=2.5)
    assert schedule.shape == (8,) and schedule[0] == 1 and schedule[-1] == 0
    assert (schedule.diff() < 0).all()
    assert torch.equal(flow.sigma_schedule(1), torch.tensor([1.0, 0.0]))


@pytest.mark.parametrize(("steps", "shift"), [(0, 1.0), (4, 0.0), (4, float("nan")), (4, float("inf"))])
def test_sigma_schedule_refuses_what_is_no_schedule(steps, shift):
    with pytest.raises(ConfigError):
        flow.sigma_schedule(steps, shift=shift)
