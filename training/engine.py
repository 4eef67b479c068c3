"""The seam between the loop and whatever carries the weights: backward, step, save, load."""

import time
from typing import Any

import torch
from torch import Tensor, nn

from omni.losses import loss_sums
from omni.model import OmniModel
from omni.sequence import PackedBatch
from training.codecs.muon import Muon
from training.config import Optimizer, TrainConfig

__all__ = ["PlainEngine", "StepReport", "best_precision", "build_optimizers", "learning_rate"]


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


def build_optimizers(model: nn.Module, config: Optimizer) -> list[torch.optim.Optimizer]:
    """Build Muon for the matrices of the layers and AdamW for the rest, or AdamW alone."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    matrices = [p for name, p in named if config.kind == "muon" and is_matrix(name, p)]
    others = [p for name, p in named if config.kind != "muon" or not is_matrix(name, p)]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(others, lr=config.vector_lr, betas=config.betas, weight_decay=config.weight_decay, fused=True)
    ]
    if matrices:
        optimizers.append(
            Muon(matrices, lr=config.matrix_lr, momentum=config.momentum, weight_decay=config.weight_decay)
        )
    return optimizers


def learning_rate(step: int, *, steps: int, warmup: int, decay: float) -> float:
    """Return the share of the full learning rate at a step: up, flat, down to zero (arXiv:2404.06395)."""
    rise = min(1.0, (step + 1) / max(1, warmup))
    remaining = (steps - step) / max(1.0, decay * steps)
    return max(0.0, min(rise, remaining))


class StepReport(dict[str, float]):
    """Figures of one step: losses by name, gradient norm, tokens."""


class PlainEngine:
    """Plain torch on one device.

    Args:
        model: trained in place.
        config: optimizer, schedule and precision.
        device: where to train.
    """

    def __init__(self, model: OmniModel, config: TrainConfig, device: torch.device) -> None:
        from diffusers.training_utils import EMAModel

        self.model = model.to(device).train()
        self.config = config
        self.device = device
        self.precision = best_precision() if config.precision == "auto" else config.precision
        self.optimizers = build_optimizers(self.model, config.optimizer)
        self.full_rates = [[group["lr"] for group in o.param_groups] for o in self.optimizers]
        self.ema = EMAModel(
            self.model.parameters(),
            decay=config.optimizer.ema_decay,
            use_ema_warmup=True,
            power=0.8,
            foreach=True,
        )

    def step(self, batches: list[PackedBatch], *, step: int) -> StepReport:
        """Learn from the batches of one step, each loss divided by its own count over all of them."""
        objective = self.config.objective
        batches = [batch.to(self.device) for batch in batches]
        num_text = max(1, sum(len(batch.logit_index) for batch in batches))
        num_flow = max(
            1,
            sum(
                int(m.sum()) * batch.latents[s].shape[-1]
                for batch in batches
                for s, m in (batch.is_noisy or {}).items()
            ),
        )
        report = StepReport(text_loss=0.0, flow_loss=0.0, tokens=0.0)
        for batch in batches:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
                sums = loss_sums(self.model, batch)
            text, flow = sums.text / num_text, sum(sums.flow.values()) / num_flow
            (objective.text_weight * text + objective.flow_weight * flow).backward()
            report["text_loss"] += text.item()
            report["flow_loss"] += flow.item()
            report["tokens"] += batch.num_tokens
        report["grad_norm"] = float(nn.utils.clip_grad_norm_(self.model.parameters(), self.config.optimizer.clip))
        self._update(step)
        return report

    def _update(self, step: int) -> None:
        schedule = self.config.schedule
        share = learning_rate(step, steps=schedule.steps, warmup=schedule.warmup, decay=schedule.decay)
        for optimizer, rates in zip(self.optimizers, self.full_rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * share
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.ema.step(self.model.parameters())

    @torch.no_grad()
    def validate(self, batches: list[PackedBatch]) -> StepReport:
        """Return the losses of the averaged weights on held-back batches."""
        self.ema.store(self.model.parameters())
        self.ema.copy_to(self.model.parameters())
        text = flow = num_text = num_flow = 0.0
        for batch in batches:
            batch = batch.to(self.device)
            sums = loss_sums(self.model, batch)
            text, num_text = text + float(sums.text), num_text + len(batch.logit_index)
            for stream, value in sums.flow.items():
                flow += float(value)
                num_flow += int(batch.is_noisy[stream].sum()) * batch.latents[stream].shape[-1]  # type: ignore[index]
        self.ema.restore(self.model.parameters())
        return StepReport(valid_text=text / max(1, num_text), valid_flow=flow / max(1, num_flow))

    def state_dict(self) -> dict[str, Any]:
        """Return weights, averaged weights and optimizer states."""
        return {
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a state_dict was taken."""
        self.model.load_state_dict(state["model"])
        self.ema.load_state_dict(state["ema"])
        for optimizer, held in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(held)
