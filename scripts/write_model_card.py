"""Write docs/MODEL_CARD.md from the figures of an evaluation.

python -m training.evaluate omni/weights/nano --json docs/scores.json
python scripts/write_model_card.py
"""

import json
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from training.evaluate import DEFAULT_COUNTS  # noqa: E402

SPLITS = ("seen", "unseen", "real", "shuffled")

HEAD = """# The shipped model, twenty-first edition

`omni/weights/nano`: {parameters} parameters in 8 bits, the codecs of pictures, films and sounds and a text tokenizer
beside them. It chats about its world in English, draws and edits pictures of up to 24 squares of 16x16 pixels,
describes them, and makes its first films, worlds, stories and sounds. A reply goes by the last message and the eight
exchanges before it (`memory` in `omni.json`).

**This is an early edition**, far from trained to the end: see the figures, and `docs/images/samples.png`, in which
nothing was chosen.

## How it was made

`configs/train/nano.yaml` on two CPU cores, most of the time beside other work, in stages, each from the averaged
weights of the one before (`start=`); {tokens:.1f} million tokens in all, noisy copies counted. 98 % of all places
held a token. Of the last nineteen stages the first seventeen had bfloat16 units: the last seven of these took 163,
49, 44, 90, 32, 40 and 57 minutes, most of them of one core each. The last two had none and took 110 and 67 minutes of
two cores.

| steps | tokens a step | documents |
|---|---|---|
{stages}

The codecs: `tokenizers/vision/nano/README.md`, `tokenizers/audio/nano/README.md`. All data are of tier A;
DATA_SOURCES.md names them and their licences (attribution is due for Twemoji, CC-BY-4.0, which only the judges use).

## What was hoped for, and what it does

Combinations of thing, style and place that training never held, beside those that it held; how they were asked is said
below. A share near .8 is known to four points where 480 were asked and to sixteen where 24 were.

{bars}

## Scores

Each cell is the share of right answers. *seen* and *unseen*: combinations that training held, and that it never held.
*real*: the same judge on the real thing after the codec's round trip, the ceiling. *shuffled*: the same answers
against other requests, the floor. `wer` is a share of wrong words, so lower is better. No
judge was trained on the model's output.
Questions: {counts}.
Written by `scripts/write_model_card.py`.

| measure | seen | unseen | real | shuffled |
|---|---|---|---|---|
"""

