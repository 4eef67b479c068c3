"""What every training of a vision codec shares: two optimisers, averaged weights, the schedule, and resuming."""

from __future__ import annotations

import json
import math
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from omni.errors import CheckpointError
from training.muon import Muon
from training.settings import Section

__all__ = ["CodecTrainer", "TrainerConfig", "flicker", "psnr", "to_float"]

LOG_EVERY = 20


class TrainerConfig(Section):
    """Dials of every codec training.

    minutes: time of training that the schedule follows; without effect when `steps` is given.
    steps: number of steps that the schedule follows.
    matrix_lr: learning rate of Muon, for kernels.
    vector_lr: learning rate of AdamW, for norms, biases and the outermost kernels.
    warmup: share of the budget in which the learning rate rises.
    kl_weight: weight of the KL divergence per latent element, against the squared error per pixel value.
    ema_decay: decay of the averaged weights.
    seed: of weights, material and noise.
    output: folder of checkpoint and log.
    export: codec folder that is written at the end.
    """

    minutes: float = Field(18.0, gt=0)
    steps: int | None = Field(None, gt=0)
    matrix_lr: float = Field(0.02, gt=0)
    vector_lr: float = Field(2e-3, gt=0)
    warmup: float = Field(0.03, gt=0)
    kl_weight: float = Field(1e-4, ge=0)
    ema_decay: float = Field(0.998, ge=0, lt=1)
    validate_every: int = Field(250, gt=0)
    save_every: int = Field(500, gt=0)
    seed: int = 0
    threads: int = Field(2, gt=0)
    output: str
    export: str


def psnr(pixels: Tensor, originals: Tensor) -> Tensor:
    """Compute the peak signal-to-noise ratio of each picture in dB, [B], from [B, ...] in [-1, 1]."""
    error = (pixels.clamp(-1, 1) - originals).square().flatten(1).mean(1)
    return 10.0 * torch.log10(4.0 / error.clamp(min=1e-10))


def flicker(rebuilt: Tensor, originals: Tensor) -> Tensor:
    """Return the mean absolute error of frame differences, of 255, for clips [B, T, 3, H, W] in [-1, 1]."""
    differences = (rebuilt[:, 1:] - rebuilt[:, :-1]) - (originals[:, 1:] - originals[:, :-1])
    return differences.abs().mean() * 127.5


def to_float(pictures: NDArray[np.uint8]) -> Tensor:
    """Turn pictures of [..., H, W, 3] bytes into [..., 3, H, W] in [-1, 1]."""
    return torch.from_numpy(np.array(pictures)).movedim(-1, -3).float() / 127.5 - 1.0


