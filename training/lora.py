"""LoRA with peft: which weights an adapter changes, how it is saved, and what makes a run pointless."""

import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from omni.adapters import BASE_FILE
from omni.config import OmniConfig
from omni.errors import ConfigError
from omni.model import OmniModel
from omni.text import TextTokenizer
from training.config import Lora

__all__ = ["add_lora", "check_effect", "save_adapter", "target_pattern", "token_ids"]

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
MODALITIES_OF = {"vision": ("image", "video"), "audio": ("audio",)}


def _experts(model: OmniConfig, target: str) -> set[str]:
    """Return the experts that a target stands for.

    Raises:
        ConfigError: the model has none.
    """
    if target == "text":
        return {model.text_expert}
    if target == "all":
        return set(model.experts)
    streams = {model.stream_of[m] for m in MODALITIES_OF[target] if m in model.stream_of}
    if not streams:
        known = ", ".join(["text", *model.stream_of])
        raise ConfigError(f"lora.targets names {target!r}, which this model lacks; it knows {known}")
    return {model.streams[stream]["expert"] for stream in streams}


def target_pattern(model: OmniConfig, config: Lora) -> str:
    """Return the regular expression of the modules that an adapter changes, as peft takes it.

    Args:
        model: names of experts and streams.
        config: targets.

    Raises:
        ConfigError: a target is none of the model's.
    """
    experts = set().union(*(_experts(model, target) for target in config.targets))
    if not experts:
        raise ConfigError("lora.targets is empty; name text, vision, audio or all")
    pattern = rf"layers\.\d+\.experts\.({'|'.join(map(re.escape, sorted(experts)))})\.({'|'.join(PROJECTIONS)})"
    if config.heads:
        streams = [name for name, stream in model.streams.items() if stream["expert"] in experts]
        if not streams:
            raise ConfigError(f"lora.heads is on, but no stream belongs to lora.targets {config.targets}; leave it off")
        names = "|".join(map(re.escape, streams))
        pattern = rf"{pattern}|latent_embeddings\.({names})\.(in_proj|out_proj)"
    return pattern


def token_ids(tokenizer: TextTokenizer, words: list[str]) -> list[int]:
    """Return the ids of control tokens, by name, and of all pieces of words; with a space before and without.

    Args:
        tokenizer: of the base.
        words: such as "<|image|>" or "zorp".
    """
    ids: set[int] = set()
    for word in words:
        if re.fullmatch(r"<\|\w+\|>", word):
            ids.add(tokenizer.control(word))
        else:
            ids |= {*tokenizer.encode(word), *tokenizer.encode(" " + word)}
    return sorted(ids)


def add_lora(model: OmniModel, tokenizer: TextTokenizer, config: Lora, *, base: str) -> Any:
    """Put an adapter into a model, all other weights frozen; return peft's wrapper.

    Args:
        model: changed in place; its answers stay the same until the adapter is trained.
        tokenizer: of the base.
        config: rank, targets, tokens.
        base: name or folder of the base, for the adapter's config.

    Raises:
        ConfigError: the targets do not fit the model.
    """
    import peft

    rows = token_ids(tokenizer, config.tokens)
    wanted = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha if config.alpha is not None else config.rank,  # type: ignore[arg-type]
        lora_dropout=config.dropout,
        target_modules=target_pattern(model.config, config),
        trainable_token_indices={"embed_tokens": rows} if rows else None,
        ensure_weight_tying=bool(rows) and model.config.tie_word_embeddings,
        base_model_name_or_path=base,
    )
    with warnings.catch_warnings():  # tied rows of the embedding are found by another way than peft warns about
        warnings.simplefilter("ignore", UserWarning)
        wrapper = peft.PeftModel(model, wanted)
    # Float32, whatever the base is in: the changes of a step are small against the weights.
    for parameter in wrapper.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return wrapper


def check_effect(weights: Mapping[str, Tensor]) -> None:
    """Refuse an adapter that changes nothing.

    Args:
        weights: of the adapter, by their names in the model.

    Raises:
        ConfigError: all its changes are zero.
    """
    changes = [value for name, value in weights.items() if ".lora_B." in name]
    if changes and not any(bool(value.any()) for value in changes):
        raise ConfigError(
            "the adapter changes nothing: all its changes are zero; choose lora.targets that the data uses, "
            "or a higher learning rate"
        )


def save_adapter(wrapper: Any, folder: Path, weights: Mapping[str, Tensor], *, base: Mapping[str, Any]) -> None:
    """Write what peft and `Omni.load_adapter` read: config, weights, and the fingerprint of the base.

    Args:
        wrapper: as add_lora returned it.
        folder: there already.
        weights: of the adapter, by their names in the model.
        base: fingerprint of the model before training.
    """
    import peft
    from safetensors.torch import save_file

    named = {f"base_model.model.{name}": value for name, value in weights.items()}
    state = peft.get_peft_model_state_dict(wrapper, state_dict=named, save_embedding_layers=False)
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = wrapper.peft_config["default"]
    was, config.inference_mode = config.inference_mode, True
    config.save_pretrained(str(folder))
    config.inference_mode = was
    about = {"name": config.base_model_name_or_path, "weights": dict(base)}
    (folder / BASE_FILE).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
