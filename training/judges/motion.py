"""How a thing moves in a film: it is tracked by its sprite, frame by frame, and its path bears a name.

In every frame the sprite is slid over the picture, larger and smaller, turned and faint, and where it explains most
is where the thing is. With the rest r of a frame without its ground g, a sprite of colour c (times alpha) and alpha
a, and d = c - a g, a sprite of opacity o explains

    gain(o) = |r|^2 - |r - o d|^2 = 2 o <r, d> - o^2 <d, d>,     largest at o = <r, d> / <d, d>

Letters: F frames, H and W pixels, T sprites, k pixels of a sprite's side.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from training.judges.templates import Found, find_ground
from training.world.motion import place_named, posed_sprite
from training.world.pack import concepts

Pixels = NDArray[np.uint8]

# A thing is looked for larger and smaller than it begins by these factors, and turned by these angles.
FACTORS = (0.4, 0.45, 0.51, 0.57, 0.64, 0.72, 0.8, 0.89, 1.0, 1.12, 1.26, 1.41, 1.58, 1.7)
COARSE = (1.0, 0.6, 1.45)  # first, everywhere, and turned
REACH = 6  # then, so many pixels around the best place
ANGLES = tuple(15.0 * step for step in range(24))
# Another size or angle than the usual one must explain more by this factor.
MARGIN = 1.03
PREFERENCE = 1.1
# Fainter than this, a thing has no place of its own: it stays where it was.
FAINT = 0.25
NUM_CHOICES = 20
# What a codec does to a picture shifts the middle of a thing by at most this share of the shorter side.
STILL = 0.05
# What rolls is turned by this much, in degrees.
LEAST_TURN = 22.0
# What goes round goes this far down and across, at least.
ROUND = 0.12


@dataclass(frozen=True)
class Spot:
    """Where a thing is in one frame.

    Args:
        row: of its middle, in pixels.
        column: likewise.
        size: side of its sprite, in pixels.
        angle: degrees, counter-clockwise.
        opacity: 0 to 1.
        explained: share of what is not ground that the sprite explains.
    """

    row: float
    column: float
    size: int
    angle: float
    opacity: float
    explained: float


def backgrounds(frames: Pixels) -> list[str]:
    """Name the background of every frame; "" where its colour is too far off."""
    return [find_ground(frame.astype(np.float32) / 255)[0] for frame in frames]


@lru_cache(maxsize=512)
def _bank(names: tuple[str, ...], style: str, size: int, angles: tuple[float, ...]) -> Tensor:
    """Sprites of one size, [names * angles, 4, k, k]: colour times alpha, and alpha; on one canvas where turned."""
    pairs = [posed_sprite(name, style, size, angle) for name in names for angle in angles]
    side = max(color.shape[0] for color, _ in pairs)
    bank = np.zeros((len(pairs), side, side, 4), np.float32)
    for sprite, (color, through) in zip(bank, pairs, strict=True):
        margin = (side - color.shape[0]) // 2
        inside = slice(margin, side - margin)
        sprite[inside, inside, :3], sprite[inside, inside, 3:] = color, 255 - through
    return torch.from_numpy(bank / 255).permute(0, 3, 1, 2).contiguous()


def _matches(rest: Tensor, ground: Tensor, bank: Tensor) -> tuple[Tensor, Tensor]:
    """Gain at the best opacity, and that opacity, of every sprite at every place; [F, T, rows, columns] each."""
    color, alpha = bank[:, :3], bank[:, 3:]
    dot = F.conv2d(torch.cat([rest, -(rest * ground).sum(dim=1, keepdim=True)], dim=1), bank)
    # A plain ground gives the same energy everywhere: one place of one frame stands for all.
    is_plain = bool((ground == ground[:1, :, :1, :1]).all())
    window = ground[:1, :, : bank.shape[-1], : bank.shape[-1]] if is_plain else ground
    squares = torch.cat([-2 * window, window.square().sum(dim=1, keepdim=True)], dim=1)
    energy = F.conv2d(squares, torch.cat([color * alpha, alpha.square()], dim=1))
    energy = (energy + color.square().sum(dim=(1, 2, 3))[:, None, None]).clamp(min=1e-3)
    opacity = (dot / energy).clamp(0, 1)
    return 2 * opacity * dot - opacity.square() * energy, opacity


class Match(NamedTuple):
    """The best fit in one frame: how much it explains, which sprite, the middle of its place, how solid."""

    gain: float
    sprite: int
    row: float
    column: float
    opacity: float


class Tracker:
    """Follow one sprite through a film.

    Args:
        frames: uint8, [F, H, W, 3].
    """

    def __init__(self, frames: Pixels) -> None:
        self.height, self.width = frames.shape[1:3]
        pictures = frames.astype(np.float32) / 255
        grounds = np.stack([find_ground(picture)[1] for picture in pictures])
        # One ground for all frames: a single frame's may be misled by a thing that covers it.
        grounds[:] = np.median(grounds, axis=0)
        self.ground = torch.from_numpy(grounds).permute(0, 3, 1, 2)
        self.rest = torch.from_numpy(pictures).permute(0, 3, 1, 2) - self.ground
        self.energy = self.rest.square().sum(dim=(1, 2, 3))
        self.margin = max(self.height, self.width)
        margins = (self.margin,) * 4
        self.wide = F.pad(self.rest, margins), F.pad(self.ground, margins, mode="replicate")

    def _windows(
        self, middles: Mapping[int, tuple[float, float]], side: int
    ) -> tuple[Tensor, Tensor, list[tuple[int, int]]]:
        """Cut a square out of each of some frames, around a place: rest, ground, and top and left of each."""
        corners = [(round(row - side / 2), round(column - side / 2)) for row, column in middles.values()]
        rows, columns = ([corner[axis] + self.margin for corner in corners] for axis in (0, 1))
        rest, ground = (
            torch.stack(
                [
                    images[frame, :, top : top + side, left : left + side]
                    for frame, top, left in zip(middles, rows, columns, strict=True)
                ]
            )
            for images in self.wide
        )
        return rest, ground, corners

    def _best(self, bank: Tensor, middles: Sequence[tuple[float, float]]) -> list[Match]:
        """The best match of any sprite near a place of each frame."""
        side = bank.shape[-1]
        rest, ground, corners = self._windows(dict(enumerate(middles)), side + 2 * REACH)
        gains, opacities = _matches(rest, ground, bank)
        found = []
        for frame, index in enumerate(gains.flatten(1).argmax(dim=1).tolist()):
            sprite, row, column = (int(number) for number in np.unravel_index(index, gains.shape[1:]))
            (top, left), half = corners[frame], side / 2
            gain, opacity = (float(values[frame, sprite, row, column]) for values in (gains, opacities))
            found.append(Match(gain, sprite, row + top + half, column + left + half, opacity))
        return found

    def _search(self, banks: Sequence[Tensor]) -> list[tuple[float, float]]:
        """Where in each frame any of some sprites fits best, to two pixels, at half the size."""
        best = [(-1.0, self.height / 2, self.width / 2)] * len(self.rest)
        for bank in banks:
            half = F.avg_pool2d(bank, 2, ceil_mode=True, count_include_pad=False)
            side = half.shape[-1]
            margins = (side // 2,) * 4
            rest = F.pad(F.avg_pool2d(self.rest, 2), margins)
            ground = F.pad(F.avg_pool2d(self.ground[:1], 2), margins, mode="replicate")
            gains, _ = _matches(rest, ground, half)
            for frame, index in enumerate(gains.flatten(1).argmax(dim=1).tolist()):
                sprite, row, column = (int(number) for number in np.unravel_index(index, gains.shape[1:]))
                gain, shift = float(gains[frame, sprite, row, column]), bank.shape[-1] / 2 - 2 * margins[0]
                # What is upright and of its size comes first: a turned sprite may resemble another thing.
                if gain > PREFERENCE * best[frame][0]:
                    best[frame] = (gain, 2 * row + shift, 2 * column + shift)
        return [(row, column) for _, row, column in best]

    @torch.inference_mode()
    def follow(self, concept: str, style: str, size: int) -> list[Spot]:
        """Find a sprite in every frame.

        Args:
            concept: what is followed.
            style: how it is drawn.
            size: its side in the first frame, in pixels.
        """
        coarse = [_bank((concept,), style, max(4, round(size * factor)), (0.0,)) for factor in COARSE]
        middles = self._search([*coarse, _bank((concept,), style, size, ANGLES[::2])])
        sizes = dict.fromkeys(min(self.height, self.width, max(4, round(size * factor))) for factor in FACTORS)
        scaled = {one: self._best(_bank((concept,), style, one, (0.0,)), middles) for one in sizes}
        turned = self._best(_bank((concept,), style, size, ANGLES), middles)
        spots: list[Spot] = []
        for frame, energy in enumerate(self.energy.tolist()):
            best_size = max(sizes, key=lambda one: scaled[one][frame].gain * (MARGIN if one == size else 1))
            match, angle = scaled[best_size][frame], 0.0
            if turned[frame].gain > MARGIN * match.gain:
                match, best_size = turned[frame], size
                angle = ANGLES[match.sprite]
            spot = Spot(match.row, match.column, best_size, angle, match.opacity, match.gain / max(energy, 1e-6))
            if spot.opacity < FAINT and spots:
                spot = replace(spots[-1], opacity=spot.opacity, explained=spot.explained)
            spots.append(spot)
        return spots

    @torch.inference_mode()
    def follow_upright(self, concept: str, style: str, size: int, *, apart_from: Sequence[Spot] = ()) -> list[Spot]:
        """Find a sprite that keeps its size, is never turned and never faint; much quicker than `follow`.

        Args:
            concept, style, size: as in `follow`.
            apart_from: where something else is, frame by frame; this is at least half its own side away from it.
        """
        gains, opacities = _matches(self.rest, self.ground[:1], _bank((concept,), style, size, (0.0,)))
        rows, columns = (torch.arange(count) + size / 2 for count in gains.shape[-2:])
        for gain, spot in zip(gains, apart_from, strict=False):
            gain[:, torch.hypot(rows[:, None] - spot.row, columns - spot.column) < size / 2] = 0.0
        spots = []
        for frame, index in enumerate(gains.flatten(1).argmax(dim=1).tolist()):
            row, column = divmod(index, gains.shape[-1])
            gain, opacity = (float(values[frame, 0, row, column]) for values in (gains, opacities))
            explained = gain / max(float(self.energy[frame]), 1e-6)
            spots.append(Spot(row + size / 2, column + size / 2, size, 0.0, opacity, explained))
        return spots

    def follow_all(self, things: Sequence[tuple[str, str, int]]) -> list[list[Spot]]:
        """Find one or two things in every frame; two are taken to stay upright, or one would pass for the other.

        Args:
            things: concept, style and size of each.
        """
        if len(things) != 2:
            return [self.follow(*thing) for thing in things]
        # The one that fits better is found first, and the other elsewhere.
        first, second = (self.follow_upright(*thing) for thing in things)
        if sum(spot.explained for spot in first) >= sum(spot.explained for spot in second):
            return [first, self.follow_upright(*things[1], apart_from=first)]
        return [self.follow_upright(*things[0], apart_from=second), second]

    @torch.inference_mode()
    def is_kept(self, spots: Sequence[Spot], concept: str, style: str, *, seed: str) -> list[bool]:
        """Tell for every frame whether this concept fits better than others would in its place.

        Args:
            spots: from `follow`.
            concept: what should be there.
            style: of all that are compared.
            seed: draws the others, nineteen of them.
        """
        others = [name for name in concepts() if name != concept]
        names = (concept, *random.Random(f"{seed}/{concept}").sample(others, NUM_CHOICES - 1))
        kept = []
        for frame, spot in enumerate(spots):
            if spot.opacity < FAINT:
                kept.append(bool(kept) and kept[-1])
                continue
            bank = _bank(names, style, spot.size, (spot.angle,))
            rest, ground, _ = self._windows({frame: (spot.row, spot.column)}, bank.shape[-1] + 2)
            kept.append(int(_matches(rest, ground, bank)[0].amax(dim=(2, 3)).argmax()) == 0)
        return kept


def place_of(spot: Spot, height: int, width: int) -> str:
    """Name the place at which a thing is."""
    row = (spot.row - spot.size / 2) / max(1, height - spot.size)
    column = (spot.column - spot.size / 2) / max(1, width - spot.size)
    return place_named(row, column)


def _turns(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Steps from angle to angle, within half a turn."""
    return (np.diff(angles) + 180) % 360 - 180


