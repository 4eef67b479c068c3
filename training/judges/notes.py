"""Which notes are played, by Basic Pitch (arXiv:2203.09893).

N frames of the judge, 88 keys of a piano.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from training.judges.fetched import fetched, mono, resample, session

__all__ = ["notes_of", "share_found"]

RATE = 22050
HOP = 256
WINDOW = 2 * RATE - HOP
FRAMES = 172  # of a window
OVERLAP = 30  # frames that neighbouring windows share
LOWEST = 21  # MIDI number of the first key
ONSET, SUSTAINED = 0.3, 0.3  # its own are 0.5 and 0.3; 0.3 gets more melodies of real recordings right
SHORTEST = 11  # frames of a note, about an eighth of a second
GAP = 11  # frames of silence that end a note
LEAD = 16  # frames of silence put before a recording, so that a note may begin with it

Activations = NDArray[np.float32]  # [N, 88]


def _activations(sound: NDArray[np.float32]) -> tuple[Activations, Activations]:
    """Run the network over overlapping windows: how much each key sounds, and begins to sound."""
    judge = session(fetched("basic_pitch.onnx"))
    margin = OVERLAP // 2
    step = (FRAMES - OVERLAP) * HOP
    num_windows = max(1, -(-len(sound) // step))
    padded = np.pad(sound, (margin * HOP, (num_windows - 1) * step + WINDOW - len(sound)))
    windows = np.stack([padded[k * step : k * step + WINDOW] for k in range(num_windows)])
    names = ["StatefulPartitionedCall:1", "StatefulPartitionedCall:2"]
    sustained, onsets = judge.run(names, {"serving_default_input_2:0": windows[..., None]})
    count = len(sound) // HOP
    return tuple(part[:, margin:-margin].reshape(-1, part.shape[2])[:count] for part in (sustained, onsets))


def _beginnings(sustained: Activations, onsets: Activations) -> Activations:
    """Add to the network's onsets the places where a key's activation leaps up within two frames."""
    padded = np.pad(sustained, ((2, 0), (0, 0)))
    leaps = np.minimum(sustained - padded[1:-1], sustained - padded[:-2]).clip(min=0.0)
    leaps[:2] = 0.0
    return np.maximum(onsets, leaps * (onsets.max() / max(float(leaps.max()), 1e-9)))


def _length(energy: NDArray[np.float32]) -> int:
    """Count the frames until a key has been quiet for GAP of them."""
    quiet = 0
    for frame, value in enumerate(energy[1:-1], 1):
        quiet = quiet + 1 if value < SUSTAINED else 0
        if quiet == GAP:
            return frame + 1 - quiet
    return max(len(energy) - 1 - quiet, 0)


def notes_of(samples: NDArray[np.floating], sample_rate: int = 16000) -> list[tuple[float, int]]:
    """List the notes that are played, by the second at which they begin.

    Args:
        samples: [T] or [channels, T], in [-1, 1].
        sample_rate: in Hz.

    Returns:
        (second, MIDI number) of each note, in order.

    Raises:
        ConfigError: the judge has not been fetched.
        InputError: the samples cannot be judged.
    """
    sound = resample(mono(samples), sample_rate, RATE)
    sustained, onsets = _activations(np.pad(sound, (LEAD * HOP, 0)).astype(np.float32))
    if len(sound) < 3 * HOP:
        return []
    beginnings = _beginnings(sustained, onsets)
    middle = beginnings[1:-1]
    is_peak = (middle > beginnings[:-2]) & (middle > beginnings[2:]) & (middle >= ONSET)
    left, found = sustained.copy(), []
    for before, key in np.argwhere(is_peak)[::-1]:
        length = _length(left[before + 1 :, key])
        if length > SHORTEST:
            # The neighbours of a sounding key are only its smear.
            left[before + 1 : before + 1 + length, max(key - 1, 0) : key + 2] = 0.0
            found.append((max(0.0, float(before + 1 - LEAD) * HOP / RATE), int(key) + LOWEST))
    return sorted(found)


def share_found(
    truth: Sequence[tuple[float, int]], found: Sequence[tuple[float, int]], *, within_s: float = 0.1
) -> float:
    """Return the share of true notes that were found: same MIDI number, begun within some seconds; 1 of none."""
    hits = [any(midi == other and abs(second - at) <= within_s for at, other in found) for second, midi in truth]
    return float(np.mean(hits)) if hits else 1.0
