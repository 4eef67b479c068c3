"""Who is in the picture: the nearest concept among real sprites of styles other than the one asked for.

A thing is cut out of its picture, laid on white and described by a network trained on photographs
(`features.py`). It is then compared with every concept in the other styles, so that a model which merely
copies the pixels of a style without the looks of the thing gains nothing.

Letters: N cut-outs, S pixels of a cut-out's side, D features.
"""

import random
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from training.judges.features import FeatureNetwork

# Sprites are judged at less than the size at which scenes show them: what a small codec does to edges
# misleads the network more than what is lost by shrinking.
CUT_OUT_SIDE = 24
# White left around a cut-out, as a share of its longer side.
MARGIN = 0.06
NUM_CHOICES = 20
# Distance of a pixel from the ground (in 255ths, root of the sum of squares): below the first it is ground, above
# the second wholly the thing; between them, at an edge, a mixture of both.
GROUND_DISTANCE, THING_DISTANCE = 25.0, 90.0
# The ground's share is taken out of a mixture, but never more than this much enlarged.
LEAST_ALPHA = 0.15
# How far around the box of the matched sprite the thing may reach, in pixels.
REACH = 1


def square_cut_out(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Trim a picture with alpha to what it shows, and centre that on a white square.

    Args:
        rgba: uint8, [H, W, 4].

    Returns:
        uint8, [CUT_OUT_SIDE, CUT_OUT_SIDE, 3]; plain white if nothing is shown.
    """
    canvas = Image.new("RGB", (CUT_OUT_SIDE, CUT_OUT_SIDE), "white")
    rows, columns = np.nonzero(rgba[..., 3] > 127)
    if len(rows) == 0:
        return np.array(canvas)
    thing = Image.fromarray(rgba).crop((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
    scale = CUT_OUT_SIDE * (1 - 2 * MARGIN) / max(thing.size)
    width, height = (max(1, round(side * scale)) for side in thing.size)
    # Resized with alpha multiplied in, or the colour of invisible pixels would leak into the edge.
    thing = thing.convert("RGBa").resize((width, height), Image.Resampling.BICUBIC).convert("RGBA")
    canvas.paste(thing, ((CUT_OUT_SIDE - width) // 2, (CUT_OUT_SIDE - height) // 2), thing)
    return np.array(canvas)


def cut_out(pixels: NDArray[np.uint8], ground: NDArray[np.float32], box: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Lift a thing off its ground: whatever in and around a box is not the ground.

    Args:
        pixels: the picture, uint8, [H, W, 3].
        ground: what is behind the thing, float32, [H, W, 3], 0 to 1.
        box: top, left and side of the square where the thing was found, in pixels.

    Returns:
        As `square_cut_out` does.
    """
    height, width = pixels.shape[:2]
    top, left, side = box
    rows = slice(max(0, top - REACH), min(height, top + side + REACH))
    columns = slice(max(0, left - REACH), min(width, left + side + REACH))
    behind = 255 * ground[rows, columns]
    difference = pixels[rows, columns] - behind
    squares = (difference**2).sum(axis=-1)
    around = np.lib.stride_tricks.sliding_window_view(np.pad(squares, 1, mode="edge"), (3, 3)).mean(axis=(2, 3))
    alpha = (np.sqrt(squares) - GROUND_DISTANCE) / (THING_DISTANCE - GROUND_DISTANCE)
    # A lone pixel amid ground is the codec's noise.
    alpha = np.where(np.sqrt(around) > GROUND_DISTANCE, alpha.clip(0, 1), 0)
    color = behind + difference / alpha.clip(LEAST_ALPHA, 1)[..., None]
    return square_cut_out(np.dstack([color, 255 * alpha]).clip(0, 255).astype(np.uint8))


class IdentityJudge:
    """Name the thing in a cut-out, by features.

    Args:
        sprites: the known sprites, uint8, [concepts, styles, H, W, 4].
        network: the features; the only part that needs the extra `eval`.
        batch_size: pictures that pass through the network together.
    """

    def __init__(self, sprites: NDArray[np.uint8], *, network: FeatureNetwork, batch_size: int = 32) -> None:
        self.network, self.batch_size = network, batch_size
        num_concepts, num_styles = sprites.shape[:2]
        cut_outs = np.stack([square_cut_out(sprite) for sprite in sprites.reshape(-1, *sprites.shape[2:])])
        features = self._describe(cut_outs)  # [concepts * styles, D]
        self.mean = features.mean(dim=0)
        self.gallery = F.normalize(features - self.mean, dim=-1).reshape(num_concepts, num_styles, -1)

    def _describe(self, cut_outs: NDArray[np.uint8]) -> Tensor:
        pixels = torch.from_numpy(np.ascontiguousarray(cut_outs)).permute(0, 3, 1, 2).float()
        return torch.cat([self.network.describe(batch) for batch in pixels.split(self.batch_size)])

    def similarities(self, cut_outs: NDArray[np.uint8], styles: Sequence[int]) -> NDArray[np.float32]:
        """Compare cut-outs with every concept, in all styles but the one that was asked for.

        Args:
            cut_outs: uint8, [N, S, S, 3], from `square_cut_out`.
            styles: for each, the index of the style that is left out.

        Returns:
            [N, concepts], the cosine with the concept's most similar sprite, in [-1, 1].
        """
        features = F.normalize(self._describe(cut_outs) - self.mean, dim=-1)
        cosines = torch.einsum("nd,csd->ncs", features, self.gallery)
        cosines[torch.arange(len(cosines)), :, torch.tensor(list(styles))] = -1.0
        return cosines.amax(dim=-1).numpy()


def is_chosen(similarities: NDArray[np.float32], concept: int, *, seed: str, num_choices: int = NUM_CHOICES) -> bool:
    """Decide one multiple-choice question: is the concept more similar than the drawn alternatives?

    Args:
        similarities: one row of `IdentityJudge.similarities`, [concepts].
        concept: the index of the right answer.
        seed: draws the alternatives, so that the same picture always faces the same ones.
        num_choices: the right answer and the alternatives together.
    """
    others = [index for index in range(len(similarities)) if index != concept]
    rivals = random.Random(seed).sample(others, min(num_choices - 1, len(others)))
    return bool(similarities[concept] > similarities[rivals].max())
