"""Measure an audio codec on held-out recordings: words, naturalness, notes, latents, speed; and its peers' rates.

    python scripts/evaluate_audio_codec.py [tokenizers/audio/nano] [--speech 8] [--notes 40] [--json FILE] [--card]

Needs the extra `eval`, and the files of `python scripts/fetch_judges.py`.
"""

import argparse
import json
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
# Measure -> (is it a ceiling?, limit).
LIMITS = {"speech/wer_added": (True, 0.03), "speech/dnsmos_lost": (True, 0.3), "notes/kept": (False, 0.95)}
# As they are commonly given, not looked up: name, sound, latents a second, what a latent is, numbers a second.
PEERS = (
    ("Stable Audio Open (Oobleck)", "44.1 kHz stereo", 21.5, "64 continuous", "1,378"),
    ("EnCodec, 6 kbit/s", "24 kHz mono", 75.0, "8 codes of 10 bits (128 inside)", "600 codes"),
    ("DAC, 8 kbit/s", "44.1 kHz mono", 86.1, "9 codes of 10 bits (72 inside)", "775 codes"),
    ("Mimi, 1.1 kbit/s", "24 kHz mono", 12.5, "8 codes of 11 bits (512 inside)", "100 codes"),
)

CARD = """# Audio codec `{name}`

16 kHz mono sound as {channels} numbers, {rate:g} times a second, and back. `AutoencoderLogMel` of
`omni/codecs/mel.py`: {group} neighbouring frames of {bands} log-mel bands, projected on their {channels} principal
components and scaled to unit variance on the whole, so that each keeps its share. The way back is a Griffin-Lim that
imposes the sums over the bands and leaves the rest to the sound itself; it starts without chance, so that the same
latents always sound the same.{network}

* Fitted by `python -m training.codecs.audio configs/train/audio_codec.yaml` on speech, music and named sounds of the
  omni world (`training/world`), training combinations only; their sources are in DATA_SOURCES.md.
* Figures of `python scripts/evaluate_audio_codec.py --card` on held-out recordings:

| measure | value |
|---|---|
{rows}

* `speech/...`: wrong words of Whisper tiny.en as a share of all, before and after, four lines of the Piper voice in a
  recording; DNSMOS (overall) before and after.
* `notes/originals`: true notes that Basic Pitch finds in the originals, same semitone, within 0.1 s; `notes/kept`: the
  share of these that it still finds afterwards.
* `latents/std_...`: of single channels; `latents/changed_by_round_trip`: mean squared change of latents that are
  decoded and encoded again, as a share of their own mean square.
* Compression beside that of others:

{peers}

* Not for high fidelity: nothing above 8 kHz, no stereo; noise keeps its colour and not its waveform.
* Licence: Apache-2.0, like the project.
"""


def write_card(folder, codec, figures):
    """Write the codec's README.md."""
    text = CARD.format(
        name=folder.name,
        channels=codec.channels,
        rate=codec.latents_per_second,
        bands=codec.autoencoder.config.bands,
        group=codec.autoencoder.config.frames_per_latent,
        network=" A small network corrects the components." if codec.autoencoder.config.width else "",
        rows="\n".join(f"| {name} | {value:.4g} |" for name, value in figures.items()),
        peers=peers_table(codec),
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def peers_table(codec):
    """Tell how many numbers a second of sound becomes, here and elsewhere."""
    numbers = f"{codec.latents_per_second * codec.channels:,.0f}"
    ours = ("ours", f"{codec.sample_rate / 1000:g} kHz mono", codec.latents_per_second)
    lines = ["| codec | sound | latents/s | a latent | numbers/s |", "|---|---|---|---|---|"]
    for name, sound, rate, latent, total in ((*ours, f"{codec.channels} continuous", numbers), *PEERS):
        lines.append(f"| {name} | {sound} | {rate:g} | {latent} | {total} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print, and write what was asked for; exit status 1 where a limit is missed."""
    from omni.codecs.audio import AudioCodec
    from omni.errors import OmniError
    from omni.memory import keep_freed_memory
    from training.codecs.measure_audio import measure_codec

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("codec", nargs="?", type=Path, default=REPOSITORY / "tokenizers" / "audio" / "nano")
    parser.add_argument("--speech", type=int, default=8, help="recordings of four spoken lines")
    parser.add_argument("--notes", type=int, default=40, help="pieces of music")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--card", action="store_true", help="write the codec's README.md")
    arguments = parser.parse_args()
    keep_freed_memory()
    try:
        codec = AudioCodec.from_folder(arguments.codec)
        figures = measure_codec(codec, num_speech=arguments.speech, num_notes=arguments.notes)
    except OmniError as error:
        sys.exit(f"error: {error}")
    missed = 0
    for name, value in figures.items():
        is_ceiling, limit = LIMITS.get(name, (True, float("inf")))
        is_missed = value > limit if is_ceiling else value < limit
        missed += is_missed
        verdict = f"  limit {limit:g}: {'missed' if is_missed else 'held'}" if name in LIMITS else ""
        print(f"{name:34s} {value:10.4g}{verdict}")
    print("\n" + peers_table(codec))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    if arguments.card:
        write_card(arguments.codec, codec, figures)
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    sys.path.insert(0, str(REPOSITORY))
    main()
