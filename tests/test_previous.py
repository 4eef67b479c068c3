"""What was last known at a token's place: which frame that is, and that a stream may keep it."""

from typing import Any

import pytest
import torch
from tests.conftest import EXPERTS, SIZES, randomise
from torch import Tensor

from omni.config import OmniConfig
from omni.errors import ConfigError
from omni.model import GATE_SPEED, KEPT_AT_START, OmniModel
from omni.sequence import Document, Grid, Medium, PackedBatch, TextRun, flatten, pack


@pytest.fixture(scope="module")
def config(tokenizer) -> OmniConfig:
    num_control = tokenizer.vocab_size - tokenizer.num_text_ids
    stream_of = {"image": "vision", "video": "vision"}
    return OmniConfig(
        num_text_ids=tokenizer.num_text_ids, num_control_ids=num_control, stream_of=stream_of, **SIZES, **EXPERTS
    )


def film(seed: int, *, frames: int = 1, columns: int = 2, given: Tensor | None = None, **settings: Any) -> Medium:
    latents = torch.randn(frames, 1, columns, 16, generator=torch.Generator().manual_seed(seed))
    grid = Grid("video", latents, tuple(map(float, range(frames))), given)
    return Medium(header=(3, 4), end=5, grids=(grid,), **settings)


def packed(document: Document, config: OmniConfig, *, num_noisy: int = 1) -> PackedBatch:
    flat = flatten(document, config, num_noisy=num_noisy)
    generator = torch.Generator().manual_seed(0)
    return pack([[flat]], sample_sigma=lambda s: torch.full_like(s, 0.6), generator=generator)


def test_a_noisy_copy_reads_the_last_frame_before_it(config):
    first, made = film(0, frames=2), film(1, frames=3, is_target=True)
    batch = packed([first, TextRun((1,)), made], config, num_noisy=2)
    last = first.grids[0].latents[-1].flatten(0, 1)
    assert torch.equal(batch.previous["vision"][4:], last.repeat(6, 1)), "both copies, every frame"
    assert batch.is_known["vision"].tolist() == [False] * 4 + [True] * 12


def test_given_frames_of_its_own_block_come_before_an_earlier_one(config):
    given = torch.tensor([[[False, False]], [[True, False]], [[False, False]]])
    before, made = film(0), film(1, frames=3, given=given, is_target=True)
    previous = packed([before, made], config).previous["vision"][2:].unflatten(0, (3, 2))
    earlier, own = before.grids[0].latents[0, 0], made.grids[0].latents[1, 0]
    assert torch.equal(previous[0], earlier)
    assert torch.equal(previous[1], torch.stack([torch.zeros(16), earlier[1]])), "what is given reads nothing"
    assert torch.equal(previous[2], torch.stack([own[0], earlier[1]]))


def test_nothing_is_known_at_first_nor_of_another_size(config):
    for document in ([film(1, is_target=True)], [film(0, columns=3), film(1, is_target=True)]):
        batch = packed(document, config)
        assert not batch.is_known["vision"].any() and not batch.previous["vision"].any()


def test_documents_of_a_row_and_what_comes_later_are_not_read(config):
    alone = flatten([film(1, is_target=True), TextRun((1,)), film(2)], config)
    batch = pack([[flatten([film(0)], config), alone]], sample_sigma=torch.ones_like)
    assert not batch.is_known["vision"].any()


def test_a_new_gate_keeps_little_and_an_open_one_keeps_all(config):
    before, made = film(0), film(1, is_target=True)
    batch = packed([before, made], config)
    model = OmniModel(config).eval()
    noisy, clean = batch.latents["vision"][2:], before.grids[0].latents.flatten(0, 2)
    with torch.no_grad():
        said = model(batch).velocity["vision"][2:]
        share = torch.sigmoid(torch.tensor(GATE_SPEED * KEPT_AT_START))
        torch.testing.assert_close(said, (noisy - share * clean) / 0.6)  # the head itself says zero
        randomise(model)
        model.latent_embeddings["vision"].previous.gate_proj.bias.fill_(100.0)
        torch.testing.assert_close(model(batch).velocity["vision"][2:], (noisy - clean) / 0.6)


def test_a_stream_that_does_not_ask_reads_nothing(config):
    streams = {"vision": EXPERTS["streams"]["vision"] | {"reads_previous": False}}
    plain = OmniConfig(**(config.to_dict() | {"streams": streams}))
    batch = packed([film(0), film(1, is_target=True)], plain)
    assert not batch.previous and OmniModel(plain).latent_embeddings["vision"].previous is None


def test_a_value_that_is_no_yes_or_no_is_refused(config):
    streams = {"vision": EXPERTS["streams"]["vision"] | {"reads_previous": 1}}
    with pytest.raises(ConfigError, match=r"streams\.vision\.reads_previous is 1; give true or false"):
        OmniConfig(**(config.to_dict() | {"streams": streams}))