STAGES = (
    (1820, 3050, "pictures, three noisy copies, sigma_mean 0, decayed to zero"),
    (480, 5000, "pictures, four copies, sigma_mean .7, constant rate"),
    (620, 5000, "pictures, two copies, a third of them to describe, decayed to zero"),
    (995, 5000, "the same, constant rate"),
    (101, 5075, "every task of configs/train/encode.yaml, sigma_floor .3, constant rate"),
    (409, 5075, "the same, constant rate"),
    (395, 5075, "the same, with a new expert for sound, decayed to zero"),
    (350, 5070, "seven in ten with pictures alone (configs/train/encode_pictures.yaml), drop_end .75, constant rate"),
    (
        1330,
        5070,
        "the same with more edits, rows and columns from the middle, max_start 2048, decayed to zero",
    ),
    (328, 5060, "the same, documents chained (chain .2), constant rate"),
    (264, 5060, "new films and sounds as in configs/train/encode.yaml, a quarter of the documents, constant rate"),
    (1500, 5060, "the same and new talk, after 370 steps more noise on sounds (base_tokens 1), decayed to zero"),
    (250, 5060, "pictures alone, no more jitter in their places, decayed to zero"),
    (187, 5060, "pictures alone, things of 24, 32, 40 and 48 pixels, four copies, constant rate"),
    (1350, 5060, "every task, things of 24, 32 and 48 pixels, three copies, more pictures, decayed to zero"),
    (162, 5060, "the same, constant rate"),
    (141, 5060, "half of the drawings of small, big or several things, constant rate"),
    (103, 5060, "the same, films and worlds with things of the usual size, constant rate"),
    (2200, 5060, "the same, notes and sounds that begin with a latent, decayed to zero"),
    (150, 5060, "the same, twice as many films and sounds, constant rate"),
    (
        1850,
        5060,
        "one speed and one gravity in films and worlds, read_noise .25 after 610 steps, decayed to zero",
    ),
    (
        1560,
        5060,
        "twice as many pictures as films; things in other light, worlds played before, small things on whole cells; "
        "decayed to zero",
    ),
    (1240, 5060, "three times as many worlds, the first answer of those played before given; decayed to zero"),
    (573, 5060, "new documents throughout, more sounds, and drawings that are only described (album); constant rate"),
    (1160, 5060, "the same, with many questions for what is there; decayed to zero"),
    (150, 5060, "the same without the album, a third of the rate; decayed to zero"),
    (
        757,
        5060,
        "from the mean of the last two editions: films and edits again, the album only asked about, after 197 steps "
        "without the audio expert; decayed to zero, then averaged with the edition before",
    ),
    (2330, 5060, "the audio expert alone: sounds, from the 1,000th step half of them speech; decayed to zero"),
    (
        700,
        5060,
        "without the audio expert: usual spots for several things, edits practised, first frames; decayed to zero, "
        "then averaged with the edition before",
    ),
    (
        2230,
        5060,
        "the audio expert alone: two in five speech, sounds in turn, films with sound; decayed to zero, then averaged "
        "with the edition before",
    ),
    (
        519,
        5060,
        "text and vision with `reads_previous`, new documents throughout, the gate fitted after 140 steps; constant "
        "rate; the text expert then put back to the edition before",
    ),
    (580, 5060, "the vision expert alone, the same, decayed to zero; .6 of it averaged with .4 of the edition before"),
    (
        900,
        5060,
        "the audio expert alone, widened from 192 and 512 to 256 and 704, a third of it speech; decayed to zero",
    ),
    (640, 5060, "the vision expert alone, as before, decayed to zero; .6 of it averaged with .4 of the edition before"),
    (
        110,
        10120,
        "the text expert alone, no noisy copies, a third of the rate, decayed to zero; averaged with the one before",
    ),
    (768, 5060, "the audio expert alone, as before; constant rate"),
    (
        1446,
        5060,
        "the audio expert alone, the voices phrase by phrase: half, after 446 steps two thirds of it speech; decayed "
        "to zero",
    ),
    (
        1352,
        5060,
        "the vision expert alone, as before; from the 567th step mostly small, big and several things, from the 832nd "
        "drifted worlds; decayed to zero; .65 of it averaged with .35 of the edition before",
    ),
    (1430, 5060, "the audio expert alone: two in five speech, two in five notes and named sounds; decayed to zero"),
    (
        3131,
        5060,
        "the vision expert alone, new documents throughout; 1,000 steps at a constant rate, then decayed to zero; .8 "
        "of it averaged with .2 of the edition before",
    ),
    (2300, 5060, "the audio expert alone, as before, new documents throughout; decayed to zero"),
    (2391, 5060, "the vision expert alone, new documents throughout, three fifths of a decay"),
    (
        942,
        10120,
        "the text expert alone, no noisy copies: words before edits and continuations; four stages, of which the last "
        "decayed to zero",
    ),
    (
        3044,
        5060,
        "the vision expert alone, with those words; the last 1,690 steps decayed to zero; .8 of it averaged with .2 of "
        "what they began with",
    ),
    (1700, 5060, "the audio expert alone, new documents throughout; decayed to zero"),
    (
        1949,
        5060,
        "the vision expert alone, widened from 256 and 768 to 384 and 1,536, new documents throughout; constant rate",
    ),
    (
        1232,
        10120,
        "the text expert alone, no noisy copies: what was said before (recall), and which of two things stays; four "
        "stages; .78 of it averaged with .22 of the edition before",
    ),
    (
        700,
        5060,
        "the audio expert alone, in half of the films with sound the film given; decayed to zero",
    ),
    (1330, 5060, "the vision expert alone, as before, decayed to zero"),
    (
        4292,
        5060,
        "the vision expert alone, sigmas around the middle (sigma_mean 0), new documents throughout; the last 3,900 "
        "steps decayed to zero",
    ),
    (
        840,
        10120,
        "the text expert alone, no noisy copies: moments said before films with sound, closings behind requests; three "
        "stages; .6 of the last averaged with .4 of the mean of the first two",
    ),
    (1226, 5060, "the vision expert alone, as before, half of the films of six motions; constant rate"),
    (2645, 5060, "the same, with closings; two fifths of a decay"),
    (1250, 5060, "the audio expert alone, a fifth films with sound whose moments are said; decayed to zero"),
    (1600, 5060, "the same, sigma_mean .2; decayed to zero"),
    (1650, 5060, "the vision expert alone, twice as many films with sound; decayed to zero"),
    (1140, 8190, "the vision expert alone, three documents in five drawings and nothing else; decayed to zero, twice"),
    (
        700,
        8120,
        "not from the one before but from the edition before: the vision and audio experts together, one document in "
        "nine a face that speaks, one in seventeen an instrument that plays; decayed to zero; .7 of it, .24 of the "
        "stage before and .06 of the edition before",
    ),
)

