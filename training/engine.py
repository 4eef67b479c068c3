"""The seam between the loop and whatever carries the weights: backward, step, averages, state.

Here is what all engines share, and the plain one; training.zero has DeepSpeed's.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from omni.errors import CheckpointError
from omni.losses import loss_counts, loss_sums
from omni.model import OmniModel
from omni.sequence import PackedBatch
from training.average import Average
from training.config import Optimizer, TrainConfig
from training.muon import Muon
from training.ranks import Ranks

__all__ = ["Engine", "Losses", "PlainEngine", "StepReport", "best_precision", "build_optimizers", "learning_rate"]


def best_precision() -> str:
    """Return the faster of bfloat16 and float32 here, by timing one matrix product of each."""
    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.ones(512, 512, dtype=dtype)
        x @ x
        start = time.perf_counter()
        for _ in range(5):
            x @ x
        seconds[dtype] = time.perf_counter() - start
    return "bfloat16" if seconds[torch.bfloat16] < 0.8 * seconds[torch.float32] else "float32"


def is_matrix(name: str, parameter: Tensor) -> bool:
    """Whether Muon steps a parameter: the matrices inside the layers."""
    return parameter.ndim == 2 and name.startswith("layers.") and "modulation" not in name


def build_optimizers(model: nn.Module, config: Optimizer, precision: str) -> list[torch.optim.Optimizer]:
    """Build Muon for the matrices of the layers and AdamW for the rest, or AdamW alone."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    matrices = [p for name, p in named if config.kind == "muon" and is_matrix(name, p)]
    others = [p for name, p in named if config.kind != "muon" or not is_matrix(name, p)]
    optimizers: list[torch.optim.Optimizer] = []
    if others:
        optimizers.append(
            torch.optim.AdamW(
                others, lr=config.vector_lr, betas=config.betas, weight_decay=config.weight_decay, fused=True
            )
        )
    if matrices:
        optimizers.append(
            Muon(
                matrices,
                lr=config.matrix_lr,
                momentum=config.momentum,
                weight_decay=config.weight_decay,
                dtype=torch.bfloat16 if precision == "bfloat16" else None,
            )
        )
    return optimizers


def learning_rate(step: int, *, steps: int, warmup: int, decay: float) -> float:
    """Return the share of the full learning rate at a step: up, flat, down to zero (arXiv:2404.06395)."""
    rise = min(1.0, (step + 1) / max(1, warmup))
    remaining = (steps - step) / max(1.0, decay * steps)
    return max(0.0, min(rise, remaining))


class StepReport(dict[str, float]):
    """Figures of one step: losses by name, gradient norm, tokens; `skipped` is 1 where nothing was learnt."""


