"""The transformer: a pure function of a packed batch.

B rows, L tokens in a row, N tokens of one expert or stream, M places with logits, D width, C numbers in a
latent token, S distinct sigmas, V vocabulary.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers import initialization as init

from omni.cache import CacheView
from omni.config import MODALITIES, OmniConfig
from omni.flow import to_clean, to_velocity
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
from omni.masks import dense_mask, document_masks, flex_mask
from omni.sequence import PackedBatch
from omni.storage import read_8_bits

__all__ = ["OmniModel", "OmniOutput"]

GATE_SPEED = 10.0  # a step of the optimizer moves a gate as far as ten steps would
KEPT_AT_START = -0.2  # of a gate, before the speed and the sigmoid: an eighth
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


@dataclass(frozen=True)
class Plan:
    """What a pass needs to know about a batch besides its numbers; good for other latents and sigmas too.

    Attributes:
        routing: where each active expert's tokens lie.
        active: which experts those are.
        sources: what each of them reads, "text" or streams.
        places: flat places of each source.
        sigma_index: row of the changes of each source's tokens, [N], or of all of them, [1].
        rank: places of logit_index among the text tokens, [M].
        cos, sin: rotary tables, [B, L, 1, K].
        mask: boolean [B, 1, L, L_keys], DocumentMasks, a flex BlockMask, or None where everything is visible.
        cache: earlier keys and values, or None.
    """

    routing: Routing
    active: tuple[int, ...]
    sources: tuple[list[str], ...]
    places: dict[str, Tensor]
    sigma_index: dict[str, Tensor]
    rank: Tensor
    cos: Tensor
    sin: Tensor
    mask: Any
    cache: CacheView | None

    def joined_index(self, sources: list[str]) -> Tensor | None:
        """Return the sigma_index of one expert's tokens; None where it reads nothing."""
        if len(sources) == 1:
            return self.sigma_index[sources[0]]
        expanded = [self.sigma_index[source].expand(len(self.places[source])) for source in sources]
        return torch.cat(expanded) if expanded else None


class LatentEmbedding(nn.Module):
    """Bring latent tokens of one stream to the width of their expert, and back."""

    def __init__(self, config: OmniConfig, stream: str) -> None:
        super().__init__()
        width = config.experts[config.streams[stream]["expert"]]["width"]
        self.in_proj = nn.Linear(config.token_dim(stream), width)
        self.norm = RMSNorm(width, config.norm_eps)
        self.modulation_table = nn.Parameter(torch.zeros(2, width))
        self.out_proj = nn.Linear(width, config.token_dim(stream))
        self.previous = Previous(config, stream) if config.streams[stream].get("reads_previous") else None

    def final(self, x: Tensor, shared: Tensor, sigma_index: Tensor) -> Tensor:
        """Normalise and modulate final states, [N, D]."""
        shift, scale = (shared[:-1, SIGMA_ROWS_OF_HEAD] + self.modulation_table).index_select(0, sigma_index).unbind(1)
        return modulate(self.norm(x), shift, scale)


