"""When things that are filmed before a known background hit the ground, or one another, and how large they are.

F frames of H rows and W columns.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["impact_frames", "shown_area"]

Frames = NDArray[np.uint8]
DIFFERENT = 48  # of 255, in any colour: what differs so much from the background belongs to a thing
SMALLEST = 4  # pixels of a row or column that make it part of a thing
LEAST_DROP = 0.025  # of the height: what falls less before it stops does not hit the ground


def _is_thing(frames: Frames, ground: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Mark what is not ground, [F, H, W]."""
    marked: NDArray[np.bool_] = (np.abs(frames.astype(np.int16) - ground) > DIFFERENT).any(axis=-1)
    return marked


def shown_area(frames: Frames, ground: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Tell which share of every frame is not ground, [F].

    Args:
        frames: uint8 [F, H, W, 3].
        ground: what they look like without things, uint8 [H, W, 3].
    """
    return _is_thing(frames, ground).mean(axis=(1, 2))


def _edges(frames: Frames, ground: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Tell where things begin and end in every frame: top, bottom, left, right, [F, 4]; NaN where none is seen."""
    edges = np.full((len(frames), 4), np.nan)
    for number, mask in enumerate(_is_thing(frames, ground)):
        rows, columns = (np.flatnonzero(mask.sum(axis=axis) >= SMALLEST) for axis in (1, 0))
        if len(rows) and len(columns):
            edges[number] = rows[0], rows[-1], columns[0], columns[-1]
    return edges


def _landings(bottom: NDArray[np.float64], height: int) -> list[int]:
    """List the frames in which something that came down goes down no more."""
    found, highest = [], bottom[0]
    for frame in range(1, len(bottom)):
        highest = min(highest, bottom[frame])
        is_lowest = frame + 1 == len(bottom) or bottom[frame + 1] <= bottom[frame]
        if is_lowest and bottom[frame] > bottom[frame - 1] and bottom[frame] - highest >= LEAST_DROP * height:
            found.append(frame)
            highest = bottom[frame]
    return found


def impact_frames(frames: Frames, ground: NDArray[np.uint8], *, is_collision: bool) -> list[int]:
    """List the frames in which something is hit, in order.

    Args:
        frames: uint8 [F, H, W, 3].
        ground: what they look like without things, uint8 [H, W, 3].
        is_collision: whether two things meet, rather than one the ground: then the frame in which both together
            are the narrowest.
    """
    edges = _edges(frames, ground)
    if np.isnan(edges).any():
        return []
    if not is_collision:
        return _landings(edges[:, 1], frames.shape[1])
    spans = edges[:, 1::2] - edges[:, ::2]
    span = spans[:, int(np.ptp(spans, axis=0).argmax())]
    return [int(span.argmin())]
