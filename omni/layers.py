"""What a transformer layer is made of, and the layer itself: experts side by side, attention shared.

B rows, L tokens in a row, N tokens of one expert (all rows, flat), D an expert's width, H heads, K head width,
S distinct sigmas in a batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omni.cache import CacheView
from omni.config import OmniConfig
from omni.masks import DocumentMasks

__all__ = ["Context", "Layer", "Modulation", "RMSNorm", "Routing", "SigmaEmbedding", "rotary_tables"]


class _RMSNorm(torch.autograd.Function):
    """RMSNorm with half the passes over memory of the composite, for CPUs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        inverse = length.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        unit = x * inverse
        ctx.save_for_backward(unit, inverse, weight)
        return unit * weight

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        unit, inverse, weight = ctx.saved_tensors
        products = (grads[0] * unit).flatten(0, -2)
        along = (products @ weight).view_as(inverse).div_(-len(weight))
        return torch.addcmul(grads[0] * weight, unit, along).mul_(inverse), products.sum(0), None


class RMSNorm(nn.Module):
    """Divide by the root mean square, then scale (arXiv:1910.07467)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and not x.is_cuda and self.weight.dtype == torch.float32:
            return _RMSNorm.apply(x.float(), self.weight, self.eps)
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


def inverse_frequencies(config: OmniConfig, device: torch.device) -> tuple[Tensor, float]:
    """Return the rotary frequencies [K/2] and the attention factor of the config's rope type."""
    parameters = config.rope_parameters
    if parameters["rope_type"] == "default":
        exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32, device=device) / config.head_dim
        return parameters["rope_theta"] ** -exponents, 1.0
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    frequencies, factor = ROPE_INIT_FUNCTIONS[parameters["rope_type"]](config, device)
    return frequencies.float(), factor


def rotary_tables(config: OmniConfig, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Return cosines and signed sines for three-axis rotary positions, each [B, L, 1, K]; see rotate.

    Frequencies are dealt to the axes in turn (time, row, column, time, ...), so that text, whose three
    coordinates agree, meets ordinary RoPE (arXiv:2104.09864).

    Args:
        config: head width and rope parameters.
        positions: time, row and column of each token, [B, L, 3], float32.
    """
    frequencies, factor = inverse_frequencies(config, positions.device)
    axis = torch.arange(len(frequencies), device=positions.device) % 3
    angles = (positions[..., axis] * frequencies).unsqueeze(-2)
    cos, sin = angles.cos() * factor, angles.sin() * factor
    return torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (i, i + K/2) of x [B, L, H, K] by its angle; the first half of the sines is negative."""
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin).to(x.dtype)


class _Permute(torch.autograd.Function):
    """Reorder the rows of a matrix. The gradient of a permutation is the inverse one, not a scatter-add."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(order, inverse)
        return x.index_select(0, order)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        _, inverse = ctx.saved_tensors
        return grads[0].index_select(0, inverse), None, None


@dataclass(frozen=True)
class Routing:
    """Where the tokens of each expert lie in a batch.

    Attributes:
        shape: (B, L) of the batch.
        counts: tokens of each active expert, in the config's order.
        order: flat place in the batch of each token in expert order, [B * L]; None where one expert has all.
        inverse: the inverse permutation.
    """

    shape: tuple[int, int]
    counts: tuple[int, ...]
    order: Tensor | None
    inverse: Tensor | None

    def merge(self, xs: Sequence[Tensor]) -> Tensor:
        """Bring the experts' [N, W] into batch order, [B, L, W]."""
        x = xs[0] if len(xs) == 1 else torch.cat(list(xs))
        if self.order is not None:
            x = _Permute.apply(x, self.inverse, self.order)
        return x.view(*self.shape, -1)

    def split(self, x: Tensor) -> list[Tensor]:
        """Deal [B, L, W] out to the experts, [N, W] each."""
        x = x.reshape(self.shape[0] * self.shape[1], -1)
        if self.order is not None:
            x = _Permute.apply(x, self.order, self.inverse)
        return list(x.split(self.counts))


