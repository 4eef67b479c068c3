"""Start from a Hugging Face language model: its weights become the text expert, and its logits stay what they were."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from omni.checkpoint import find_folder
from omni.config import DEFAULT_STREAMS, ROPE_TYPES, OmniConfig
from omni.errors import CheckpointError, ConfigError
from omni.model import OmniModel
from omni.text import CONTROL_TOKENS, TextTokenizer
from omni.vocabulary import read_json

__all__ = ["from_language_model"]

FAMILIES = ("qwen3", "qwen2", "llama")
FILES = ("*.json", "*.safetensors", "*.model")
TEXT_EXPERT = "text"
RENAMED = {"input_layernorm": "input_norm", "post_attention_layernorm": "ffn_norm"}
# New rows of the embedding differ by this share of the spread of the old ones.
SPREAD_OF_NEW_ROWS = 0.1


def _refuse(values: Mapping[str, Any]) -> None:
    """Raise ConfigError for what our layers cannot hold exactly.

    Args:
        values: the language model's config.
    """
    rope = values["rope_parameters"]
    windows = [kind for kind in values.get("layer_types") or () if kind != "full_attention"]
    has_output_bias = values["model_type"] != "qwen2" and values["attention_bias"]
    refused = (
        ("hidden_act", values["hidden_act"], values["hidden_act"] != "silu", "its feed-forward is no SwiGLU"),
        ("layer_types", windows[:1], bool(windows), "attention here has no sliding window; set use_sliding_window to "
         "false in config.json (the same on texts shorter than the window)"),
        ("attention_bias", True, has_output_bias, "that is a bias on o_proj too, which is not kept here"),
        ("mlp_bias", True, bool(values.get("mlp_bias")), "the feed-forward here has no biases"),
        ("quantization_config", "set", bool(values.get("quantization_config")), "take the weights as they were before"),
        ("rope_parameters.partial_rotary_factor", rope.get("partial_rotary_factor"),
         rope.get("partial_rotary_factor", 1.0) != 1.0, "whole heads are rotated here"),
        ("rope_parameters.rope_type", rope["rope_type"], rope["rope_type"] not in ROPE_TYPES,
         'set it to "default" in config.json (for "dynamic" the same up to max_position_embeddings tokens)'),
    )  # fmt: skip
    for field, value, is_refused, reason in refused:
        if is_refused:
            raise ConfigError(f"{field} of the language model is {value!r}: {reason}, or choose another model")


def _load(folder: Path, dtype: torch.dtype) -> Any:
    """Load a causal language model of one of the families, from safetensors alone."""
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForCausalLM

    family = read_json(folder / "config.json").get("model_type")
    if family not in FAMILIES:
        raise ConfigError(
            f"{folder}: model_type is {family!r}; start from a model of {', '.join(FAMILIES)} (SmolLM2 is a llama)"
        )
    try:
        config = AutoConfig.from_pretrained(folder)
        _refuse(config.to_dict())
        model, info = AutoModelForCausalLM.from_pretrained(
            folder, config=config, dtype=dtype, use_safetensors=True, output_loading_info=True
        )
    except ConfigError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, SafetensorError, StrictDataclassError) as error:
        first = str(error).strip().splitlines()[0]
        raise CheckpointError(
            f"{folder}: the language model cannot be loaded ({first}); it needs config.json and safetensors"
        ) from error
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info[problem]:
            name = sorted(map(str, info[problem]))[0]
            raise CheckpointError(f"{folder}: {problem.replace('_', ' ')}, {name} among them; restore the weights")
    return model


def _expert_sizes(
    streams: Mapping[str, Mapping[str, Any]], given: Mapping[str, Mapping[str, int]], like: Mapping[str, int]
) -> dict[str, dict[str, int]]:
    """Return the sizes of every expert: of text as the language model's, of media as given, else as text's."""
    names = dict.fromkeys([TEXT_EXPERT, *(stream.get("expert", TEXT_EXPERT) for stream in streams.values())])
    for name, sizes in given.items():
        if name == TEXT_EXPERT or name not in names:
            others = ", ".join(sorted(set(names) - {TEXT_EXPERT})) or "none"
            raise ConfigError(f"experts names {name!r}; sizes can be given for the experts of streams: {others}")
        unknown = set(sizes) - set(like)
        if unknown:
            raise ConfigError(f"experts.{name}.{sorted(unknown)[0]} is unknown; give {' and '.join(like)}")
    return {name: dict(like) | dict(given.get(name, {})) for name in names}


def _rope_parameters(theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters from which our frequencies are the language model's, to the last bit.

    Its unscaled ones are written as scaled by 1: the last bits of our own formula differ, which thousands of
    tokens into a text is no longer nothing.
    """
    ours = {key: value for key, value in theirs.items() if key != "type"}
    return ours if ours["rope_type"] != "default" else ours | {"rope_type": "linear", "factor": 1.0}


