"""Measure a vision codec on held-out scenes: PSNR, sprites still recognised, speed.

python scripts/evaluate_codec.py [tokenizers/vision/nano] [--count 64] [--json FILE] [--sheet PNG] [--card]
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[1]
NUM_NAMED = 48  # of each size; template match takes a second a picture

CARD = """# Vision codec `{name}`

`{class_name}` of diffusers, small: {factor}x{factor} pixels of a frame become {channels} numbers. The class
is a causal video codec; this edition was trained on single frames alone. Its temporal kernels are zero, so every
frame of a clip is coded by itself, and frames take a 2-D path with the same result
(`omni/codecs/frames.py`).

* Trained by `python -m training.codecs.train configs/train/codec.yaml` on scenes of the omni world
  (`training/world`), rendered from the packages listed in DATA_SOURCES.md. No other pictures.
* Figures of `python scripts/evaluate_codec.py --card` on {num_scenes} held-out scenes:

| measure | value |
|---|---|
{rows}

* `psnr/...` in dB: mean over pictures by style and size; `pooled` is the PSNR of the mean squared error.
* `named/originals`: things that template match names on the originals; `named/kept`: share of these that it
  still names after the round trip.
* Not for photographs: it has seen only drawn sprites on plain or simple backgrounds.
* Licence: Apache-2.0, like the project; the sprites' licences are in DATA_SOURCES.md.
"""


def write_sheet(path, trips):
    """Lay originals over reconstructions, three times enlarged, and write a PNG."""
    square = [trip for trip in trips if trip.size == (64, 64)][:32]
    rows = []
    for start in range(0, len(square), 8):
        part = square[start : start + 8]
        rows += [np.concatenate([t.original for t in part], 1), np.concatenate([t.rebuilt for t in part], 1)]
    sheet = Image.fromarray(np.concatenate(rows))
    sheet.resize((sheet.width * 3, sheet.height * 3), Image.Resampling.NEAREST).save(path)


def write_card(folder, codec, figures, num_scenes):
    """Write the codec's README.md."""
    rows = "\n".join(f"| {name} | {value:.4g} |" for name, value in figures.items())
    text = CARD.format(
        name=folder.name,
        class_name=codec.config.class_name,
        factor=codec.spatial_factor,
        channels=codec.channels,
        num_scenes=num_scenes,
        rows=rows,
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def main() -> None:
    """Measure, print, and write what was asked for."""
    from omni.codecs import VisionCodec
    from omni.errors import OmniError
    from omni.memory import keep_freed_memory
    from training.codecs.measure import measure_names, measure_psnr, measure_speed, round_trips

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("codec", nargs="?", type=Path, default=REPOSITORY / "tokenizers" / "vision" / "nano")
    parser.add_argument("--count", type=int, default=64, help="scenes of each picture size")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--sheet", type=Path, help="write originals above reconstructions here, as PNG")
    parser.add_argument("--card", action="store_true", help="write the codec's README.md")
    arguments = parser.parse_args()
    keep_freed_memory()
    try:
        codec = VisionCodec.from_folder(arguments.codec)
    except OmniError as error:
        sys.exit(f"error: {error}")
    trips = round_trips(codec, count=arguments.count)
    chosen = [trip for k, trip in enumerate(trips) if k % arguments.count < NUM_NAMED]
    figures = measure_psnr(trips) | measure_names(chosen) | measure_speed(codec)
    for name, value in figures.items():
        print(f"{name:24s} {value:10.4g}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    if arguments.sheet:
        write_sheet(arguments.sheet, trips)
    if arguments.card:
        write_card(arguments.codec, codec, figures, len(trips))


if __name__ == "__main__":
    sys.path.insert(0, str(REPOSITORY))
    main()
