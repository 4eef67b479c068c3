"""Teach a picture codec films: `python -m training.codecs.film CONFIG [key=value ...]`.

All weights learn, from pictures and clips together; the latents of pictures are held where they were, so that a
model that reads them need not learn them anew. B clips, T frames, H rows, W columns, C latent channels.
"""

from __future__ import annotations

import copy
import random
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from omni.codecs.clips import ClipPath
from omni.codecs.vision import VisionCodec
from training.codecs.scenes import render_scenes
from training.codecs.trainer import CodecTrainer, TrainerConfig, flicker, psnr, to_float
from training.settings import run_program
from training.world.scene import PICTURE_SIZES
from training.world.verbs import sample_clips

__all__ = ["FilmCodecConfig", "FilmTrainer"]

VALIDATION_SEED = 1_000_003
NUM_VALIDATION = 24


class FilmCodecConfig(TrainerConfig):
    """Dials of the training on films.

    codec: folder of the codec trained on pictures.
    num_frames, batch_size: of a step's clips, 64x64 pixels each.
    num_pictures: of a step.
    difference_weight: of the error of frame to frame differences, against flicker.
    anchor_weight: of the squared distance of pictures' latents, in standard deviations, from where they were.
    encoder: whether the encoder learns too, or only the way back.
    levels: resolutions whose kernels look back in time, counted from that of the latents upwards.
    """

    codec: str
    num_frames: int = Field(9, gt=1)
    batch_size: int = Field(5, gt=0)
    num_pictures: int = Field(12, gt=0)
    difference_weight: float = Field(1.0, ge=0)
    anchor_weight: float = Field(0.2, ge=0)
    encoder: bool = True
    levels: int = Field(2, gt=0)


def looking_back(codec: VisionCodec, levels: int) -> set[str]:
    """Name the 3-D kernels at the `levels` coarsest resolutions."""
    wan = codec.autoencoder
    prefixes = ["encoder.mid_block", "encoder.conv_out", "decoder.conv_in", "decoder.mid_block"]
    prefixes += [f"decoder.up_blocks.{number}.resnets" for number in range(levels)]
    level = 1
    for number, block in reversed(list(enumerate(wan.encoder.down_blocks))):
        if type(block).__name__ == "WanResample":
            level += 1
        elif level <= levels:
            prefixes.append(f"encoder.down_blocks.{number}.")
    return {
        name
        for name, module in wan.named_modules()
        if isinstance(module, nn.Conv3d) and module.kernel_size[0] == 3 and name.startswith(tuple(prefixes))
    }


@torch.no_grad()
def start_time_kernels(codec: VisionCodec) -> None:
    """Let the kernels of the frame rate begin as the mean of two frames, and as the same frame twice."""
    for name, module in codec.autoencoder.named_modules():
        if not name.endswith("time_conv") or module.weight[:, :, :-1].any():
            continue  # none, or trained before
        width = module.weight.shape[1]
        module.weight.zero_()
        module.bias.zero_()
        same = torch.eye(width)
        if module.stride[0] == 2:
            module.weight[:, :, 1, 0, 0] = module.weight[:, :, 2, 0, 0] = 0.5 * same
        else:
            module.weight[:width, :, 2, 0, 0] = module.weight[width:, :, 2, 0, 0] = same


