"""Data sets of Hugging Face: a column `messages` in the chat form, or a medium and its caption.

Media stay files (`decode=False`) until our own parts read them, within their limits.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omni.errors import ConfigError, InputError
from training.folders import SUFFIXES, Encoder, OwnDataset

__all__ = ["HubEntries", "open_hub"]

CAPTIONS = ("text", "caption", "prompt")


class HubEntries:
    """The rows of a data set.

    Args:
        rows: of datasets.Dataset, media not decoded.
        source: what errors call it.

    Raises:
        ConfigError: the columns are of neither form.
    """

    def __init__(self, rows: Any, *, source: str) -> None:
        self.rows, self.source = rows, source
        columns = rows.column_names
        self.medium = next((kind for kind in SUFFIXES if kind in columns), None)
        self.caption = next((name for name in CAPTIONS if name in columns), None)
        self.has_messages = "messages" in columns
        if not self.has_messages and (self.medium is None or self.caption is None):
            raise ConfigError(
                f"{source} has columns {', '.join(columns)}; it needs messages, or one of {', '.join(SUFFIXES)} and "
                f"one of {', '.join(CAPTIONS)}"
            )

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, index: int) -> str:
        """Return data set and row."""
        return f"{self.source}, row {index}"

    def messages(self, index: int) -> Any:
        """Return a row's messages.

        Raises:
            InputError: a medium is missing.
        """
        row = self.rows[index]
        if self.has_messages:
            return [{**message, "content": _content(message.get("content"))} for message in row["messages"]]
        return [
            {"role": "user", "content": row[self.caption]},
            {"role": "assistant", "content": [{"type": self.medium, self.medium: _source(row[self.medium])}]},
        ]


def _content(content: Any) -> Any:
    """Drop the empty fields that a table adds to every item."""
    if not isinstance(content, list):
        return content
    items = [{key: value for key, value in item.items() if value is not None} for item in content]
    return [item | {k: _source(v) for k, v in item.items() if isinstance(v, Mapping)} for item in items]


def _source(value: Any) -> Any:
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if value is None:
        raise InputError("the medium is empty; leave the row out")
    return value


def open_hub(name: str, encoder: Encoder, *, cache_mb: int) -> OwnDataset:
    """Open NAME or NAME:SPLIT on the Hugging Face Hub, or a folder that datasets' save_to_disk wrote.

    Raises:
        ConfigError: datasets is not installed, or does not find it.
    """
    try:
        import datasets
    except ImportError as error:
        raise ConfigError("data.path hf:... needs datasets, which is not installed; pip install datasets") from error
    path, _, split = name.partition(":")
    try:
        if Path(path).is_dir():
            rows = datasets.load_from_disk(path)
            rows = rows[split or "train"] if isinstance(rows, datasets.DatasetDict) else rows
        else:
            rows = datasets.load_dataset(path, split=split or "train")
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"data.path hf:{name} cannot be opened ({first}); check the name") from error
    for kind, feature in (("image", datasets.Image), ("audio", datasets.Audio), ("video", datasets.Video)):
        if isinstance(rows.features.get(kind), feature):
            rows = rows.cast_column(kind, feature(decode=False))
    return OwnDataset(HubEntries(rows, source=f"hf:{name}"), encoder, cache_mb=cache_mb)
