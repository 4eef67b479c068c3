"""Measure codecs on held-out pictures, films and recordings, and set them beside others' compression.

    python scripts/evaluate_codecs.py [tokenizers/vision/nano tokenizers/audio/nano] [--json FILE] [--card]

Exit status 1 where a limit is missed. Sound needs the extra `eval`, and the files of `python scripts/fetch_judges.py`.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from omni.codecs import VisionCodec  # noqa: E402
from omni.codecs.audio import CLASSES, AudioCodec  # noqa: E402
from omni.codecs.folder import CONFIG_FILE, read_json  # noqa: E402
from omni.errors import OmniError  # noqa: E402
from omni.memory import keep_freed_memory  # noqa: E402
from training.codecs import measure  # noqa: E402

NUM_NAMED = 48  # of each size; template match takes a second a picture
FOLDERS = (REPOSITORY / "tokenizers" / "vision" / "nano", REPOSITORY / "tokenizers" / "audio" / "nano")
# Measure -> (is it a ceiling?, limit).
LIMITS = {
    "film/psnr": (False, 27.0),
    "film/flicker": (True, 3.0),
    "speech/wer_added": (True, 0.03),
    "speech/dnsmos_lost": (True, 0.3),
    "notes/kept": (False, 0.95),
}
# Peers as they are commonly given, not looked up. Name, frames and pixels of a latent, its numbers:
VISION_PEERS = (
    ("FLUX, SD3 (pictures)", 1, 8, 16),
    ("Wan 2.1, CogVideoX, Hunyuan", 4, 8, 16),
    ("Wan 2.2 5B", 4, 16, 48),
    ("LTX", 8, 32, 128),
    ("DC-AE f32 (pictures)", 1, 32, 32),
)
# Name, sound, latents a second, what a latent is, numbers a second:
AUDIO_PEERS = (
    ("Stable Audio Open (Oobleck)", "44.1 kHz stereo", 21.5, "64 continuous", "1,378"),
    ("EnCodec, 6 kbit/s", "24 kHz mono", 75.0, "8 codes of 10 bits (128 inside)", "600 codes"),
    ("DAC, 8 kbit/s", "44.1 kHz mono", 86.1, "9 codes of 10 bits (72 inside)", "775 codes"),
    ("Mimi, 1.1 kbit/s", "24 kHz mono", 12.5, "8 codes of 11 bits (512 inside)", "100 codes"),
)

VISION_CARD = """# Vision codec `{name}`

`{class_name}` of diffusers, small and causal: {factor}x{factor} pixels of a picture, or of {frames} frames of a film,
become {channels} numbers; the first latent of a film is that of its first frame. A picture takes a 2-D path with the
same result (`omni/codecs/frames.py`), a whole film one of 2-D convolutions over a frame and those before it
(`omni/codecs/clips.py`).

* Trained on scenes of the omni world (`training/world`), rendered from the packages listed in DATA_SOURCES.md, and no
  other pictures: first `python -m training.codecs.train configs/train/codec.yaml` on pictures, then
  `python -m training.codecs.film configs/train/film_codec.yaml` on pictures and films.
* Figures of `python scripts/evaluate_codecs.py --card` on {num_scenes} held-out scenes and {num_films} held-out films:

{figures}

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

AUDIO_CARD = """# Audio codec `{name}`

16 kHz mono sound as {channels} numbers, {rate:g} times a second, and back. `AutoencoderLogMel` of
`omni/codecs/mel.py`: {group} neighbouring frames of {bands} log-mel bands, projected on their {channels} principal
components and scaled to unit variance on the whole, so that each keeps its share. The way back is a Griffin-Lim that
imposes the sums over the bands and leaves the rest to the sound itself; it starts without chance, so that the same
latents always sound the same.{network}

* Fitted by `python -m training.codecs.audio configs/train/audio_codec.yaml` on speech, music and named sounds of the
  omni world (`training/world`), training combinations only; their sources are in DATA_SOURCES.md.
* Figures of `python scripts/evaluate_codecs.py --card` on held-out recordings:

{figures}

* `speech/...`: wrong words of Whisper tiny.en as a share of all, before and after, four lines of the Piper voice in a
  recording; DNSMOS (overall) before and after.
* `notes/originals`: true notes that Basic Pitch finds in the originals, same semitone, within 0.1 s; `notes/kept`: the
  share of these that it still finds afterwards, and `notes/kept_beside_noise` the share that it still finds in the
  originals beside noise of -60 dB, so how often it repeats itself; `notes/sure`: notes that it finds beside each of
  three such noises, `notes/kept_of_sure` the share of these that the codec keeps.
* `latents/std_...`: of single channels; `latents/changed_by_round_trip`: mean squared change of latents that are
  decoded and encoded again, as a share of their own mean square.
* Compression beside that of others:

{peers}

* Not for high fidelity: nothing above 8 kHz, no stereo; noise keeps its colour and not its waveform.
* Licence: Apache-2.0, like the project.
"""

Codec = VisionCodec | AudioCodec
Figures = dict[str, float]


def is_missed(name: str, value: float) -> bool:
    """Tell whether a figure misses its limit."""
    is_ceiling, limit = LIMITS[name]
    return value > limit if is_ceiling else value < limit


def figures_table(figures: Figures) -> str:
    """Set figures beside their limits."""
    lines = ["| measure | value | limit |", "|---|---|---|"]
    for name, value in figures.items():
        limit = f"{LIMITS[name][1]:g}: {'missed' if is_missed(name, value) else 'held'}" if name in LIMITS else ""
        lines.append(f"| {name} | {value:.4g} | {limit} |")
    return "\n".join(lines)


