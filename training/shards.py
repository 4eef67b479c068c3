"""Encoded documents on disk: messages with latents in place of pixels, in shards.

A shard is two files. `shard-00000.safetensors` holds `latents`, float16, the numbers of all tensors of the shard
one after another, and `offsets`, int64 [tensors + 1], where each begins. `shard-00000.jsonl` holds one document a
line: {"task": ..., "seed": ..., "messages": [...]}, messages in chat form. A medium's tensors are named by their
place in the shard, under the keys of TENSORS, beside their shapes: {"type": "video", "latents": k, "sound": k + 1,
"shapes": {"latents": [F, H, W, C], "sound": [L, C]}, "fps": 8, ...}. `index.json` says what the shards were made from.
"""

from __future__ import annotations

import json
import os
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from omni.errors import CheckpointError

__all__ = ["TENSORS", "EncodedDataset", "Shard", "load_shard", "shard_path", "write_shard"]

# What an item of a message may hold: latents of a picture or film [F, H, W, C], of sound [L, C], and which latents
# of a block that is made are given, [F, H, W], 1 or 0.
TENSORS = ("latents", "sound", "given")


def shard_path(folder: Path, number: int) -> Path:
    """Name the text half of a shard; a shard is whole when this file is there."""
    return folder / f"shard-{number:05d}.jsonl"


def write_shard(path: Path, documents: Sequence[dict[str, Any]], latents: Sequence[Tensor]) -> None:
    """Write a shard aside and move it into place, the text half last.

    Args:
        path: of the text half.
        documents: with media that name their place in `latents`.
        latents: tensors of any shape.
    """
    from safetensors.torch import save_file

    flat = [medium.flatten().to(torch.float16) for medium in latents]
    offsets = torch.tensor([0, *(len(medium) for medium in flat)]).cumsum(0)
    tensors = {
        "latents": torch.cat(flat) if flat else torch.zeros(0, dtype=torch.float16),
        "offsets": offsets,
    }
    aside = path.with_suffix(".part")
    save_file(tensors, aside)
    os.replace(aside, path.with_suffix(".safetensors"))
    text = "".join(json.dumps(document, ensure_ascii=False) + "\n" for document in documents)
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)


class Shard(Sequence[list[dict[str, Any]]]):
    """The documents of one shard: messages in chat form, media as float32 tensors.

    Args:
        path: of the text half.

    Raises:
        CheckpointError: a half is missing or damaged.
    """

    def __init__(self, path: str | Path) -> None:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        self.path = Path(path)
        weights = self.path.with_suffix(".safetensors")
        try:
            # Lines stay text until they are asked for: parsed, they would take ten times the memory.
            self._lines = self.path.read_text(encoding="utf-8").splitlines()
            tensors = load_file(weights)
            self._latents, self._offsets = tensors["latents"], tensors["offsets"].tolist()
        except (OSError, SafetensorError, KeyError) as error:
            message = f"{weights} or its .jsonl is missing or damaged ({error}); delete both and encode again"
            raise CheckpointError(message) from error

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: Any) -> Any:
        messages = json.loads(self._lines[index])["messages"]
        for message in messages:
            for item in message["content"]:
                shapes = item.pop("shapes", {})
                for name in TENSORS:
                    if name in shapes:
                        item[name] = self._tensor(item[name], shapes[name])
        return messages

    def _tensor(self, number: int, shape: list[int]) -> Tensor:
        start, end = self._offsets[number], self._offsets[number + 1]
        return self._latents[start:end].float().view(shape)

    def about(self, index: int) -> dict[str, Any]:
        """Tell task and seed of a document."""
        document = json.loads(self._lines[index])
        return {"task": document["task"], "seed": document["seed"]}


def load_shard(path: str | Path) -> list[list[dict[str, Any]]]:
    """Load all documents of a shard, media as float32 tensors."""
    return list(Shard(path))


class EncodedDataset(Sequence[list[dict[str, Any]]]):
    """All finished shards of a folder as one list of documents.

    Args:
        folder: as `training.encode` writes it; shards that are still being made are left out.

    Raises:
        CheckpointError: there is no finished shard, or one is damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser()
        self.shards = [Shard(path) for path in sorted(self.folder.glob("shard-*.jsonl"))]
        if not self.shards:
            raise CheckpointError(f"{self.folder} holds no encoded documents; run python -m training.encode first")
        self._ends = [sum(map(len, self.shards[: k + 1])) for k in range(len(self.shards))]

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: Any) -> Any:
        number = bisect_right(self._ends, index)
        if index < 0 or number == len(self.shards):
            raise IndexError(index)
        return self.shards[number][index - self._ends[number] + len(self.shards[number])]
