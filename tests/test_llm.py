"""A language model inside: its weights in the text expert, its logits unchanged."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

from omni.config import OmniConfig
from omni.errors import CheckpointError, ConfigError
from omni.llm import from_language_model
from omni.model import OmniModel
from omni.reader import Reader
from omni.sequence import TextRun, flatten, pack

VOCABULARY = 300
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 1024}
WINDOW = {"use_sliding_window": True, "sliding_window": 4, "layer_types": None}
KINDS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, {"head_dim": 16}),
    "qwen3-tied": (Qwen3Config, Qwen3ForCausalLM, {"head_dim": 8, "tie_word_embeddings": True}),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}),
    "qwen2-tied": (Qwen2Config, Qwen2ForCausalLM, {"tie_word_embeddings": True}),
    "llama": (LlamaConfig, LlamaForCausalLM, {"rms_norm_eps": 1e-5, "num_key_value_heads": 4}),
    "llama-tied": (LlamaConfig, LlamaForCausalLM, {"tie_word_embeddings": True, "num_key_value_heads": 1}),
    "llama-llama3": (LlamaConfig, LlamaForCausalLM, {"rope_parameters": LLAMA3, "tie_word_embeddings": True}),
    "llama-linear": (LlamaConfig, LlamaForCausalLM, {"rope_parameters": {"rope_type": "linear", "factor": 2.0}}),
    "qwen3-yarn": (Qwen3Config, Qwen3ForCausalLM, {"head_dim": 8, "rope_parameters": YARN}),
}
Make = Callable[..., tuple[Path, Any]]


def write_tokenizer(folder: Path) -> None:
    """Write a byte-level BPE, smaller than the embedding, as language models have it."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=280, initial_alphabet=alphabet, special_tokens=["<|im_end|>"])
    tokenizer.train_from_iterator(["Draw a small red fox on a blue background."] * 9, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    made: dict[str, tuple[Path, Any]] = {}

    def make_one(kind: str, **settings: Any) -> tuple[Path, Any]:
        """Write a language model whose every weight is far from zero and from one; remember the plain ones."""
        key = kind + json.dumps(settings)
        if key not in made:
            config_class, model_class, own = KINDS[kind]
            torch.manual_seed(0)
            model = model_class(config_class(**(SIZES | own | settings))).eval()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(0.2 * torch.randn_like(parameter))
            folder = tmp_path_factory.mktemp("llm")
            model.save_pretrained(folder)
            write_tokenizer(folder)
            made[key] = folder, model
        return made[key]

    return make_one


def some_ids(count: int) -> list[int]:
    return torch.randint(VOCABULARY, (count,), generator=torch.Generator().manual_seed(1)).tolist()


@torch.no_grad()
def read_text(model: OmniModel, ids: list[int]) -> torch.Tensor:
    """Return the logits after every id, those of old ids alone, [L, V]."""
    batch = pack([[flatten([TextRun(tuple(ids))], model.config)]])
    batch.logit_index = torch.arange(len(ids))
    logits = model(batch).logits
    assert logits is not None
    return logits[:, :VOCABULARY]


@torch.no_grad()
def expected_logits(llm: Any, ids: list[int]) -> torch.Tensor:
    return llm(torch.tensor([ids])).logits[0]


@pytest.mark.parametrize("kind", KINDS)
def test_text_logits_equal_the_language_models(make: Make, kind: str) -> None:
    folder, llm = make(kind)
    model, _ = from_language_model(folder)
    ids = some_ids(200)
    expected = expected_logits(llm, ids)
    assert expected.std() > 0.5  # far enough from zero for the comparison to mean something
    torch.testing.assert_close(read_text(model, ids), expected, atol=1e-5, rtol=1e-5)


def test_text_logits_are_the_same_far_into_a_text(make: Make) -> None:
    folder, llm = make("llama")
    model, _ = from_language_model(folder)
    ids = some_ids(1500)
    torch.testing.assert_close(read_text(model, ids), expected_logits(llm, ids), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["qwen3-tied", "qwen2", "llama-llama3"])
@torch.no_grad()
def test_text_logits_through_the_cache_equal_the_language_models(make: Make, kind: str) -> None:
    folder, llm = make(kind)
    model, _ = from_language_model(folder)
    ids = some_ids(40)
    expected = expected_logits(llm, ids)
    reader = Reader(model, num_rows=1)
    cuts = [0, 20, 21, 22, 40]
    for start, end in zip(cuts, cuts[1:], strict=False):
        logits = reader.append([0], [ids[start:end]])
        torch.testing.assert_close(logits[0, :VOCABULARY], expected[end - 1], atol=1e-5, rtol=1e-5)


VISION = {"channels": 4, "patch_size": 2, "base_tokens": 4}


@pytest.mark.parametrize("expert", ["vision", "text"])
def test_text_logits_are_the_same_beside_pictures(make: Make, expert: str) -> None:
    """A document that ends in a picture: in training, where all experts run, and with one expert for all."""
    from tests.test_model import picture

    folder, llm = make("qwen3-tied")
    model, _ = from_language_model(folder, streams={"vision": VISION | {"expert": expert}})
    ids = some_ids(30)
    batch = pack([[flatten([TextRun(tuple(ids)), picture(model.config, 1)], model.config)]])
    batch.logit_index = torch.arange(len(ids))
    with torch.no_grad():
        logits = model.train()(batch).logits
    torch.testing.assert_close(logits[:, :VOCABULARY], expected_logits(llm, ids), atol=1e-5, rtol=1e-5)


def test_experts_of_equal_sizes_get_the_weights_and_others_do_not(make: Make) -> None:
    folder, llm = make("qwen2")
    weight = llm.state_dict()["model.layers.1.self_attn.k_proj.weight"]
    equal, _ = from_language_model(folder)
    assert torch.equal(equal.layers[1].experts["vision"].k_proj.weight, weight)
    narrow, _ = from_language_model(folder, experts={"vision": {"width": 24}})
    assert narrow.config.experts == {"text": {"width": 32, "ffn_dim": 48}, "vision": {"width": 24, "ffn_dim": 48}}
    assert torch.equal(narrow.layers[1].experts["text"].k_proj.weight, weight)
    assert narrow.layers[1].experts["vision"].k_proj.weight.shape == (16, 24)
    again, _ = from_language_model(folder, experts={"vision": {"width": 24}})
    assert all(torch.equal(a, b) for a, b in zip(narrow.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize("kind", ["qwen3", "qwen3-tied"])
def test_control_rows_are_new_and_about_the_mean(make: Make, kind: str) -> None:
    folder, llm = make(kind)
    model, tokenizer = from_language_model(folder)
    assert model.config.vocab_size == tokenizer.vocab_size and tokenizer.num_text_ids == VOCABULARY
    old = llm.get_output_embeddings().weight
    rows = model.lm_head.weight
    assert torch.equal(rows[:VOCABULARY], old)
    assert (model.embed_tokens.weight is rows) == (kind == "qwen3-tied")
    new = rows[VOCABULARY:]
    assert len(new) == model.config.num_control_ids and len(new.unique(dim=0)) == len(new)
    assert (new.mean(0) - old.mean(0)).abs().max() < 0.05
    assert new.std(0).max() < old.std(0).min()


@pytest.mark.parametrize("kind", ["qwen3", "qwen2-tied", "llama-llama3", "qwen3-yarn"])
def test_saved_equals_loaded_bit_for_bit(make: Make, kind: str, tmp_path: Path) -> None:
    model, _ = from_language_model(make(kind)[0])
    model.save_pretrained(tmp_path)
    loaded = OmniModel.from_pretrained(tmp_path, dtype=torch.float32)
    mine, theirs = model.state_dict(), loaded.state_dict()
    assert mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert loaded.config.to_dict() | {"_name_or_path": ""} == model.config.to_dict()
    ids = some_ids(20)
    assert torch.equal(read_text(loaded.eval(), ids), read_text(model, ids))


def test_tokenizer_gives_the_language_models_ids(make: Make) -> None:
    folder, _ = make("qwen3")
    _, tokenizer = from_language_model(folder)
    text = "Draw a small blue fox.\n"
    own = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert tokenizer.encode(text) == own.encode(text).ids
    assert max(tokenizer.encode("<|im_end|><|image|>")) < VOCABULARY
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_weights_come_in_the_dtype_asked_for(make: Make) -> None:
    model, _ = from_language_model(make("qwen2")[0], dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def change_config(folder: Path, target: Path, **changes: Any) -> Path:
    """Copy a model folder with another config.json."""
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    values = json.loads((folder / "config.json").read_text()) | changes
    (target / "config.json").write_text(json.dumps(values))
    return target


@pytest.mark.parametrize(
    ("kind", "changes", "named"),
    [
        ("llama", {"model_type": "gpt2"}, "model_type"),
        ("llama", {"model_type": "qwen3_moe"}, "model_type"),
        ("llama", {"model_type": None}, "model_type"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act"),
        ("llama", {"attention_bias": True}, "attention_bias"),
        ("qwen3", {"attention_bias": True}, "attention_bias"),
        ("llama", {"mlp_bias": True}, "mlp_bias"),
        ("qwen2", WINDOW | {"max_window_layers": 1}, "layer_types"),
        ("qwen3", {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "rope_type"),
        ("llama", {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ("llama", {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}}, "quantization"),
    ],
)
def test_what_cannot_be_exact_is_refused(make: Make, tmp_path: Path, kind: str, changes: Any, named: str) -> None:
    folder = change_config(make(kind)[0], tmp_path, **changes)
    with pytest.raises(ConfigError, match=named) as caught:
        from_language_model(folder)
    assert "\n" not in str(caught.value)


def test_an_inactive_sliding_window_is_no_obstacle(make: Make, tmp_path: Path) -> None:
    folder, llm = make("qwen2")
    model, _ = from_language_model(change_config(folder, tmp_path, **WINDOW, max_window_layers=2))
    ids = some_ids(12)
    torch.testing.assert_close(read_text(model, ids), expected_logits(llm, ids), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"experts": {"text": {"width": 16}}},
        {"experts": {"audio": {"width": 16}}},
        {"experts": {"vision": {"hidden": 16}}},
        {"experts": {"vision": {"width": 0}}},
        {"num_control_ids": 3},
        {"prediction": "noise"},
        {"streams": {"vision": {"channels": 4, "patch_size": 2, "base_tokens": 4}}},
    ],
)
def test_settings_that_do_not_fit_are_refused(make: Make, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        from_language_model(make("qwen3")[0], **wrong)


def remove_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def truncate_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def leave_a_pickle(folder: Path) -> None:
    remove_weights(folder)
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")


def remove_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def remove_config(folder: Path) -> None:
    (folder / "config.json").unlink()


@pytest.mark.parametrize("damage", [remove_weights, truncate_weights, leave_a_pickle, remove_tokenizer, remove_config])
def test_damaged_folders_are_refused(make: Make, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    folder = change_config(make("qwen3")[0], tmp_path)
    damage(folder)
    with pytest.raises(CheckpointError) as caught:
        from_language_model(folder)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_a_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no folder"):
        from_language_model(tmp_path / "nothing")


def test_configs_of_language_models_keep_their_rotary_frequencies() -> None:
    config = OmniConfig(rope_parameters=LLAMA3)
    assert config.rope_parameters["factor"] == 8.0 and config.max_position_embeddings == 512
    with pytest.raises(ConfigError, match="rope_type"):
        OmniConfig(rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0})
