"""Write docs/MODEL_CARD.md from the figures of an evaluation.

python -m training.evaluate omni/weights/nano --json docs/scores.json
python scripts/write_model_card.py
"""

import json
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
SPLITS = ("seen", "unseen", "real", "shuffled")

HEAD = """# The shipped model, first edition

`omni/weights/nano`: {parameters} parameters in float16, a picture codec and a text tokenizer beside them. It chats
about its world in English, draws and edits pictures of up to 24 squares of 16x16 pixels, and describes them.

**This is an early edition.** It follows backgrounds, and places and counts about half of the time, but it has not yet
learnt to draw or name things so that they can be recognised: see the figures, and `docs/images/samples.png`, in which
nothing was chosen.

## How it was made

`configs/train/nano.yaml`: 1,820 steps of about 3,050 tokens (99 % of all places), 58 minutes on two CPU cores without
bfloat16 units, beside other work. Held-back losses: 0.292 nats a text target, 0.601 squared velocity error a latent
number. The codec: 18 minutes; see `tokenizers/vision/nano/README.md`. All data are of tier A; DATA_SOURCES.md names
them and their licences (attribution is due for Twemoji, CC-BY-4.0, which only the judges use).

## Scores

Each cell is the share of right answers. *seen* and *unseen*: combinations that training held, and that it never held.
*real*: the same judge on real pictures after the codec's round trip, the ceiling. *shuffled*: the same answers against
other requests, the floor. No judge was trained on the model's output. Written by `scripts/write_model_card.py`.

| measure | seen | unseen | real | shuffled |
|---|---|---|---|---|
"""

TAIL = """
## Not for

Anything outside its small world: no facts, no people, no photographs, no other language than simple English. It makes
mistakes all the time and should decide nothing.
"""


def main() -> None:
    """Write the card."""
    from safetensors import safe_open

    scores = json.loads((REPOSITORY / "docs" / "scores.json").read_text(encoding="utf-8"))
    rows: dict[str, dict[str, float]] = {}
    for name, value in scores.items():
        measure, split = name.rsplit("/", 1)
        rows.setdefault(measure, {})[split] = value
    lines = []
    for measure, found in rows.items():
        cells = [f"{found[split]:.1%}" if found.get(split) is not None else "" for split in SPLITS]
        lines.append(f"| {measure} | " + " | ".join(cells) + " |")
    with safe_open(REPOSITORY / "omni" / "weights" / "nano" / "model.safetensors", "pt") as weights:
        count = sum(weights.get_tensor(name).numel() for name in weights.keys())  # noqa: SIM118
    text = HEAD.format(parameters=f"{count / 1e6:.1f} million") + "\n".join(lines) + "\n" + TAIL
    (REPOSITORY / "docs" / "MODEL_CARD.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
