"""All judges of pictures together, and what they make of one picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from training.judges.features import FeatureNetwork
from training.judges.identity import IdentityJudge, cut_out, is_chosen
from training.judges.templates import Found, Pixels, Sight, TemplateJudge
from training.world.pack import JUDGE_STYLE, STYLES, concepts, load_pack

# Of more things than two, all are the same.
MAX_IDENTIFIED = 2


@dataclass(frozen=True)
class View:
    """What the judges make of one picture.

    Args:
        sight: by template matching.
        similarities: of its first things to every concept, [things, concepts]; a row of zeros where nothing
            is seen.
    """

    sight: Sight
    similarities: NDArray[np.float32]

    def is_identified(self, concept: str, *, seed: str) -> bool:
        """Tell whether any of the first things is chosen as this concept out of twenty, by features."""
        index = list(concepts()).index(concept)
        return any(is_chosen(row, index, seed=f"{seed}/{concept}") for row in self.similarities)

    def is_matched(self, concept: str) -> bool:
        """Tell whether this concept's sprites are nearest to any of the first things."""
        return any(thing.concept == concept for thing in self.sight.things[: len(self.similarities)])

    def pair(self, first: str, second: str) -> tuple[Found, Found] | None:
        """Tell which of two things is which, by features; None unless exactly two are seen."""
        if len(self.sight.things) != 2 or len(self.similarities) != 2:
            return None
        one, other = self.sight.things
        names = list(concepts())
        likeness = self.similarities[:, [names.index(first), names.index(second)]]
        is_straight = likeness[0, 0] + likeness[1, 1] >= likeness[0, 1] + likeness[1, 0]
        return (one, other) if is_straight else (other, one)


class PictureJudges:
    """Judge pictures by templates and by features.

    Args:
        feature_size: side to which cut-outs are enlarged for the network, in pixels.
    """

    def __init__(self, *, feature_size: int = 128) -> None:
        self.feature_size = feature_size
        self.templates = TemplateJudge()

    @cached_property
    def identity(self) -> IdentityJudge:
        """The judge by features, built when it is first needed: it looks at every known sprite.

        Raises:
            ConfigError: the extra `eval` is not installed.
        """
        network = FeatureNetwork(input_size=self.feature_size)
        sprites = load_pack().sprites
        known = np.stack([sprites[style] for style in (*STYLES, JUDGE_STYLE)], axis=1)
        return IdentityJudge(known, network=network)

    def view(self, pictures: Sequence[Pixels], *, styles: Sequence[str], things: Sequence[int]) -> list[View]:
        """Look at pictures.

        Args:
            pictures: uint8 [H, W, 3] each, of any sizes.
            styles: of each, the style asked for, whose sprites the features judge leaves out; "" for the one
                it seems to be drawn in.
            things: of each, how many different concepts were asked for; no more things are identified.
        """
        sights = [self.templates.look(picture) for picture in pictures]
        cut_outs, left_out, owners = [], [], []
        for number, (picture, sight, style) in enumerate(zip(pictures, sights, styles, strict=True)):
            for thing in sight.things[: min(things[number], MAX_IDENTIFIED)]:
                cut_outs.append(cut_out(picture, sight.ground, thing.box))
                left_out.append(STYLES.index(style or thing.style))
                owners.append(number)
        rows: list[list[NDArray[np.float32]]] = [[] for _ in pictures]
        if cut_outs:
            for owner, row in zip(owners, self.identity.similarities(np.stack(cut_outs), left_out), strict=True):
                rows[owner].append(row)
        unseen = np.zeros((1, len(concepts())), np.float32)
        return [View(sight, np.stack(mine) if mine else unseen) for sight, mine in zip(sights, rows, strict=True)]
