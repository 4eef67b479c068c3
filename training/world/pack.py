"""The packed sprites and the concepts they show.

`training/world/data` is built by scripts/build_packs.py from the packages listed in DATA_SOURCES.md.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import numpy as np

__all__ = [
    "DATA", "FURTHER_STYLES", "JUDGE_STYLE", "STYLES", "Concept", "Pack", "concepts", "extras", "further_drawings",
    "load_pack", "sprite_at", "thing_called",
]  # fmt: skip

DATA = Path(__file__).parent / "data"
STYLES = ("3D", "flat", "simple")
JUDGE_STYLE = "twemoji"  # never trained on: judges compare with it
FURTHER_STYLES = ("emojione", "fxemoji", "streamline")  # shown to the model, which never names or draws them
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
    aliases: tuple[str, ...] = ()
    gloss: str = ""

    @property
    def one(self) -> str:
        """The name with its article."""
        return f"{self.article} {self.name}"


@dataclass(frozen=True)
class Pack:
    """Everything that is packed.

    Args:
        concepts: the things of the world by name.
        extras: things that are shown to the model, which never draws them, by name.
        sprites: by style, uint8 [concepts, 64, 64, 4], RGBA with straight alpha; of a further style [concepts, 32, 32,
            4], empty where it has no such thing.
        extra_sprites: by style, uint8 [extras, 32, 32, 4].
    """

    concepts: Mapping[str, Concept]
    extras: Mapping[str, Concept]
    sprites: Mapping[str, np.ndarray]
    extra_sprites: Mapping[str, np.ndarray]

    def sprite(self, name: str, style: str) -> np.ndarray:
        """The sprite of one concept or extra in one style, uint8 [side, side, 4]."""
        if name in self.extras:
            return self.extra_sprites[style][list(self.extras).index(name)]
        return self.sprites[style][list(self.concepts).index(name)]


def _read(name: str) -> Mapping[str, Concept]:
    entries = json.loads((DATA / name).read_text(encoding="utf-8"))
    return {entry["name"]: Concept(**{**entry, "aliases": tuple(entry.get("aliases", ()))}) for entry in entries}


@cache
def concepts() -> Mapping[str, Concept]:
    """Read the concepts alone, by name, in the order of the atlases."""
    return _read("concepts.json")


@cache
def extras() -> Mapping[str, Concept]:
    """Read the things that are only shown, by name, in the order of their atlases."""
    return _read("extras.json")


def thing_called(name: str) -> Concept:
    """Give the concept or extra of this name."""
    return concepts().get(name) or extras()[name]


def _tiles(name: str, count: int) -> np.ndarray:
    """Cut an atlas; uint8 [count, side, side, 4]."""
    from PIL import Image

    atlas = np.asarray(Image.open(DATA / f"{name}.png").convert("RGBA"))
    side = atlas.shape[1] // COLUMNS
    rows = atlas.shape[0] // side
    return atlas.reshape(rows, side, COLUMNS, side, 4).transpose(0, 2, 1, 3, 4).reshape(-1, side, side, 4)[:count]


@cache
def load_pack() -> Pack:
    """Read the concepts, the extras and every atlas, the judges' style too."""
    styles = (*STYLES, JUDGE_STYLE, *FURTHER_STYLES)
    return Pack(
        concepts=concepts(),
        extras=extras(),
        sprites={style: _tiles(style.lower(), len(concepts())) for style in styles},
        extra_sprites={style: _tiles(f"extras_{style.lower()}", len(extras())) for style in STYLES},
    )


@cache
def further_drawings() -> tuple[tuple[str, str], ...]:
    """Every (concept, further style) of which there is a sprite."""
    sprites = load_pack().sprites
    pairs = [(name, style, number) for style in FURTHER_STYLES for number, name in enumerate(concepts())]
    return tuple((name, style) for name, style, number in pairs if sprites[style][number, ..., 3].any())


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
