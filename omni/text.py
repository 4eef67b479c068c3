"""Text and its ids: a SentencePiece model of our own, or the tokenizer of a Hugging Face language model.

Ids 0 .. num_text_ids - 1 are what text can become; control ids follow them and are known to this file
alone, so that no text, whatever it says, is ever read as control. Both kinds go through bytes in both
directions, so that decode(encode(text)) == text for every str, lone surrogates and NUL included.
"""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from omni.errors import CheckpointError, ConfigError, InputError
from omni.vocabulary import CONFIG_FILE, Vocabulary, load_vocabulary, read_json, to_bytes

__all__ = ["CONTROL_TOKENS", "StreamDecoder", "TextTokenizer"]

# The order is part of the checkpoint format: new names go to the end. The numbers write shapes.
CONTROL_TOKENS: tuple[str, ...] = (
    "<|pad|>",
    "<|bos|>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|end|>",
    "<|image|>",
    "<|video|>",
    "<|audio|>",
    "<|action|>",
    "<|media_end|>",
    *(f"<|{number}|>" for number in range(256)),
    "<|continue|>",
)

# One character of UTF-8, lone surrogates (three bytes from 0xED on) included, as `surrogatepass` writes them.
_CHARACTER = (
    rb"[\x00-\x7f]|[\xc2-\xdf][\x80-\xbf]|\xe0[\xa0-\xbf][\x80-\xbf]|[\xe1-\xef][\x80-\xbf]{2}"
    rb"|\xf0[\x90-\xbf][\x80-\xbf]{2}|[\xf1-\xf3][\x80-\xbf]{3}|\xf4[\x80-\x8f][\x80-\xbf]{2}"
)
_CHARACTERS_OR_BYTE = re.compile(rb"((?:" + _CHARACTER + rb")+)|.", re.DOTALL)
_UNFINISHED = re.compile(
    rb"(?:[\xc2-\xdf]|\xe0[\xa0-\xbf]?|[\xe1-\xef][\x80-\xbf]?|\xf0(?:[\x90-\xbf][\x80-\xbf]?)?"
    rb"|[\xf1-\xf3][\x80-\xbf]{0,2}|\xf4(?:[\x80-\x8f][\x80-\xbf]?)?)\Z"
)


def from_bytes(data: bytes) -> str:
    """Read UTF-8 back; each byte that belongs to no character becomes U+FFFD."""
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        runs = (match.group(1) for match in _CHARACTERS_OR_BYTE.finditer(data))
        return "".join("\ufffd" if run is None else run.decode("utf-8", "surrogatepass") for run in runs)


class StreamDecoder:
    """Turn ids into text as they come, in complete characters only; joined, it equals decode()."""

    def __init__(self, tokenizer: "TextTokenizer") -> None:
        self._tokenizer = tokenizer
        self._pending = b""

    def push(self, token_id: int) -> str:
        """Take one id; return the characters that are complete by now, perhaps none.

        Raises:
            InputError: the id is outside the vocabulary.
        """
        data = self._pending + self._tokenizer.bytes_of(token_id)
        unfinished = _UNFINISHED.search(data)
        end = unfinished.start() if unfinished else len(data)
        self._pending = data[end:]
        return from_bytes(data[:end])

    def flush(self) -> str:
        """Return what is left over, an unfinished character as U+FFFD, and start anew."""
        rest, self._pending = self._pending, b""
        return from_bytes(rest)


