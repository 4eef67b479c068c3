"""What a picture shows, by comparing it with everything the world can draw.

A picture is explained in two steps. First its background: the one of all grounds from which the picture
differs least, whatever stands on it. Then its things: every sprite, in every style and at every size of the
world, is slid over the picture, and those are taken that explain most of what the ground leaves unexplained.

With a picture p, a ground g, and a sprite of colour c (times alpha) and alpha a laid on g:

    gain = |p - g|^2 - |p - (c + (1 - a) g)|^2 = 2 <p - g, c - a g> - |c - a g|^2

which falls apart into correlations, so that all sprites and places are one convolution.

Letters: N pictures, H and W pixels, T sprites (styles times concepts), k pixels of a sprite's side.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from training.world.pack import STYLES, concepts, sprite_at
from training.world.scene import (
    BACKGROUNDS,
    PLACES,
    RELATED_EXTENT,
    SEVERAL_EXTENT,
    SIZES,
    Scene,
    render,
)

Pixels = NDArray[np.uint8]

# A pixel differs from a ground by at most this much: the things on it shall not outvote it.
LARGEST_DIFFERENCE = 0.25
# How far the plain colour of the border may be from the named one, in 255ths.
COLOR_TOLERANCE = 24
BORDER = 2
# Sprites are tried at every second pixel: half a pixel's error costs less than the time.
STRIDE = 2
# Things of one picture overlap by at most this share of their area.
MAX_OVERLAP = 0.2
# A thing must explain this much of a picture (sum of squares, colours from 0 to 1), ...
MIN_GAIN = 4.0
# ... and this share of what the clearest thing explains.
MIN_GAIN_SHARE = 0.05
MAX_THINGS = 6
# Each thing of an explanation costs this share of what there is to explain: one thing before several pieces.
PRICE_SHARE = 0.03
EXTENTS = tuple(sorted({*SIZES.values(), RELATED_EXTENT, SEVERAL_EXTENT}))


@dataclass(frozen=True)
class Found:
    """A thing that was found in a picture.

    Args:
        concept: the nearest sprite's concept.
        style: the nearest sprite's style.
        extent: its side, as a share of the picture's shorter side.
        row: its place down the picture, as a share of the room left; as in `scene.Thing`.
        column: the same across.
        box: top, left and side in pixels.
        gain: how much of the picture it explains, the sum of squares of colours from 0 to 1.
    """

    concept: str
    style: str
    extent: float
    row: float
    column: float
    box: tuple[int, int, int]
    gain: float

    @property
    def place(self) -> str:
        """The nearest of the world's places."""
        return min(PLACES, key=lambda name: (PLACES[name][0] - self.row) ** 2 + (PLACES[name][1] - self.column) ** 2)

    @property
    def size(self) -> str:
        """The nearest of the world's sizes."""
        return min(SIZES, key=lambda name: abs(SIZES[name] - self.extent))

    @property
    def center(self) -> tuple[float, float]:
        """The middle of its box, row and column in pixels."""
        top, left, side = self.box
        return top + side / 2, left + side / 2


@dataclass(frozen=True)
class Sight:
    """What a judge sees in a picture.

    Args:
        background: the nearest ground; "" where its colour is too far off to bear the name.
        ground: the nearest ground in the colour in which the picture shows it, float32 [H, W, 3], 0 to 1.
        things: the clearest first; the clearest of all is always there, or there is nothing at all.
    """

    background: str
    ground: NDArray[np.float32]
    things: tuple[Found, ...]


def relation_between(first: Found, second: Found) -> str:
    """Name the relation in which the first thing stands to the second, one of RELATIONS."""
    down, across = (one - other for one, other in zip(first.center, second.center, strict=True))
    if abs(across) > abs(down):
        return "left of" if across < 0 else "right of"
    return "above" if down < 0 else "below"


@lru_cache(maxsize=64)
def grounds(height: int, width: int) -> NDArray[np.float32]:
    """Draw every background without things, [backgrounds, H, W, 3], 0 to 1."""
    empty = [render(Scene(things=(), background=name), height, width) for name in BACKGROUNDS]
    return np.stack(empty).astype(np.float32) / 255


