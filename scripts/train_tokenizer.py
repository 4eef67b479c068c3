"""Train the SentencePiece text tokenizer on the sentences of the omni world.

    python scripts/train_tokenizer.py [--out tokenizers/text/nano] [--vocab-size 2048] [--lines 40000]

The same arguments give the same bytes while the sentences of the world stay as they are. A model is tied to
the ids of its tokenizer: train it anew after this.
"""

import argparse
import hashlib
import io
import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from omni.text import CONTROL_TOKENS, TextTokenizer

REPOSITORY = Path(__file__).resolve().parents[1]

CARD = """# Text tokenizer `nano`

SentencePiece BPE, {num_text_ids} text ids, 256 of them single bytes, so that any text can be written.
Identity normalisation, no dummy prefix, white space kept: decoding gives the text back unchanged.
{num_controls} control ids follow the text ids; they are not in the model file, so no text can become one.

* Trained by `python scripts/train_tokenizer.py --vocab-size {num_text_ids} --lines {num_lines} --seed {seed}`
  on sentences of the omni world (`training/world`), which the project generates itself.
* SHA-256 of `tokenizer.model`: `{digest}`
* {tokens_per_line:.1f} tokens and {words_per_line:.1f} words a line on lines it was not trained on;
  {whole_words:.1%} of their words are one token.
* Licence: Apache-2.0, like the project.
"""


def train(lines: Iterable[str], *, vocab_size: int) -> bytes:
    """Train a SentencePiece BPE model and return its file.

    Args:
        lines: the corpus, one text each.
        vocab_size: number of pieces, the 256 byte pieces and the unknown piece included.
    """
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(lines),
        model_writer=model,
        model_type="bpe",
        vocab_size=vocab_size,
        byte_fallback=True,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        # " 3D" is one word here.
        split_by_number=False,
        # Printable ASCII costs one id a character whether or not the corpus has it.
        required_chars="".join(map(chr, range(0x21, 0x7F))),
        character_coverage=1.0,
        unk_id=0,
        bos_id=-1,
        eos_id=-1,
        pad_id=-1,
        # The order of merges depends on the number of threads.
        num_threads=1,
        shuffle_input_sentence=False,
        minloglevel=2,
    )
    return model.getvalue()


def write_card(folder: Path, *, model: bytes, num_lines: int, seed: int, fresh: list[str]) -> None:
    """Write README.md beside the model, with figures measured on fresh lines."""
    tokenizer = TextTokenizer.from_folder(folder)
    words = [word for line in fresh for word in re.findall(r"\w+", line)]
    num_whole = sum(min(len(tokenizer.encode(word)), len(tokenizer.encode(" " + word))) == 1 for word in words)
    card = CARD.format(
        num_text_ids=tokenizer.num_text_ids,
        num_controls=len(CONTROL_TOKENS),
        num_lines=num_lines,
        seed=seed,
        digest=hashlib.sha256(model).hexdigest(),
        tokens_per_line=sum(len(tokenizer.encode(line)) for line in fresh) / len(fresh),
        words_per_line=len(words) / len(fresh),
        whole_words=num_whole / len(words),
    )
    (folder / "README.md").write_text(card, encoding="ascii")


def main(argv: list[str] | None = None) -> None:
    """Train, save and describe the tokenizer."""
    # Only `omni` is installed; `training` is a program beside it.
    sys.path.insert(0, str(REPOSITORY))
    from training.world.tasks import corpus

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=REPOSITORY / "tokenizers" / "text" / "nano")
    parser.add_argument("--vocab-size", type=int, default=2048)
    parser.add_argument("--lines", type=int, default=40_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    model = train(corpus(options.lines, options.seed), vocab_size=options.vocab_size)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "tokenizer.model").write_bytes(model)
    config = {"kind": "sentencepiece", "num_text_ids": options.vocab_size}
    (options.out / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="ascii")
    fresh = list(corpus(2_000, options.seed + 1))
    write_card(options.out, model=model, num_lines=options.lines, seed=options.seed, fresh=fresh)
    print((options.out / "README.md").read_text(encoding="ascii"))


if __name__ == "__main__":
    main()