def vision_peers(codec: VisionCodec) -> str:
    """Tell how many numbers stand for the pixel values of a film, here and elsewhere."""
    ours = ("ours", codec.frames_per_latent, codec.spatial_factor, codec.channels)
    lines = ["| codec | frames x rows x columns of a latent | numbers | pixel values a number |", "|---|---|---|---|"]
    for name, frames, side, numbers in (ours, *VISION_PEERS):
        lines.append(f"| {name} | {frames} x {side} x {side} | {numbers} | {3 * frames * side * side / numbers:.0f} |")
    return "\n".join(lines)


def audio_peers(codec: AudioCodec) -> str:
    """Tell how many numbers a second of sound becomes, here and elsewhere."""
    numbers = f"{codec.latents_per_second * codec.channels:,.0f}"
    ours = ("ours", f"{codec.sample_rate / 1000:g} kHz mono", codec.latents_per_second)
    lines = ["| codec | sound | latents/s | a latent | numbers/s |", "|---|---|---|---|---|"]
    for name, sound, rate, latent, total in ((*ours, f"{codec.channels} continuous", numbers), *AUDIO_PEERS):
        lines.append(f"| {name} | {sound} | {rate:g} | {latent} | {total} |")
    return "\n".join(lines)


def measure_vision(codec: VisionCodec, trips: Sequence[measure.RoundTrip], *, scenes: int, films: int) -> Figures:
    """Measure a vision codec."""
    chosen = [trip for k, trip in enumerate(trips) if k % scenes < NUM_NAMED]
    figures = measure.measure_psnr(trips) | measure.measure_names(chosen)
    if codec.frames_per_latent > 1:
        figures |= measure.measure_films(codec, count=films)
    return figures | measure.measure_speed(codec)


def vision_card(name: str, codec: VisionCodec, figures: Figures, *, num_scenes: int, num_films: int) -> str:
    """Write the README of a vision codec."""
    return VISION_CARD.format(
        name=name,
        class_name=codec.config.class_name,
        factor=codec.spatial_factor,
        channels=codec.channels,
        num_scenes=num_scenes,
        num_films=num_films,
        frames=codec.frames_per_latent,
        peers=vision_peers(codec),
        figures=figures_table(figures),
    )


def audio_card(name: str, codec: AudioCodec, figures: Figures) -> str:
    """Write the README of a log-mel codec."""
    return AUDIO_CARD.format(
        name=name,
        channels=codec.channels,
        rate=codec.latents_per_second,
        bands=codec.autoencoder.config.bands,
        group=codec.autoencoder.config.frames_per_latent,
        network=" A small network corrects the components." if codec.autoencoder.config.width else "",
        figures=figures_table(figures),
        peers=audio_peers(codec),
    )


def write_sheet(path: Path, trips: Sequence[measure.RoundTrip]) -> None:
    """Lay originals over reconstructions, three times enlarged, and write a PNG."""
    square = [trip for trip in trips if trip.size == (64, 64)][:32]
    rows = []
    for start in range(0, len(square), 8):
        part = square[start : start + 8]
        rows += [np.concatenate([t.original for t in part], 1), np.concatenate([t.rebuilt for t in part], 1)]
    sheet = Image.fromarray(np.concatenate(rows))
    sheet.resize((sheet.width * 3, sheet.height * 3), Image.Resampling.NEAREST).save(path)


def load(folder: Path) -> Codec:
    """Load a codec folder of either kind."""
    is_audio = read_json(folder / CONFIG_FILE).get("class_name") in CLASSES
    return AudioCodec.from_folder(folder) if is_audio else VisionCodec.from_folder(folder)


def evaluate(
    folders: Annotated[list[Path] | None, typer.Argument(help="of codecs; both shipped ones where left out")] = None,
    scenes: Annotated[int, typer.Option(min=1, help="of each picture size")] = 64,
    films: Annotated[int, typer.Option(min=1, help="of 17 frames")] = 48,
    speech: Annotated[int, typer.Option(min=1, help="recordings of four spoken lines")] = 10,
    notes: Annotated[int, typer.Option(min=1, help="pieces of music")] = 40,
    json_file: Annotated[Path | None, typer.Option("--json", help="write the figures here")] = None,
    sheet: Annotated[Path | None, typer.Option(help="write pictures above their reconstructions here")] = None,
    card: Annotated[bool, typer.Option(help="write each codec's README.md")] = False,
) -> None:
    """Measure codecs, print figures, limits and peers, and write what was asked for."""
    from training.codecs.measure_audio import measure_codec

    keep_freed_memory()
    together: Figures = {}
    for folder in folders or FOLDERS:
        try:
            codec = load(folder)
            if isinstance(codec, AudioCodec):
                figures = measure_codec(codec, num_speech=speech, num_notes=notes)
                peers, text = audio_peers(codec), audio_card(folder.name, codec, figures) if card else ""
            else:
                trips = measure.round_trips(codec, count=scenes)
                figures = measure_vision(codec, trips, scenes=scenes, films=films)
                counts = {"num_scenes": len(trips), "num_films": films}
                peers, text = vision_peers(codec), vision_card(folder.name, codec, figures, **counts)
                if sheet:
                    write_sheet(sheet, trips)
        except OmniError as error:
            sys.exit(f"error: {error}")
        print(f"# {folder}\n\n{figures_table(figures)}\n\n{peers}\n", flush=True)
        if card:
            (folder / "README.md").write_text(text, encoding="utf-8")
        together |= figures
    if json_file:
        json_file.write_text(json.dumps(together, indent=1) + "\n", encoding="utf-8")
    sys.exit(any(is_missed(name, together[name]) for name in LIMITS if name in together))


if __name__ == "__main__":
    typer.run(evaluate)