class FilmTrainer(CodecTrainer):
    """The state of one training.

    Args:
        config: its dials.
    """

    def __init__(self, config: FilmCodecConfig) -> None:
        self.config = config
        self.codec = VisionCodec.from_folder(config.codec)
        self.teacher = copy.deepcopy(self.codec)
        start_time_kernels(self.codec)
        wan = self.codec.autoencoder
        self.path = ClipPath(wan, trained=looking_back(self.codec, config.levels))
        wan.requires_grad_(config.encoder)
        wan.decoder.requires_grad_(True)
        super().__init__(config, [pair for pair in wan.named_parameters() if pair[1].requires_grad])
        clips = sample_clips(random.Random(VALIDATION_SEED), NUM_VALIDATION, 17)
        self.held_out = to_float(clips)
        scenes = render_scenes(0, 96, size=(64, 64), split="validation", seed=config.seed)
        self.held_out_pictures = to_float(scenes)[:, None]

    def loss(self) -> tuple[Tensor, dict[str, float]]:
        """Compute squared errors of clips, their changes and pictures + KL divergence + anchor."""
        config = self.config
        rng = random.Random(f"{config.seed}/{self.step}")
        clips = to_float(sample_clips(rng, config.batch_size, config.num_frames))
        latents, kl = self.sample(self.path.encode(clips), dim=2)
        rebuilt = self.path.decode(latents)
        steady = F.mse_loss(rebuilt[:, 1:] - rebuilt[:, :-1], clips[:, 1:] - clips[:, :-1])
        loss = F.mse_loss(rebuilt, clips) + config.difference_weight * steady + config.kl_weight * kl
        pictures, picture_loss, drift = self._picture_loss(rng)
        figures = {
            "psnr": psnr(rebuilt.detach(), clips).mean().item(),
            "flicker": flicker(rebuilt.detach(), clips).item(),
            "picture_psnr": pictures,
            "drift": drift.item(),
        }
        return loss + picture_loss + config.anchor_weight * drift, figures

    def _picture_loss(self, rng: random.Random) -> tuple[float, Tensor, Tensor]:
        config = self.config
        size = rng.choice(PICTURE_SIZES)
        count = max(1, round(config.num_pictures * 64 * 64 / (size[0] * size[1])))
        pictures = to_float(render_scenes(self.step * count, count, size=size, split="train", seed=config.seed))
        pictures = pictures[:, None]
        moments = self.path.encode(pictures)
        latents, kl = self.sample(moments, dim=2)
        rebuilt = self.path.decode(latents)
        drift = self._drift(moments, pictures)
        loss = F.mse_loss(rebuilt, pictures) + config.kl_weight * kl
        return psnr(rebuilt.detach(), pictures).mean().item(), loss, drift

    def _drift(self, moments: Tensor, pictures: Tensor) -> Tensor:
        """Return the mean squared distance, in standard deviations, of pictures' latents from where they were."""
        mean = moments.chunk(2, dim=2)[0].movedim(2, -1)  # [B, 1, H/8, W/8, C]
        with torch.no_grad():
            before = self.teacher.encode(((pictures + 1.0) * 127.5).round().byte().movedim(2, -1))
        return ((mean - self.teacher.latents_mean) / self.teacher.latents_std - before).square().mean()

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Measure held-back clips (PSNR in dB, flicker of 255) and pictures (PSNR)."""
        rebuilt = [self._round_trip(clips) for clips in self.held_out.split(4)]
        every = torch.cat(rebuilt)
        frames = psnr(every.flatten(0, 1), self.held_out.flatten(0, 1))
        pictures = torch.cat([self._round_trip(part) for part in self.held_out_pictures.split(32)])
        drift = self._drift(self.path.encode(self.held_out_pictures), self.held_out_pictures)
        return {
            "valid_psnr": frames.mean().item(),
            "valid_flicker": flicker(every, self.held_out).item(),
            "valid_picture_psnr": psnr(pictures, self.held_out_pictures).mean().item(),
            "valid_drift": drift.item() ** 0.5,
        }

    def _round_trip(self, clips: Tensor) -> Tensor:
        return self.path.decode(self.path.encode(clips).chunk(2, dim=2)[0]).clamp(-1, 1)

    def export(self) -> None:
        """Write the codec folder; latent statistics stay those of pictures."""
        dtype = getattr(torch, self.codec.config.stored_dtype)
        with torch.no_grad():
            for weight in self.weights:
                weight.copy_(weight.to(dtype).float())
        self.codec.save(Path(self.config.export).expanduser())


def main(config: FilmCodecConfig) -> None:
    """Train and export."""
    torch.set_num_threads(config.threads)
    trainer = FilmTrainer(config)
    trainer.run()
    trainer.export()


if __name__ == "__main__":
    sys.exit(run_program(FilmCodecConfig, main, "training.codecs.film"))
