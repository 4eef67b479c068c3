"""Adapters (LoRA, arXiv:2106.09685) of peft on a model: loaded by name, weighted, switched, merged, taken off again.

An adapter folder holds what peft writes, adapter_config.json and adapter_model.safetensors, and base.json, by which
the base it was trained on is known again.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from omni.checkpoint import find_folder
from omni.errors import CheckpointError, ConfigError
from omni.model import OmniModel

__all__ = ["BASE_FILE", "Adapters", "base_weights", "check_base", "fingerprint"]

CONFIG_FILE, WEIGHTS_FILE, BASE_FILE = "adapter_config.json", "adapter_model.safetensors", "base.json"
# A fingerprint holds a few numbers of so many weights. They survive bfloat16; another training changes nearly all.
NUM_SAMPLED, SAMPLED_PLACES, TOLERANCE, SHARE_ALIKE = 48, (0.2, 0.5, 0.8), 0.01, 0.9


def base_weights(model: OmniModel) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights of a model without those of adapters, under the names that they have without them."""
    for name, weight in model.named_parameters():
        if "lora_" not in name and "trainable_tokens" not in name:
            yield name.replace(".token_adapter", "").replace(".base_layer", ""), weight


def fingerprint(model: OmniModel) -> dict[str, list[float]]:
    """Sample a model's weights: name -> a few of its numbers."""
    named = sorted((name, weight) for name, weight in base_weights(model) if weight.ndim == 2)
    chosen = named[:: max(1, len(named) // NUM_SAMPLED)]
    return {name: [_sample(weight, place) for place in SAMPLED_PLACES] for name, weight in chosen}


def _sample(weight: Tensor, place: float) -> float:
    """Return the number at a share of the way through a weight."""
    return float(weight.detach().flatten()[int(place * weight.numel())])


def check_base(model: OmniModel, expected: Mapping[str, Sequence[float]], *, source: str) -> None:
    """Compare a model with the fingerprint of the base of an adapter.

    Args:
        model: to which the adapter is to be added.
        expected: as `fingerprint` made it.
        source: what errors call the adapter.

    Raises:
        CheckpointError: the model is another one.
    """
    weights = dict(base_weights(model))
    for name in expected:
        if name not in weights:
            raise CheckpointError(f"{source} is for a model with {name}, which this one lacks; load it on its own base")
    alike = [
        abs(_sample(weights[name], place) - value) <= TOLERANCE * abs(value) + 1e-6
        for name, values in expected.items()
        for place, value in zip(SAMPLED_PLACES, values, strict=True)
        if weights[name].is_floating_point()  # quantised weights say nothing
    ]
    if alike and sum(alike) < SHARE_ALIKE * len(alike):
        raise CheckpointError(
            f"{source} was trained on another base: {sum(alike)} of {len(alike)} sampled weights agree; "
            "load it on the model that it was trained on"
        )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); an adapter folder needs it: restore it") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} is no JSON object; restore the file")
    return values


def _read_weights(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} is missing or damaged ({error}); restore the file") from error


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise ConfigError("adapters need peft, which is not installed; pip install peft") from error
    return peft


