"""The worked example of docs/lora.md: a thing that the model never saw, its word, before and after.

    python scripts/lora_example.py build               # a dozen pictures of it, and other pictures beside
    python -m training.train configs/train/lora_example.yaml
    python scripts/lora_example.py judge my_zorp       # drawings with and without the adapter, and who is in them
    python scripts/lora_example.py kept my_zorp        # whether everything else is as it was

The zorp is drawn here, from discs: purple, three eyes on stalks, an orange belly. Nothing of it is in the world.
"""

import json
import random
import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image as PILImage
from PIL import ImageDraw

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY))

from omni.errors import OmniError  # noqa: E402

WORD = "zorp"
SIDE = 256  # at which it is drawn, before it is shrunk
LOOKS = ("shaded", "flat", "outlined")
NUM_PICTURES, NUM_OTHERS, NUM_DRAWINGS = 12, 1200, 10
EXAMINED = ("text_to_image", "caption_image", "edit", "question")

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def draw_zorp(look: str) -> PILImage.Image:
    """Draw the creature, RGBA, in one of three looks; the judge compares across them."""
    picture = PILImage.new("RGBA", (SIDE, SIDE))
    pen = ImageDraw.Draw(picture)
    line = {"fill": None, "outline": (60, 10, 90, 255), "width": 8} if look == "outlined" else {}
    purple, dark = (150, 60, 210, 255), (110, 30, 165, 255)

    def disc(x: float, y: float, radius: float, colour: tuple[int, ...]) -> None:
        box = (x - radius, y - radius, x + radius, y + radius)
        pen.ellipse(box, **(line | {"fill": colour}))

    for x in (60, 128, 196):  # stalks and eyes
        pen.line((128, 130, x, 46), fill=dark, width=14)
        disc(x, 40, 30, (255, 255, 255, 255))
        disc(x, 44, 14, (20, 20, 30, 255))
    for x in (62, 194):  # feet
        disc(x, 228, 26, dark)
    disc(128, 158, 86, purple)
    if look == "shaded":
        for step in range(12):
            disc(118 - 2 * step, 146 - 2 * step, 70 - 5 * step, (150 + 5 * step, 60 + 8 * step, 210 + 3 * step, 255))
    disc(128, 180, 46, (250, 150, 40, 255))
    pen.arc((98, 120, 158, 160), 20, 160, fill=(40, 0, 60, 255), width=8)
    return picture


def place_zorp(background: str, row: float, column: float, extent: float, *, look: str = "shaded") -> np.ndarray:
    """Put it on one of the world's backgrounds; uint8 [64, 64, 3].

    Args:
        background: its name in the world.
        row, column: as shares of the room that is left.
        extent: its side as a share of the picture's.
        look: how it is drawn.
    """
    from training.world.scene import ground_of

    picture = PILImage.fromarray(ground_of(background, 64, 64))
    side = round(64 * extent)
    small = draw_zorp(look).resize((side, side), PILImage.Resampling.LANCZOS)
    picture.paste(small, (round(column * (64 - side)), round(row * (64 - side))), small)
    return np.asarray(picture)


@app.command()
def build(folder: Annotated[Path, typer.Argument(help="where to")] = REPOSITORY / "examples" / WORD) -> None:
    """Write a dozen pictures of the zorp with their texts, and pictures of the world beside, so that it stays known."""
    from training.world.tasks import document

    rng = random.Random(WORD)
    (folder / "new").mkdir(parents=True, exist_ok=True)
    lines = []
    for number, pair in enumerate(settings()[0]):
        PILImage.fromarray(zorp_at(*pair)).save(folder / "new" / f"{number}.png")
        text = rng.choice(("Draw {}.", "{}")).format(wish(*pair))
        lines.append(json.dumps({"file_name": f"{number}.png", "text": text}))
    (folder / "new" / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "known").mkdir(exist_ok=True)
    conversations = []
    for number in range(NUM_OTHERS):
        task = ("text_to_image", "text_to_image", "edit", "caption_image")[number % 4]
        messages = document(task, 900_000_000 + number, "train").messages
        for place, item in enumerate(item for message in messages for item in message["content"]):
            if item["type"] == "image":
                name = f"{number}-{place}.png"
                PILImage.fromarray(item.pop("image")).save(folder / "known" / name)
                item["path"] = name
        conversations.append(json.dumps({"messages": messages}))
    (folder / "known" / "train.jsonl").write_text("\n".join(conversations) + "\n", encoding="utf-8")
    typer.echo(f"{folder}: {NUM_PICTURES} pictures of the {WORD}, {NUM_OTHERS} documents of the world")


def settings() -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Return pairs of place and background: those that are shown, and others that are asked for."""
    from training.world.scene import BACKGROUNDS, PLACES

    rng = random.Random("settings")
    grounds, places = rng.sample(BACKGROUNDS, len(BACKGROUNDS)), rng.sample(tuple(PLACES), len(PLACES))
    # Every background before any comes twice, and the places in turn: what always comes together is learnt together.
    pairs = [(places[number % len(places)], grounds[number % len(grounds)]) for number in range(len(places) * 4)]
    return pairs[:NUM_PICTURES], pairs[NUM_PICTURES : NUM_PICTURES + NUM_DRAWINGS]


def zorp_at(place: str, background: str) -> np.ndarray:
    """Put it at one of the world's places, in the usual size; see place_zorp."""
    from training.world.scene import PLACES, SIZES

    return place_zorp(background, *PLACES[place], SIZES["medium"])


