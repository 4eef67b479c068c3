"""The text phase's own pass: one id a row through the text expert, with nothing around its products.

Weights are laid out once for products with few rows: q, k and v side by side, gate and up too, the scales of norms
multiplied in. What they were made from is remembered, and a copy is never used after its source has changed.

R rows, D width, H query heads, J key-value heads, K head width, V vocabulary.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, cast
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omni.cache import CacheView
from omni.config import OmniConfig
from omni.errors import ConfigError
from omni.layers import Expert, Layer, RMSNorm, attend, rotary_tables
from omni.model import OmniModel
from omni.storage import quantize_rows

__all__ = ["TextStep", "quantize_text", "text_step"]

Product = Callable[[Tensor, Tensor | None], Tensor]

# In larger models the products outweigh all the rest, and float32 copies of the weights would weigh too.
MOST_COPIED = 1 << 26
NUM_SAMPLED = 64
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
NORMS = ("input_norm", "ffn_norm", "q_norm", "k_norm")


def _float_product(weight: Tensor) -> Product:
    columns = weight.t().contiguous()

    def product(x: Tensor, added: Tensor | None = None) -> Tensor:
        return torch.mm(x, columns) if added is None else torch.addmm(added, x, columns)

    return product


def _int8_product(weight: Tensor) -> Product:
    """Round each row of a weight [out, in] to 255 levels between its extremes."""
    codes, scales = quantize_rows(weight)
    scales = scales.bfloat16()

    def product(x: Tensor, added: Tensor | None = None) -> Tensor:
        out = torch._weight_int8pack_mm(x.bfloat16(), codes, scales).float()
        return out if added is None else out.add_(added)

    return product


def _unit(x: Tensor, floor: Tensor) -> Tensor:
    """Divide by the length of the last axis: RMSNorm, but for a factor that is multiplied into what follows."""
    return x / torch.hypot(torch.linalg.vector_norm(x, dim=-1, keepdim=True), floor)


def _swapped(x: Tensor) -> Tensor:
    """Exchange the halves of the last axis."""
    return x.unflatten(-1, (2, -1)).flip(-2).flatten(-2)


@dataclass(frozen=True)
class _LayerStep:
    """One layer's products; heads scales queries and keys, [H + J, K] or [1, K]."""

    qkv: Product
    bias: Tensor | None
    heads: Tensor
    o: Product
    gate_up: Product
    down: Product


class TextStep:
    """Read one id for each of some rows, in float32.

    Args:
        model: in evaluation mode; every module on the way of text a plain one.
        weights: "float32" for the same numbers as the model's own pass, "int8" for a quarter of the memory.
    """

    def __init__(self, model: OmniModel, weights: Literal["float32", "int8"]) -> None:
        config = self.config = model.config
        self._num_heads, self._num_kv_heads, self._head_dim = config.num_heads, config.num_kv_heads, config.head_dim
        self._has_norms = config.qk_norm
        self._source = _Source(model)
        self._product = _float_product if weights == "float32" else _int8_product
        device = model.embed_tokens.weight.device
        self._floors = [
            torch.tensor(math.sqrt(n * config.norm_eps), device=device) for n in (self._width, config.head_dim)
        ]
        with torch.no_grad():
            self._embedding = model.embed_tokens.weight.detach()
            self._layers = [self._lay_out(expert) for expert in _experts(model)]
            self._head = self._scaled(model.norm, model.lm_head)
            heads = torch.stack([layer.heads for layer in self._layers]).unsqueeze(1)
            self._heads = heads, _swapped(heads)
            self._tables = self._rotary(256)

    @property
    def _width(self) -> int:
        return self.config.experts[self.config.text_expert]["width"]

    def _scaled(self, norm: RMSNorm, *linears: nn.Linear) -> Product:
        """Return the product of several linear maps behind a norm."""
        weight = torch.cat([linear.weight for linear in linears]).float()
        return self._product(weight * (norm.weight.float() * math.sqrt(self._width)))

    def _lay_out(self, expert: Expert) -> _LayerStep:
        config = self.config
        heads = expert.q_proj.weight.new_ones(1, config.head_dim).float()
        if config.qk_norm:
            norms = [expert.q_norm.weight] * config.num_heads + [expert.k_norm.weight] * config.num_kv_heads
            heads = torch.stack(cast(list[Tensor], norms)).float() * math.sqrt(config.head_dim)
        linears = (expert.q_proj, expert.k_proj, expert.v_proj)
        biases: list[Tensor] = [linear.bias for linear in linears if linear.bias is not None]
        return _LayerStep(
            self._scaled(expert.input_norm, *linears),
            torch.cat(biases).float() if biases else None,
            heads,
            self._product(expert.o_proj.weight.float()),
            self._scaled(expert.ffn_norm, expert.gate_proj, expert.up_proj),
            self._product(expert.down_proj.weight.float()),
        )

    def _rotary(self, length: int) -> tuple[Tensor, Tensor]:
        """Return cosines and sines of the first positions, [N, 1, K]."""
        places = torch.arange(length, dtype=torch.float32, device=self._embedding.device)
        cos, sin = rotary_tables(self.config, places.view(1, -1, 1).expand(1, -1, 3))
        return cos[0], sin[0]

    def is_current(self) -> bool:
        """Return whether the model's modules and weights are those that were copied."""
        return self._source.is_same()

    def __call__(self, ids: Sequence[int], positions: Sequence[int], view: CacheView) -> Tensor:
        """Return the logits after each id, [R, V].

        Args:
            ids: one for each row of the view.
            positions: of the ids, on all three axes.
            view: of one new token a row; keys and values are written, not committed.
        """
        places = torch.tensor(positions, device=self._embedding.device)
        if max(positions) >= len(self._tables[0]):
            self._tables = self._rotary(2 * max(positions))
        cos, sin = (
            (table[places] * heads).unbind()  # each layer's [R, H + J, K]
            for table, heads in zip(self._tables, self._heads, strict=True)
        )
        mask = view.open_mask()
        x = F.embedding(torch.tensor(ids, device=places.device), self._embedding).float()
        num_turned = self._num_heads + self._num_kv_heads
        wide, narrow = self._floors
        for index, layer in enumerate(self._layers):
            heads = layer.qkv(_unit(x, wide), layer.bias).view(len(ids), -1, self._head_dim)
            turned, v = heads[:, :num_turned], heads[:, num_turned:]
            if self._has_norms:
                turned = _unit(turned, narrow)
            turned = torch.addcmul(turned * cos[index], _swapped(turned), sin[index]).unsqueeze(2)
            q, k = turned[:, : self._num_heads], turned[:, self._num_heads :]
            keys, values = view.write(index, k, v.unsqueeze(2))
            x = layer.o(attend(q.to(keys.dtype), keys, values, mask).flatten(1).float(), x)
            gate, up = layer.gate_up(_unit(x, wide), None).chunk(2, dim=-1)
            x = layer.down(F.silu(gate).mul_(up), x)
        return self._head(_unit(x, wide), None).to(self._embedding.dtype)


