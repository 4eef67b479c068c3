"""Write docs/MODEL_CARD.md from the figures of an evaluation.

python -m training.evaluate omni/weights/nano --json docs/scores.json
python scripts/write_model_card.py
"""

import json
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
SPLITS = ("seen", "unseen", "real", "shuffled")

HEAD = """# The shipped model, second edition

`omni/weights/nano`: {parameters} parameters in float16, a picture codec and a text tokenizer beside them. It chats
about its world in English, draws and edits pictures of up to 24 squares of 16x16 pixels, and describes them. It knows
neither film nor sound yet.

**This is an early edition**, far from trained to the end: see the figures, and `docs/images/samples.png`, in which
nothing was chosen.

## How it was made

`configs/train/nano.yaml`, in three stages on two CPU cores without bfloat16 units, beside other work, each from the
averaged weights of the one before: 1,820 steps of 3,050 tokens (three noisy copies, sigma_mean 0, decayed to zero),
480 steps of 5,000 tokens (four copies, sigma_mean 0.7, constant), {last_steps} steps of 5,000 tokens (two copies, the
present mixture of configs/train/encode.yaml, decayed to zero): {tokens} million tokens in all. 98 % of all places
held a token. The codec: 18 minutes; see `tokenizers/vision/nano/README.md`. All data are of tier A;
DATA_SOURCES.md names them and their licences (attribution is due for Twemoji, CC-BY-4.0, which only the judges use).

## Scores

Each cell is the share of right answers. *seen* and *unseen*: combinations that training held, and that it never held.
*real*: the same judge on real pictures after the codec's round trip, the ceiling. *shuffled*: the same answers against
other requests, the floor. No judge was trained on the model's output. Written by `scripts/write_model_card.py`.

| measure | seen | unseen | real | shuffled |
|---|---|---|---|---|
"""

LAST_STEPS, TOKENS = 620, 11.0

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
    text = (
        HEAD.format(parameters=f"{count / 1e6:.1f} million", last_steps=LAST_STEPS, tokens=TOKENS)
        + "\n".join(lines)
        + "\n"
        + TAIL
    )
    (REPOSITORY / "docs" / "MODEL_CARD.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
