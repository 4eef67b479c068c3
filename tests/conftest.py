"""Tiny real parts, made on the spot; every test runs offline on a CPU."""

from collections.abc import Callable

import pytest
import torch

from omni.checkpoint import Defaults
from omni.codecs.vision import CodecConfig, VisionCodec
from omni.config import OmniConfig
from omni.model import OmniModel
from omni.pipeline import Omni
from omni.text import TextTokenizer
from scripts.train_tokenizer import train

LINES = ["Draw a small red fox.", "What is this?", "Here is a fox on a blue background.", "hello there!"] * 20

EXPERTS = {
    "experts": {"text": {"width": 32, "ffn_dim": 48}, "vision": {"width": 24, "ffn_dim": 40}},
    "text_expert": "text",
    "streams": {"vision": {"channels": 4, "patch_size": 2, "expert": "vision", "base_tokens": 4}},
}
DENSE = {
    "experts": {"shared": {"width": 32, "ffn_dim": 48}},
    "text_expert": "shared",
    "streams": {"vision": {"channels": 4, "patch_size": 2, "expert": "shared", "base_tokens": 4}},
}
SIZES = {"num_layers": 2, "num_heads": 4, "num_kv_heads": 2, "head_dim": 8, "sigma_dim": 16}


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / "tokenizer.model").write_bytes(train(LINES, vocab_size=400))
    return TextTokenizer.from_folder(folder)


def randomise(model: OmniModel, seed: int = 0) -> OmniModel:
    """Move every weight, so that nothing is zero by its initialisation."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


@pytest.fixture(scope="session", params=["experts", "dense"])
def config(request: pytest.FixtureRequest, tokenizer: TextTokenizer) -> OmniConfig:
    num_control = tokenizer.vocab_size - tokenizer.num_text_ids
    kind = EXPERTS if request.param == "experts" else DENSE
    return OmniConfig(num_text_ids=tokenizer.num_text_ids, num_control_ids=num_control, **SIZES, **kind)


@pytest.fixture(scope="session")
def model(config: OmniConfig) -> OmniModel:
    torch.manual_seed(0)
    return randomise(OmniModel(config))


@pytest.fixture(scope="session")
def codec() -> VisionCodec:
    from diffusers.models import AutoencoderKL

    torch.manual_seed(0)
    blocks = 4
    autoencoder = AutoencoderKL(
        block_out_channels=(4,) * blocks,
        down_block_types=["DownEncoderBlock2D"] * blocks,
        up_block_types=["UpDecoderBlock2D"] * blocks,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=2,
        sample_size=64,
    )
    return VisionCodec(autoencoder, CodecConfig(class_name="AutoencoderKL"))


@pytest.fixture(scope="session")
def omni(model: OmniModel, tokenizer: TextTokenizer, codec: VisionCodec) -> Omni:
    return Omni(model, tokenizer, {"vision": codec})


@pytest.fixture(scope="session")
def small(tokenizer: TextTokenizer, codec: VisionCodec) -> Omni:
    """A model with an expert for each modality, for tests that need not run on both kinds."""
    num_control = tokenizer.vocab_size - tokenizer.num_text_ids
    config = OmniConfig(num_text_ids=tokenizer.num_text_ids, num_control_ids=num_control, **SIZES, **EXPERTS)
    torch.manual_seed(0)
    return Omni(randomise(OmniModel(config)), tokenizer, {"vision": codec}, Defaults(steps=3, max_block_tokens=16))


@pytest.fixture
def make_model() -> Callable[..., OmniModel]:
    def make(config: OmniConfig, seed: int = 0) -> OmniModel:
        torch.manual_seed(seed)
        return randomise(OmniModel(config), seed)

    return make