@dataclass(frozen=True)
class Context:
    """What every layer of one forward pass shares.

    Attributes:
        routing: where each expert's tokens lie.
        active: indices of the experts that run: all in training (a rank without a modality still touches
            its weights, or ZeRO-3 hangs), those with tokens otherwise.
        cos, sin: rotary tables, [B, L, 1, K].
        mask: boolean [B, 1, L, L_keys], DocumentMasks, a flex BlockMask, or None where everything is visible.
        modulations: for each active expert the shared shifts, scales and gates [S + 1, 6, D] (the last row changes
            nothing), or None.
        sigma_index: for each active expert the row of the changes of each token, [N], or of all of them, [1].
        cache: earlier keys and values, or None.
    """

    routing: Routing
    active: tuple[int, ...]
    cos: Tensor
    sin: Tensor
    mask: Any
    modulations: tuple[Tensor | None, ...]
    sigma_index: tuple[Tensor | None, ...]
    cache: CacheView | None


class SigmaEmbedding(nn.Module):
    """Embed noise levels: sinusoids of 1000 * sigma through two linear maps (arXiv:2212.09748)."""

    def __init__(self, sigma_dim: int) -> None:
        super().__init__()
        self.up_proj = nn.Linear(sigma_dim, sigma_dim)
        self.down_proj = nn.Linear(sigma_dim, sigma_dim)

    def forward(self, sigmas: Tensor) -> Tensor:
        half = self.up_proj.in_features // 2
        exponents = torch.arange(half, dtype=torch.float32, device=sigmas.device) / half
        angles = 1000 * sigmas.float().unsqueeze(-1) * 10000**-exponents
        waves = torch.cat([angles.cos(), angles.sin()], dim=-1).to(self.up_proj.weight.dtype)
        return F.silu(self.down_proj(F.silu(self.up_proj(waves))))


