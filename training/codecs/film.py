"""Teach the vision codec films: `python -m training.codecs.film CONFIG [key=value ...]`.

Pictures keep their latents bit for bit: every weight that a lone frame meets stays as it is. Trained are the
convolutions that halve and double the frame rate, and the earlier temporal slices of the kernels at the lowest
resolution, where they cost next to nothing. B clips, T frames, H rows, W columns.
"""

from __future__ import annotations

import json
import math
import os
import random
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from omni.codecs.clips import ClipPath
from omni.codecs.vision import VisionCodec
from training.codecs.train import psnr
from training.settings import Section, run_program
from training.world.verbs import sample_clips

__all__ = ["FilmCodecConfig", "FilmTrainer", "flicker"]

VALIDATION_SEED = 1_000_003
NUM_VALIDATION = 24


class FilmCodecConfig(Section):
    """Dials of the training on films.

    codec: folder of the codec trained on pictures.
    export: folder that is written at the end; may be the same.
    output: folder of checkpoint and log.
    num_frames, batch_size: of a step's clips, 64x64 pixels each.
    minutes: time that the schedule follows.
    lr: of AdamW, with warm-up and a cosine.
    difference_weight: of the error of frame to frame differences, against flicker.
    kl_weight: of the KL divergence per latent element.
    """

    codec: str
    export: str
    output: str = "~/.cache/omni/film-codec"
    num_frames: int = Field(9, gt=1)
    batch_size: int = Field(6, gt=0)
    minutes: float = Field(40.0, gt=0)
    lr: float = Field(4e-4, gt=0)
    warmup: float = Field(0.03, gt=0)
    difference_weight: float = Field(1.0, ge=0)
    kl_weight: float = Field(1e-4, ge=0)
    ema_decay: float = Field(0.995, ge=0, lt=1)
    validate_every: int = Field(50, gt=0)
    seed: int = 0
    threads: int = Field(2, gt=0)


def flicker(rebuilt: Tensor, originals: Tensor) -> Tensor:
    """Return the mean absolute error of frame differences, of 255, for clips [B, T, 3, H, W] in [-1, 1]."""
    differences = (rebuilt[:, 1:] - rebuilt[:, :-1]) - (originals[:, 1:] - originals[:, :-1])
    return differences.abs().mean() * 127.5


def lowest_kernels(codec: VisionCodec) -> set[str]:
    """Name the 3-D kernels at the resolution of the latents."""
    wan = codec.autoencoder
    last = len(wan.encoder.down_blocks) - 1
    prefixes = ("encoder.mid_block", f"encoder.down_blocks.{last}", "encoder.conv_out")
    prefixes += ("decoder.conv_in", "decoder.mid_block", "decoder.up_blocks.0.resnets")
    return {
        name
        for name, module in wan.named_modules()
        if isinstance(module, nn.Conv3d) and module.kernel_size[0] == 3 and name.startswith(prefixes)
    }


@torch.no_grad()
def start_time_kernels(codec: VisionCodec) -> list[nn.Conv3d]:
    """Let the kernels of the frame rate begin as the mean of two frames, and as the same frame twice."""
    found = []
    for name, module in codec.autoencoder.named_modules():
        if not name.endswith("time_conv"):
            continue
        found.append(module)
        if module.weight[:, :, :-1].any():
            continue  # trained before
        width = module.weight.shape[1]
        module.weight.zero_()
        module.bias.zero_()
        same = torch.eye(width)
        if module.stride[0] == 2:
            module.weight[:, :, 1, 0, 0] = module.weight[:, :, 2, 0, 0] = 0.5 * same
        else:
            module.weight[:width, :, 2, 0, 0] = module.weight[width:, :, 2, 0, 0] = same
    return found


