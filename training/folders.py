"""Folders of one's own: conversations or captions beside their media, encoded through the model's codecs.

A folder holds train.jsonl, one conversation a line in the chat form with media by relative path, or
metadata.jsonl, one {"file_name", "text"} a line. C latent channels.
"""

import json
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from omni.chat import ChatTemplate
from omni.config import OmniConfig
from omni.errors import ConfigError, InputError
from omni.messages import Message, parse_messages
from omni.parts import Action, Part, Text
from omni.studio import Studio

__all__ = ["BadDocument", "Encoder", "Entries", "Lines", "OwnDataset", "SUFFIXES", "check_targets", "open_folder"]

CHAT_FILE, CAPTION_FILE = "train.jsonl", "metadata.jsonl"
SOURCE_KEYS = ("image", "video", "audio", "path", "file")
SUFFIXES = {
    "image": (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif"),
    "video": (".mp4", ".webm", ".mov", ".mkv"),
    "audio": (".wav", ".flac", ".mp3", ".ogg"),
}


class BadDocument(InputError):
    """A document of a data set cannot be used; the message begins with its file and line."""


class Encoder:
    """From messages with media to messages with blocks, through the codecs of a model, as a conversation with it does.

    Args:
        model: streams and what they hold.
        codecs: stream -> codec; asked for when the first medium comes.
        template: control ids.
        limits: the largest block of each kind, in latent tokens, as omni.studio.Studio takes them.
    """

    def __init__(
        self, model: OmniConfig, codecs: Mapping[str, Any], template: ChatTemplate, limits: Mapping[str, int]
    ) -> None:
        self.model, self.codecs, self.template, self.limits = model, codecs, template, dict(limits)
        self._studio: Studio | None = None

    def __call__(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        """Encode the media of a conversation.

        Raises:
            InputError: the model has no such modality, or a medium is too long for it.
        """
        return [{"role": m.role, "content": [item for part in m.parts for item in self._items(part)]} for m in messages]

    def _items(self, part: Part) -> list[dict[str, Any]]:
        if isinstance(part, Text):
            return [{"type": "text", "text": part.text}]
        if isinstance(part, Action):
            return [{"type": "action", "action": part.name}]
        kind = type(part).__name__.lower()
        if kind not in self.model.stream_of:
            raise InputError(f"the model has no {kind}; leave it out, or start from another model")
        if self._studio is None:
            self._studio = Studio(self.model, self.codecs, self.template, **self.limits)
        return [{"type": "block", "block": block} for block in self._studio.encode(part)]


class Lines:
    """The lines of a JSONL file, by number, without holding them in memory.

    Args:
        path: of the file.

    Raises:
        ConfigError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._starts: list[int] = []
        self.numbers: list[int] = []
        try:
            with path.open("rb") as file:
                place = 0
                for number, line in enumerate(file, start=1):
                    if line.strip():
                        self._starts.append(place)
                        self.numbers.append(number)
                    place += len(line)
        except OSError as error:
            raise ConfigError(f"{path} cannot be read ({error}); check data.path") from error

    def __len__(self) -> int:
        return len(self._starts)

    def name(self, index: int) -> str:
        """Return file and line of an entry."""
        return f"{self.path}:{self.numbers[index]}"

    def __getitem__(self, index: int) -> dict[str, Any] | list[Any]:
        """Return an entry.

        Raises:
            InputError: it is no JSON.
        """
        with self.path.open("rb") as file:
            file.seek(self._starts[index])
            line = file.readline()
        try:
            value = json.loads(line)
        except ValueError as error:
            raise InputError(f"no JSON ({error}); mend the line") from error
        if not isinstance(value, (dict, list)):
            raise InputError(f"a {type(value).__name__}; write an object")
        return value


def _beside(content: Any, folder: Path) -> Any:
    """Make relative paths of media items relative to a folder."""
    if not isinstance(content, list):
        return content
    out = []
    for item in content:
        if isinstance(item, dict) and item.get("type") in SUFFIXES:
            item = {
                key: str(folder / value)
                if key in SOURCE_KEYS and isinstance(value, str) and "://" not in value
                else value
                for key, value in item.items()
            }
        out.append(item)
    return out


def chat_messages(entry: dict[str, Any] | list[Any], folder: Path) -> Any:
    """Return the messages of a line of train.jsonl, media paths made whole."""
    messages = entry.get("messages") if isinstance(entry, dict) else entry
    if not isinstance(messages, list) or not messages:
        raise InputError('no "messages"; write {"messages": [{"role": "user", "content": ...}, ...]}')
    return [
        {**message, "content": _beside(message.get("content"), folder)} if isinstance(message, dict) else message
        for message in messages
    ]


def medium_item(path: Path) -> dict[str, str]:
    """Return the chat item of a media file, its modality by its suffix.

    Raises:
        InputError: the suffix is of no medium.
    """
    for kind, suffixes in SUFFIXES.items():
        if path.suffix.lower() in suffixes:
            return {"type": kind, kind: str(path)}
    raise InputError(f"{path.name} has no suffix of a picture, film or recording; rename it")


def caption_messages(entry: dict[str, Any] | list[Any], folder: Path) -> Any:
    """Return the conversation of a line of metadata.jsonl: the text asks, the medium answers."""
    if not isinstance(entry, dict) or not isinstance(entry.get("file_name"), str):
        raise InputError('no "file_name"; write {"file_name": "one.png", "text": "what it shows"}')
    if not isinstance(entry.get("text"), str) or not entry["text"].strip():
        raise InputError('no "text"; write {"file_name": "one.png", "text": "what it shows"}')
    return [
        {"role": "user", "content": entry["text"]},
        {"role": "assistant", "content": [medium_item(folder / entry["file_name"])]},
    ]


def check_targets(messages: Sequence[Message]) -> None:
    """Refuse a conversation from which nothing can be learnt.

    Raises:
        InputError: no message is the assistant's, or all of them are empty.
    """
    if not any(message.role == "assistant" and message.parts for message in messages):
        raise InputError("nothing to learn from: no message has role 'assistant'; only what it says is trained")


class Entries(Protocol):
    """Documents as they are stored, before their media are encoded."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """Return what errors call an entry."""

    def messages(self, index: int) -> Any:
        """Return an entry's messages in the chat form.

        Raises:
            InputError: it cannot be read.
        """


class LineEntries:
    """The documents of a JSONL file, media by path relative to it.

    Args:
        lines: of the file.
        messages_of: from a line's value and the folder to messages.
    """

    def __init__(self, lines: Lines, messages_of: Callable[[Any, Path], Any]) -> None:
        self.lines, self.messages_of = lines, messages_of

    def __len__(self) -> int:
        return len(self.lines)

    def name(self, index: int) -> str:
        """Return file and line."""
        return self.lines.name(index)

    def messages(self, index: int) -> Any:
        """Return a line's messages."""
        return self.messages_of(self.lines[index], self.lines.path.parent)


class OwnDataset:
    """Documents read and encoded when they are asked for, blocks kept in memory up to a size.

    Args:
        entries: as they are stored.
        encoder: of the media.
        cache_mb: memory for latents.
    """

    def __init__(self, entries: Entries, encoder: Encoder, *, cache_mb: int = 1024) -> None:
        self.entries, self.encoder = entries, encoder
        self._room = cache_mb * 2**20
        self._kept: OrderedDict[int, list[dict[str, Any]]] = OrderedDict()
        self._used = 0

    def __len__(self) -> int:
        return len(self.entries)

    def name(self, index: int) -> str:
        """Return what errors call a document."""
        return self.entries.name(index)

    def __getitem__(self, index: int) -> list[dict[str, Any]]:
        """Return a document, media as blocks.

        Raises:
            BadDocument: it, or a medium of it, cannot be used.
        """
        if index in self._kept:
            self._kept.move_to_end(index)
            return self._kept[index]
        try:
            messages = parse_messages(self.entries.messages(index))
            check_targets(messages)
            document = self.encoder(messages)
        except InputError as error:
            raise BadDocument(f"{self.name(index)}: {error}") from error
        self._keep(index, document)
        return document

    def _keep(self, index: int, document: list[dict[str, Any]]) -> None:
        size = _num_bytes(document)
        if size > self._room:
            return
        self._kept[index] = document
        self._used += size
        while self._used > self._room:
            _, old = self._kept.popitem(last=False)
            self._used -= _num_bytes(old)


def _items(document: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    for message in document:
        yield from message["content"]


def _num_bytes(document: Sequence[Mapping[str, Any]]) -> int:
    return sum(
        sum(grid.latents.nbytes for grid in item["block"].grids) if "block" in item else 100
        for item in _items(document)
    )


def open_folder(path: Path, encoder: Encoder, *, cache_mb: int) -> OwnDataset | None:
    """Open a folder with train.jsonl or metadata.jsonl; None where it has neither.

    Raises:
        ConfigError: the file is empty.
    """
    for name, messages_of in ((CHAT_FILE, chat_messages), (CAPTION_FILE, caption_messages)):
        if (path / name).is_file():
            lines = Lines(path / name)
            if not len(lines):
                raise ConfigError(f"{path / name} is empty; write one document a line")
            return OwnDataset(LineEntries(lines, messages_of), encoder, cache_mb=cache_mb)
    return None