def border(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """Collect the pixels along the edges, [pixels, 3]."""
    inside = np.zeros(picture.shape[:2], bool)
    inside[BORDER:-BORDER, BORDER:-BORDER] = True
    return picture[~inside]


def find_ground(picture: NDArray[np.float32]) -> tuple[str, NDArray[np.float32]]:
    """Find the background, and the colour in which it is shown; see `Sight`."""
    known = grounds(*picture.shape[:2])
    distances = np.minimum(np.abs(known - picture).mean(axis=-1), LARGEST_DIFFERENCE).mean(axis=(1, 2))
    nearest = int(distances.argmin())
    shift = np.median(border(picture - known[nearest]), axis=0)
    is_named = np.abs(shift).max() <= COLOR_TOLERANCE / 255
    return BACKGROUNDS[nearest] if is_named else "", np.clip(known[nearest] + shift, 0, 1)


@lru_cache(maxsize=32)
def sprite_bank(styles: tuple[str, ...], side: int) -> Tensor:
    """Collect all sprites at one size: colour times alpha, and alpha; float32 [T, 4, k, k], 0 to 1."""
    pairs = [sprite_at(name, style, side) for style in styles for name in concepts()]
    bank = np.stack([np.concatenate([color, 255 - through], axis=-1) for color, through in pairs])
    return torch.from_numpy(bank.astype(np.float32) / 255).permute(0, 3, 1, 2).contiguous()


def sprite_gains(pictures: Tensor, ground: Tensor, bank: Tensor, *, stride: int) -> Tensor:
    """Slide every sprite over pictures: how much more of each is explained with the sprite than without.

    Args:
        pictures: [N, 3, H, W], 0 to 1.
        ground: the same shape.
        bank: [T, 4, k, k].
        stride: from one place to the next, in pixels.

    Returns:
        [N, T, rows, columns].
    """
    color, alpha = bank[:, :3], bank[:, 3:]
    is_plain = bool((ground == ground[..., :1, :1]).all())
    rest = pictures - ground
    product = F.conv2d(torch.cat([rest, -(rest * ground).sum(dim=1, keepdim=True)], dim=1), bank, stride=stride)
    # A plain ground gives the same energy everywhere: one place stands for all.
    window = ground[..., : bank.shape[-1], : bank.shape[-1]] if is_plain else ground
    squares = torch.cat([-2 * window, window.square().sum(dim=1, keepdim=True)], dim=1)
    energy = F.conv2d(squares, torch.cat([color * alpha, alpha.square()], dim=1), stride=stride)
    return 2 * product - energy - color.square().sum(dim=(1, 2, 3))[:, None, None]


def clearest_things(gains: Tensor, side: int) -> list[tuple[float, int, int, int]]:
    """Pick the best explanations one after another, none of which covers another one.

    Args:
        gains: of one picture, [T, rows, columns].
        side: of the sprites, in pixels.

    Returns:
        (gain, sprite, top, left) of each, the largest gain first.
    """
    best, sprites = gains.max(dim=0)
    tops, lefts = (STRIDE * torch.arange(length) for length in best.shape)
    picked: list[tuple[float, int, int, int]] = []
    while len(picked) < MAX_THINGS:
        index = int(best.argmax())
        row, column = divmod(index, best.shape[1])
        gain = float(best[row, column])
        if picked and gain < max(MIN_GAIN, MIN_GAIN_SHARE * picked[0][0]) or gain <= 0:
            break
        top, left = int(tops[row]), int(lefts[column])
        picked.append((gain, int(sprites[row, column]), top, left))
        common = (side - (tops - top).abs()).clamp(min=0)[:, None] * (side - (lefts - left).abs()).clamp(min=0)
        best = best.masked_fill(common > MAX_OVERLAP * side * side, -torch.inf)
    return picked


class TemplateJudge:
    """See what pictures show, by template matching.

    Args:
        styles: the styles in which things are known.
    """

    def __init__(self, *, styles: Sequence[str] = STYLES) -> None:
        self.styles, self.names = tuple(styles), tuple(concepts())

    def _things(self, picture: Tensor, ground: Tensor, extent: float) -> list[Found]:
        height, width = picture.shape[-2:]
        side = round(extent * min(height, width))
        bank = sprite_bank(self.styles, side)
        coarse = sprite_gains(picture, ground, bank, stride=STRIDE)[0]
        explained, found = ground.clone(), list[Found]()
        for _, _, top, left in clearest_things(coarse, side):
            thing = self._refine(picture, explained, bank, top=top, left=left, extent=extent)
            # What a thing leaves unexplained at its edge is not another thing.
            if not found or thing.gain >= max(MIN_GAIN, MIN_GAIN_SHARE * found[0].gain):
                found.append(thing)
                self._draw(explained, thing, bank)
        return found

    def _draw(self, ground: Tensor, thing: Found, bank: Tensor) -> None:
        top, left, side = thing.box
        sprite = bank[self.styles.index(thing.style) * len(self.names) + self.names.index(thing.concept)]
        window = ground[..., top : top + side, left : left + side]
        window.copy_(sprite[:3] + (1 - sprite[3]) * window)

    def _refine(self, picture: Tensor, ground: Tensor, bank: Tensor, *, top: int, left: int, extent: float) -> Found:
        """Try all sprites again at the places that the stride left out."""
        (height, width), side = picture.shape[-2:], bank.shape[-1]
        rows = slice(max(0, top - 1), min(height, top + side + 1))
        columns = slice(max(0, left - 1), min(width, left + side + 1))
        gains = sprite_gains(picture[..., rows, columns], ground[..., rows, columns], bank, stride=1)[0]
        sprite, row, column = np.unravel_index(int(gains.argmax()), gains.shape)
        style, concept = divmod(int(sprite), len(self.names))
        box = (rows.start + int(row), columns.start + int(column), side)
        place = (box[0] / (height - side), box[1] / (width - side))
        return Found(self.names[concept], self.styles[style], extent, *place, box, float(gains.max()))

    @torch.inference_mode()
    def look(self, pixels: Pixels) -> Sight:
        """Explain one picture, uint8 [H, W, 3], by a ground and by things that all have one size."""
        picture = pixels.astype(np.float32) / 255
        background, ground = find_ground(picture)
        planes, ground_planes = (torch.from_numpy(image).permute(2, 0, 1)[None] for image in (picture, ground))
        readings = [self._things(planes, ground_planes, extent) for extent in EXTENTS]
        price = PRICE_SHARE * float((planes - ground_planes).square().sum())
        best = max(readings, key=lambda things: sum(thing.gain - price for thing in things))
        return Sight(background, ground, tuple(best))