class FilmTrainer:
    """The state of one training.

    Args:
        config: its dials.
    """

    def __init__(self, config: FilmCodecConfig) -> None:
        self.config = config
        self.folder = Path(config.output).expanduser()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.codec = VisionCodec.from_folder(config.codec)
        wan = self.codec.autoencoder
        time_kernels = start_time_kernels(self.codec)
        names = lowest_kernels(self.codec)
        modules = dict(wan.named_modules())
        self.path = ClipPath(wan, trained=names)
        self.sliced = [modules[name].weight for name in sorted(names)]
        self.whole = [parameter for module in time_kernels for parameter in (module.weight, module.bias)]
        self.params = [*self.whole, *self.sliced]
        for parameter in self.params:
            parameter.requires_grad_(True)
        self.average = [parameter.detach().clone() for parameter in self.params]
        self.optimizer = torch.optim.AdamW(self.params, lr=config.lr, betas=(0.9, 0.99), weight_decay=0.0)
        self.step, self.elapsed_s = 0, 0.0
        clips = sample_clips(random.Random(VALIDATION_SEED), NUM_VALIDATION, 17)
        self.held_out = _to_float(clips)

    @property
    def progress(self) -> float:
        """Share of the time that is spent, in [0, 1]."""
        return min(1.0, self.elapsed_s / (60.0 * self.config.minutes))

    def train_step(self) -> dict[str, float]:
        """Make one update, and return the figures to log."""
        started, config = time.perf_counter(), self.config
        rng = random.Random(f"{config.seed}/{self.step}")
        clips = _to_float(sample_clips(rng, config.batch_size, config.num_frames))
        mean, log_variance = self.path.encode(clips).chunk(2, dim=2)
        log_variance = log_variance.clamp(-12.0, 4.0)
        noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(config.seed + self.step))
        rebuilt = self.path.decode(mean + torch.exp(0.5 * log_variance) * noise)
        kl = 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).mean()
        steady = F.mse_loss(rebuilt[:, 1:] - rebuilt[:, :-1], clips[:, 1:] - clips[:, :-1])
        loss = F.mse_loss(rebuilt, clips) + config.difference_weight * steady + config.kl_weight * kl
        loss.backward()
        for weight in self.sliced:
            assert weight.grad is not None
            weight.grad[:, :, -1] = 0.0  # what a lone frame meets
        torch.nn.utils.clip_grad_norm_(self.params, 1.0)
        scale = min(1.0, self.progress / config.warmup + 0.01) * 0.5 * (1.0 + math.cos(math.pi * self.progress))
        self.optimizer.param_groups[0]["lr"] = config.lr * scale
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        decay = min(config.ema_decay, (1.0 + self.step) / (10.0 + self.step))
        torch._foreach_lerp_(self.average, [p.detach() for p in self.params], 1.0 - decay)
        self.step += 1
        self.elapsed_s += time.perf_counter() - started
        return {"loss": loss.item(), "psnr": psnr(rebuilt.detach(), clips).mean().item()}

    @torch.no_grad()
    def use_average(self) -> None:
        """Put the averaged weights in place of the trained ones."""
        for parameter, averaged in zip(self.params, self.average, strict=True):
            parameter.copy_(averaged)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Measure the averaged weights on held-back clips: PSNR in dB, flicker of 255."""
        kept = [parameter.detach().clone() for parameter in self.params]
        self.use_average()
        rebuilt = []
        for clips in self.held_out.split(4):
            mean = self.path.encode(clips).chunk(2, dim=2)[0]
            rebuilt.append(self.path.decode(mean).clamp(-1, 1))
        every = torch.cat(rebuilt)
        for parameter, weight in zip(self.params, kept, strict=True):
            parameter.copy_(weight)
        frames = psnr(every.flatten(0, 1), self.held_out.flatten(0, 1))
        return {"valid_psnr": frames.mean().item(), "valid_flicker": flicker(every, self.held_out).item()}

    def save(self) -> None:
        """Write the checkpoint aside, then move it into place."""
        state = {
            "params": [parameter.detach() for parameter in self.params],
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "elapsed_s": self.elapsed_s,
        }
        aside = self.folder / "checkpoint.part"
        torch.save(state, aside)
        os.replace(aside, self.folder / "checkpoint.pt")

    @torch.no_grad()
    def resume(self) -> bool:
        """Go on from the checkpoint of the output folder, if there is one."""
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            return False
        state = torch.load(path, weights_only=True)
        for parameter, weight in zip(self.params, state["params"], strict=True):
            parameter.copy_(weight)
        self.average = state["average"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.elapsed_s = state["step"], state["elapsed_s"]
        return True

    def run(self) -> None:
        """Train until the time is spent."""
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as log:
            while self.progress < 1.0:
                figures = self.train_step()
                if self.step % self.config.validate_every == 0 or self.progress >= 1.0:
                    figures |= self.validate()
                    self.save()
                    log.write(json.dumps({"step": self.step, "elapsed_s": self.elapsed_s, **figures}) + "\n")
                    log.flush()
                    words = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
                    print(f"{100 * self.progress:5.1f} %  step {self.step}  {words}", flush=True)

    def export(self) -> None:
        """Write the codec folder with the averaged weights; latent statistics stay those of pictures."""
        self.use_average()
        dtype = getattr(torch, self.codec.config.stored_dtype)
        with torch.no_grad():
            for parameter in self.params:
                parameter.copy_(parameter.to(dtype).float())
        self.codec.save(Path(self.config.export).expanduser())


def _to_float(clips: np.ndarray) -> Tensor:  # [B, T, H, W, 3] -> [B, T, 3, H, W] in [-1, 1]
    return torch.from_numpy(np.array(clips)).permute(0, 1, 4, 2, 3).float() / 127.5 - 1.0


def main(config: FilmCodecConfig) -> None:
    """Train and export."""
    torch.set_num_threads(config.threads)
    trainer = FilmTrainer(config)
    if trainer.resume():
        print(f"resumed at step {trainer.step}")
    trainer.run()
    trainer.export()


if __name__ == "__main__":
    sys.exit(run_program(FilmCodecConfig, main, "training.codecs.film"))
