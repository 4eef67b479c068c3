"""Sound as a few numbers per pair of log-mel frames, and back by Griffin-Lim.

The numbers are principal components, which a small network may correct on both sides.
B recordings, T samples, N frames of the spectrogram, K frequencies, M mel bands, L latents of G frames each,
C channels, D width of the network.
"""

from __future__ import annotations

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["AutoencoderLogMel", "LogMelConfig", "mel_filters"]

OVERLAP = 4  # windows that cover a sample; the squares of the Hann window then add up to a constant
SILENCE = 1e-6  # magnitude below which nothing is heard, and arithmetic would become slow
EVEN_BELOW_HZ = 500.0
LOUDEST = 2.0  # natural logarithm of the largest magnitude that is believed


def mel_filters(bands: int, *, fft_size: int, sample_rate: int) -> Tensor:
    """Build triangular filters between 0 Hz and half the sample rate: one for each frequency of the spectrum below
    500 Hz, where semitones are narrower than the bands of the common mel scales, and in even ratios above.

    Args:
        bands: number of filters; at most a third of them are used below 500 Hz.
        fft_size: of the spectrum that they weigh, samples.
        sample_rate: in Hz.

    Returns:
        [M, K]; the weights of a filter sum to 1.
    """
    step, highest = sample_rate / fft_size, sample_rate / 2
    num_even = min(round(EVEN_BELOW_HZ / step), bands // 3)
    even = step * torch.arange(num_even, dtype=torch.float64)
    octaves = torch.linspace(math.log(num_even * step), math.log(highest), bands + 2 - num_even, dtype=torch.float64)
    corners = torch.cat([even, octaves.exp()])
    frequencies = torch.linspace(0.0, highest, fft_size // 2 + 1, dtype=torch.float64)
    rising = (frequencies - corners[:-2, None]) / (corners[1:-1] - corners[:-2])[:, None]
    falling = (corners[2:, None] - frequencies) / (corners[2:] - corners[1:-1])[:, None]
    filters = torch.minimum(rising, falling).clamp(min=0.0)
    return (filters / filters.sum(1, keepdim=True).clamp(min=1e-12)).float()


def _start_phase(magnitudes: Tensor) -> Tensor:
    """Guess phases [B, N, K] from magnitudes [B, N, K], as if every peak were a steady sine.

    The phase of a sine of f periods a window grows by 2 pi f / OVERLAP from frame to frame, and falls by pi
    from one frequency of its peak to the next (single pass spectrogram inversion, Beauregard et al. 2015).
    """
    left, middle, right = magnitudes[..., :-2], magnitudes[..., 1:-1], magnitudes[..., 2:]
    is_peak = F.pad((middle > left) & (middle >= right), (1, 1))
    offset = 0.5 * (left - right) / (left - 2.0 * middle + right).clamp(max=-1e-12)
    last = magnitudes.shape[-1] - 1
    places = torch.arange(last + 1, device=magnitudes.device)
    exact = places + F.pad(offset, (1, 1)).clamp(-0.5, 0.5)
    below = torch.where(is_peak, places, -last).cummax(-1).values
    above = torch.where(is_peak, places, 3 * last).flip(-1).cummin(-1).values.flip(-1)
    peak = torch.where(places - below < above - places, below, above)
    peak = torch.where((peak < 0) | (peak > last), places, peak)
    frequency = exact.gather(-1, peak)
    turns = (frequency / OVERLAP).double().cumsum(1).gather(-1, peak)
    return (2.0 * math.pi * (turns % 1.0) - math.pi * (places - frequency)).float()


@dataclasses.dataclass(frozen=True)
class LogMelConfig:
    """The dials of `AutoencoderLogMel`.

    Args:
        latent_channels: numbers of a latent.
        sampling_rate: in Hz.
        fft_size: samples of a window, a multiple of 4; windows overlap by three quarters.
        bands: mel bands of a frame.
        frames_per_latent: neighbouring frames that become one latent.
        width: of the network; 0 leaves it out.
        num_blocks: residual blocks of its decoder.
        floor: magnitude that is added before the logarithm; a sine of amplitude 1 has magnitude 1.
        iterations: of Griffin-Lim.
        momentum: of Griffin-Lim, in [0, 1).
    """

    latent_channels: int
    sampling_rate: int = 16000
    fft_size: int = 1280
    bands: int = 128
    frames_per_latent: int = 2
    width: int = 0
    num_blocks: int = 3
    floor: float = 1e-3
    iterations: int = 64
    momentum: float = 0.99

    def __post_init__(self) -> None:
        is_whole = all(isinstance(value, int) and value > 0 for value in dataclasses.astuple(self)[:5])
        is_whole = is_whole and isinstance(self.width, int) and isinstance(self.num_blocks, int)
        if (
            not is_whole
            or min(self.width, self.num_blocks) < 0
            or not 0 < self.latent_channels <= self.bands * self.frames_per_latent
        ):
            raise ValueError(f"{self} needs positive whole numbers, and no more channels than bands in a latent")
        if self.fft_size % OVERLAP or self.floor <= 0 or self.iterations < 0 or not 0 <= self.momentum < 1:
            raise ValueError(f"{self} needs fft_size in steps of {OVERLAP}, floor > 0 and momentum in [0, 1)")


def _around(x: Tensor) -> Tensor:
    """Put every latent between its neighbours: [B, L, D] -> [B, L, 3 D]."""
    padded = F.pad(x, (0, 0, 1, 1))
    return torch.cat([padded[:, :-2], padded[:, 1:-1], padded[:, 2:]], dim=-1)


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width)
        self.wide, self.narrow = nn.Linear(3 * width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:  # [B, L, D]
        return x + self.narrow(F.silu(self.wide(_around(self.norm(x)))))


def _zero(layer: nn.Linear) -> nn.Linear:
    """Let a network's last layer start at zero, so that it changes nothing until it is trained."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class AutoencoderLogMel(nn.Module):
    """Turn groups of log-mel frames into a few numbers; rebuild the frames, and a sound that has them.

    Args:
        config: the dials. Weights are `mean`, `analysis` and `synthesis` (a linear map and its inverse on the space
            that it keeps), and the network's, whose outputs are added to the linear ones.
    """

    mean: Tensor
    analysis: Tensor
    synthesis: Tensor
    window: Tensor
    filters: Tensor
    shares: Tensor
    inverse: Tensor

    def __init__(self, config: LogMelConfig) -> None:
        super().__init__()
        self.config = config
        self.hop = config.fft_size // OVERLAP
        self.samples_per_latent = self.hop * config.frames_per_latent
        numbers = config.frames_per_latent * config.bands
        self.register_buffer("mean", torch.zeros(numbers))
        self.register_buffer("analysis", torch.eye(config.latent_channels, numbers))
        self.register_buffer("synthesis", torch.eye(config.latent_channels, numbers))
        if config.width:
            width, channels = config.width, config.latent_channels
            last = _zero(nn.Linear(2 * width, channels))
            self.encoder = nn.Sequential(nn.Linear(3 * numbers, 2 * width), nn.SiLU(), last)
            blocks = [_Block(width) for _ in range(config.num_blocks)]
            head = [nn.RMSNorm(width), _zero(nn.Linear(width, numbers))]
            self.decoder = nn.Sequential(nn.Linear(channels, width), *blocks, *head)
        filters = mel_filters(config.bands, fft_size=config.fft_size, sample_rate=config.sampling_rate)
        self.register_buffer("window", torch.hann_window(config.fft_size), persistent=False)
        self.register_buffer("filters", filters, persistent=False)
        # How a frequency divides itself among the bands that hear it.
        self.register_buffer("shares", filters / filters.sum(0, keepdim=True).clamp(min=1e-12), persistent=False)
        self.register_buffer("inverse", torch.linalg.pinv(filters).T.clamp(min=0.0), persistent=False)

    def spectrum(self, samples: Tensor) -> Tensor:
        """Transform samples [B, N * hop] into complex frames [B, N, K]; a sine of amplitude 1 has magnitude 1."""
        size = self.config.fft_size
        margin = (size - self.hop) // 2
        frames = F.pad(samples, (margin, size - self.hop - margin)).unfold(1, size, self.hop)
        return torch.fft.rfft(frames * self.window) * (4.0 / size)

    def sound(self, spectrum: Tensor) -> Tensor:
        """Transform complex frames [B, N, K] into samples [B, N * hop]; where frames disagree, they are averaged."""
        size, num_frames = self.config.fft_size, spectrum.shape[1]
        frames = torch.fft.irfft(spectrum, n=size) * (self.window * (size / 4.0))
        squares = self.window.square().expand(1, num_frames, -1)
        whole = self._overlap(frames) / self._overlap(squares).clamp(min=1e-3)
        margin = (size - self.hop) // 2
        return whole[:, margin : margin + num_frames * self.hop]

    def _overlap(self, frames: Tensor) -> Tensor:  # [B, N, fft_size] -> [B, (N + 3) * hop]
        num_frames = frames.shape[1]
        total = frames.new_zeros(frames.shape[0], num_frames + OVERLAP - 1, self.hop)
        for part, piece in enumerate(frames.unflatten(2, (OVERLAP, self.hop)).unbind(2)):
            total[:, part : part + num_frames] += piece
        return total.flatten(1)

    def groups(self, samples: Tensor) -> Tensor:
        """Compute what is to be compressed: log-mel frames in groups, [B, L, G * M], from whole latents of samples."""
        log_mel = (self.spectrum(samples).abs() @ self.filters.T + self.config.floor).log()
        return log_mel.unflatten(1, (-1, self.config.frames_per_latent)).flatten(2)

    def ungroup(self, groups: Tensor) -> Tensor:
        """Undo `groups` as far as mel magnitudes, [B, N, M]."""
        mel = groups.clamp(max=LOUDEST).exp().sub(self.config.floor).clamp(min=SILENCE)
        return mel.unflatten(2, (self.config.frames_per_latent, self.config.bands)).flatten(1, 2)

    def griffin_lim(self, mel: Tensor) -> Tensor:
        """Find samples [B, N * hop] that have about these mel magnitudes [B, N, M].

        Like the fast Griffin-Lim algorithm (Perraudin et al. 2013), but only the sums over the bands are imposed:
        inside a band the spectrum keeps the shape that the last sound had, so that harmonics stay sharp.
        """
        magnitudes = mel @ self.inverse
        spectrum = torch.polar(magnitudes, _start_phase(magnitudes))
        share, previous = self.config.momentum / (1.0 + self.config.momentum), torch.zeros_like(spectrum)
        for _ in range(self.config.iterations):
            rebuilt = self.spectrum(self.sound(spectrum))
            magnitudes = rebuilt.abs()
            gains = mel / (magnitudes @ self.filters.T).clamp(min=SILENCE / 10.0)
            direction = rebuilt - share * previous
            scale = magnitudes * (gains.clamp(max=100.0) @ self.shares) / direction.abs().clamp(min=1e-9)
            spectrum, previous = direction * scale, rebuilt
        return self.sound(spectrum)

    def compress(self, groups: Tensor) -> Tensor:
        """Turn groups [B, L, G * M] into latents [B, L, C]."""
        centred = groups - self.mean
        latents = centred @ self.analysis.T
        # Inputs of a network are best near 1; log-mel frames deviate by about 2.
        return latents + self.encoder(_around(0.5 * centred)) if self.config.width else latents

    def expand(self, latents: Tensor) -> Tensor:
        """Turn latents [B, L, C] into groups [B, L, G * M]."""
        groups = latents @ self.synthesis + self.mean
        return groups + self.decoder(latents) if self.config.width else groups

    def encode(self, samples: Tensor) -> Tensor:
        """Compress samples [B, L * samples_per_latent] into [B, L, C]."""
        return self.compress(self.groups(samples))

    def mel_of(self, latents: Tensor) -> Tensor:
        """Rebuild mel magnitudes [B, N, M] from latents [B, L, C]."""
        return self.ungroup(self.expand(latents))

    def decode(self, latents: Tensor) -> Tensor:
        """Rebuild samples [B, L * samples_per_latent] from latents [B, L, C]; the same latents sound the same."""
        return self.griffin_lim(self.mel_of(latents))
