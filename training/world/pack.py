"""The packed sprites and the concepts they show.

`training/world/data` is built by scripts/build_packs.py from the packages listed in DATA_SOURCES.md.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import numpy as np

__all__ = ["DATA", "JUDGE_STYLE", "STYLES", "Concept", "Pack", "concepts", "load_pack", "sprite_at"]

DATA = Path(__file__).parent / "data"
STYLES = ("3D", "flat", "simple")
JUDGE_STYLE = "twemoji"  # never trained on: judges compare with it
SPRITE = 64
COLUMNS = 12


@dataclass(frozen=True)
class Concept:
    """A thing of the world, and how English speaks of it.

    Args:
        name: one or two plain words, "hot dog".
        plural: "hot dogs".
        article: "a" or "an".
        group: "animals", "foods", "vehicles and places", "objects" or "faces".
        code: hexadecimal code point that joins the packages.
        aliases: other words a person may use; the model itself says `name`.
        gloss: a definition that follows "A fox is".
    """

    name: str
    plural: str
    article: str
    group: str
    code: str
    aliases: tuple[str, ...]
    gloss: str

    @property
    def one(self) -> str:
        """The name with its article."""
        return f"{self.article} {self.name}"


@dataclass(frozen=True)
class Pack:
    """All concepts by name, and sprites[style], uint8 [concepts, 64, 64, 4], RGBA with straight alpha."""

    concepts: Mapping[str, Concept]
    sprites: Mapping[str, np.ndarray]

    def sprite(self, name: str, style: str) -> np.ndarray:
        """The sprite of one concept in one style, uint8 [64, 64, 4]."""
        return self.sprites[style][list(self.concepts).index(name)]


@cache
def concepts() -> Mapping[str, Concept]:
    """Read the concepts alone, by name, in the order of the atlases."""
    entries = json.loads((DATA / "concepts.json").read_text(encoding="utf-8"))
    return {entry["name"]: Concept(**{**entry, "aliases": tuple(entry["aliases"])}) for entry in entries}


@cache
def load_pack() -> Pack:
    """Read the concepts and every atlas, the judges' style too."""
    from PIL import Image

    sprites = {}
    for style in (*STYLES, JUDGE_STYLE):
        atlas = np.asarray(Image.open(DATA / f"{style.lower()}.png").convert("RGBA"))
        rows = atlas.shape[0] // SPRITE
        tiles = atlas.reshape(rows, SPRITE, COLUMNS, SPRITE, 4).transpose(0, 2, 1, 3, 4)
        sprites[style] = tiles.reshape(rows * COLUMNS, SPRITE, SPRITE, 4)[: len(concepts())]
    return Pack(concepts=concepts(), sprites=sprites)


@lru_cache(maxsize=1 << 14)
def sprite_at(name: str, style: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Shrink a sprite, ready to compose: out = colour + ground * (255 - alpha) / 255.

    Args:
        size: side in pixels.

    Returns:
        colour times alpha / 255, uint16 [size, size, 3], and 255 - alpha, uint16 [size, size, 1].
    """
    from PIL import Image

    rgba = load_pack().sprite(name, style).astype(np.float32)
    rgba[..., :3] *= rgba[..., 3:] / 255.0
    bands = [Image.fromarray(rgba[..., band]) for band in range(4)]
    box = [np.asarray(band.resize((size, size), Image.Resampling.BOX)) for band in bands]
    small = np.stack(box, -1).clip(0, 255).round().astype(np.uint16)
    return small[..., :3].copy(), 255 - small[..., 3:]