def wish(place: str, background: str, size: str = "medium") -> str:
    """Say what is to be drawn."""
    from training.world.language import background_phrase, place_phrase

    words = f"a {WORD}" if size == "medium" else f"a {size} {WORD}"
    return " ".join((words, place_phrase(place), background_phrase(background)))


def prompts() -> dict[str, list[str]]:
    """Return what is asked for when judging: places on other backgrounds, and sizes, in which it was never shown."""
    asked = settings()[1]
    return {
        "asked": [wish(place, ground) for place, ground in asked],
        "other_sizes": [wish("center", ground, ("small", "big")[n % 2]) for n, (_, ground) in enumerate(asked)],
    }


class ZorpJudge:
    """The features judge of the evaluation, with one more concept in its gallery."""

    def __init__(self) -> None:
        from training.judges.features import FeatureNetwork
        from training.judges.identity import IdentityJudge
        from training.world.pack import STYLES, load_pack

        sprites = load_pack().sprites
        known = np.stack([sprites[style] for style in STYLES], axis=1)  # [concepts, styles, H, W, 4]
        height, width = known.shape[2:4]
        looks = [np.asarray(draw_zorp(look).resize((width, height))) for look in LOOKS[: known.shape[1]]]
        self.zorp = len(known)
        self.identity = IdentityJudge(
            np.concatenate([known, np.stack(looks)[None]]), network=FeatureNetwork(input_size=128)
        )

    def is_zorp(self, pixels: np.ndarray, *, seed: str) -> bool:
        """Tell whether the thing in a picture is chosen as the zorp, out of twenty."""
        from training.judges.identity import cut_out, is_chosen
        from training.judges.templates import find_ground

        _, ground = find_ground(pixels.astype(np.float32) / 255)
        rows, columns = np.nonzero(np.abs(pixels / 255 - ground).max(axis=-1) > 0.2)
        if len(rows) < 40:
            return False
        top, left = int(np.percentile(rows, 2)), int(np.percentile(columns, 2))
        side = int(max(np.percentile(rows, 98) - top, np.percentile(columns, 98) - left)) + 1
        thing = cut_out(pixels, ground, (top, left, side))
        likeness = self.identity.similarities(thing[None], [0])[0]  # the look that was trained is left out
        return is_chosen(likeness, self.zorp, seed=seed)


@app.command()
def judge(
    adapter: Annotated[Path, typer.Argument(help="folder of the adapter")],
    out: Annotated[Path, typer.Option(help="folder of the sheet and figures")] = Path("out/zorp"),
    weight: Annotated[float, typer.Option(help="of the adapter")] = 1.0,
) -> None:
    """Draw with and without the adapter by the same seeds, and count in how many drawings the zorp is."""
    from omni.pipeline import Omni
    from training.sheets import contact_sheet

    try:
        omni, look = Omni.from_pretrained(), ZorpJudge()
        real = [zorp_at(*pair) for pair in settings()[1]]
        figures = {"real": sum(look.is_zorp(pixels, seed=str(n)) for n, pixels in enumerate(real))}
        drawn, words = [], []
        for name in ("before", "after"):
            if name == "after":
                omni.load_adapter(adapter, name=WORD, weight=weight)
            for kind, texts in prompts().items():
                pictures = [image.pixels for image in omni.image(texts, seed=0)]
                figures[f"{name}/{kind}"] = sum(look.is_zorp(one, seed=str(n)) for n, one in enumerate(pictures))
                drawn += pictures
                words += [f"{name}: {text}" for text in texts]
    except OmniError as error:
        sys.exit(f"error: {error}")
    out.mkdir(parents=True, exist_ok=True)
    contact_sheet(drawn, words).save(out / "sheet.png")
    (out / "figures.json").write_text(json.dumps(figures) + "\n", encoding="utf-8")
    typer.echo(json.dumps(figures | {"of": NUM_DRAWINGS}))


@app.command()
def kept(
    adapter: Annotated[Path, typer.Argument(help="folder of the adapter")],
    count: Annotated[int, typer.Option(help="questions of each task")] = 100,
    out: Annotated[Path, typer.Option(help="folder of the figures")] = Path("out/zorp"),
) -> None:
    """Put the same questions of the world, from the same seeds, to the model with and without the adapter."""
    from omni.pipeline import Omni
    from training.evaluate import codec_round_trip, evaluate
    from training.scores import grouped, share

    try:
        omni, found = Omni.from_pretrained(), []
        for name in ("without", "with"):
            if name == "with":
                omni.load_adapter(adapter, name=WORD)
            scores, _ = evaluate(omni, codec_round_trip(omni), tasks=EXAMINED, count=count)
            found.append([score for score in scores if score.split in ("seen", "unseen")])
    except OmniError as error:
        sys.exit(f"error: {error}")
    figures = {}
    for task in (*EXAMINED, ""):
        without, changed = ([score for score in half if score.measure.startswith(task)] for half in found)
        figures[task or "all"] = {
            "judgements": len(without),
            "without": share(without),
            "with": share(changed),
            "measures": len(grouped(without)),
        }
        typer.echo(f"{task or 'all'}: {json.dumps(figures[task or 'all'])}")
    out.mkdir(parents=True, exist_ok=True)
    (out / "kept.json").write_text(json.dumps(figures) + "\n", encoding="utf-8")


if __name__ == "__main__":
    app()