# What was hoped for on two CPU cores, for combinations never seen; last, whether lower is better.
BARS = (
    ("picture: background", "text_to_image/background", 0.97, False),
    ("picture: place", "text_to_image/place", 0.95, False),
    ("picture: count", "text_to_image/count", 0.88, False),
    ("picture: thing, of those that the judge finds in real ones", "text_to_image/thing_of_real", 0.90, False),
    ("description of a picture: all of it right", "caption_image/slots", 0.90, False),
    ("description of a film: all of it right", "caption_video/slots", 0.75, False),
    ("description of a sound: all of it right", "caption_audio/slots", 0.70, False),
    ("edit: made", "edit/changed", 0.75, False),
    ("edit: the rest unharmed", "edit/unharmed", 0.90, False),
    ("film: thing", "text_to_video/thing", 0.65, False),
    ("film: motion", "text_to_video/verb", 0.75, False),
    ("film: where it begins and ends", "text_to_video/place", 0.80, False),
    ("film from a first frame: thing and background kept in every frame", "image_to_video/kept", 0.80, False),
    ("film from a first frame: motion", "image_to_video/verb", 0.75, False),
    ("speech: words that a recogniser gets wrong", "speech/wer", 0.60, True),
    ("notes: pitch and order", "notes/order", 0.70, False),
    ("named sound, of those that the judge names in real ones", "sound/class_of_real", 0.60, False),
    ("film with sound: heard within a frame of the impact", "audio_video/onset", 0.70, False),
    ("sound for a film: the same", "video_to_audio/onset", 0.70, False),
    ("world: what the player wants is done", "world/action", 0.90, False),
    ("world: character kept over 60 steps", "world/survival", 0.60, False),
    ("story: same character", "story/character", 0.70, False),
    ("story: what happens is what is told", "story/events", 0.65, False),
    ("what is asked for (words, picture, film, sound) is what is made", "modality/choice", 0.95, False),
)

SHEETS = """
## Samples of every task

`python scripts/sample_sheets.py tasks omni/weights/nano docs/images/tasks`: the first six conversations of each task
that training never held, none chosen. A row is a conversation: what is said and shown, and behind the arrow what the
model answers. Films are four of their frames, sounds are spectrograms up to 8 kHz.
"""

TAIL = """
## Not for

Anything outside its small world: no facts, no people, no photographs, no other language than simple English. It makes
mistakes all the time and should decide nothing.
"""


def card() -> str:
    """Return the card's text."""
    from safetensors import safe_open

    scores = json.loads((REPOSITORY / "docs" / "scores.json").read_text(encoding="utf-8"))
    rows: dict[str, dict[str, float]] = {}
    for name, value in scores.items():
        measure, split = name.rsplit("/", 1)
        rows.setdefault(measure, {})[split] = value
    bars = ["| measure | hoped for | unseen | seen | |", "|---|---|---|---|---|"]
    for what, measure, asked, is_error in BARS:
        seen, unseen = rows[measure]["seen"], rows[measure]["unseen"]
        reached = unseen <= asked if is_error else unseen >= asked
        limit = f"at most {asked:.0%}" if is_error else f"{asked:.0%}"
        bars.append(f"| {what} | {limit} | {unseen:.0%} | {seen:.0%} | {'reached' if reached else 'short'} |")
    sheets = sorted((REPOSITORY / "docs" / "images" / "tasks").glob("*.jpg"))
    samples = [f"### {path.stem}\n\n![{path.stem}](images/tasks/{path.name})" for path in sheets]
    lines = []
    for measure, found in rows.items():
        cells = [f"{found[split]:.1%}" if found.get(split) is not None else "" for split in SPLITS]
        lines.append(f"| {measure} | " + " | ".join(cells) + " |")
    with safe_open(REPOSITORY / "omni" / "weights" / "nano" / "model.safetensors", "pt") as weights:
        names = [name for name in weights.keys() if not name.endswith("_scale")]  # noqa: SIM118
        count = sum(weights.get_tensor(name).numel() for name in names)
    return (
        HEAD.format(
            parameters=f"{count / 1e6:.1f} million",
            tokens=sum(steps * tokens for steps, tokens, _ in STAGES) / 1e6,
            stages="\n".join(f"| {steps:,} | {tokens:,} | {what} |" for steps, tokens, what in STAGES),
            bars="\n".join(bars),
            counts=", ".join(f"{task} {count}" for task, count in DEFAULT_COUNTS.items()),
        )
        + "\n".join(lines)
        + "\n"
        + SHEETS
        + "".join(f"\n{sample}\n" for sample in samples)
        + TAIL
    )


if __name__ == "__main__":
    (REPOSITORY / "docs" / "MODEL_CARD.md").write_text(card(), encoding="utf-8")
