"""Training from a language model: its text trained, frozen or changed by LoRA; and what an export gives."""

from pathlib import Path

import pytest
import torch
from tests.test_llm import KINDS, SIZES, write_tokenizer
from tests.test_training import encoded

from omni.errors import ConfigError
from omni.llm import from_language_model
from omni.model import OmniModel
from training.build import build_parts
from training.checkpoint import latest_checkpoint, load_checkpoint
from training.config import TrainConfig, load_config
from training.export import export
from training.loop import train

STREAMS = {"vision": {"channels": 4, "patch_size": 2, "expert": "vision", "base_tokens": 4}}
REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="module", params=["qwen3-tied", "llama"])
def llm(request, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    config_class, model_class, own = KINDS[request.param]
    torch.manual_seed(0)
    model_class(config_class(**(SIZES | own))).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def settings(llm: Path, folder: Path, **others) -> TrainConfig:
    values = {
        "output": str(folder / "run"),
        "precision": "float32",
        "model": {"llm": str(llm), "streams": STREAMS, "experts": {"vision": {"width": 24, "ffn_dim": 40}}},
        "data": {"path": str(encoded(folder / "data")), "validation_documents": 0},
        "batch": {"row_length": 128, "num_rows": 1, "num_noisy": 1},
        "schedule": {"steps": 3, "warmup": 1},
        "report": {"save_every": 3},
    }
    return TrainConfig.model_validate(values | others)


def trained(config: TrainConfig) -> tuple[OmniModel, dict[str, torch.Tensor]]:
    """Train; return the model as it began, and the weights that the checkpoint holds."""
    train(config)
    path = latest_checkpoint(Path(config.output))
    assert path is not None
    return build_parts(config).model, load_checkpoint(path)["engine"]["model"]


def test_frozen_text_stays_and_control_rows_move(llm, tmp_path):
    config = settings(llm, tmp_path, text="frozen")
    before, after = trained(config)
    assert not any(".experts.text." in name or name == "norm.weight" for name in after)
    assert any(".experts.vision." in name for name in after)
    words = before.config.num_text_ids
    for name in ("embed_tokens.weight", "lm_head.weight"):
        if name in after:
            old = before.get_parameter(name)
            assert torch.equal(after[name][:words], old[:words])
            assert not torch.equal(after[name][words:], old[words:])


def test_lora_on_text_moves_and_exports_merged(llm, tmp_path):
    config = settings(llm, tmp_path, text="lora", lora={"rank": 2, "targets": ["text"]})
    before, after = trained(config)
    moved = [name for name, value in after.items() if ".experts.text." in name and ".lora_B." in name and value.any()]
    assert moved and not any(".experts.text." in name and ".lora_" not in name for name in after)
    export(config, out=tmp_path / "model", source="x", dtype=torch.float32)
    model = OmniModel.from_pretrained(tmp_path / "model")
    plain = from_language_model(llm, streams=STREAMS, experts={"vision": {"width": 24, "ffn_dim": 40}})[0]
    assert {n for n, _ in model.named_parameters()} == {n for n, _ in plain.named_parameters()}
    weight = "layers.0.experts.text.down_proj.weight"
    assert not torch.equal(model.get_parameter(weight), plain.get_parameter(weight))
    weight = "layers.0.experts.text.input_norm.weight"
    assert torch.equal(model.get_parameter(weight), plain.get_parameter(weight))


def test_one_expert_alone_is_trained(llm, tmp_path):
    config = settings(llm, tmp_path, experts=["vision"])
    before, after = trained(config)
    assert set(after) == {
        name
        for name, _ in before.named_parameters()
        if ".experts.vision." in name or name.startswith(("modulations.vision.", "latent_embeddings.vision."))
    }
    assert not torch.equal(after[weight := "layers.0.experts.vision.q_proj.weight"], before.get_parameter(weight))
    export(config, out=tmp_path / "model", source="x", dtype=torch.float32)
    exported = dict(OmniModel.from_pretrained(tmp_path / "model").named_parameters())
    assert all(torch.equal(exported[name], p) for name, p in before.named_parameters() if name not in after)
    with pytest.raises(ConfigError, match="experts names 'smell'; the model's are text, vision"):
        build_parts(settings(llm, tmp_path, experts=["smell"]))


def test_text_expert_alone_has_the_words(llm, tmp_path):
    model = build_parts(settings(llm, tmp_path, experts=["text"])).model
    moved = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {"embed_tokens.weight", "norm.weight", "layers.0.experts.text.q_proj.weight"} <= moved
    assert not any("vision" in name or name.startswith("sigma_embedding") for name in moved)


def test_trained_text_moves(llm, tmp_path):
    before, after = trained(settings(llm, tmp_path))
    name = "layers.1.experts.text.q_proj.weight"
    assert not torch.equal(after[name], before.get_parameter(name))


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"text": "lora"}, "add a lora section"),
        ({"text": "frozen", "model": {"num_layers": 2}, "tokenizer": "x"}, "for runs with model.llm"),
        ({"start": "x"}, "both say what to start from"),
        ({"lora": {}}, "lora needs start"),
        ({"text": "frozen", "experts": ["vision"]}, "all say what is trained"),
    ],
)
def test_impossible_combinations_are_refused(tmp_path, others, message):
    with pytest.raises(ValueError, match=message):
        settings(tmp_path / "llm", tmp_path, **others)


def test_freezing_needs_experts_of_their_own(llm, tmp_path):
    streams = {"vision": STREAMS["vision"] | {"expert": "text"}}
    shared = settings(llm, tmp_path, text="frozen", model={"llm": str(llm), "streams": streams})
    with pytest.raises(ConfigError, match="an expert of its own"):
        build_parts(shared)
    sized = settings(llm, tmp_path, model={"llm": str(llm), "streams": STREAMS, "num_layers": 3})
    with pytest.raises(ConfigError, match="model.num_layers comes from the language model"):
        build_parts(sized)
    decayed = settings(llm, tmp_path, text="frozen", optimizer={"weight_decay": 0.1})
    with pytest.raises(ConfigError, match="weight_decay"):
        build_parts(decayed)


@pytest.mark.parametrize("name", ["from_llm", "lora", "nano"])
def test_shipped_configs_load(name):
    assert load_config(REPOSITORY / "configs" / "train" / f"{name}.yaml").schedule.steps > 0