class Previous(nn.Module):
    """What was last known at a token's place: read with its noise, and kept as far as a gate says.

    An edit changes a part and a film moves a part; the rest need not come through the layers to come out again.
    """

    def __init__(self, config: OmniConfig, stream: str) -> None:
        super().__init__()
        width = config.experts[config.streams[stream]["expert"]]["width"]
        self.in_proj = nn.Linear(config.token_dim(stream), width)
        self.gate_proj = nn.Linear(width + config.token_dim(stream), config.token_dim(stream))

    def embed(self, latents: Tensor, is_known: Tensor) -> Tensor:
        """Map [N, C] to what is added to the embedded noise, [N, D]: nothing where nothing is known, [N]."""
        return self.in_proj(latents.to(self.in_proj.weight.dtype)) * is_known.unsqueeze(-1)

    def kept(self, final: Tensor, difference: Tensor, is_known: Tensor) -> Tensor:
        """Return how far each number is kept, [N, C]: by final states [N, D], and by how near the prediction comes.

        Args:
            final: normalised states.
            difference: of the predicted clean latents to what is known, [N, C].
            is_known: whether anything is, [N].
        """
        seen = torch.cat([final, difference.square().to(final.dtype)], dim=-1)
        return (GATE_SPEED * self.gate_proj(seen).float()).sigmoid() * is_known.unsqueeze(-1)


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

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> "OmniModel":
        """Load weights as transformers does; those that a folder holds in 8 bits (omni.storage) become floats."""
        folder = pretrained_model_name_or_path
        state = read_8_bits(Path(folder)) if folder is not None else None
        if state is not None:
            config = kwargs.pop("config", None) or OmniConfig.from_pretrained(folder)
            folder, kwargs = None, kwargs | {"config": config, "state_dict": state}
        return cast(OmniModel, super().from_pretrained(folder, *args, **kwargs))

    def get_input_embeddings(self) -> nn.Module:
        return self.embed_tokens

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def _initialize_weights(self, module: nn.Module, is_custom_code: bool = False) -> None:
        """Initialise a module, one without parameters of its own too, which transformers leaves out in custom code.

        It guards code that writes into weights unasked; ours writes through transformers.initialization alone.
        """
        super()._initialize_weights(module, is_custom_code=False)

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
        if isinstance(module, Previous):
            init.zeros_(module.in_proj.weight)
            init.zeros_(module.gate_proj.weight)
            init.constant_(module.gate_proj.bias, KEPT_AT_START)
        if isinstance(module, LatentEmbedding):
            init.zeros_(module.out_proj.weight)
            init.zeros_(module.out_proj.bias)
        if isinstance(module, (Expert, LatentEmbedding)) and module.modulation_table is not None:
            init.zeros_(module.modulation_table)

    def forward(
        self,
        batch: PackedBatch,
        *,
        plan: Plan | None = None,
        cache: CacheView | None = None,
        mask: Tensor | None | Literal["rule"] = "rule",
        with_logits: bool = True,
    ) -> OmniOutput:
        """Read a batch.

        Args:
            batch: tokens, latents, sigmas, positions and who sees whom.
            plan: of this batch, perhaps with other latents and sigmas; cache and mask are the plan's then.
            cache: earlier keys and values; this pass writes behind them.
            mask: who sees whom, [B, 1, L, L_keys]; None where everything is visible; "rule" works it out.
            with_logits: whether to compute logits (a loss can work from hidden states with less memory).
        """
        plan = plan or self.plan(batch, cache=cache, mask=mask)
        shared = self._changes(batch.sigmas)
        names = list(self.config.experts)
        context = Context(
            routing=plan.routing,
            active=plan.active,
            cos=plan.cos,
            sin=plan.sin,
            mask=plan.mask,
            modulations=tuple(shared.get(names[i]) for i in plan.active),
            sigma_index=tuple(plan.joined_index(held) for held in plan.sources),
            cache=plan.cache,
        )
        xs = self._embed(batch, plan)
        for layer in self.layers:
            if self.gradient_checkpointing and self.training:
                xs = checkpoint(layer, xs, context, use_reentrant=False)
            else:
                xs = layer(xs, context)
        finals: dict[str, Tensor] = {}
        for held, x in zip(plan.sources, xs, strict=True):
            finals |= dict(zip(held, x.split([len(plan.places[source]) for source in held]), strict=True))
        return self._heads(batch, finals, shared, plan, with_logits=with_logits)

    def plan(
        self,
        batch: PackedBatch,
        *,
        cache: CacheView | None = None,
        mask: Tensor | None | Literal["rule"] = "rule",
    ) -> Plan:
        """Work out all that does not depend on latents and on the values of sigmas; arguments as in forward."""
        places = self._places(batch)
        groups = [[source for source in held if source in places] for held in self.config.sources().values()]
        counts = [sum(len(places[source]) for source in group) for group in groups]
        active = tuple(i for i, count in enumerate(counts) if count or self.training)
        order = inverse = None
        if len(places) > 1:
            order = torch.cat([places[source] for group in groups for source in group])
            inverse = torch.empty_like(order)
            inverse[order] = torch.arange(len(order), device=order.device)
        index = {source: self._sigma_index(batch, source, place) for source, place in places.items()}
        rank = (batch.modality.flatten() == 0).cumsum(0) - 1  # logit_index counts all places, `text` only those of text
        cos, sin = rotary_tables(self.config, batch.positions)
        shape = (batch.ids.shape[0], batch.ids.shape[1])
        return Plan(
            routing=Routing(shape, tuple(counts[i] for i in active), order, inverse),
            active=active,
            places=places,
            sources=tuple(groups[i] for i in active),
            sigma_index=index,
            rank=rank[batch.logit_index],
            cos=cos,
            sin=sin,
            mask=self._mask(batch, cache) if isinstance(mask, str) else mask,
            cache=cache,
        )

    def _places(self, batch: PackedBatch) -> dict[str, Tensor]:
        """Return the flat places of each source that is present: in training of all, and where empty."""
        flat = batch.modality.flatten()
        if not batch.latents and not self.training:
            return {"text": torch.arange(len(flat), device=flat.device)}
        places = {"text": (flat == 0).nonzero().squeeze(1)}
        for stream in self.config.streams:
            kinds = [MODALITIES.index(m) for m, s in self.config.stream_of.items() if s == stream]
            places[stream] = torch.isin(flat, flat.new_tensor(kinds)).nonzero().squeeze(1)
        return {source: place for source, place in places.items() if len(place) or self.training}

    def _sigma_index(self, batch: PackedBatch, source: str, places: Tensor) -> Tensor:
        """Return the row of the changes of each token, [N]; [1] where all have the same."""
        if source == "text":
            return places.new_full((1,), len(batch.sigmas))
        index = batch.sigma_index.flatten()[places]
        is_one = not self.training and len(index) > 0 and bool((index == index[0]).all())
        return index[:1] if is_one else index

    def _changes(self, sigmas: Tensor) -> dict[str, Tensor]:
        """Return each modulated expert's shared shifts, scales and gates, [S + 1, 6, D]."""
        if self.sigma_embedding is None:
            return {}
        embedded = self.sigma_embedding(sigmas)
        return {name: module(embedded) for name, module in self.modulations.items()}

    def _embed(self, batch: PackedBatch, plan: Plan) -> list[Tensor]:
        """Return what each active expert reads, [N, D]."""
        weight = self.embed_tokens.weight
        parts = {}
        for source, place in plan.places.items():
            if source == "text":
                ids = batch.ids.flatten()
                parts[source] = self.embed_tokens(ids if len(plan.places) == 1 else ids[place])
            else:
                module = cast(LatentEmbedding, self.latent_embeddings[source])
                parts[source] = module.in_proj(self._latents(batch, source).to(weight.dtype))
                if module.previous is not None:
                    parts[source] = parts[source] + module.previous.embed(*self._previous(batch, source))
        widths = [sizes["width"] for sizes in self.config.experts.values()]
        return [
            torch.cat([parts[source] for source in held] or [weight.new_zeros(0, widths[i])])
            for i, held in zip(plan.active, plan.sources, strict=True)
        ]

    def _latents(self, batch: PackedBatch, stream: str) -> Tensor:
        """Return the noisy latents of a stream, [N, C]; N is 0 where it is absent."""
        found = batch.latents.get(stream)
        return batch.sigmas.new_zeros(0, self.config.token_dim(stream)) if found is None else found

    def _previous(self, batch: PackedBatch, stream: str) -> tuple[Tensor, Tensor]:
        """Return what was last known at each token's place, [N, C], and whether anything was, [N]."""
        if stream in batch.previous:
            return batch.previous[stream], batch.is_known[stream]
        absent = torch.zeros_like(self._latents(batch, stream))
        return absent, absent.new_zeros(len(absent), dtype=torch.bool)

    def _mask(self, batch: PackedBatch, cache: CacheView | None) -> Any:
        if cache is not None:
            return cache.mask(dense_mask(batch.attention))
        if batch.ids.is_cuda:
            return flex_mask(batch.attention)
        masks = document_masks(batch.attention)
        return masks if len(masks.lengths) > len(batch.ids) else dense_mask(batch.attention)

    def _heads(
        self,
        batch: PackedBatch,
        finals: dict[str, Tensor],
        shared: dict[str, Tensor],
        plan: Plan,
        *,
        with_logits: bool,
    ) -> OmniOutput:
        """Map final states, by source, to logits and velocities."""
        velocity = {}
        for stream in finals.keys() & self.config.streams.keys():
            module, index = cast(LatentEmbedding, self.latent_embeddings[stream]), plan.sigma_index[stream]
            expert = self.config.streams[stream]["expert"]
            final = module.final(finals[stream], shared[expert], index)
            said, noisy = module.out_proj(final).float(), self._latents(batch, stream).float()
            sigmas = batch.sigmas[index].expand(len(said))
            if module.previous is not None:
                previous, is_known = self._previous(batch, stream)
                clean = said if self.config.prediction == "clean" else to_clean(noisy, said, sigmas)
                kept = module.previous.kept(final, clean - previous, is_known)
                known = previous if self.config.prediction == "clean" else to_velocity(noisy, previous, sigmas)
                said = torch.lerp(said, known, kept)
            if self.config.prediction == "clean":
                said = to_velocity(noisy, said, sigmas)
            velocity[stream] = said
        text = finals.get("text", self.embed_tokens.weight[:0])
        hidden = self.norm(text.index_select(0, plan.rank))
        return OmniOutput(hidden, self.lm_head(hidden) if with_logits else None, velocity)
