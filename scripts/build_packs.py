"""Fetch the tier A packages of the omni world and pack what it needs into training/world/data.

    python scripts/build_packs.py            # rebuild the committed files
    python scripts/build_packs.py --check    # rebuild elsewhere and compare with the committed bytes

Every package is named with its version and SHA-256, and fetched through the ordinary clients (`npm pack`,
`pip download`) without running install scripts. Needs npm, and the `train` extra for resvg_py.
"""

import argparse
import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "training" / "world" / "data"
SPRITE = 64  # pixels a side
COLUMNS = 12  # sprites in a row of an atlas
RENDERED = 256  # pixels a side of a drawn SVG before it is shrunk


@dataclass(frozen=True)
class Source:
    """One package: where it comes from, and the digest that its file must have."""

    kind: str  # "npm" | "pip"
    name: str
    version: str
    sha256: str


SOURCES = {
    "3D": Source(
        "npm",
        "@lobehub/fluent-emoji-3d",
        "1.1.0",
        "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
    ),
    "flat": Source(
        "npm",
        "@iconify-json/fluent-emoji-flat",
        "1.2.6",
        "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
    ),
    "simple": Source(
        "npm",
        "emoji-datasource-google",
        "16.0.0",
        "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
    ),
    "twemoji": Source(
        "npm",
        "emoji-datasource-twitter",
        "16.0.0",
        "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
    ),
    "chitchat": Source(
        "pip", "chitchat-dataset", "0.9.0", "7bf89f36645e2d5ec87d53370c8e851b5a688479c7beb7079cb4c87fc5acea3e"
    ),
    "chatterbot": Source(
        "pip",
        "chatterbot-corpus",
        "1.3.3",
        "86de5300afb9a80826386339d3bec79c0a72eb0358abb8327e2ecef5ae0ce154",
    ),
}
SMALL_TALK_LINES = 4000
COMMON_WORDS = 2500  # a line with a rarer word is left out: names, typing errors, strong language
CHATTERBOT = "chatterbot_corpus/data/english/{}.yml"
CHATTERBOT_TOPICS = ("greetings", "conversations", "food", "sports")
# Lines that ask for something the model does itself, and lines that are not fit for all ages.
UNWANTED = re.compile(
    r"\b(draw\w*|paint\w*|pictures?|photos?|images?|sketch\w*|icons?|sex\w*|porn|nude|naked|kiss\w*|kill\w*|die[ds]?|"
    r"dead|death|murder|suicide|shoot\w*|guns?|bomb\w*|drunk|drink\w*|beers?|wine|alcohol|drugs?|weed|smok\w*|"
    r"shit\w*|fuck\w*|damn|hell|crap|ass|bitch\w*|bastard|piss\w*|suck\w*|dick|cock|gay|lesbian|racis\w*|nazi|"
    r"stupid|idiot\w*|dumb|ugly|fat|god|jesus|church|muslim|christian|jew\w*|trump|hillary|obama|politic\w*|"
    r"republicans?|democrats?|wtf|omg|lmao|lol|mit|boston|cambridge|turk\w*|bot|ai|hot|sexy|girlfriend|boyfriend|"
    r"mouth|hate|hurt|abuse\w*|rape\w*|slut|whore|boobs?|penis|tits)\b"
)


