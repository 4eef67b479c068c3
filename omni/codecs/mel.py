"""Sound as principal components of its log-mel spectrogram, and back by Griffin-Lim: an autoencoder without a network.

B recordings, T samples, N frames of the spectrogram, K frequencies, M mel bands, L latents of G frames each,
C channels.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["LogMel", "mel_filters"]

OVERLAP = 4  # windows that cover a sample; the Hann window then adds up to a constant


def _to_mel(hertz: Tensor) -> Tensor:
    """Slaney's scale: even steps up to 1 kHz, even ratios above."""
    return torch.where(
        hertz < 1000.0, hertz * 0.015, 15.0 + 27.0 * torch.log(hertz.clamp(min=1.0) / 1000.0) / math.log(6.4)
    )


def _to_hertz(mel: Tensor) -> Tensor:
    return torch.where(mel < 15.0, mel / 0.015, 1000.0 * torch.exp((mel - 15.0) * math.log(6.4) / 27.0))


def mel_filters(bands: int, *, fft_size: int, sample_rate: int) -> Tensor:
    """Build triangular filters between 0 Hz and half the sample rate, evenly spaced on Slaney's mel scale.

    Args:
        bands: number of filters.
        fft_size: of the spectrum that they weigh, samples.
        sample_rate: in Hz.

    Returns:
        [M, K], the weights of each filter sum to 1.
    """
    highest = torch.tensor(sample_rate / 2, dtype=torch.float64)
    corners = _to_hertz(torch.linspace(0.0, float(_to_mel(highest)), bands + 2, dtype=torch.float64))
    frequencies = torch.linspace(0.0, float(highest), fft_size // 2 + 1, dtype=torch.float64)
    rising = (frequencies - corners[:-2, None]) / (corners[1:-1] - corners[:-2])[:, None]
    falling = (corners[2:, None] - frequencies) / (corners[2:] - corners[1:-1])[:, None]
    filters = torch.minimum(rising, falling).clamp(min=0.0)
    return (filters / filters.sum(1, keepdim=True)).float()


def _start_phase(magnitudes: Tensor) -> Tensor:
    """Guess phases [B, N, K] from magnitudes [B, N, K], as if every peak were a steady sine.

    The phase of a sine of f periods a window grows by 2 pi f / OVERLAP from frame to frame, and falls by pi
    from one frequency of its peak to the next (single pass spectrogram inversion, Beauregard et al. 2015).
    """
    left, middle, right = magnitudes[..., :-2], magnitudes[..., 1:-1], magnitudes[..., 2:]
    is_peak = torch.nn.functional.pad((middle > left) & (middle >= right), (1, 1))
    offset = 0.5 * (left - right) / (left - 2.0 * middle + right).clamp(max=-1e-12)
    places = torch.arange(magnitudes.shape[-1])
    exact = places + torch.nn.functional.pad(offset, (1, 1)).clamp(-0.5, 0.5)
    last = magnitudes.shape[-1] - 1
    below = torch.where(is_peak, places, -last).cummax(-1).values
    above = torch.where(is_peak, places, 3 * last).flip(-1).cummin(-1).values.flip(-1)
    peak = torch.where(places - below < above - places, below, above)
    peak = torch.where((peak < 0) | (peak > last), places, peak)
    frequency = exact.gather(-1, peak)
    turns = (frequency / OVERLAP).double().cumsum(1).gather(-1, peak)
    return (2.0 * math.pi * (turns % 1.0) - math.pi * (places - frequency)).float()


class LogMel(nn.Module):
    """Project groups of log-mel frames on a few directions; rebuild the frames, and a sound that has them.

    Args:
        sample_rate: in Hz.
        fft_size: samples of a window, a multiple of 4; windows overlap by three quarters.
        bands: mel bands of a frame.
        frames_per_latent: neighbouring frames that become one latent.
        channels: numbers of a latent.
        floor: magnitude that is added before the logarithm; a sine of amplitude 1 has magnitude 1.
        iterations: of Griffin-Lim, with the momentum of Perraudin et al. 2013.
        momentum: of these, in [0, 1).
    """

    mean: Tensor
    components: Tensor
    window: Tensor
    filters: Tensor
    inverse: Tensor

    def __init__(
        self,
        *,
        channels: int,
        sample_rate: int = 16000,
        fft_size: int = 1280,
        bands: int = 64,
        frames_per_latent: int = 2,
        floor: float = 1e-4,
        iterations: int = 32,
        momentum: float = 0.99,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "channels": channels,
            "sample_rate": sample_rate,
            "fft_size": fft_size,
            "bands": bands,
            "frames_per_latent": frames_per_latent,
            "floor": floor,
            "iterations": iterations,
            "momentum": momentum,
        }
        self.fft_size, self.hop = fft_size, fft_size // OVERLAP
        self.bands, self.frames_per_latent = bands, frames_per_latent
        self.floor, self.iterations, self.momentum = floor, iterations, momentum / (1.0 + momentum)
        self.samples_per_latent = self.hop * frames_per_latent
        self.register_buffer("mean", torch.zeros(frames_per_latent * bands))
        self.register_buffer("components", torch.eye(channels, frames_per_latent * bands))
        filters = mel_filters(bands, fft_size=fft_size, sample_rate=sample_rate)
        self.register_buffer("window", torch.hann_window(fft_size), persistent=False)
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("inverse", torch.linalg.pinv(filters).clamp(min=0.0), persistent=False)

    def spectrum(self, samples: Tensor) -> Tensor:
        """Transform samples [B, N * hop] into complex frames [B, N, K]; a sine of amplitude 1 has magnitude 1."""
        margin = (self.fft_size - self.hop) // 2
        frames = nn.functional.pad(samples, (margin, margin)).unfold(1, self.fft_size, self.hop)
        return torch.fft.rfft(frames * self.window) * (4.0 / self.fft_size)

    def sound(self, spectrum: Tensor) -> Tensor:
        """Undo `spectrum`; frames that contradict each other are averaged."""
        frames = torch.fft.irfft(spectrum, n=self.fft_size) * (self.window * (self.fft_size / 4.0))
        num_frames, margin = frames.shape[1], (self.fft_size - self.hop) // 2
        squares = self.window.square().expand(1, num_frames, -1)
        return (self._overlap(frames) / self._overlap(squares).clamp(min=1e-3))[
            :, margin : margin + num_frames * self.hop
        ]

    def _overlap(self, frames: Tensor) -> Tensor:  # [B, N, K'] -> [B, (N + 3) * hop]
        num_frames = frames.shape[1]
        total = frames.new_zeros(frames.shape[0], num_frames + OVERLAP - 1, self.hop)
        for part, piece in enumerate(frames.unflatten(2, (OVERLAP, self.hop)).unbind(2)):
            total[:, part : part + num_frames] += piece
        return total.flatten(1)

    def log_mel(self, samples: Tensor) -> Tensor:
        """Compute natural logarithms of mel magnitudes, [B, N, M], from samples [B, N * hop]."""
        return (self.spectrum(samples).abs() @ self.filters.T + self.floor).log()

    def magnitudes(self, log_mel: Tensor) -> Tensor:
        """Guess magnitudes [B, N, K] from log-mel frames [B, N, M]."""
        return (log_mel.clamp(max=2.0).exp() - self.floor).clamp(min=0.0) @ self.inverse.T

    def griffin_lim(self, magnitudes: Tensor) -> Tensor:
        """Find a sound [B, N * hop] whose spectrum has about these magnitudes [B, N, K]."""
        spectrum = torch.polar(magnitudes, _start_phase(magnitudes))
        previous = torch.zeros_like(spectrum)
        for _ in range(self.iterations):
            rebuilt = self.spectrum(self.sound(spectrum))
            direction = rebuilt - self.momentum * previous
            spectrum = direction * (magnitudes / direction.abs().clamp(min=1e-9))
            previous = rebuilt
        return self.sound(spectrum)

    def encode(self, samples: Tensor) -> Tensor:
        """Compress samples [B, L * samples_per_latent] into [B, L, C]."""
        groups = self.log_mel(samples).unflatten(1, (-1, self.frames_per_latent)).flatten(2)
        return (groups - self.mean) @ self.components.T

    def frames_of(self, latents: Tensor) -> Tensor:
        """Rebuild log-mel frames [B, N, M] from latents [B, L, C]."""
        groups = latents @ self.components + self.mean
        return groups.unflatten(2, (self.frames_per_latent, self.bands)).flatten(1, 2)

    def decode(self, latents: Tensor) -> Tensor:
        """Rebuild samples [B, L * samples_per_latent] from [B, L, C]; the same latents always sound the same."""
        return self.griffin_lim(self.magnitudes(self.frames_of(latents)))
