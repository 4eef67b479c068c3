"""Tar shards: files of one document share a name up to the first dot, as webdataset has them.

A document is NAME.json (a conversation in the chat form; a medium names its file, "0001.png" or ".png"), or a
caption NAME.txt with one medium beside it. Members are read in place; no shard is unpacked.
"""

import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omni.errors import ConfigError, InputError
from training.folders import SUFFIXES, Encoder, OwnDataset

__all__ = ["TarEntries", "open_tars"]

KIND_OF = {suffix: kind for kind, suffixes in SUFFIXES.items() for suffix in suffixes}
SOURCE_KEYS = (*SUFFIXES, "path", "file")


class TarEntries:
    """The documents of tar files, by their place in them.

    Args:
        paths: uncompressed tar files.

    Raises:
        ConfigError: a file is no tar file, or is compressed.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)
        # (shard, name) -> suffix -> (offset, bytes)
        self._members: dict[tuple[int, str], dict[str, tuple[int, int]]] = {}
        for number, path in enumerate(self.paths):
            try:
                with tarfile.open(path, "r:") as tar:
                    for member in tar:
                        if member.isfile():
                            folder, _, file = member.name.rpartition("/")
                            stem, dot, suffix = file.partition(".")
                            key = (number, f"{folder}/{stem}" if folder else stem)
                            place = (member.offset_data, member.size)
                            self._members.setdefault(key, {})[(dot + suffix).lower()] = place
            except (OSError, tarfile.TarError) as error:
                raise ConfigError(f"{path} is no plain tar file ({error}); unpack or write it again") from error
        self._keys = [key for key, files in self._members.items() if {".json", ".txt"} & files.keys()]
        if not self._keys:
            raise ConfigError(f"{self.paths[0].parent}: no member of the tar files is NAME.json or NAME.txt")

    def __len__(self) -> int:
        return len(self._keys)

    def name(self, index: int) -> str:
        """Return shard and name of a document."""
        shard, name = self._keys[index]
        return f"{self.paths[shard]}:{name}"

    def _read(self, index: int, suffix: str) -> bytes:
        shard, _ = self._keys[index]
        offset, size = self._members[self._keys[index]][suffix]
        with self.paths[shard].open("rb") as file:
            file.seek(offset)
            return file.read(size)

    def messages(self, index: int) -> Any:
        """Return a document's messages, media as bytes.

        Raises:
            InputError: it is no JSON, or a medium is missing.
        """
        files = self._members[self._keys[index]]
        if ".json" in files:
            return self._conversation(index)
        media = [suffix for suffix in files if suffix in KIND_OF]
        if len(media) != 1:
            raise InputError(f"a caption with {len(media)} media beside it; one is meant")
        kind = KIND_OF[media[0]]
        return [
            {"role": "user", "content": self._read(index, ".txt").decode("utf-8", "replace").strip()},
            {"role": "assistant", "content": [{"type": kind, kind: self._read(index, media[0])}]},
        ]

    def _conversation(self, index: int) -> Any:
        try:
            value = json.loads(self._read(index, ".json"))
        except ValueError as error:
            raise InputError(f"no JSON ({error}); write it again") from error
        messages = value.get("messages") if isinstance(value, dict) else value
        if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
            raise InputError('no "messages"; write {"messages": [{"role": "user", "content": ...}, ...]}')
        return [{**message, "content": self._content(message.get("content"), index)} for message in messages]

    def _content(self, content: Any, index: int) -> Any:
        if not isinstance(content, list):
            return content
        return [self._item(item, index) if isinstance(item, dict) else item for item in content]

    def _item(self, item: dict[str, Any], index: int) -> dict[str, Any]:
        kind, source = (
            item.get("type"),
            next((item[key] for key in SOURCE_KEYS if isinstance(item.get(key), str)), None),
        )
        if kind not in SUFFIXES or source is None:
            return item
        suffix = "." + source.rpartition("/")[2].partition(".")[2].lower()
        if suffix not in self._members[self._keys[index]]:
            raise InputError(f"the {kind} {source!r} is not beside it; put it under the same name")
        return {"type": kind, kind: self._read(index, suffix)}


def open_tars(folder: Path, encoder: Encoder, *, cache_mb: int) -> OwnDataset:
    """Open all tar files of a folder, in the order of their names.

    Raises:
        ConfigError: one cannot be read.
    """
    return OwnDataset(TarEntries(sorted(folder.glob("*.tar"))), encoder, cache_mb=cache_mb)