class Modulation(nn.Module):
    """Turn embedded sigmas into AdaLN shifts, scales and gates: one projection for all layers (arXiv:2310.00426)."""

    def __init__(self, sigma_dim: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(sigma_dim, 6 * width)
        self.width = width

    def forward(self, embedded: Tensor) -> Tensor:
        """Map [S, sigma_dim] to [S + 1, 6, D]; the last row changes nothing."""
        neutral = embedded.new_tensor([0.0, 1.0, 1.0, 0.0, 1.0, 1.0]).unsqueeze(1)
        return F.pad(self.proj(embedded).view(-1, 6, self.width), (0, 0, 0, 0, 0, 1)) + neutral


class Expert(nn.Module):
    """One expert's weights in one layer: projections around the shared attention, and a SwiGLU."""

    def __init__(self, config: OmniConfig, name: str, *, is_modulated: bool) -> None:
        super().__init__()
        width, ffn_dim = config.experts[name]["width"], config.experts[name]["ffn_dim"]
        query_dim, key_dim = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
        self.head_dim = config.head_dim
        self.input_norm = RMSNorm(width, config.norm_eps)
        self.q_proj = nn.Linear(width, query_dim, bias=config.attention_bias)
        self.k_proj = nn.Linear(width, key_dim, bias=config.attention_bias)
        self.v_proj = nn.Linear(width, key_dim, bias=config.attention_bias)
        self.q_norm = RMSNorm(config.head_dim, config.norm_eps) if config.qk_norm else nn.Identity()
        self.k_norm = RMSNorm(config.head_dim, config.norm_eps) if config.qk_norm else nn.Identity()
        self.o_proj = nn.Linear(query_dim, width, bias=False)
        self.ffn_norm = RMSNorm(width, config.norm_eps)
        self.gate_proj = nn.Linear(width, ffn_dim, bias=False)
        self.up_proj = nn.Linear(width, ffn_dim, bias=False)
        self.down_proj = nn.Linear(ffn_dim, width, bias=False)
        self.modulation_table = nn.Parameter(torch.zeros(6, width)) if is_modulated else None

    def changes(self, shared: Tensor | None, sigma_index: Tensor | None) -> Sequence[Tensor | None]:
        """Return shift, scale and gate of attention and of the feed-forward, [N, D] or [1, D]; None: no change."""
        if shared is None or self.modulation_table is None or sigma_index is None:
            return [None] * 6
        rows = torch.cat([shared[:-1] + self.modulation_table, shared[-1:]])
        return rows.index_select(0, sigma_index).unbind(1)

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, [N, H * K] each; queries and keys normalised a head."""
        q = self.q_norm(self.q_proj(x).unflatten(-1, (-1, self.head_dim)))
        k = self.k_norm(self.k_proj(x).unflatten(-1, (-1, self.head_dim)))
        return q.flatten(1), k.flatten(1), self.v_proj(x)

    def feed_forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


def modulate(x: Tensor, shift: Tensor | None, scale: Tensor | None) -> Tensor:
    return x if scale is None or shift is None else torch.addcmul(shift, x, scale)


def add_gated(x: Tensor, change: Tensor, gate: Tensor | None) -> Tensor:
    return x + change if gate is None else torch.addcmul(x, change, gate)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Any) -> Tensor:
    """Attend with [B, H, L, K] queries to keys and values of as many or fewer heads; return [B, L, H * K]."""
    is_grouped = q.shape[1] != k.shape[1]
    if isinstance(mask, DocumentMasks):
        v = v.to(q.dtype)
        qs, ks, vs = (x.transpose(1, 2).flatten(0, 1).transpose(0, 1)[None].split(mask.lengths, 2) for x in (q, k, v))
        # What autocast would do here, bfloat16, takes a CPU twice as long for rows as short as documents.
        with torch.autocast("cpu", enabled=False):
            parts = [
                F.scaled_dot_product_attention(*qkv, attn_mask=seen, enable_gqa=is_grouped)
                for seen, qkv in zip(mask.masks, zip(qs, ks, vs, strict=True), strict=True)
            ]
        return torch.cat([part[0].transpose(0, 1) for part in parts]).view(len(q), q.shape[2], -1)
    if mask is None or isinstance(mask, Tensor):
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=is_grouped)
    else:
        out = _compiled_flex()(q, k, v, block_mask=mask, enable_gqa=is_grouped)
    return out.transpose(1, 2).flatten(2)


_FLEX: list[Any] = []


def _compiled_flex() -> Any:
    """Compile flex_attention at its first use: uncompiled it builds the whole score matrix."""
    if not _FLEX:
        from torch.nn.attention.flex_attention import flex_attention

        _FLEX.append(torch.compile(flex_attention))
    return _FLEX[0]


class Layer(nn.Module):
    """One transformer layer: every expert reads its own tokens, all tokens share one attention."""

    def __init__(self, config: OmniConfig, index: int) -> None:
        super().__init__()
        self.index = index
        self.head_dim = config.head_dim
        self.experts = nn.ModuleDict(
            {name: Expert(config, name, is_modulated=sources != ["text"]) for name, sources in config.sources().items()}
        )

    def forward(self, xs: list[Tensor], context: Context) -> list[Tensor]:
        """Map the active experts' hidden states, [N, D] each, to the next ones."""
        modules = cast(list[Expert], list(self.experts.values()))
        experts = [modules[index] for index in context.active]
        changes = [
            expert.changes(shared, index)
            for expert, shared, index in zip(experts, context.modulations, context.sigma_index, strict=True)
        ]
        heads = [
            expert.heads(modulate(expert.input_norm(x), change[0], change[1]))
            for expert, x, change in zip(experts, xs, changes, strict=True)
        ]
        attended = self._attention(heads, context)
        out = []
        for expert, x, y, change in zip(experts, xs, attended, changes, strict=True):
            x = add_gated(x, expert.o_proj(y), change[2])
            y = expert.feed_forward(modulate(expert.ffn_norm(x), change[3], change[4]))
            out.append(add_gated(x, y, change[5]))
        return out

    def _attention(self, heads: list[tuple[Tensor, Tensor, Tensor]], context: Context) -> list[Tensor]:
        routing = context.routing
        q, k, v = (routing.merge(xs).unflatten(-1, (-1, self.head_dim)) for xs in zip(*heads, strict=True))
        q, k = rotate(q, context.cos, context.sin), rotate(k, context.cos, context.sin)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        if context.cache is not None:
            k, v = context.cache.write(self.index, k, v)
        return routing.split(attend(q, k, v, context.mask))
