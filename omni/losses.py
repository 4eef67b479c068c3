"""Cross-entropy over text and squared velocity error over noisy latents, each over its own count.

M text targets, N latent tokens, C numbers in each, D width, V vocabulary.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from omni.flow import SIGMA_FLOOR
from omni.model import OmniModel
from omni.sequence import PackedBatch

__all__ = ["LossCounts", "LossSums", "loss_counts", "loss_sums"]


@dataclass(frozen=True)
class LossCounts:
    """How much a batch teaches.

    Attributes:
        text: text targets.
        flow: noisy latent tokens, stream -> count.
    """

    text: int
    flow: dict[str, int]


@dataclass
class LossSums:
    """Sums of losses, to be divided by counts over all ranks and accumulation steps.

    Attributes:
        text: summed cross-entropy in nats.
        flow: stream -> squared velocity error, summed over tokens, the mean of each token's numbers; so a token
            counts alike in every stream, however many numbers it holds.
    """

    text: Tensor
    flow: dict[str, Tensor]


def loss_counts(batch: PackedBatch) -> LossCounts:
    """Count a batch's targets."""
    return LossCounts(len(batch.logit_index), {s: int(m.sum()) for s, m in (batch.is_noisy or {}).items()})


def text_loss(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """Return the summed cross-entropy of labels [M] under hidden [M, D] and the head's weight [V, D].

    On a GPU with a large vocabulary the logits never exist as a whole (torch 2.13 and later).
    """
    fused = getattr(F, "linear_cross_entropy", None) if hidden.is_cuda else None
    if fused is not None:
        return fused(hidden, weight, labels, reduction="sum")
    return F.cross_entropy(F.linear(hidden, weight).float(), labels, reduction="sum")


def loss_sums(model: OmniModel, batch: PackedBatch, *, sigma_floor: float = SIGMA_FLOOR) -> LossSums:
    """Run the model on a batch and sum its losses.

    Where the model predicts clean latents, prediction and target meet the same floor of sigma
    (arXiv:2511.13720), so that the loss is a velocity loss whose weight stays bounded near sigma 0.

    Args:
        model: in training mode, perhaps wrapped.
        batch: packed, with labels, velocities and the mask of trained tokens.
        sigma_floor: where the model predicts clean latents, their error is divided by sigma, but by no less than this.
            At .31 that is the weight of min-SNR-5 (arXiv:2303.09556).
    """
    assert batch.labels is not None and batch.velocity is not None and batch.is_noisy is not None
    output = model(batch, with_logits=False)
    text = text_loss(output.hidden_states, model.lm_head.weight, batch.labels)
    flow = {}
    for stream, said in output.velocity.items():
        if stream not in batch.latents:
            flow[stream] = said.sum() * 0
            continue
        target, trained = batch.velocity[stream], batch.is_noisy[stream]
        if model.config.prediction == "clean":
            sigma = _token_sigma(batch, stream, model.config).unsqueeze(-1)
            floored = sigma.clamp(min=max(sigma_floor, SIGMA_FLOOR))
            said, target = said * (sigma.clamp(min=SIGMA_FLOOR) / floored), target * (sigma / floored)
        flow[stream] = F.mse_loss(said[trained], target[trained], reduction="sum") / target.shape[-1]
    return LossSums(text, flow)


def _token_sigma(batch: PackedBatch, stream: str, config: object) -> Tensor:
    from omni.config import MODALITIES

    kinds = [MODALITIES.index(m) for m, s in config.stream_of.items() if s == stream]  # type: ignore[attr-defined]
    flat = batch.modality.flatten()
    places = torch.isin(flat, flat.new_tensor(kinds))
    return batch.sigmas[batch.sigma_index.flatten()[places]]