def _experts(model: OmniModel) -> Iterator[Expert]:
    for layer in model.layers:
        yield cast(Expert, cast(Layer, layer).experts[model.config.text_expert])


def _modules(model: OmniModel) -> Iterator[tuple[nn.Module, str]]:
    """Yield what holds each module on the way of text, and its name there."""
    for name in ("embed_tokens", "norm", "lm_head"):
        yield model, name
    for expert in _experts(model):
        for name in (*PROJECTIONS, *NORMS):
            yield expert, name


def _is_plain(module: nn.Module) -> bool:
    """Whether a module is one of the model's own, with weights of the ordinary kind, and nothing hooks into it."""
    hooked = module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__
    weights = module._parameters.values()
    is_ordinary = all(w is None or (type(w) is nn.Parameter and not w.is_inference()) for w in weights)
    return type(module) in (nn.Linear, nn.Embedding, RMSNorm, nn.Identity) and is_ordinary and not hooked


class _Source:
    """What a copy was made from, and whether it is still the same."""

    def __init__(self, model: OmniModel) -> None:
        self._places = [(held._modules, name, cast(nn.Module, held._modules[name])) for held, name in _modules(model)]
        self._slots = [
            (module._parameters, name, weight)
            for _, _, module in self._places
            for name, weight in module._parameters.items()
            if weight is not None
        ]
        self._tensors = [weight for _, _, weight in self._slots]
        self._state = self._read()
        self._sample = self._draw()

    def _read(self) -> list[tuple[int, int]]:
        return [(weight._version, weight.data_ptr()) for weight in self._tensors]

    def _draw(self) -> Tensor:
        """Return some numbers of every weight: writing through `.data` leaves no other trace."""
        parts = [w.detach().flatten()[:: max(1, w.numel() // NUM_SAMPLED)] for w in self._tensors]
        return torch.cat([part.to(parts[0]) for part in parts])

    def is_same(self) -> bool:
        return (
            all(held[name] is module for held, name, module in self._places)
            and all(held[name] is weight for held, name, weight in self._slots)
            and self._read() == self._state
        )

    def looks_same(self) -> bool:
        """Look at the weights themselves too."""
        return self.is_same() and torch.equal(self._draw(), self._sample)


_STEPS: WeakKeyDictionary[OmniModel, TextStep] = WeakKeyDictionary()
_QUANTIZED: WeakKeyDictionary[OmniModel, bool] = WeakKeyDictionary()


def quantize_text(model: OmniModel, *, is_on: bool = True) -> None:
    """Let the text phase of a model run with weights of 8 bits; blocks are made in the model's own precision.

    Args:
        model: on a CPU.
        is_on: False goes back to the model's own weights.

    Raises:
        ConfigError: the model is not on a CPU.
    """
    device = model.embed_tokens.weight.device
    if is_on and device.type != "cpu":
        raise ConfigError(f"quantize is 'int8' and the model on {device}; int8 text runs on a CPU: leave it out")
    _QUANTIZED[model] = is_on
    _STEPS.pop(model, None)


def text_step(model: OmniModel) -> TextStep | None:
    """Return the text phase's pass of a model as it is now; None where only the general pass serves."""
    config = model.config
    weights: Literal["float32", "int8"] = "int8" if _QUANTIZED.get(model) else "float32"
    if model.training or torch.is_grad_enabled() or torch.is_autocast_enabled(model.device.type):
        return None
    if weights == "float32" and (model.dtype != torch.float32 or _num_copied(config) > MOST_COPIED):
        return None
    if not all(_is_plain(holder._modules[name]) for holder, name in _modules(model)):  # type: ignore[arg-type]
        return None
    if any(m._forward_hooks or m._forward_pre_hooks for m in (model, *model.layers)):
        return None
    step = _STEPS.get(model)
    if step is None or not step._source.looks_same():
        step = _STEPS[model] = TextStep(model, weights)
    return step


def _num_copied(config: OmniConfig) -> int:
    """Return how many weights a copy holds."""
    sizes = config.experts[config.text_expert]
    attention = 2 * (config.num_heads + config.num_kv_heads) * config.head_dim
    return sizes["width"] * (config.vocab_size + config.num_layers * (attention + 3 * sizes["ffn_dim"]))