def fetch(source: Source, folder: Path) -> Path:
    """Download one package file into `folder`, unless it is there, and check its digest."""
    path = next(iter(_candidates(source, folder)), None)
    if path is None:
        spec = f"{source.name}@{source.version}" if source.kind == "npm" else f"{source.name}=={source.version}"
        npm = ["npm", "pack", "--ignore-scripts", "--silent", spec]
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", spec]
        subprocess.run(npm if source.kind == "npm" else pip, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        path = next(iter(_candidates(source, folder)))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != source.sha256:
        raise SystemExit(f"{path.name} has SHA-256 {digest}, expected {source.sha256}: delete it and try again")
    return path


def _candidates(source: Source, folder: Path) -> list[Path]:
    stem = source.name.lstrip("@").replace("/", "-")
    patterns = {f"{stem}-{source.version}.tgz", f"{stem.replace('-', '_')}-{source.version}*"}
    return sorted(path for pattern in patterns for path in folder.glob(pattern))


def read_members(archive: Path, names: set[str]) -> dict[str, bytes]:
    """Read the named members of a tar or zip file (names as they stand in the archive)."""
    if archive.suffix in (".whl", ".zip"):
        with zipfile.ZipFile(archive) as wheel:
            return {name: wheel.read(name) for name in names}
    with tarfile.open(archive) as tar:
        found = {member.name: member for member in tar if member.name in names}
        return {name: tar.extractfile(member).read() for name, member in found.items()}  # type: ignore[union-attr]


def fit(picture: Image.Image) -> np.ndarray:
    """Cut away the transparent margin and scale the longer side to SPRITE; RGBA uint8 [64, 64, 4].

    A thing then has the same size in every style, which makes size, place and restyling exact.
    """
    rgba = np.asarray(picture.convert("RGBA"), np.float32)
    rgba[..., :3] *= rgba[..., 3:] / 255.0
    rows, columns = np.nonzero(rgba[..., 3] > 25)
    rgba = rgba[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    scale = SPRITE / max(rgba.shape[:2])
    height, width = (max(1, round(side * scale)) for side in rgba.shape[:2])
    bands = [Image.fromarray(rgba[..., band], "F") for band in range(4)]
    shrunk = np.stack([np.asarray(b.resize((width, height), Image.Resampling.LANCZOS)) for b in bands], -1)
    shrunk = shrunk.clip(0, 255)
    shrunk[..., :3] = (shrunk[..., :3] * 255.0 / shrunk[..., 3:].clip(1)).clip(0, 255)
    out = np.zeros((SPRITE, SPRITE, 4), np.uint8)
    top, left = (SPRITE - height) // 2, (SPRITE - width) // 2
    out[top : top + height, left : left + width] = shrunk.round()
    out[out[..., 3] == 0] = 0
    return out


def _sprites_from_files(archive: Path, folder: str, suffix: str, codes: list[str]) -> Iterator[np.ndarray]:
    names = [f"package/{folder}/{code}{end}{suffix}" for code in codes for end in ("", "-fe0f")]
    found = read_members(archive, set(names))
    for first, second in zip(names[::2], names[1::2], strict=True):
        yield fit(Image.open(io.BytesIO(found.get(first) or found[second])))


def _sprites_from_svg(archive: Path, codes: list[str]) -> Iterator[np.ndarray]:
    import resvg_py

    members = read_members(archive, {"package/icons.json", "package/chars.json"})
    icons = json.loads(members["package/icons.json"])["icons"]
    slugs = json.loads(members["package/chars.json"])
    for code in codes:
        body = icons[slugs.get(code) or slugs[f"{code}-fe0f"]]["body"]
        svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">{body}</svg>'
        png = resvg_py.svg_to_bytes(svg_string=svg, width=RENDERED, height=RENDERED)
        yield fit(Image.open(io.BytesIO(bytes(png))))


def sprites(style: str, archive: Path, codes: list[str]) -> Iterator[np.ndarray]:
    """Yield the sprite of every code in one style."""
    if style == "flat":
        return _sprites_from_svg(archive, codes)
    folder = {"3D": "assets", "simple": "img/google/64", "twemoji": "img/twitter/64"}[style]
    return _sprites_from_files(archive, folder, ".webp" if style == "3D" else ".png", codes)


def write_atlas(path: Path, tiles: list[np.ndarray]) -> None:
    """Write tiles in reading order, COLUMNS to a row, as one PNG."""
    rows = -(-len(tiles) // COLUMNS)
    atlas = np.zeros((rows * SPRITE, COLUMNS * SPRITE, 4), np.uint8)
    for index, tile in enumerate(tiles):
        row, column = divmod(index, COLUMNS)
        atlas[row * SPRITE : (row + 1) * SPRITE, column * SPRITE : (column + 1) * SPRITE] = tile
    Image.fromarray(atlas).save(path, optimize=False, compress_level=9)


def _spoken(chitchat: Path, chatterbot: Path) -> Iterator[str]:
    """Every utterance of people in both packages."""
    import yaml

    name = "chitchat_dataset/dataset.json"
    for talk in json.loads(read_members(chitchat, {name})[name]).values():
        yield from (message["text"] for turn in talk["messages"] for message in turn)
    names = [CHATTERBOT.format(topic) for topic in CHATTERBOT_TOPICS]
    members = read_members(chatterbot, set(names))
    for name in names:
        for exchange in yaml.safe_load(members[name])["conversations"]:
            yield from (str(exchange[0]),)


def small_talk(chitchat: Path, chatterbot: Path) -> list[str]:
    """Choose short clean lines in common words, by the order of their hashes."""
    lines = [re.sub(r"\s+", " ", line).strip() for line in _spoken(chitchat, chatterbot)]
    counts = Counter(word for line in lines for word in re.findall(r"[a-z']+", line.lower()))
    common = {word for word, _ in counts.most_common(COMMON_WORDS)}
    kept = set()
    for line in lines:
        words = re.findall(r"[a-z']+", line.lower())
        clean = re.fullmatch(r"[A-Za-z',.?! ]{10,70}", line) and not UNWANTED.search(line.lower())
        if clean and 3 <= len(words) <= 12 and common.issuperset(words):
            kept.add(line)
    return sorted(sorted(kept, key=lambda line: hashlib.sha1(line.encode()).digest())[:SMALL_TALK_LINES])


def build(out: Path, downloads: Path) -> list[Path]:
    """Build every packed file into `out` from the packages in (or fetched into) `downloads`."""
    concepts = json.loads((DATA / "concepts.json").read_text())
    codes = [concept["code"] for concept in concepts]
    for style in ("3D", "flat", "simple", "twemoji"):
        tiles = list(sprites(style, fetch(SOURCES[style], downloads), codes))
        write_atlas(out / f"{style.lower()}.png", tiles)
    lines = small_talk(fetch(SOURCES["chitchat"], downloads), fetch(SOURCES["chatterbot"], downloads))
    (out / "small_talk.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return [*sorted(out.glob("*.png")), out / "small_talk.txt"]


def check(built: list[Path]) -> bool:
    """Compare built files with the committed ones; print one line for each."""
    same = True
    for path in built:
        equal = path.read_bytes() == (DATA / path.name).read_bytes()
        print(f"{path.name}: {'same bytes' if equal else 'DIFFERENT'}")
        same &= equal
    return same


def main() -> None:
    """Parse the command line and build or check."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--downloads", type=Path, help="keep the fetched packages in this folder")
    parser.add_argument("--check", action="store_true", help="compare with the committed files, write nothing")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        downloads = arguments.downloads or Path(scratch, "downloads")
        downloads.mkdir(parents=True, exist_ok=True)
        out = Path(scratch, "out") if arguments.check else DATA
        out.mkdir(exist_ok=True)
        built = build(out, downloads)
        if arguments.check:
            raise SystemExit(0 if check(built) else 1)
        print("\n".join(f"{path.name} {path.stat().st_size:,} bytes" for path in built))


if __name__ == "__main__":
    main()
