"""The two kinds of text tokenizer, brought to one form: what each id says in bytes, and how a run is encoded.

Neither keeps control tokens: special tokens of a language model keep their ids, and no text becomes one.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from omni.errors import CheckpointError

__all__ = [
    "CONFIG_FILE",
    "HUGGING_FACE_FILE",
    "SENTENCEPIECE_FILE",
    "Vocabulary",
    "load_vocabulary",
    "read_json",
    "to_bytes",
]

SENTENCEPIECE_FILE = "tokenizer.model"
HUGGING_FACE_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"

# SentencePiece writes a space as this character and reads it back as one.
SPACE_MARK = "\u2581"


def to_bytes(text: str) -> bytes:
    """Write any str as UTF-8, lone surrogates as three bytes each."""
    return text.encode("utf-8", "surrogatepass")


@dataclass(frozen=True)
class Vocabulary:
    """What both kinds of tokenizer come down to.

    pieces: the bytes each id stands for; None where no text may become the id (unknown, special).
    encode_run: ids of a str without surrogates and without `through_bytes` characters.
    byte_ids: the id that stands for each single byte, None where there is none.
    through_bytes: characters that encode_run would not give back.
    files: what save() writes, by name.
    """

    pieces: tuple[bytes | None, ...]
    encode_run: Callable[[str], list[int]]
    byte_ids: tuple[int | None, ...]
    through_bytes: str
    files: Mapping[str, bytes]


def _byte_table(find: Mapping[str, int], names: Sequence[str]) -> tuple[int | None, ...]:
    return tuple(find.get(name) for name in names)


def _byte_fallback_names() -> list[str]:
    return [f"<0x{byte:02X}>" for byte in range(256)]


def _byte_level_names() -> list[str]:
    """Name every byte by one printable character, as GPT-2 does: itself, or the next from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    spare = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(spare)) for byte in range(256)]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"Cannot read {path} ({error.strerror}); restore the file.") from error


def read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(_read(path))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise CheckpointError(f"{path} is not readable JSON ({error}); restore the file.") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} should hold a JSON object, not {type(value).__name__}; restore the file.")
    return value


def _sentencepiece(path: Path) -> Vocabulary:
    from sentencepiece import SentencePieceProcessor

    data = _read(path)
    processor = SentencePieceProcessor()
    try:
        loaded = bool(data) and processor.LoadFromSerializedProto(data)
    except (RuntimeError, ValueError, OSError) as error:
        raise CheckpointError(f"{path} is not a SentencePiece model ({error}); restore the file.") from error
    if not loaded:
        raise CheckpointError(f"{path} is empty; restore the file.")
    names = _byte_fallback_names()
    find = {processor.IdToPiece(index): index for index in range(processor.GetPieceSize())}
    by_name = {name: bytes([byte]) for byte, name in enumerate(names)}
    pieces = tuple(
        by_name[piece]
        if processor.IsByte(index)
        else None
        if processor.IsUnknown(index) or processor.IsControl(index)
        else to_bytes(piece.replace(SPACE_MARK, " "))
        for piece, index in find.items()
    )
    # NUL ends a string inside SentencePiece's own lists of pieces.
    return Vocabulary(
        pieces=pieces,
        encode_run=processor.EncodeAsIds,
        byte_ids=_byte_table(find, names),
        through_bytes=SPACE_MARK + "\0",
        files={SENTENCEPIECE_FILE: data},
    )


def _without_prefix_space(step: Any) -> Any:
    """Copy a pre-tokenizer's settings with `add_prefix_space` off, at every depth."""
    if isinstance(step, dict):
        return {
            key: False if key == "add_prefix_space" else _without_prefix_space(value) for key, value in step.items()
        }
    return [_without_prefix_space(item) for item in step] if isinstance(step, list) else step


def _encode_ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


def _plain_settings(settings: dict[str, Any], *, is_byte_level: bool) -> dict[str, Any]:
    """Strip a tokenizer.json of all that changes text or matches tokens ahead of the model."""
    plain = settings | {"added_tokens": [], "truncation": None, "padding": None, "post_processor": None}
    if is_byte_level:
        return plain | {"normalizer": None, "pre_tokenizer": _without_prefix_space(settings["pre_tokenizer"])}
    space = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE_MARK}
    return plain | {"normalizer": space, "pre_tokenizer": None}


def _hugging_face_pieces(
    find: Mapping[str, int],
    added: Mapping[int, bytes | None],
    by_name: Mapping[str, bytes],
    *,
    is_byte_level: bool,
) -> tuple[bytes | None, ...]:
    """List what each id says; `added` has the tokens beside the model, None for the special ones."""
    pieces: list[bytes | None] = [None] * (max([*find.values(), *added]) + 1)
    for piece, index in find.items():
        if not is_byte_level:
            pieces[index] = by_name.get(piece) or to_bytes(piece.replace(SPACE_MARK, " "))
        elif all(character in by_name for character in piece):
            pieces[index] = b"".join(by_name[character] for character in piece)
    for index, content in added.items():
        pieces[index] = content
    return tuple(pieces)


def _hugging_face(path: Path) -> Vocabulary:
    from tokenizers import Tokenizer

    settings = read_json(path)
    try:
        added = {
            int(token["id"]): None if token["special"] else to_bytes(token["content"])
            for token in settings.get("added_tokens") or ()
        }
        vocab = settings["model"]["vocab"]
        find = dict(vocab) if isinstance(vocab, dict) else {entry[0]: index for index, entry in enumerate(vocab)}
        is_byte_level = '"ByteLevel"' in json.dumps([settings.get("pre_tokenizer"), settings.get("decoder")])
        names = _byte_level_names() if is_byte_level else _byte_fallback_names()
        by_name = {name: bytes([byte]) for byte, name in enumerate(names)}
        pieces = _hugging_face_pieces(find, added, by_name, is_byte_level=is_byte_level)
        tokenizer = Tokenizer.from_str(json.dumps(_plain_settings(settings, is_byte_level=is_byte_level)))
    except Exception as error:  # the Rust side raises bare Exception
        raise CheckpointError(f"{path} is not a tokenizer this version reads ({error}); restore the file.") from error
    return Vocabulary(
        pieces=pieces,
        encode_run=partial(_encode_ids, tokenizer),
        byte_ids=_byte_table(find, names),
        through_bytes="" if is_byte_level else SPACE_MARK,
        files={HUGGING_FACE_FILE: _read(path)},
    )


def load_vocabulary(folder: Path) -> Vocabulary:
    """Load `tokenizer.json` (Hugging Face), else `tokenizer.model` (SentencePiece), from a folder.

    Raises:
        CheckpointError: neither is there, or it is damaged or of a kind that cannot write every text.
    """
    if (folder / HUGGING_FACE_FILE).is_file():
        return _hugging_face(folder / HUGGING_FACE_FILE)
    if (folder / SENTENCEPIECE_FILE).is_file():
        return _sentencepiece(folder / SENTENCEPIECE_FILE)
    raise CheckpointError(
        f"{folder} holds neither {SENTENCEPIECE_FILE} nor {HUGGING_FACE_FILE}; give the folder of a text tokenizer."
    )
