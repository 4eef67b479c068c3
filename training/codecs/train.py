"""Train the vision codec on rendered scenes: `python -m training.codecs.train CONFIG [key=value ...]`.

Only single frames are trained, at 2-D cost; the temporal kernels of the 3-D class are set to zero, which
codes every frame of a clip by itself until a video training goes on from here.
B pictures, C latent channels, H rows, W columns.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from omni.codecs.frames import FramePath
from omni.errors import CheckpointError
from training.codecs.config import CodecTrainConfig
from training.codecs.export import export
from training.codecs.scenes import open_bank, render_scenes
from training.muon import Muon
from training.settings import run_program

__all__ = ["CodecTrainer", "build_autoencoder", "psnr"]

NUM_VALIDATION = 128


def psnr(pixels: Tensor, originals: Tensor) -> Tensor:
    """Compute the peak signal-to-noise ratio of each picture in dB, [B], from [B, ...] in [-1, 1]."""
    error = (pixels.clamp(-1, 1) - originals).square().flatten(1).mean(1)
    return 10.0 * torch.log10(4.0 / error.clamp(min=1e-10))


@torch.no_grad()
def build_autoencoder(config: CodecTrainConfig) -> Any:
    """Build the named autoencoder for frames: spatial kernels at 2-D scale, temporal slices zero."""
    import diffusers.models

    torch.manual_seed(config.seed)
    autoencoder = getattr(diffusers.models, config.class_name)(**config.autoencoder)
    for module in autoencoder.modules():
        if isinstance(module, nn.Conv3d):
            # Its initial scale counted the inputs of all temporal slices, and only one is used.
            module.weight.mul_(module.kernel_size[0] ** 0.5)
            module.weight[:, :, :-1] = 0.0
    return autoencoder


def _edges(x: Tensor) -> tuple[Tensor, Tensor]:
    return x[:, :, 1:] - x[:, :, :-1], x[:, :, :, 1:] - x[:, :, :, :-1]


def _is_matrix(name: str, param: Tensor) -> bool:
    is_outermost = name.startswith(("encoder.conv_in", "decoder.conv_out"))
    return param.dim() == 4 and not is_outermost


class CodecTrainer:
    """The state of one training: model, averaged weights, optimisers, step, time spent."""

    def __init__(self, config: CodecTrainConfig) -> None:
        self.config = config
        self.folder = Path(config.output).expanduser()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.autoencoder = build_autoencoder(config)
        self.model = FramePath(self.autoencoder)
        self.average = FramePath(self.autoencoder).requires_grad_(False)
        named = list(self.model.named_parameters())
        matrices = [param for name, param in named if _is_matrix(name, param)]
        vectors = [param for name, param in named if not _is_matrix(name, param)]
        self.optimisers: list[torch.optim.Optimizer] = [
            Muon(matrices, lr=config.matrix_lr),
            torch.optim.AdamW(vectors, lr=config.vector_lr, betas=(0.9, 0.99), weight_decay=0.0),
        ]
        self.step, self.elapsed_s = 0, 0.0
        self.banks = self._open_banks()
        held_out = render_scenes(0, NUM_VALIDATION, size=config.sizes[0][:2], split="validation", seed=config.seed)
        self.held_out = _to_float(held_out)

    def _open_banks(self) -> list[NDArray[np.uint8]]:
        config = self.config
        return [
            open_bank(
                self.folder / "scenes",
                size=(rows, columns),
                count=count,
                seed=config.seed,
                num_workers=config.threads,
            )
            for rows, columns, _, count in config.sizes
        ]

    @property
    def progress(self) -> float:
        """Share of the budget that is spent, in [0, 1]."""
        if self.config.steps is not None:
            return min(1.0, self.step / self.config.steps)
        return min(1.0, self.elapsed_s / (60.0 * self.config.minutes))

    def batch(self) -> Tensor:
        """Draw this step's pictures, [B, 3, H, W] in [-1, 1]; they depend on seed and step alone."""
        rng = np.random.default_rng((self.config.seed, self.step))
        shares = np.array([row[2] for row in self.config.sizes], dtype=np.float64)
        bank = self.banks[rng.choice(len(self.banks), p=shares / shares.sum())]
        count = max(1, round(self.config.batch_size * 64 * 64 / (bank.shape[1] * bank.shape[2])))
        return _to_float(bank[np.sort(rng.integers(len(bank), size=count))])

    def loss(self, pictures: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Compute squared error + absolute and edge errors (early) + KL divergence, and figures to log."""
        mean, log_variance = self.model.encode(pictures).chunk(2, dim=1)
        log_variance = log_variance.clamp(-12.0, 4.0)
        generator = torch.Generator().manual_seed(self.config.seed + self.step)
        noise = torch.randn(mean.shape, generator=generator)
        rebuilt = self.model.decode(mean + torch.exp(0.5 * log_variance) * noise)
        squared = F.mse_loss(rebuilt, pictures)
        kl = 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).mean()
        total = squared + self.config.kl_weight * kl
        early = max(0.0, 1.0 - self.progress / 0.6)
        if early > 0.0:
            pairs = zip(_edges(rebuilt), _edges(pictures), strict=True)
            edge = torch.stack([F.l1_loss(a, b) for a, b in pairs]).sum()
            absolute = F.l1_loss(rebuilt, pictures)
            total = total + early * (self.config.absolute_weight * absolute + self.config.edge_weight * edge)
        figures = {
            "loss": total.item(),
            "kl": kl.item(),
            "psnr": psnr(rebuilt.detach(), pictures).mean().item(),
        }
        return total, figures

    def train_step(self) -> dict[str, float]:
        """Make one update, and return the figures to log."""
        started = time.perf_counter()
        pictures = self.batch()
        scale = min(1.0, self.progress / max(self.config.warmup, 1e-9) + 0.01)
        scale *= 0.5 * (1.0 + math.cos(math.pi * self.progress))
        for optimiser, lr in zip(self.optimisers, (self.config.matrix_lr, self.config.vector_lr), strict=True):
            optimiser.param_groups[0]["lr"] = lr * scale
        total, figures = self.loss(pictures)
        total.backward()
        vectors = self.optimisers[1].param_groups[0]["params"]
        torch.nn.utils.clip_grad_norm_(vectors, 1.0)
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        self._update_average()
        self.step += 1
        seconds = time.perf_counter() - started
        self.elapsed_s += seconds
        return {**figures, "pictures_per_s": len(pictures) / seconds}

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.config.ema_decay, (1.0 + self.step) / (10.0 + self.step))
        parameters = list(self.model.parameters())
        torch._foreach_lerp_(list(self.average.parameters()), parameters, 1.0 - decay)

    @torch.no_grad()
    def validate(self) -> float:
        """Measure the averaged weights' mean PSNR in dB on held-out scenes."""
        values = []
        for pictures in self.held_out.split(32):
            mean = self.average.encode(pictures).chunk(2, dim=1)[0]
            values.append(psnr(self.average.decode(mean), pictures))
        return torch.cat(values).mean().item()

    def save(self) -> None:
        """Write the checkpoint aside, then move it into place."""
        state = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "step": self.step,
            "elapsed_s": self.elapsed_s,
            "config": self.config.model_dump(),
        }
        aside = self.folder / "checkpoint.part"
        torch.save(state, aside)
        os.replace(aside, self.folder / "checkpoint.pt")

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
            self.model.load_state_dict(state["model"])
            self.average.load_state_dict(state["average"])
        except (RuntimeError, KeyError, EOFError) as error:
            raise CheckpointError(f"{path} does not fit this config ({error}); delete it to start again") from error
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.step, self.elapsed_s = state["step"], state["elapsed_s"]
        return True

    def run(self) -> None:
        """Train until the budget is spent; checkpoints, log and progress line on the way."""
        log = (self.folder / "log.jsonl").open("a", encoding="utf-8")
        while self.progress < 1.0:
            figures = self.train_step()
            if self.step % self.config.validate_every == 0 or self.progress >= 1.0:
                figures["validation_psnr"] = self.validate()
            if self.step % 20 == 0 or "validation_psnr" in figures:
                log.write(json.dumps({"step": self.step, "elapsed_s": self.elapsed_s, **figures}) + "\n")
                log.flush()
                self._print_progress(figures)
            if self.step % self.config.save_every == 0 or self.progress >= 1.0:
                self.save()
        log.close()

    def _print_progress(self, figures: dict[str, float]) -> None:
        words = [f"{key} {value:.4g}" for key, value in figures.items()]
        line = f"{100 * self.progress:5.1f} %  step {self.step}  {self.elapsed_s:.0f} s  " + "  ".join(words)
        end = "\n" if "validation_psnr" in figures else "\r"
        print(f"{line:110s}", end=end, flush=True)


def _to_float(pictures: NDArray[np.uint8]) -> Tensor:  # [B, H, W, 3] -> [B, 3, H, W] in [-1, 1]
    return torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def main(config: CodecTrainConfig) -> None:
    """Train and export."""
    torch.set_num_threads(config.threads)
    trainer = CodecTrainer(config)
    if trainer.resume():
        print(f"resumed at step {trainer.step}")
    trainer.run()
    trainer.average.write_back(trainer.autoencoder)
    export(trainer.autoencoder, config=config, banks=trainer.banks)


if __name__ == "__main__":
    sys.exit(run_program(CodecTrainConfig, main, "training.codecs.train"))
