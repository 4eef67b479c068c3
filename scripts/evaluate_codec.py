"""Measure a vision codec on held-out scenes and films: PSNR, sprites still recognised, flicker, speed.

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

`{class_name}` of diffusers, small and causal: {factor}x{factor} pixels of a picture, or of {frames} frames of a film,
become {channels} numbers; the first latent of a film is that of its first frame. A picture takes a 2-D path with the
same result (`omni/codecs/frames.py`), a whole film one of 2-D convolutions over a frame and those before it
(`omni/codecs/clips.py`).

* Trained on scenes of the omni world (`training/world`), rendered from the packages listed in DATA_SOURCES.md, and no
  other pictures: first `python -m training.codecs.train configs/train/codec.yaml` on pictures, then
  `python -m training.codecs.film configs/train/film_codec.yaml` on pictures and films.
* Figures of `python scripts/evaluate_codec.py --card` on {num_scenes} held-out scenes and {num_films} held-out films:

| measure | value |
|---|---|
{rows}

* `psnr/...` in dB: mean over pictures by style and size; `pooled` is the PSNR of the mean squared error.
* `named/originals`: things that template match names on the originals; `named/kept`: share of these that it
  still names after the round trip.
* `film/flicker...`: mean absolute error of the differences between frames, of 255; `frame_by_frame` is the same
  codec without its films' part, {frames} times the latents; `piecewise_difference`: largest difference between a film
  decoded as it comes and at once, of 255.
* Compression beside that of others, after the first frame of a film:

{peers}

* Not for photographs: it has seen only drawn sprites on plain or simple backgrounds.
* Licence: Apache-2.0, like the project; the sprites' licences are in DATA_SOURCES.md.
"""


# name, frames and pixels of a latent, its numbers; as commonly published
PEERS = (
    ("FLUX, SD3 (pictures)", 1, 8, 16),
    ("Wan 2.1, CogVideoX, Hunyuan", 4, 8, 16),
    ("Wan 2.2 5B", 4, 16, 48),
    ("LTX", 8, 32, 128),
    ("DC-AE f32 (pictures)", 1, 32, 32),
)


def peers_table(codec):
    """Return how many numbers stand for the pixel values of a film, here and elsewhere."""
    ours = ("ours", codec.frames_per_latent, codec.spatial_factor, codec.channels)
    lines = ["| codec | frames x rows x columns of a latent | numbers | pixel values a number |", "|---|---|---|---|"]
    for name, frames, side, numbers in (ours, *PEERS):
        lines.append(f"| {name} | {frames} x {side} x {side} | {numbers} | {3 * frames * side * side / numbers:.0f} |")
    return "\n".join(lines)


def write_sheet(path, trips):
    """Lay originals over reconstructions, three times enlarged, and write a PNG."""
    square = [trip for trip in trips if trip.size == (64, 64)][:32]
    rows = []
    for start in range(0, len(square), 8):
        part = square[start : start + 8]
        rows += [np.concatenate([t.original for t in part], 1), np.concatenate([t.rebuilt for t in part], 1)]
    sheet = Image.fromarray(np.concatenate(rows))
    sheet.resize((sheet.width * 3, sheet.height * 3), Image.Resampling.NEAREST).save(path)


def write_card(folder, codec, figures, *, num_scenes, num_films):
    """Write the codec's README.md."""
    rows = "\n".join(f"| {name} | {value:.4g} |" for name, value in figures.items())
    text = CARD.format(
        name=folder.name,
        class_name=codec.config.class_name,
        factor=codec.spatial_factor,
        channels=codec.channels,
        num_scenes=num_scenes,
        num_films=num_films,
        frames=codec.frames_per_latent,
        peers=peers_table(codec),
        rows=rows,
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def main() -> None:
    """Measure, print, and write what was asked for."""
    from omni.codecs import VisionCodec
    from omni.errors import OmniError
    from omni.memory import keep_freed_memory
    from training.codecs.measure import measure_films, measure_names, measure_psnr, measure_speed, round_trips

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("codec", nargs="?", type=Path, default=REPOSITORY / "tokenizers" / "vision" / "nano")
    parser.add_argument("--count", type=int, default=64, help="scenes of each picture size")
    parser.add_argument("--films", type=int, default=48, help="films of 17 frames")
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
    figures = measure_psnr(trips) | measure_names(chosen)
    if codec.frames_per_latent > 1:
        figures |= measure_films(codec, count=arguments.films)
    figures |= measure_speed(codec)
    for name, value in figures.items():
        print(f"{name:24s} {value:10.4g}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    if arguments.sheet:
        write_sheet(arguments.sheet, trips)
    if arguments.card:
        write_card(arguments.codec, codec, figures, num_scenes=len(trips), num_films=arguments.films)


if __name__ == "__main__":
    sys.path.insert(0, str(REPOSITORY))
    main()
