"""A wider model says what the narrow one said, and can use what is new."""

import pytest
import torch
from tests.conftest import EXPERTS, SIZES, randomise
from tests.test_film_blocks import film, packed, template  # noqa: F401
from torch import Tensor

from omni.config import OmniConfig
from omni.model import OmniModel
from omni.sequence import Document, TextRun
from training.grow import begin_with

WIDER = {
    "text": {"width": 48, "ffn_dim": 56},
    "vision": {"width": 32, "ffn_dim": 48},
    "audio": {"width": 20, "ffn_dim": 24},
}


@pytest.fixture(scope="module")
def config(tokenizer) -> OmniConfig:
    audio = {"channels": 6, "patch_size": 1, "expert": "audio", "base_tokens": 8}
    return OmniConfig(
        num_text_ids=tokenizer.num_text_ids,
        num_control_ids=tokenizer.vocab_size - tokenizer.num_text_ids,
        experts=EXPERTS["experts"] | {"audio": {"width": 16, "ffn_dim": 24}},
        streams=EXPERTS["streams"] | {"audio": audio},
        stream_of={"image": "vision", "video": "vision", "audio": "audio"},
        **SIZES,
    )


@pytest.fixture
def document(template) -> Document:  # noqa: F811
    first, second = film(template, 0, sound=False), film(template, 1, is_target=True)
    return [TextRun((1, 2)), first, TextRun((3, 4), is_target=True), second, TextRun((5,), is_target=True)]


def said(model: OmniModel, document: Document) -> tuple[Tensor, dict[str, Tensor]]:
    out = model(packed(document, model.config))
    assert out.logits is not None
    return out.logits, out.velocity


@pytest.mark.parametrize("wider", [["text"], ["vision"], ["audio"], ["text", "vision", "audio"]])
def test_a_wider_model_says_the_same(config, document, wider):
    torch.manual_seed(0)
    small = randomise(OmniModel(config))
    experts = config.experts | {name: WIDER[name] for name in wider}
    large = OmniModel(OmniConfig(**(config.to_dict() | {"experts": experts}))).eval()
    begin_with(large, small)
    with torch.no_grad():
        torch.testing.assert_close(said(large, document), said(small, document), atol=1e-4, rtol=1e-4)


def test_all_that_is_new_is_learnt_in_the_end(config, document):
    """Weights that read what is new learn from the second step on, when something is written there."""
    torch.manual_seed(0)
    large = OmniModel(OmniConfig(**(config.to_dict() | {"experts": WIDER}))).train()
    begin_with(large, randomise(OmniModel(config)))
    before = {name: weight.clone() for name, weight in large.named_parameters()}
    optimizer = torch.optim.SGD(large.parameters(), lr=0.1)
    for _ in range(2):
        logits, velocity = said(large, document)
        (logits.square().mean() + sum(v.square().mean() for v in velocity.values())).backward()
        optimizer.step()
        optimizer.zero_grad()
    for expert, new in (("text", 32), ("vision", 24), ("audio", 16)):
        for name, rows in (("q_proj", False), ("o_proj", True), ("gate_proj", False), ("down_proj", True)):
            key = f"layers.0.experts.{expert}.{name}.weight"
            change = large.get_parameter(key) - before[key]
            assert (change[new:] if rows else change[:, new:]).any(), key