class TextTokenizer:
    """Text <-> ids, with control ids that text cannot become.

    Attributes:
        num_text_ids: ids below this stand for text (or for nothing).
        vocab_size: text ids and control ids together.
    """

    def __init__(self, vocabulary: Vocabulary, *, config: Mapping[str, Any], source: str) -> None:
        num_pieces = len(vocabulary.pieces)
        num_text_ids = config.get("num_text_ids", num_pieces)
        if not isinstance(num_text_ids, int) or num_text_ids < num_pieces:
            raise ConfigError(
                f"num_text_ids of {source} is {num_text_ids!r}, but it has {num_pieces} pieces; "
                "give a whole number of at least that, or leave it out."
            )
        self.num_text_ids = num_text_ids
        self.vocab_size = num_text_ids + len(CONTROL_TOKENS)
        self._vocabulary = vocabulary
        self._config = dict(config)
        self._controls = {name: num_text_ids + index for index, name in enumerate(CONTROL_TOKENS)}
        self._split = re.compile(f"([\ud800-\udfff{vocabulary.through_bytes}]+)")
        sample = "Two  spaces, \u00e9 and a line's\nend "
        if self._encode_run(sample) is None:
            raise CheckpointError(
                f"{source} does not give text back unchanged (it normalises, or lacks byte pieces); "
                "train one with scripts/train_tokenizer.py, or take a byte-level one."
            )

    @classmethod
    def from_folder(cls, path: str | Path, *, num_text_ids: int | None = None) -> "TextTokenizer":
        """Load the tokenizer in a folder: `tokenizer.json` (Hugging Face), else `tokenizer.model`.

        Args:
            path: the folder.
            num_text_ids: leaves room up to this many text ids (a language model's padded embedding);
                else `num_text_ids` in tokenizer_config.json, else the number of pieces.

        Raises:
            CheckpointError: a file is missing, damaged, or its tokenizer changes text.
            ConfigError: num_text_ids is too small.
        """
        folder = Path(path)
        config = read_json(folder / CONFIG_FILE) if (folder / CONFIG_FILE).is_file() else {}
        if num_text_ids is not None:
            config["num_text_ids"] = num_text_ids
        return cls(load_vocabulary(folder), config=config, source=str(folder))

    def save(self, path: str | Path) -> None:
        """Write the tokenizer into a folder from which from_folder() reads the same one."""
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in self._vocabulary.files.items():
            (folder / name).write_bytes(data)
        config = self._config | {"num_text_ids": self.num_text_ids}
        (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    def control(self, name: str) -> int:
        """Return the id of one of CONTROL_TOKENS.

        Raises:
            ConfigError: there is no control token of that name.
        """
        if name not in self._controls:
            raise ConfigError(f"There is no control token {name!r}; the names are in omni.text.CONTROL_TOKENS.")
        return self._controls[name]

    def control_name(self, token_id: int) -> str | None:
        """Return the name of a control id, None for a text id."""
        index = token_id - self.num_text_ids
        return CONTROL_TOKENS[index] if 0 <= index < len(CONTROL_TOKENS) else None

    def encode(self, text: str) -> list[int]:
        """Turn any str into text ids; never into a control id, whatever the text says.

        Raises:
            InputError: not a str, or the language model's tokenizer has no token for a byte of it.
        """
        if not isinstance(text, str):
            raise InputError(f"Text should be a str, not {type(text).__name__}; convert it first.")
        ids: list[int] = []
        for index, run in enumerate(self._split.split(text)):
            through_bytes = index % 2 == 1  # split() puts what it split at in the odd places
            run_ids = None if through_bytes else self._encode_run(run)
            ids += self._encode_bytes(run) if run_ids is None else run_ids
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Turn ids back into text; control ids are skipped, broken characters become U+FFFD.

        Raises:
            InputError: an id is outside the vocabulary.
        """
        return from_bytes(b"".join(map(self.bytes_of, ids)))

    def stream_decoder(self) -> StreamDecoder:
        """Return a fresh decoder that takes one id at a time."""
        return StreamDecoder(self)

    def bytes_of(self, token_id: int) -> bytes:
        """Return the bytes one id stands for; none for control ids and for ids kept free.

        Raises:
            InputError: the id is outside the vocabulary.
        """
        if not 0 <= token_id < self.vocab_size:
            raise InputError(
                f"Id {token_id} is outside the vocabulary of {self.vocab_size}; decode with the model's own tokenizer."
            )
        pieces = self._vocabulary.pieces
        return (pieces[token_id] or b"") if token_id < len(pieces) else b""

    def _encode_run(self, run: str) -> list[int] | None:
        """Encode by the underlying model; None where its ids would not give the text back."""
        ids = self._vocabulary.encode_run(run)
        pieces = [self._vocabulary.pieces[token_id] for token_id in ids]
        if None in pieces or b"".join(pieces) != to_bytes(run):  # type: ignore[arg-type]
            return None
        return ids

    def _encode_bytes(self, run: str) -> list[int]:
        ids = []
        for byte in to_bytes(run):
            token_id = self._vocabulary.byte_ids[byte]
            if token_id is None:
                raise InputError(f"This tokenizer has no token for byte 0x{byte:02X}; leave out {run[:20]!r}.")
            ids.append(token_id)
        return ids