class CodecTrainer(ABC):
    """The state of one training: weights, averaged weights, optimisers, step, time spent.

    Args:
        config: its dials.
        named: the weights to be trained.
    """

    def __init__(self, config: TrainerConfig, named: Iterable[tuple[str, nn.Parameter]]) -> None:
        self.base = config
        self.folder = Path(config.output).expanduser()
        self.folder.mkdir(parents=True, exist_ok=True)
        pairs = list(named)
        matrices = [weight for name, weight in pairs if _is_matrix(name, weight)]
        vectors = [weight for name, weight in pairs if not _is_matrix(name, weight)]
        self.optimisers: list[torch.optim.Optimizer] = [
            Muon(matrices, lr=config.matrix_lr),
            torch.optim.AdamW(vectors, lr=config.vector_lr, betas=(0.9, 0.99), weight_decay=0.0),
        ]
        self.weights = [weight for _, weight in pairs]
        self.average = [weight.detach().clone() for weight in self.weights]
        self.step, self.elapsed_s = 0, 0.0

    @abstractmethod
    def loss(self) -> tuple[Tensor, dict[str, float]]:
        """Compute this step's loss, which depends on seed and step alone, and figures to log."""

    @abstractmethod
    def validate(self) -> dict[str, float]:
        """Measure the weights as they are on held-out material."""

    @property
    def progress(self) -> float:
        """Share of the budget that is spent, in [0, 1]."""
        if self.base.steps is not None:
            return min(1.0, self.step / self.base.steps)
        return min(1.0, self.elapsed_s / (60.0 * self.base.minutes))

    def noise(self, like: Tensor) -> Tensor:
        """Draw this step's normal noise."""
        return torch.randn(like.shape, generator=torch.Generator().manual_seed(self.base.seed + self.step))

    def sample(self, moments: Tensor, *, dim: int) -> tuple[Tensor, Tensor]:
        """Draw latents of moments (means, then log variances along `dim`), and their KL divergence per element."""
        mean, log_variance = moments.chunk(2, dim=dim)
        log_variance = log_variance.clamp(-12.0, 4.0)
        kl = 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).mean()
        return mean + torch.exp(0.5 * log_variance) * self.noise(mean), kl

    def train_step(self) -> dict[str, float]:
        """Make one update, and return the figures to log."""
        started = time.perf_counter()
        scale = min(1.0, self.progress / self.base.warmup + 0.01) * 0.5 * (1.0 + math.cos(math.pi * self.progress))
        for optimiser, lr in zip(self.optimisers, (self.base.matrix_lr, self.base.vector_lr), strict=True):
            optimiser.param_groups[0]["lr"] = lr * scale
        total, figures = self.loss()
        total.backward()
        torch.nn.utils.clip_grad_norm_(self.optimisers[1].param_groups[0]["params"], 1.0)
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        decay = min(self.base.ema_decay, (1.0 + self.step) / (10.0 + self.step))
        torch._foreach_lerp_(self.average, [weight.detach() for weight in self.weights], 1.0 - decay)
        self.step += 1
        self.elapsed_s += time.perf_counter() - started
        return {"loss": total.item(), **figures}

    @torch.no_grad()
    def swap_average(self) -> None:
        """Exchange the weights and their average."""
        for weight, averaged in zip(self.weights, self.average, strict=True):
            kept = weight.clone()
            weight.copy_(averaged)
            averaged.copy_(kept)

    def save(self) -> None:
        """Write the checkpoint aside, then move it into place."""
        state = {
            "weights": [weight.detach() for weight in self.weights],
            "average": self.average,
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "step": self.step,
            "elapsed_s": self.elapsed_s,
        }
        aside = self.folder / "checkpoint.part"
        torch.save(state, aside)
        os.replace(aside, self.folder / "checkpoint.pt")

    @torch.no_grad()
    def resume(self) -> bool:
        """Go on from the checkpoint of the output folder, if there is one.

        Raises:
            CheckpointError: it belongs to another autoencoder, or is damaged.
        """
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            return False
        try:
            state = torch.load(path, weights_only=True)
            for mine, saved in ((self.weights, state["weights"]), (self.average, state["average"])):
                for weight, value in zip(mine, saved, strict=True):
                    weight.copy_(value)
        except (RuntimeError, ValueError, KeyError, EOFError) as error:
            raise CheckpointError(f"{path} does not fit this config ({error}); delete it to start again") from error
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.step, self.elapsed_s = state["step"], state["elapsed_s"]
        return True

    def run(self) -> None:
        """Train until the budget is spent, with checkpoints, log and progress; the averaged weights stay."""
        if self.resume():
            print(f"resumed at step {self.step}")
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as log:
            while self.progress < 1.0:
                figures = self.train_step()
                is_measured = self.step % self.base.validate_every == 0 or self.progress >= 1.0
                if is_measured:
                    self.swap_average()
                    figures |= self.validate()
                    self.swap_average()
                if is_measured or self.step % LOG_EVERY == 0:
                    log.write(json.dumps({"step": self.step, "elapsed_s": self.elapsed_s, **figures}) + "\n")
                    log.flush()
                    words = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
                    start = f"{100 * self.progress:5.1f} %  step {self.step}  {self.elapsed_s:.0f} s"
                    print(f"{start}  {words:90s}", end="\n" if is_measured else "\r", flush=True)
                if self.step % self.base.save_every == 0 or self.progress >= 1.0:
                    self.save()
        self.swap_average()


def _is_matrix(name: str, weight: Tensor) -> bool:
    is_outermost = name.startswith(("encoder.conv_in", "decoder.conv_out"))
    return weight.dim() >= 4 and not is_outermost