class Adapters:
    """The adapters of one model; the model itself is changed in place, and is as before once all are unloaded.

    Args:
        model: the base.
    """

    def __init__(self, model: OmniModel) -> None:
        self.model = model
        self._peft: Any = None
        self._weights: dict[str, float] = {}
        self._active: list[str] = []
        self._was_trained: dict[str, bool] = {}
        self._tokens: dict[str, Tensor] = {}

    @property
    def names(self) -> list[str]:
        """The adapters that are loaded, in the order of loading."""
        return list(self._weights)

    @property
    def active(self) -> dict[str, float]:
        """The adapters that take part, with their weights."""
        return {name: self._weights[name] for name in self._active}

    def load(self, path: str | Path, *, name: str = "default", weight: float = 1.0) -> None:
        """Load an adapter and let it take part, beside those that do already.

        Args:
            path: its folder, or its name on the Hugging Face Hub.
            name: under which it is known here.
            weight: how strongly it acts; 0 not at all, 1 as trained.

        Raises:
            CheckpointError: the folder is incomplete or damaged, or made for another model.
            ConfigError: the name is taken or impossible, or the weight is no number.
        """
        if not re.fullmatch(r"[\w-]+", name) or name in self._weights:
            taken = f"taken; unload_adapter({name!r}) first" if name in self._weights else "no name; use letters"
            raise ConfigError(f"the adapter name {name!r} is {taken}")
        _check_weight(weight)
        folder = find_folder(path, files=(CONFIG_FILE, WEIGHTS_FILE, BASE_FILE))
        kind = _read_json(folder / CONFIG_FILE).get("peft_type")
        if kind != "LORA":
            raise CheckpointError(f"{folder / CONFIG_FILE}: peft_type is {kind!r}; only LORA adapters are loaded")
        state = _read_weights(folder / WEIGHTS_FILE)
        if (folder / BASE_FILE).is_file():
            check_base(self.model, _read_json(folder / BASE_FILE).get("weights", {}), source=str(folder))
        self._add(folder, state, name)
        self._weights[name] = float(weight)
        self.set([*self._active, name])

    def _add(self, folder: Path, state: dict[str, Tensor], name: str) -> None:
        """Put an adapter's modules into the model, and its weights into them; on failure leave none of it behind."""
        peft = _peft()
        try:
            config = peft.LoraConfig.from_pretrained(str(folder))
            config.inference_mode = True
            if self._peft is None:
                self._was_trained = {key: p.requires_grad for key, p in self.model.named_parameters()}
                self._peft = peft.PeftModel(self.model, config, adapter_name=name)
            else:
                self._peft.add_adapter(name, config)
            expected = peft.get_peft_model_state_dict(self._peft, adapter_name=name, save_embedding_layers=False)
            _check_keys({k: v.shape for k, v in expected.items()}, {k: v.shape for k, v in state.items()}, folder)
            peft.set_peft_model_state_dict(self._peft, state, adapter_name=name)
        except CheckpointError:
            self._remove(name)
            raise
        except (ValueError, TypeError, RuntimeError, KeyError) as error:
            self._remove(name)
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise CheckpointError(f"{folder} does not fit this model ({first}); load it on its own base") from error
        for key, value in state.items():
            if "trainable_tokens_delta" in key:
                self._tokens[name] = value

    def set(self, names: str | Sequence[str], *, weights: Sequence[float] | float | None = None) -> None:
        """Choose which of the loaded adapters take part.

        Args:
            names: one, several (their changes add up), or none of them, [].
            weights: as many; the ones that they have where left out.

        Raises:
            ConfigError: a name is not loaded, the weights are not as many, or two of them train the same tokens.
        """
        chosen = [names] if isinstance(names, str) else list(dict.fromkeys(names))
        for name in chosen:
            if name not in self._weights:
                known = ", ".join(self._weights) or "none"
                raise ConfigError(f"no adapter is called {name!r}; loaded are {known}")
        if weights is not None:
            given = [weights] if isinstance(weights, (int, float)) else list(weights)
            if len(given) != len(chosen):
                raise ConfigError(f"{len(chosen)} adapters need as many weights, not {len(given)}")
            for name, weight in zip(chosen, given, strict=True):
                _check_weight(weight)
                self._weights[name] = float(weight)
        self._check_tokens(chosen)
        self._active = chosen
        if self._peft is not None:
            self._apply()

    def _check_tokens(self, names: Sequence[str]) -> None:
        owner: dict[int, str] = {}
        for layer in self._token_layers():
            for name in names:
                for token in layer.token_indices.get(name, ()):
                    if owner.setdefault(token, name) != name:
                        raise ConfigError(
                            f"{owner[token]!r} and {name!r} both replace the embedding of token {token}; "
                            "choose one of them"
                        )

    def _token_layers(self) -> list[Any]:
        if self._peft is None:
            return []
        from peft.tuners.trainable_tokens import TrainableTokensLayer

        layers = [m for m in self.model.modules() if isinstance(m, TrainableTokensLayer)]
        return [layer for layer in layers if not layer.tied_adapter]

    @torch.no_grad()
    def _apply(self) -> None:
        from peft.tuners.lora import LoraLayer

        self._peft.base_model.set_adapter(self._active, inference_mode=True)
        self._peft.base_model.set_requires_grad(self.names, requires_grad=False)
        for module in self.model.modules():
            if isinstance(module, LoraLayer):
                for name in self._active:
                    module.set_scale(name, self._weights[name])
        for layer in self._token_layers():
            for name in self._active:
                if name in layer.trainable_tokens_delta:
                    delta, plain = layer.trainable_tokens_delta[name], layer.trainable_tokens_original[name]
                    delta.data.copy_(plain.lerp(self._tokens[name].to(plain), self._weights[name]))

    def unload(self, name: str | None = None) -> None:
        """Take an adapter off, or all of them; with the last one gone the base is what it was, bit for bit.

        Raises:
            ConfigError: it is not loaded.
        """
        for each in list(self._weights) if name is None else [name]:
            if each not in self._weights:
                known = ", ".join(self._weights) or "none"
                raise ConfigError(f"no adapter is called {each!r}; loaded are {known}")
            del self._weights[each]
            self._remove(each)
        self.set([each for each in self._active if each in self._weights])

    def _remove(self, name: str) -> None:
        self._tokens.pop(name, None)
        if self._peft is None:
            return
        if self._weights:
            if name in self._peft.peft_config:
                self._peft.base_model.set_adapter(list(self._weights), inference_mode=True)
                self._peft.delete_adapter(name)
            return
        self._peft.base_model.unload()
        self._restore()

    def merge(self) -> None:
        """Add the changes of the active adapters to the base's own weights, and unload all; there is no way back.

        Raises:
            ConfigError: no adapter is active.
        """
        if not self._active:
            raise ConfigError("no adapter is active; load one before merging")
        self._peft.base_model.merge_and_unload(adapter_names=self._active)
        self._weights.clear()
        self._active = []
        self._restore()

    def _restore(self) -> None:
        """Put back what peft changed about the model beside its modules."""
        for key, parameter in self.model.named_parameters():
            parameter.requires_grad_(self._was_trained.get(key, parameter.requires_grad))
        if "peft_config" in self.model.__dict__:
            del self.model.__dict__["peft_config"]
        self._peft = None

    def require_none(self, action: str) -> None:
        """Refuse to go on with adapters loaded.

        Args:
            action: what cannot be done, for the error.

        Raises:
            ConfigError: an adapter is loaded.
        """
        if self._weights:
            raise ConfigError(
                f"{action} with adapters loaded ({', '.join(self._weights)}) would mix them in; "
                "call merge_adapters() to keep their changes, or unload_adapter() first"
            )


def _check_weight(weight: Any) -> None:
    if not isinstance(weight, (int, float)) or isinstance(weight, bool) or weight != weight:
        raise ConfigError(f"the adapter's weight is {weight!r}; give a number, 1 for as trained")


def _check_keys(expected: Mapping[str, Any], given: Mapping[str, Any], folder: Path) -> None:
    """Compare names and shapes; peft itself only warns, and leaves what is missing at random."""
    for key in sorted(expected.keys() | given.keys()):
        if key not in given:
            raise CheckpointError(f"{folder / WEIGHTS_FILE} lacks {key}, which {CONFIG_FILE} asks for; restore both")
        if key not in expected:
            raise CheckpointError(
                f"{folder / WEIGHTS_FILE} holds {key}, which this model has no place for; load it on its own base"
            )
        if tuple(expected[key]) != tuple(given[key]):
            raise CheckpointError(
                f"{folder / WEIGHTS_FILE}: {key} is {list(given[key])}, this model takes {list(expected[key])}; "
                "load it on its own base"
            )
