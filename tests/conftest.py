"""Tiny real parts, made on the spot; every test runs offline on a CPU."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image as PILImage

from omni.checkpoint import Defaults
from omni.codecs.audio import AudioCodec, AudioCodecConfig
from omni.codecs.mel import AutoencoderLogMel, LogMelConfig
from omni.codecs.vision import CodecConfig, VisionCodec
from omni.config import OmniConfig
from omni.model import OmniModel
from omni.pipeline import Omni
from omni.text import TextTokenizer
from scripts.train_tokenizer import train

if TYPE_CHECKING:
    from demo.session import Conversation

LINES = ["Draw a small red fox.", "What is this?", "Here is a fox on a blue background.", "hello there!"] * 20

EXPERTS: dict[str, Any] = {
    "experts": {"text": {"width": 32, "ffn_dim": 48}, "vision": {"width": 24, "ffn_dim": 40}},
    "text_expert": "text",
    "streams": {
        "vision": {"channels": 4, "patch_size": 2, "expert": "vision", "base_tokens": 4, "reads_previous": True}
    },
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


@pytest.fixture(scope="session")
def film_codec() -> VisionCodec:
    from diffusers.models import AutoencoderKLWan

    torch.manual_seed(0)
    autoencoder = AutoencoderKLWan(
        base_dim=4, z_dim=4, dim_mult=[1, 1, 1], num_res_blocks=1, temperal_downsample=[True, True],
        patch_size=2, in_channels=12, out_channels=12, latents_mean=[0.0] * 4, latents_std=[1.0] * 4,
    )  # fmt: skip
    return VisionCodec(autoencoder, CodecConfig(class_name="AutoencoderKLWan"))


@pytest.fixture(scope="session")
def sound_codec() -> AudioCodec:
    autoencoder = AutoencoderLogMel(LogMelConfig(latent_channels=6, bands=16, iterations=2))
    return AudioCodec(autoencoder, AudioCodecConfig("AutoencoderLogMel"))


@pytest.fixture(scope="session")
def every(tokenizer: TextTokenizer, film_codec: VisionCodec, sound_codec: AudioCodec) -> Omni:
    """A model of every modality."""
    config = OmniConfig(
        num_text_ids=tokenizer.num_text_ids,
        num_control_ids=tokenizer.vocab_size - tokenizer.num_text_ids,
        experts=EXPERTS["experts"] | {"audio": {"width": 16, "ffn_dim": 24}},
        streams=EXPERTS["streams"] | {"audio": {"channels": 6, "patch_size": 1, "expert": "audio", "base_tokens": 8}},
        stream_of={"image": "vision", "video": "vision", "audio": "audio"},
        **SIZES,
    )
    torch.manual_seed(0)
    defaults = Defaults(steps=2, max_block_tokens=8, max_video_tokens=16, max_audio_tokens=60)
    return Omni(randomise(OmniModel(config)), tokenizer, {"vision": film_codec, "audio": sound_codec}, defaults)


@pytest.fixture
def make_model() -> Callable[..., OmniModel]:
    def make(config: OmniConfig, seed: int = 0) -> OmniModel:
        torch.manual_seed(seed)
        return randomise(OmniModel(config), seed)

    return make


@pytest.fixture
def conversation(tmp_path: Path) -> "Conversation":
    """An empty conversation of the demo."""
    from demo.session import Conversation

    return Conversation(tmp_path / "talk")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A grey picture to upload."""
    path = tmp_path / "photo.png"
    PILImage.fromarray(np.full((64, 64, 3), 200, np.uint8)).save(path)
    return path