def _smoothed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Replace each value between two others by the median of the three."""
    inner = np.median(np.stack([values[:-2], values[1:-1], values[2:]]), axis=0)
    return np.concatenate([values[:1], inner, values[-1:]])


def _has_reversal(values: NDArray[np.float64], least: float) -> bool:
    """Whether something that goes down comes up again (rows grow downwards), or the other way round."""
    down = max((later - value for index, value in enumerate(values) for later in values[index:]), default=0.0)
    up = max((value - later for index, value in enumerate(values) for later in values[index:]), default=0.0)
    return bool(down >= least and up >= least)


def _half_time(values: NDArray[np.float64]) -> float:
    """When half of the way is done, as a share of the time until it is done; 0 where it ends as it begins."""
    if values[-1] == values[0]:
        return 0.0
    way = (values - values[0]) / (values[-1] - values[0])
    end = int(np.argmax(way >= 0.97))
    after = int(np.argmax(way >= 0.5))
    before = way[after - 1]
    half = after - 1 + (0.5 - before) / max(1e-6, way[after] - before)
    return float(half / max(1, end))


def _vertical(rows: NDArray[np.float64], least: float) -> str:
    if _has_reversal(rows, least):
        return "bounces"
    if rows[-1] < rows[0]:
        return "slides up"
    return "falls" if _half_time(rows) > 0.6 else "slides down"


def verb_of(spots: Sequence[Spot], height: int, width: int, other: Sequence[Spot] = ()) -> str:
    """Name the motion of a thing, one of `verbs.VERBS`, or "stays".

    Args:
        spots: of the thing, frame by frame.
        height, width: of the film, in pixels.
        other: of a second thing.
    """
    least = max(2.5, STILL * min(height, width))
    rows, columns = (np.array([getattr(spot, name) for spot in spots], float) for name in ("row", "column"))
    if other:
        apart = np.hypot(rows - [spot.row for spot in other], columns - [spot.column for spot in other])
        if apart.min() <= apart[0] - 2 * least and apart.min() <= apart[-1] + 0.5:
            return "collides"
    opacities, sizes = [spot.opacity for spot in spots], [spot.size for spot in spots]
    if opacities[-1] < 0.6 * opacities[0]:
        return "fades"
    if not 0.87 <= sizes[-1] / sizes[0] <= 1.15:
        return "grows" if sizes[-1] > sizes[0] else "shrinks"
    reach_down, reach_across = (float(np.ptp(values)) for values in (rows, columns))
    angles = np.array([spot.angle for spot in spots])
    turns, tilts = _turns(angles), (angles + 180) % 360 - 180
    is_tilted = np.median(np.abs(tilts)) >= LEAST_TURN
    if reach_across >= 2 and reach_down <= least and not is_tilted:
        steps = np.diff(columns)
        if (steps[1:] * steps[:-1] < 0).sum() >= max(2, 0.6 * (len(steps) - 1)):
            return "shakes"
    # A single frame in which something else was found is no motion.
    rows, columns = _smoothed(rows), _smoothed(columns)
    reach_down, reach_across = (float(np.ptp(values)) for values in (rows, columns))
    if min(reach_down, reach_across) > ROUND * min(height, width):
        return "orbits"
    if reach_across > max(least, reach_down):
        is_turned = abs(turns.sum()) >= LEAST_TURN or is_tilted
        return "rolls" if is_turned else "slides left" if columns[-1] < columns[0] else "slides right"
    if reach_down > least:
        return _vertical(rows, least)
    return "spins" if np.abs(turns).sum() >= 60 else "stays"


def film_verb(frames: Pixels, things: Sequence[Found]) -> tuple[str, list[Spot], Tracker]:
    """Track what the first frame shows, and name its motion.

    Args:
        frames: uint8, [F, H, W, 3].
        things: of the first frame, as the template judge found them: one, or two that may collide.

    Returns:
        the verb; where the first thing is; and the tracker.
    """
    tracker = Tracker(frames)
    paths = tracker.follow_all([(thing.concept, thing.style, thing.box[2]) for thing in things[:2]])
    if not paths:
        return "", [], tracker
    return verb_of(paths[0], *frames.shape[1:3], other=paths[1] if len(paths) > 1 else ()), paths[0], tracker


# Worlds.


def expected_move(action: str, spot: Spot, height: int, width: int, step: float) -> tuple[float, float]:
    """How far an action should move a thing, down and to the right, in pixels; walls stop it."""
    down, across = {"up": (-step, 0), "down": (step, 0), "left": (0, -step), "right": (0, step)}.get(action, (0, 0))
    half = spot.size / 2
    row = min(height - half, max(half, spot.row + down))
    column = min(width - half, max(half, spot.column + across))
    return row - spot.row, column - spot.column


def is_obeyed(action: str, before: Spot, after: Sequence[Spot], height: int, width: int, step: float) -> bool:
    """Tell whether the frames after an action show it.

    Args:
        action: one of `worlds.ACTIONS`.
        before: where the thing was in the last frame.
        after: where it is in the new frames.
        step: how far an action moves it, in pixels.
    """
    last = after[-1]
    down, across = last.row - before.row, last.column - before.column
    if action == "jump":
        room = min(step, before.row - before.size / 2)
        rise = before.row - min(spot.row for spot in after)
        is_back = abs(down) <= max(2, 0.4 * step) and abs(across) <= max(2, 0.4 * step)
        return bool(rise >= 0.5 * room - 1 and is_back)
    wanted = expected_move(action, before, height, width, step)
    return all(abs(moved - want) <= 0.5 * step for moved, want in zip((down, across), wanted, strict=True))
