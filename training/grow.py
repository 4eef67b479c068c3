"""Begin a larger model with the weights of a smaller one, so that both say the same (Net2Net, arXiv:1511.05641).

What is new in a residual stream is read by random weights and written by none, so it is nothing at first, and every new
weight gets a gradient.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from omni.errors import ConfigError
from omni.model import OmniModel

__all__ = ["begin_with"]

HEADS = ("num_heads", "num_kv_heads", "head_dim")


@torch.no_grad()
def begin_with(target: OmniModel, source: OmniModel) -> None:
    """Copy a smaller model's weights into a new, larger one; what the smaller one lacks stays new.

    Args:
        target: changed in place; it may have more experts, streams, layers and control ids, and wider experts.
        source: the smaller model.

    Raises:
        ConfigError: a weight has no place.
    """
    if source.config.num_text_ids != target.config.num_text_ids:
        raise ConfigError(
            f"start has {source.config.num_text_ids} text ids, the tokenizer {target.config.num_text_ids}; "
            "take the tokenizer of start"
        )
    for name in HEADS:
        own, wanted = getattr(source.config, name), getattr(target.config, name)
        if own != wanted:
            raise ConfigError(f"start has {name} {own}, but model {wanted}; keep the heads of start")
    places = target.state_dict()
    for name, weight in source.state_dict().items():
        place = places.get(name)
        if place is None or any(new < old for new, old in zip(place.shape, weight.shape, strict=True)):
            found = "has no such weight" if place is None else f"makes it {list(place.shape)}"
            raise ConfigError(f"start holds {name} of {list(weight.shape)}, but model {found}; make it no smaller")
        for new, old in _blocks(name, place, weight):
            _fill(name, new, old)


def _blocks(name: str, place: Tensor, weight: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Split weights that hold several of one width: the six changes by sigma; a gate's two inputs."""
    if name.startswith("modulations."):
        yield place.unflatten(0, (6, -1)), weight.unflatten(0, (6, -1))
    elif name.endswith("previous.gate_proj.weight"):
        numbers = len(weight)
        yield place[:, :-numbers], weight[:, :-numbers]
        yield place[:, -numbers:], weight[:, -numbers:]
    else:
        yield place, weight


def _fill(name: str, place: Tensor, weight: Tensor) -> None:
    """Copy a weight to the beginning of its place."""
    kind = name.split(".")[-2]
    if kind == "in_proj":  # latents into the stream
        place[len(weight) :] = 0
    if kind == "embed_tokens":
        place[:, weight.shape[1] :] = 0
    own = place[tuple(slice(size) for size in weight.shape)]
    # The root of the mean square is smaller by the zeros that are new.
    is_wider = kind.endswith("norm") and len(place) > len(weight)
    own.copy_(weight * (len(weight) / len(place)) ** 0.5 if is_wider else weight)
