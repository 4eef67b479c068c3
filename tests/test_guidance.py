"""Guidance: formulas, needed branches, and settings that would do nothing."""

import pytest
import torch

from omni.errors import ConfigError
from omni.guidance import APG, Branch, GuidanceConfig, GuidanceState, branches_needed, combine, require_effect

FULL, WITHOUT_TEXT, UNCONDITIONAL = Branch


def _branches() -> dict[Branch, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {branch: torch.randn(2, 6, 4, generator=generator) for branch in Branch}


def _combine(guidance, *, sigma=0.5, has_text=True, has_media=False, **rest):
    return combine(_branches(), guidance=guidance, sigma=sigma, has_text=has_text, has_media=has_media, **rest)


@pytest.mark.parametrize("has_text", [True, False])
def test_one_condition_is_classifier_free_guidance(has_text):
    b = _branches()
    guided = _combine(GuidanceConfig(scale=3.0), has_text=has_text, has_media=not has_text)
    torch.testing.assert_close(guided, b[UNCONDITIONAL] + 3 * (b[FULL] - b[UNCONDITIONAL]))


def test_two_scales_are_those_of_instruct_pix2pix():
    b = _branches()
    guided = _combine(GuidanceConfig(scale=7.5, image_scale=1.5), has_media=True)
    expected = b[UNCONDITIONAL] + 1.5 * (b[WITHOUT_TEXT] - b[UNCONDITIONAL]) + 7.5 * (b[FULL] - b[WITHOUT_TEXT])
    torch.testing.assert_close(guided, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("guidance", "has_text", "has_media", "sigma", "needed"),
    [
        (GuidanceConfig(scale=1.0), True, True, None, (FULL,)),
        (GuidanceConfig(), False, False, None, (FULL,)),
        (GuidanceConfig(), True, False, None, (FULL, UNCONDITIONAL)),
        (GuidanceConfig(), False, True, None, (FULL, UNCONDITIONAL)),
        (GuidanceConfig(), True, True, None, (FULL, WITHOUT_TEXT)),
        (GuidanceConfig(image_scale=1.5), True, True, None, (FULL, WITHOUT_TEXT, UNCONDITIONAL)),
        (GuidanceConfig(scale=1.0, image_scale=1.5), True, True, None, (FULL, WITHOUT_TEXT, UNCONDITIONAL)),
        (GuidanceConfig(interval=(0.2, 0.8)), True, False, 0.9, (FULL,)),
        (GuidanceConfig(interval=(0.2, 0.8)), True, False, 0.8, (FULL, UNCONDITIONAL)),
        (GuidanceConfig(interval=(0.2, 0.8)), True, False, None, (FULL, UNCONDITIONAL)),
    ],
)
def test_branches_needed_are_those_that_combine_reads(guidance, has_text, has_media, sigma, needed):
    assert branches_needed(guidance, has_text=has_text, has_media=has_media, sigma=sigma) == needed
    context = {"guidance": guidance, "has_text": has_text, "has_media": has_media, "sigma": sigma or 0.5}
    few = {branch: velocity for branch, velocity in _branches().items() if branch in needed}
    assert torch.equal(combine(few, **context), combine(_branches(), **context))


def test_branches_say_what_they_drop():
    assert [(b.drops_text, b.drops_media) for b in Branch] == [(False, False), (True, False), (True, True)]


def test_outside_the_interval_the_condition_stands_alone():
    guidance = GuidanceConfig(interval=(0.2, 0.8))
    assert torch.equal(_combine(guidance, sigma=0.1), _branches()[FULL])
    assert not torch.equal(_combine(guidance, sigma=0.5), _branches()[FULL])


def test_rescale_gives_the_spread_back():
    guided = _combine(GuidanceConfig(scale=5.0, rescale=1.0))
    torch.testing.assert_close(guided.std(dim=(-2, -1)), _branches()[FULL].std(dim=(-2, -1)))
    plain, half = _combine(GuidanceConfig(scale=5.0)), _combine(GuidanceConfig(scale=5.0, rescale=0.5))
    torch.testing.assert_close(half, (plain + guided) / 2)


@pytest.mark.parametrize(("renorm", "dims"), [("block", (-2, -1)), ("token", -1)])
def test_renorm_never_lengthens(renorm, dims):
    guided = _combine(GuidanceConfig(scale=5.0, renorm=renorm))
    norm = torch.linalg.vector_norm
    assert (norm(guided, dim=dims) <= norm(_branches()[FULL], dim=dims) * 1.0001).all()


def test_rows_of_a_batch_do_not_mix():
    guidance = GuidanceConfig(scale=5.0, apg=APG(norm_threshold=1.0), rescale=0.7)
    noisy = torch.randn(2, 6, 4)
    together = _combine(guidance, noisy=noisy, state=GuidanceState())
    for row in range(2):
        alone = combine(
            {branch: velocity[row] for branch, velocity in _branches().items()},
            guidance=guidance,
            sigma=0.5,
            has_text=True,
            has_media=False,
            noisy=noisy[row],
            state=GuidanceState(),
        )
        torch.testing.assert_close(together[row], alone)


def test_apg_that_keeps_everything_is_classifier_free_guidance():
    # A bound that nothing reaches; without it the setting would be refused as idle.
    apg = APG(eta=1.0, momentum=0.0, norm_threshold=1e6)
    guided = _combine(GuidanceConfig(scale=3.0, apg=apg), noisy=torch.randn(2, 6, 4), state=GuidanceState())
    torch.testing.assert_close(guided, _combine(GuidanceConfig(scale=3.0)), rtol=1e-4, atol=1e-4)


def test_apg_adds_nothing_along_the_prediction():
    noisy, sigma = torch.randn(2, 6, 4), 0.5
    guidance = GuidanceConfig(scale=3.0, apg=APG(eta=0.0, momentum=0.0))
    guided = noisy - sigma * _combine(guidance, sigma=sigma, noisy=noisy, state=GuidanceState())
    conditional = noisy - sigma * _branches()[FULL]
    along = ((guided - conditional) * conditional).sum(dim=(-2, -1))
    torch.testing.assert_close(along, torch.zeros(2), atol=1e-3, rtol=0)


def test_apg_bounds_the_difference_and_remembers():
    noisy, state = torch.randn(2, 6, 4), GuidanceState()
    guidance = GuidanceConfig(scale=2.0, apg=APG(eta=1.0, norm_threshold=0.5))
    first = _combine(guidance, noisy=noisy, state=state)
    change = 0.5 * (first - _branches()[FULL])
    torch.testing.assert_close(torch.linalg.vector_norm(change, dim=(-2, -1)), torch.full((2,), 0.5))
    bound_free = GuidanceConfig(scale=2.0, apg=APG(eta=1.0))
    state = GuidanceState()
    first, second = (_combine(bound_free, noisy=noisy, state=state) for _ in range(2))
    assert not torch.allclose(first, second)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"scale": -1.0}, "scale is -1"),
        ({"scale": float("nan")}, "scale is nan"),
        ({"image_scale": float("inf")}, "image_scale is inf"),
        ({"interval": (0.8, 0.2)}, "interval"),
        ({"rescale": 1.5}, "rescale is 1.5"),
        ({"renorm": "rows"}, "renorm is 'rows'"),
        ({"rescale": 0.5, "renorm": "block"}, "choose one"),
        ({"scale": 1.0, "rescale": 0.5}, "rescale is 0.5 but has no effect"),
        ({"scale": 1.0, "renorm": "token"}, "renorm is token but has no effect"),
        ({"scale": 1.0, "interval": (0.1, 0.9)}, "interval is .* but has no effect"),
        ({"scale": 1.0, "apg": APG()}, "apg is .* but has no effect"),
    ],
)
def test_settings_out_of_range_or_idle_are_refused(settings, named):
    with pytest.raises(ConfigError, match=named):
        GuidanceConfig(**settings)


@pytest.mark.parametrize(
    "settings", [{"eta": 2.0}, {"norm_threshold": 0.0}, {"momentum": 1.0}, {"eta": 1.0, "momentum": 0.0}]
)
def test_apg_settings_out_of_range_or_idle_are_refused(settings):
    with pytest.raises(ConfigError, match="apg"):
        APG(**settings)


def test_an_image_scale_without_images_is_refused():
    require_effect(GuidanceConfig(image_scale=2.0), has_media=True)
    require_effect(GuidanceConfig(), has_media=False)
    with pytest.raises(ConfigError, match="image_scale is 2.0"):
        require_effect(GuidanceConfig(image_scale=2.0), has_media=False)