class Losses(nn.Module):
    """The model and its losses as one forward pass, which is what replicas and DeepSpeed wrap."""

    def __init__(self, model: OmniModel, *, sigma_floor: float) -> None:
        super().__init__()
        self.model, self.sigma_floor = model, sigma_floor

    def forward(self, batch: PackedBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the summed losses: of text, and of the latents by stream."""
        sums = loss_sums(self.model, batch, sigma_floor=self.sigma_floor)
        return sums.text, sums.flow


class Engine:
    """What all engines share: the losses over global counts, averages of the weights, and their state.

    Args:
        model: trained in place.
        config: optimizer, schedule and precision.
        device: where to train.
        ranks: the processes that train together.
    """

    def __init__(self, model: OmniModel, config: TrainConfig, device: torch.device, ranks: Ranks | None = None) -> None:
        self.config = config
        self.device = device
        self.ranks = ranks or Ranks()
        self.precision = best_precision() if config.precision == "auto" else config.precision
        self.model = model.to(device).train()
        self.model.gradient_checkpointing = config.engine.gradient_checkpointing
        self.trained = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
        self.is_partial = any(not p.requires_grad for p in self.model.parameters())

    # What an engine does in its own way.

    def _losses(self, batch: PackedBatch) -> tuple[Tensor, dict[str, Tensor]]:
        raise NotImplementedError

    def _backward(self, loss: Tensor, *, is_last: bool) -> None:
        raise NotImplementedError

    def _update(self, share: float) -> float:
        """Step the weights at a share of the learning rate; return the gradient norm, not finite where skipped."""
        raise NotImplementedError

    def _discard(self) -> None:
        """Forget the gradients of a step that cannot be used."""
        raise NotImplementedError

    def averaged(self) -> Any:
        """Put the averaged weights in place for the length of a with block."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """Return weights, averaged weights and optimizer states; on all ranks but the first it may be empty."""
        raise NotImplementedError

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a state_dict was taken."""
        raise NotImplementedError

    # What is common.

    def step(self, batches: Sequence[PackedBatch], *, step: int) -> StepReport:
        """Learn from the batches of one step, each loss divided by its own count over all of them and all ranks."""
        batches = [batch.to(self.device) for batch in batches]
        streams = list(self.model.config.streams)
        own = [_counts(batch, streams) for batch in batches]
        totals = self.ranks.sum([sum(column) for column in zip(*own, strict=True)], self.device)
        num_text, num_tokens, *per_stream = totals
        num_text, num_flow = max(1, num_text), max(1, sum(per_stream))
        objective = self.config.objective
        sums = [0.0] * (1 + len(streams))
        schedule = self.config.schedule
        share = learning_rate(step, steps=schedule.steps, warmup=schedule.warmup, decay=schedule.decay)
        is_bad = False
        for number, batch in enumerate(batches):
            text_sum, flow_sums = self._losses(batch)
            text, flow = text_sum / num_text, sum(flow_sums.values()) / num_flow
            loss = objective.text_weight * text + objective.flow_weight * flow
            is_bad = self.ranks.sum([0.0 if bool(torch.isfinite(loss)) else 1.0], self.device)[0] > 0
            for place, value in enumerate([text_sum, *(flow_sums.get(s) for s in streams)]):
                sums[place] += float(value.detach()) if value is not None else 0.0
            if is_bad:
                break
            self._backward(loss, is_last=number == len(batches) - 1)
        sums = self.ranks.sum(sums, self.device)
        report = StepReport(text_loss=sums[0] / num_text, flow_loss=sum(sums[1:]) / num_flow, tokens=num_tokens)
        for stream, total, count in zip(streams, sums[1:], per_stream, strict=True):
            if count and len(streams) > 1:
                report[f"flow_loss/{stream}"] = total / count
        if is_bad:
            self._discard()
        report["grad_norm"] = math.nan if is_bad else self._update(share)
        report["skipped"] = float(not math.isfinite(report["grad_norm"]))
        report["learning_rate"] = share
        return report

    @torch.no_grad()
    def validate(self, batches: Sequence[PackedBatch]) -> StepReport:
        """Return the losses of the averaged weights on held-back batches, the same on all ranks."""
        streams = list(self.model.config.streams)
        sums, counts = [0.0] * (1 + len(streams)), [0.0] * (1 + len(streams))
        with self.averaged():
            for batch in batches:
                batch = batch.to(self.device)
                text, flow = self._validation_losses(batch)
                num_text, _, *per_stream = _counts(batch, streams)
                for place, (value, count) in enumerate(
                    zip([text, *(flow.get(s) for s in streams)], [num_text, *per_stream], strict=True)
                ):
                    sums[place] += float(value) if value is not None else 0.0
                    counts[place] += count
        report = StepReport(
            valid_text=sums[0] / max(1.0, counts[0]), valid_flow=sum(sums[1:]) / max(1.0, sum(counts[1:]))
        )
        for stream, total, count in zip(streams, sums[1:], counts[1:], strict=True):
            if count and len(streams) > 1:
                report[f"valid_flow/{stream}"] = total / count
        return report

    def _validation_losses(self, batch: PackedBatch) -> tuple[Tensor, dict[str, Tensor]]:
        return self._losses(batch)

    def weights(self) -> dict[str, Tensor]:
        """Return the weights to be saved: all, or with frozen ones only the trained."""
        if not self.is_partial:
            return self.model.state_dict()
        return {name: p.detach() for name, p in self.trained}

    def load_weights(self, state: Mapping[str, Tensor]) -> None:
        """Put saved weights in place.

        Raises:
            CheckpointError: they are of another model or adapter.
        """
        expected = self.weights()
        differing = [n for n in {*expected, *state} if n not in expected or n not in state]
        differing += [n for n in expected if n in state and expected[n].shape != state[n].shape]
        if differing:
            raise CheckpointError(
                f"the checkpoint is of another config: {sorted(differing)[0]} differs; start with --fresh, or "
                "choose another output"
            )
        with torch.no_grad():
            for name, value in expected.items():
                value.copy_(state[name])


def _counts(batch: PackedBatch, streams: Sequence[str]) -> list[float]:
    """Return text targets, tokens, and noisy latent tokens by stream."""
    counts = loss_counts(batch)
    return [float(counts.text), float(batch.num_tokens), *(float(counts.flow.get(s, 0)) for s in streams)]


class PlainEngine(Engine):
    """Plain torch on one device; with several processes, replicas whose gradients are averaged."""

    def __init__(self, model: OmniModel, config: TrainConfig, device: torch.device, ranks: Ranks | None = None) -> None:
        super().__init__(model, config, device, ranks)
        self.losses: nn.Module = Losses(self.model, sigma_floor=config.objective.sigma_floor)
        if self.ranks.size > 1:
            from torch.nn.parallel import DistributedDataParallel

            self.losses = DistributedDataParallel(self.losses, device_ids=[device.index] if device.index else None)
        self.optimizers = build_optimizers(self.model, config.optimizer, self.precision)
        self.full_rates = [[group["lr"] for group in o.param_groups] for o in self.optimizers]
        self.ema = Average([p for _, p in self.trained], decay=config.optimizer.ema_decay)

    def _losses(self, batch: PackedBatch) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            return self.losses(batch)

    def _validation_losses(self, batch: PackedBatch) -> tuple[Tensor, dict[str, Tensor]]:
        sums = loss_sums(self.model, batch, sigma_floor=self.config.objective.sigma_floor)
        return sums.text, sums.flow

    def _backward(self, loss: Tensor, *, is_last: bool) -> None:
        # Replicas average their gradients, and the loss is meant to be summed.
        is_held = self.ranks.size > 1 and not is_last
        with self.losses.no_sync() if is_held else nullcontext():  # type: ignore[operator]
            (loss * self.ranks.size if self.ranks.size > 1 else loss).backward()

    def _update(self, share: float) -> float:
        norm = float(nn.utils.clip_grad_norm_([p for _, p in self.trained], self.config.optimizer.clip))
        if not math.isfinite(norm):
            self._discard()
            return norm
        for optimizer, rates in zip(self.optimizers, self.full_rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * share
            optimizer.step()
        self._discard()
        self.ema.step([p for _, p in self.trained])
        return norm

    def _discard(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Put the averaged weights in place for the length of a with block."""
        parameters = [p for _, p in self.trained]
        self.ema.swap_in(parameters)
        try:
            yield
        finally:
            self.ema.swap_out(parameters)

    def state_dict(self) -> dict[str, Any]:
        """Return weights, averaged weights and optimizer states."""
        return {
            "model": self.weights(),
            "ema": self.ema.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a state_dict was taken.

        Raises:
            CheckpointError: it is of another config.
        """
        if len(state["optimizers"]) != len(self.optimizers):
            raise CheckpointError("the checkpoint is of another optimizer.kind; start with --fresh, or keep the kind")
        self.load_weights(state["model"])
        self.ema.load_state_dict(state["ema"])
        for optimizer, held in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(held)
