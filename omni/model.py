"""The transformer: a pure function of a packed batch.

B rows, L tokens in a row, N tokens of one expert or stream, M places with logits, D width, C numbers in a
latent token, S distinct sigmas, V vocabulary.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers import initialization as init

from omni.cache import CacheView
from omni.config import MODALITIES, OmniConfig
from omni.flow import to_velocity
from omni.layers import (
    Context,
    Expert,
    Layer,
    Modulation,
    RMSNorm,
    Routing,
    SigmaEmbedding,
    modulate,
    rotary_tables,
)
from omni.masks import dense_mask, flex_mask
from omni.sequence import PackedBatch

__all__ = ["OmniModel", "OmniOutput"]

SIGMA_ROWS_OF_HEAD = slice(0, 2)  # the final norm shares the changes of the first norm, plus its own table


@dataclass
class OmniOutput:
    """What the model says.

    Attributes:
        hidden_states: normalised states of the text tokens at logit_index, [M, D].
        logits: of the next id at those places, [M, V]; None where they were not asked for.
        velocity: stream -> velocity of each latent token, [N, C], float32.
    """

    hidden_states: Tensor
    logits: Tensor | None
    velocity: dict[str, Tensor]


class LatentEmbedding(nn.Module):
    """Bring latent tokens of one stream to the width of their expert, and back."""

    def __init__(self, config: OmniConfig, stream: str) -> None:
        super().__init__()
        width = config.experts[config.streams[stream]["expert"]]["width"]
        self.in_proj = nn.Linear(config.token_dim(stream), width)
        self.norm = RMSNorm(width, config.norm_eps)
        self.modulation_table = nn.Parameter(torch.zeros(2, width))
        self.out_proj = nn.Linear(width, config.token_dim(stream))

    def head(self, x: Tensor, shared: Tensor, sigma_index: Tensor) -> Tensor:
        """Map final states [N, D] to predictions [N, C]."""
        rows = shared[:-1, SIGMA_ROWS_OF_HEAD] + self.modulation_table
        shift, scale = rows.index_select(0, sigma_index).unbind(1)
        return self.out_proj(modulate(self.norm(x), shift, scale))


class OmniModel(PreTrainedModel):
    """One transformer over text and latents (Transfusion, arXiv:2408.11039; experts, arXiv:2411.04996).

    Args:
        config: widths, experts and streams.
    """

    config_class = OmniConfig
    base_model_prefix = ""
    main_input_name = "batch"
    _no_split_modules = ["Layer"]
    _tied_weights_keys = {"lm_head.weight": "embed_tokens.weight"}
    supports_gradient_checkpointing = True
    _supports_sdpa = True

    def __init__(self, config: OmniConfig) -> None:
        super().__init__(config)
        width = config.experts[config.text_expert]["width"]
        self.embed_tokens = nn.Embedding(config.vocab_size, width)
        self.latent_embeddings = nn.ModuleDict({name: LatentEmbedding(config, name) for name in config.streams})
        self.sigma_embedding = SigmaEmbedding(config.sigma_dim) if config.streams else None
        self.modulations = nn.ModuleDict(
            {
                name: Modulation(config.sigma_dim, config.experts[name]["width"])
                for name, sources in config.sources().items()
                if sources != ["text"]
            }
        )
        self.layers = nn.ModuleList([Layer(config, index) for index in range(config.num_layers)])
        self.norm = RMSNorm(width, config.norm_eps)
        self.lm_head = nn.Linear(width, config.vocab_size, bias=False)
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embed_tokens

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Start small; residual branches smaller with depth; sigma changes and the latent head at zero."""
        if isinstance(module, nn.Linear):
            init.normal_(module.weight, std=module.in_features**-0.5)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight, std=0.02)
        elif isinstance(module, RMSNorm):
            init.ones_(module.weight)
        if isinstance(module, Expert):
            init.zeros_(module.o_proj.weight)
            init.zeros_(module.down_proj.weight)
        if isinstance(module, Modulation):
            init.zeros_(module.proj.weight)
            init.zeros_(module.proj.bias)
        if isinstance(module, LatentEmbedding):
            init.zeros_(module.out_proj.weight)
            init.zeros_(module.out_proj.bias)
        if isinstance(module, (Expert, LatentEmbedding)) and module.modulation_table is not None:
            init.zeros_(module.modulation_table)

    def forward(
        self,
        batch: PackedBatch,
        *,
        cache: CacheView | None = None,
        mask: Tensor | None | Literal["rule"] = "rule",
        with_logits: bool = True,
    ) -> OmniOutput:
        """Read a batch.

        Args:
            batch: tokens, latents, sigmas, positions and who sees whom.
            cache: earlier keys and values; this pass writes behind them.
            mask: who sees whom, [B, 1, L, L_keys]; None where everything is visible; "rule" works it out.
            with_logits: whether to compute logits (a loss can work from hidden states with less memory).
        """
        routing, sources = self._route(batch)
        shared = self._changes(batch.sigmas)
        xs = self._embed(batch)
        index = self._sigma_index(batch, sources)
        active = tuple(i for i, x in enumerate(xs) if len(x) or self.training)
        names = list(self.config.experts)
        cos, sin = rotary_tables(self.config, batch.positions)
        context = Context(
            routing=replace(routing, counts=tuple(routing.counts[i] for i in active)),
            active=active,
            cos=cos,
            sin=sin,
            mask=self._mask(batch, cache) if isinstance(mask, str) else mask,
            modulations=tuple(shared.get(names[i]) for i in active),
            sigma_index=tuple(index[i] for i in active),
            cache=cache,
        )
        xs = [xs[i] for i in active]
        for layer in self.layers:
            if self.gradient_checkpointing and self.training:
                xs = checkpoint(layer, xs, context, use_reentrant=False)
            else:
                xs = layer(xs, context)
        finals: dict[str, Tensor] = {}
        for i, x in zip(active, xs, strict=True):
            held = [source for source in self.config.sources()[names[i]] if source in sources]
            finals |= dict(zip(held, x.split([len(sources[source]) for source in held]), strict=True))
        rows = {source: batch.sigma_index.flatten()[place] for source, place in sources.items()}
        return self._heads(batch, finals, shared, rows, with_logits=with_logits)

    def _route(self, batch: PackedBatch) -> tuple[Routing, dict[str, Tensor]]:
        """Find each expert's tokens: flat places by source, sources by expert."""
        shape = (batch.ids.shape[0], batch.ids.shape[1])
        stream_of = self.config.stream_of
        present = [s for s in self.config.streams if s in batch.latents or self.training]
        flat = batch.modality.flatten()
        if not present:
            places = {"text": torch.arange(len(flat), device=flat.device)}
        else:
            places = {"text": (flat == 0).nonzero().squeeze(1)}
            for stream in present:
                kinds = [MODALITIES.index(m) for m, s in stream_of.items() if s == stream]
                places[stream] = torch.isin(flat, flat.new_tensor(kinds)).nonzero().squeeze(1)
        chosen = [[places[s] for s in sources if s in places] for sources in self.config.sources().values()]
        counts = tuple(sum(len(p) for p in group) for group in chosen)
        if max(counts) == len(flat) and sum(map(len, chosen)) == 1:
            return Routing(shape, counts, None, None), places
        order = torch.cat([place for group in chosen for place in group])
        inverse = torch.empty_like(order)
        inverse[order] = torch.arange(len(order), device=order.device)
        return Routing(shape, counts, order, inverse), places

    def _changes(self, sigmas: Tensor) -> dict[str, Tensor]:
        """Return each modulated expert's shared changes, [S + 1, 6, D]; the last row, of text, is zero."""
        if self.sigma_embedding is None:
            return {}
        embedded = self.sigma_embedding(sigmas)
        return {name: F.pad(module(embedded), (0, 0, 0, 0, 0, 1)) for name, module in self.modulations.items()}

    def _embed(self, batch: PackedBatch) -> list[Tensor]:
        dtype = self.embed_tokens.weight.dtype
        is_text = batch.modality.flatten() == 0
        ids = batch.ids.flatten()
        parts = {"text": self.embed_tokens(ids[is_text] if batch.latents else ids)}
        for stream, module in self.latent_embeddings.items():
            if stream in batch.latents or self.training:
                latents = batch.latents.get(stream)
                if latents is None:
                    latents = parts["text"].new_zeros(0, self.config.token_dim(stream))
                parts[stream] = cast(LatentEmbedding, module).in_proj(latents.to(dtype))
        width = {name: sizes["width"] for name, sizes in self.config.experts.items()}
        return [
            torch.cat([parts[s] for s in sources if s in parts] or [parts["text"].new_zeros(0, width[name])])
            for name, sources in self.config.sources().items()
        ]

    def _sigma_index(self, batch: PackedBatch, places: dict[str, Tensor]) -> list[Tensor | None]:
        flat = batch.sigma_index.flatten()
        no_change = len(batch.sigmas)
        out: list[Tensor | None] = []
        for sources in self.config.sources().values():
            rows = [
                torch.full_like(places[s], no_change) if s == "text" else flat[places[s]]
                for s in sources
                if s in places
            ]
            out.append(torch.cat(rows) if rows else flat[:0])
        return out

    def _mask(self, batch: PackedBatch, cache: CacheView | None) -> Any:
        if cache is None and batch.ids.is_cuda:
            return flex_mask(batch.attention)
        mask = dense_mask(batch.attention)
        return mask if cache is None else cache.mask(mask)

    def _heads(
        self,
        batch: PackedBatch,
        finals: dict[str, Tensor],
        shared: dict[str, Tensor],
        index: dict[str, Tensor],
        *,
        with_logits: bool,
    ) -> OmniOutput:
        """Map final states to logits and velocities; finals and index are by source."""
        velocity = {}
        for stream, module in self.latent_embeddings.items():
            if stream in finals:
                expert = self.config.streams[stream]["expert"]
                said = module.head(finals[stream], shared[expert], index[stream]).float()  # type: ignore[operator]
                velocity[stream] = self._velocity(said, batch, stream, index[stream])
        text = finals.get("text", self.embed_tokens.weight[:0])
        if batch.latents:  # logit_index counts all places, `text` only those of text
            rank = (batch.modality.flatten() == 0).cumsum(0) - 1
            text = text.index_select(0, rank[batch.logit_index])
        else:
            text = text.index_select(0, batch.logit_index)
        hidden = self.norm(text)
        return OmniOutput(hidden, self.lm_head(hidden) if with_logits else None, velocity)

    def _velocity(self, said: Tensor, batch: PackedBatch, stream: str, sigma_index: Tensor) -> Tensor:
        if self.config.prediction == "velocity" or stream not in batch.latents:
            return said
        return to_velocity(batch.latents[stream].float(), said, batch.sigmas[sigma_index])
