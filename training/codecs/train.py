"""Train the vision codec on rendered scenes: `python -m training.codecs.train CONFIG [key=value ...]`.

Only single frames are trained, at 2-D cost; the temporal kernels of the 3-D class are set to zero, which
codes every frame of a clip by itself until a video training goes on from here.
B pictures, C latent channels, H rows, W columns.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from omni.codecs.frames import FramePath
from training.codecs.config import PictureCodecConfig
from training.codecs.export import export
from training.codecs.scenes import open_bank, render_scenes
from training.codecs.trainer import CodecTrainer, psnr, to_float
from training.settings import run_program

__all__ = ["PictureTrainer", "build_autoencoder"]

NUM_VALIDATION = 128


@torch.no_grad()
def build_autoencoder(config: PictureCodecConfig) -> Any:
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


class PictureTrainer(CodecTrainer):
    """The state of one training.

    Args:
        config: its dials.
    """

    def __init__(self, config: PictureCodecConfig) -> None:
        self.config = config
        self.autoencoder = build_autoencoder(config)
        self.model = FramePath(self.autoencoder)
        super().__init__(config, self.model.named_parameters())
        self.banks = [
            open_bank(
                self.folder / "scenes",
                size=(rows, columns),
                count=count,
                seed=config.seed,
                num_workers=config.threads,
            )
            for rows, columns, _, count in config.sizes
        ]
        held_out = render_scenes(0, NUM_VALIDATION, size=config.sizes[0][:2], split="validation", seed=config.seed)
        self.held_out = to_float(held_out)

    def batch(self) -> Tensor:
        """Draw this step's pictures, [B, 3, H, W] in [-1, 1]; they depend on seed and step alone."""
        rng = np.random.default_rng((self.config.seed, self.step))
        shares = np.array([row[2] for row in self.config.sizes], dtype=np.float64)
        bank: NDArray[np.uint8] = self.banks[rng.choice(len(self.banks), p=shares / shares.sum())]
        count = max(1, round(self.config.batch_size * 64 * 64 / (bank.shape[1] * bank.shape[2])))
        return to_float(bank[np.sort(rng.integers(len(bank), size=count))])

    def loss(self) -> tuple[Tensor, dict[str, float]]:
        """Compute squared error + absolute and edge errors (early) + KL divergence, and figures to log."""
        pictures = self.batch()
        latents, kl = self.sample(self.model.encode(pictures), dim=1)
        rebuilt = self.model.decode(latents)
        total = F.mse_loss(rebuilt, pictures) + self.config.kl_weight * kl
        early = max(0.0, 1.0 - self.progress / 0.6)
        if early > 0.0:
            pairs = zip(_edges(rebuilt), _edges(pictures), strict=True)
            edge = torch.stack([F.l1_loss(a, b) for a, b in pairs]).sum()
            absolute = F.l1_loss(rebuilt, pictures)
            total = total + early * (self.config.absolute_weight * absolute + self.config.edge_weight * edge)
        return total, {"kl": kl.item(), "psnr": psnr(rebuilt.detach(), pictures).mean().item()}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Measure the mean PSNR in dB on held-out scenes."""
        parts = self.held_out.split(32)
        values = [psnr(self.model.decode(self.model.encode(part).chunk(2, dim=1)[0]), part) for part in parts]
        return {"validation_psnr": torch.cat(values).mean().item()}

    def export(self) -> None:
        """Write the codec folder."""
        self.model.write_back(self.autoencoder)
        export(self.autoencoder, config=self.config, banks=self.banks)


def main(config: PictureCodecConfig) -> None:
    """Train and export."""
    torch.set_num_threads(config.threads)
    trainer = PictureTrainer(config)
    trainer.run()
    trainer.export()


if __name__ == "__main__":
    sys.exit(run_program(PictureCodecConfig, main, "training.codecs.train"))
