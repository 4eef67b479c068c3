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
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from training.world.pack import COLUMNS, DATA, FURTHER_STYLES, JUDGE_STYLE, STYLES  # noqa: E402

SPRITE = 64  # pixels a side
RENDERED = 256  # pixels a side of a drawn SVG before it is shrunk
SHOWN = 32  # pixels a side of sprites that are only looked at
EXTRAS = 300  # concepts that are only looked at


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
    "emojione": Source(
        "npm",
        "@iconify-json/emojione",
        "1.2.3",
        "26a14f44284407e8bcde91799388dca2bfd91dbcd55a97f425524a1c5b73610e",
    ),
    "fxemoji": Source(
        "npm",
        "@iconify-json/fxemoji",
        "1.2.2",
        "f3e72b3c59d05e1db03b7e308d55c0d05bd7ba3f625a90da1b79313c12858eef",
    ),
    "streamline": Source(
        "npm",
        "@iconify-json/streamline-emojis",
        "1.2.4",
        "5dac87c876b322500989828c5823143e0100d78881627a2e4081a4b897cbfdbc",
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
# Of what else people draw, the kinds that are one thing each and not a concept's near relation by name.
EXTRA_CATEGORIES = {
    "Animals & Nature": "animals", "Food & Drink": "foods", "Travel & Places": "vehicles and places",
    "Objects": "objects", "Activities": "objects",
}  # fmt: skip
NOT_ONE_THING = ("time", "sky & weather", "place-map", "writing", "other-object")
NOT_OF_THE_GROUP = ("plant-flower", "plant-other", "dishware")  # objects, whatever the category
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


def fit(picture: Image.Image, side: int = SPRITE) -> np.ndarray:
    """Cut away the transparent margin and scale the longer side to `side`; RGBA uint8 [side, side, 4].

    A thing then has the same size in every style, which makes size, place and restyling exact.
    """
    rgba = np.asarray(picture.convert("RGBA"), np.float32)
    rgba[..., :3] *= rgba[..., 3:] / 255.0
    rows, columns = np.nonzero(rgba[..., 3] > 25)
    rgba = rgba[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    scale = side / max(rgba.shape[:2])
    height, width = (max(1, round(length * scale)) for length in rgba.shape[:2])
    bands = [Image.fromarray(rgba[..., band], "F") for band in range(4)]
    shrunk = np.stack([np.asarray(b.resize((width, height), Image.Resampling.LANCZOS)) for b in bands], -1)
    shrunk = shrunk.clip(0, 255)
    shrunk[..., :3] = (shrunk[..., :3] * 255.0 / shrunk[..., 3:].clip(1)).clip(0, 255)
    out = np.zeros((side, side, 4), np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    out[top : top + height, left : left + width] = shrunk.round()
    out[out[..., 3] == 0] = 0
    return out


def _sprites_from_files(archive: Path, folder: str, suffix: str, codes: list[str], side: int) -> Iterator[np.ndarray]:
    names = [f"package/{folder}/{code}{end}{suffix}" for code in codes for end in ("", "-fe0f")]
    found = read_members(archive, set(names))
    for first, second in zip(names[::2], names[1::2], strict=True):
        yield fit(Image.open(io.BytesIO(found.get(first) or found[second])), side)


def _read_json(archive: Path, name: str) -> Any:
    return json.loads(read_members(archive, {f"package/{name}"})[f"package/{name}"])


def _draw(icons: dict[str, Any], name: str, side: int) -> np.ndarray:
    """Draw one SVG of an icon set."""
    import resvg_py

    icon = icons | icons["icons"][name]  # an icon may have a size of its own
    box = f"0 0 {icon['width']} {icon['height']}"
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}">{icon["body"]}</svg>'
    png = resvg_py.svg_to_bytes(svg_string=svg, width=RENDERED, height=RENDERED)
    return fit(Image.open(io.BytesIO(bytes(png))), side)


def slugs_by_code(flat: Path) -> dict[str, str]:
    """The name of every emoji, in words joined by hyphens, by its code."""
    return {code.removesuffix("-fe0f"): slug for code, slug in _read_json(flat, "chars.json").items()}


def _sprites_from_svg(archive: Path, codes: list[str], side: int) -> Iterator[np.ndarray]:
    icons, slugs = _read_json(archive, "icons.json"), slugs_by_code(archive)
    for code in codes:
        yield _draw(icons, slugs[code], side)


def sprites(style: str, archive: Path, codes: list[str], side: int = SPRITE) -> Iterator[np.ndarray]:
    """Yield the sprite of every code in one style, uint8 [side, side, 4]."""
    if style == "flat":
        return _sprites_from_svg(archive, codes, side)
    folder = {"3D": "assets", "simple": "img/google/64", "twemoji": "img/twitter/64"}[style]
    return _sprites_from_files(archive, folder, ".webp" if style == "3D" else ".png", codes, side)


def further_sprites(archive: Path, concepts: list[dict[str, Any]], slugs: dict[str, str]) -> Iterator[np.ndarray]:
    """Yield the sprite of every concept in an icon set that goes by names; an empty one where it has none."""
    icons = _read_json(archive, "icons.json")
    by_name: dict[str, str] = {}
    for name in icons["icons"]:  # of several drawings of a thing ("fox-1", "fox-2") the first
        by_name.setdefault(re.sub(r"(-\d)?$", "", name).replace("-", ""), name)
    for concept in concepts:
        slug, name = slugs[concept["code"]], concept["name"]
        names = (slug, name, f"{name} face", f"{slug}-face", *concept["aliases"], slug.replace("-face", ""))
        found = next((by_name[key] for n in names if (key := re.sub("[- ]", "", n)) in by_name), None)
        yield _draw(icons, found, SHOWN) if found else np.zeros((SHOWN, SHOWN, 4), np.uint8)


def _plural(name: str) -> str:
    if re.search(r"(s|x|z|ch|sh)$", name):
        return f"{name}es"
    return re.sub(r"(?<![aeiou])y$", "ie", name) + "s"


def choose_extras(google: Path, flat: Path, threed: Path, concepts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Choose things that are not concepts, by the order of their hashes: they are shown, but never drawn."""
    known = {word for c in concepts for name in (c["name"], c["plural"], *c["aliases"]) for word in name.split()}
    known |= {concept["code"] for concept in concepts}
    known |= set((DATA / "phrases.txt").read_text(encoding="utf-8").split("[unknown]")[1].split("\n"))
    slugs = slugs_by_code(flat)
    with tarfile.open(threed) as tar:
        solid = {Path(name).stem.removesuffix("-fe0f") for name in tar.getnames()}
    chosen = []
    for entry in _read_json(google, "emoji.json"):
        code, kind = entry["unified"].lower().removesuffix("-fe0f"), entry["subcategory"]
        name = slugs.get(code, "").replace("-", " ")
        fits = re.fullmatch(r"[a-z]{3,}( [a-z]{3,})?(?<!s)", name) and not known & {name, *name.split(), code}
        if fits and entry["category"] in EXTRA_CATEGORIES and kind not in NOT_ONE_THING and code in solid:
            group = "objects" if kind in NOT_OF_THE_GROUP else EXTRA_CATEGORIES[entry["category"]]
            article = "an" if name[0] in "aeiou" else "a"
            chosen.append({"name": name, "plural": _plural(name), "article": article, "group": group, "code": code})
    chosen = sorted(chosen, key=lambda extra: hashlib.sha1(extra["code"].encode()).digest())[:EXTRAS]
    return sorted(chosen, key=lambda extra: extra["code"])


def write_atlas(path: Path, tiles: list[np.ndarray]) -> None:
    """Write square tiles in reading order, COLUMNS to a row, as one PNG."""
    side = tiles[0].shape[0]
    rows = -(-len(tiles) // COLUMNS)
    atlas = np.zeros((rows * side, COLUMNS * side, 4), np.uint8)
    for index, tile in enumerate(tiles):
        row, column = divmod(index, COLUMNS)
        atlas[row * side : (row + 1) * side, column * side : (column + 1) * side] = tile
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
    archives = {name: fetch(source, downloads) for name, source in SOURCES.items()}
    codes = [concept["code"] for concept in concepts]
    for style in (*STYLES, JUDGE_STYLE):
        write_atlas(out / f"{style.lower()}.png", list(sprites(style, archives[style], codes)))
    slugs = slugs_by_code(archives["flat"])
    for style in FURTHER_STYLES:
        write_atlas(out / f"{style}.png", list(further_sprites(archives[style], concepts, slugs)))
    extras = choose_extras(archives["simple"], archives["flat"], archives["3D"], concepts)
    (out / "extras.json").write_text(json.dumps(extras, indent=1) + "\n", encoding="utf-8")
    for style in STYLES:
        tiles = list(sprites(style, archives[style], [extra["code"] for extra in extras], SHOWN))
        write_atlas(out / f"extras_{style.lower()}.png", tiles)
    lines = small_talk(archives["chitchat"], archives["chatterbot"])
    (out / "small_talk.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return [*sorted(out.glob("*.png")), out / "extras.json", out / "small_talk.txt"]


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