def _omni_config(values: Mapping[str, Any], **ours: Any) -> OmniConfig:
    """Translate a language model's config; `ours` is what it does not know."""
    num_heads = values["num_attention_heads"]
    return OmniConfig(
        num_text_ids=values["vocab_size"],
        num_layers=values["num_hidden_layers"],
        num_heads=num_heads,
        num_kv_heads=values["num_key_value_heads"],
        head_dim=values.get("head_dim") or values["hidden_size"] // num_heads,
        text_expert=TEXT_EXPERT,
        norm_eps=values["rms_norm_eps"],
        rope_parameters=_rope_parameters(values["rope_parameters"]),
        attention_bias=values["model_type"] == "qwen2",
        qk_norm=values["model_type"] == "qwen3",
        tie_word_embeddings=values["tie_word_embeddings"],
        **ours,
    )


def _extend(rows: Tensor, old: Tensor, generator: torch.Generator) -> None:
    """Fill a vocabulary matrix: the old rows first, new ones about their mean, so that they start as likely as any."""
    known = old.float()
    noise = torch.randn(len(rows) - len(old), rows.shape[1], generator=generator)
    rows[: len(old)] = old
    rows[len(old) :] = known.mean(0) + SPREAD_OF_NEW_ROWS * known.std(0) * noise


@torch.no_grad()
def _copy_weights(model: OmniModel, state: Mapping[str, Tensor], generator: torch.Generator) -> None:
    """Copy every weight of a language model, those of layers into each expert of the text expert's sizes."""
    experts = model.config.experts
    equals = [name for name, sizes in experts.items() if sizes == experts[model.config.text_expert]]
    _extend(model.embed_tokens.weight, state["model.embed_tokens.weight"], generator)
    if not model.config.tie_word_embeddings:
        _extend(model.lm_head.weight, state["lm_head.weight"], generator)
    model.norm.weight.copy_(state["model.norm.weight"])
    for name, weight in state.items():
        if name.startswith("model.layers."):
            _, _, layer, *_, module, kind = name.split(".")
            for expert in equals:
                ours = f"layers.{layer}.experts.{expert}.{RENAMED.get(module, module)}.{kind}"
                parameter = model.get_parameter(ours)
                assert parameter.shape == weight.shape, f"{ours} is {parameter.shape}, {name} {weight.shape}"
                parameter.copy_(weight)


def from_language_model(
    path_or_id: str | Path,
    *,
    streams: Mapping[str, Mapping[str, Any]] | None = None,
    stream_of: Mapping[str, str] | None = None,
    experts: Mapping[str, Mapping[str, int]] | None = None,
    num_control_ids: int = len(CONTROL_TOKENS),
    prediction: str = "clean",
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> tuple[OmniModel, TextTokenizer]:
    """Build a model around a language model of the Qwen3, Qwen2 or Llama family.

    On text, its logits at the language model's ids equal the language model's. Media experts of the same sizes
    start from a copy of its weights, others at random.

    Args:
        path_or_id: a folder with config.json, safetensors and tokenizer.json; or a name on the Hugging Face Hub.
        streams: as in OmniConfig; a stream whose expert is "text" shares the language model's own weights.
        stream_of: as in OmniConfig.
        experts: sizes of media experts, name -> {"width", "ffn_dim"}; what is left out is as in the language model.
        num_control_ids: rows of the vocabulary after the language model's.
        prediction: as in OmniConfig.
        seed: of everything that is not copied.
        dtype: of the weights.

    Raises:
        CheckpointError: the language model or its tokenizer cannot be loaded.
        ConfigError: its kind cannot be represented exactly, or the experts and streams do not fit it.
    """
    if num_control_ids < len(CONTROL_TOKENS):
        raise ConfigError(f"num_control_ids is {num_control_ids}; give at least {len(CONTROL_TOKENS)}, as there are")
    folder = find_folder(path_or_id, files=FILES)
    llm = _load(folder, dtype)
    values = llm.config.to_dict()
    streams = DEFAULT_STREAMS if streams is None else streams
    like = {"width": values["hidden_size"], "ffn_dim": values["intermediate_size"]}
    config = _omni_config(
        values,
        experts=_expert_sizes(streams, experts or {}, like),
        streams=streams,
        stream_of=stream_of,
        num_control_ids=num_control_ids,
        prediction=prediction,
    )
    tokenizer = TextTokenizer.from_folder(folder, num_text_ids=config.num_text_ids)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = OmniModel(config).to(dtype)
    _copy_weights(model, llm.state_dict(), torch.Generator().manual_seed(seed))
    return model.eval(), tokenizer
