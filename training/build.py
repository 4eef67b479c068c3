"""What a run trains: the model, new, from a folder, or around a language model; its tokenizer and codecs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from omni.adapters import fingerprint
from omni.checkpoint import HUB_FILES, find_folder
from omni.codecs import codec_class
from omni.config import OmniConfig
from omni.errors import ConfigError
from omni.model import OmniModel
from omni.text import TextTokenizer
from training.config import TrainConfig
from training.grow import begin_with
from training.lora import add_lora

__all__ = ["Parts", "build_model", "build_parts", "load_codecs"]


@dataclass
class Parts:
    """What a run trains, and what goes with it.

    Attributes:
        model: with an adapter inside, and with frozen weights, where the config says so.
        tokenizer: of the text.
        adapter: peft's wrapper of the model; None where the run makes none.
        base: fingerprint of the model before training, for the adapter.
    """

    model: OmniModel
    tokenizer: TextTokenizer
    adapter: Any = None
    base: dict[str, list[float]] | None = None


def build_model(config: TrainConfig, tokenizer: TextTokenizer) -> OmniModel:
    """Make the model of a run that is not built on a language model.

    New weights, or those of `start`, or, with both `start` and `model`, a larger model that begins with the
    weights of `start`: experts, streams, layers and control ids may be added, and experts be wider.

    Raises:
        ConfigError: `model` has no place for a weight of `start`.
    """
    started = None
    if config.start is not None:
        from omni.checkpoint import load_folder

        started = load_folder(config.start, dtype=torch.float32)[0]
        if config.model is None:
            return started
    assert config.model is not None, "the config has checked that there is either start or model"
    num_control = tokenizer.vocab_size - tokenizer.num_text_ids
    torch.manual_seed(config.seed)
    try:
        made = OmniConfig(num_text_ids=tokenizer.num_text_ids, num_control_ids=num_control, **config.model)
    except TypeError as error:
        raise ConfigError(f"model: {error}; its settings are those of omni.config.OmniConfig") from error
    model = OmniModel(made)
    if started is not None:
        begin_with(model, started)
    return model


def build_parts(config: TrainConfig) -> Parts:
    """Make everything that a run trains.

    Raises:
        ConfigError, CheckpointError: a folder is missing or damaged, or settings do not fit it.
    """
    parts = _around_language_model(config) if config.llm is not None else _from_start_or_new(config)
    if config.experts is not None:
        train_only(parts.model, config.experts)
    return parts


def _from_start_or_new(config: TrainConfig) -> Parts:
    folder = config.tokenizer
    if folder is None:
        folder = str(find_folder(str(config.start), files=HUB_FILES) / "tokenizer")
    tokenizer = TextTokenizer.from_folder(folder)
    model = build_model(config, tokenizer)
    if model.config.num_text_ids != tokenizer.num_text_ids:
        raise ConfigError(
            f"tokenizer {folder} has {tokenizer.num_text_ids} text ids, the model {model.config.num_text_ids}; "
            "leave tokenizer out to take the model's own"
        )
    if config.lora is None:
        return Parts(model, tokenizer)
    base = fingerprint(model)
    torch.manual_seed(config.seed)
    adapter = add_lora(model, tokenizer, config.lora, base=str(config.start))
    return Parts(model, tokenizer, adapter, base)


def _around_language_model(config: TrainConfig) -> Parts:
    from omni.llm import from_language_model

    settings = {name: value for name, value in (config.model or {}).items() if name != "llm"}
    allowed = {"streams", "stream_of", "experts", "prediction"}
    for name in settings:
        if name not in allowed:
            known = ", ".join(sorted(allowed))
            raise ConfigError(f"model.{name} comes from the language model; beside llm give {known}")
    model, tokenizer = from_language_model(str(config.llm), seed=config.seed, **settings)
    if config.tokenizer is not None:
        raise ConfigError("tokenizer is the language model's own; leave it out")
    if config.text == "trained":
        return Parts(model, tokenizer)
    _check_freezing(config, model.config)
    adapter = None
    if config.text == "lora":
        assert config.lora is not None
        torch.manual_seed(config.seed)
        adapter = add_lora(model, tokenizer, config.lora, base=str(config.llm))
    freeze_text(model)
    return Parts(model, tokenizer, adapter)


def _check_freezing(config: TrainConfig, model: OmniConfig) -> None:
    shared = [name for name, stream in model.streams.items() if stream["expert"] == model.text_expert]
    if shared:
        raise ConfigError(
            f"text is {config.text!r}, but model.streams.{shared[0]}.expert is the text expert itself; "
            "give the stream an expert of its own"
        )
    if config.optimizer.weight_decay:
        raise ConfigError(f"text is {config.text!r}: set optimizer.weight_decay to 0, it would wear frozen rows down")


def freeze_text(model: OmniModel) -> None:
    """Freeze a language model's weights; adapters, media and the rows of control ids stay trained."""
    first_control = model.config.num_text_ids
    text = f".experts.{model.config.text_expert}."
    for name, parameter in model.named_parameters():
        is_adapter = ".lora_" in name
        parameter.requires_grad_(is_adapter or not (text in name or name == "norm.weight"))

    def keep_words(gradient: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(gradient[:first_control]), gradient[first_control:]])

    for matrix in {model.embed_tokens.weight, model.lm_head.weight}:
        matrix.register_hook(keep_words)


def train_only(model: OmniModel, experts: Sequence[str]) -> None:
    """Freeze everything but some experts: their layers, the projections of their streams, and with text's the words.

    Raises:
        ConfigError: the model has no such expert.
    """
    config = model.config
    parts = ["embed_tokens.", "lm_head.", "norm."] if config.text_expert in experts else []
    for expert in experts:
        if expert not in config.experts:
            raise ConfigError(f"experts names {expert!r}; the model's are {', '.join(config.experts)}")
        streams = [name for name, stream in config.streams.items() if stream["expert"] == expert]
        parts += [f"modulations.{expert}.", *(f"latent_embeddings.{stream}." for stream in streams)]
    for name, parameter in model.named_parameters():
        is_inside = any(f".experts.{expert}." in name for expert in experts)
        parameter.requires_grad_(is_inside or name.startswith(tuple(parts)))


class Codecs(Mapping[str, Any]):
    """Codecs by stream, each loaded when it is first asked for.

    Args:
        folders: stream -> codec folder.
    """

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self.folders = dict(folders)
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, stream: str) -> Any:
        if stream not in self._loaded:
            self._loaded[stream] = codec_class(stream).from_folder(self.folders[stream])
        return self._loaded[stream]

    def __iter__(self) -> Iterator[str]:
        return iter(self.folders)

    def __len__(self) -> int:
        return len(self.folders)


def load_codecs(config: TrainConfig) -> Codecs:
    """Find the codecs of a run: those that it names, else those of `start`."""
    folders = {name: Path(folder) for name, folder in config.codecs.items()}
    if config.start is not None:
        own = find_folder(config.start, files=HUB_FILES) / "codecs"
        folders = {path.name: path for path in sorted(own.glob("*")) if path.is_dir()} | folders
    return Codecs(folders)
