"""Encode world documents once, to latents on disk: `python -m training.encode CONFIG [key=value ...]`.

Worker processes write and draw the documents, this one runs the codec. Finished shards are kept, so a run
that was stopped goes on, and one with more `documents` adds shards.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import random
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from omni.codecs import VisionCodec
from omni.errors import ConfigError, OmniError
from omni.memory import keep_freed_memory
from training.config import Section
from training.settings import load_settings
from training.shards import shard_path, write_shard

__all__ = ["EncodeConfig", "encode", "main"]


class EncodeConfig(Section):
    """What to encode.

    codec: folder of the vision codec.
    output: folder of the shards.
    documents: how many; document k is the same whatever their number.
    mixture: task to share of the documents.
    split: of the world's held-out combinations.
    shard_documents: documents of a shard.
    workers, threads: processes that draw; threads of the codec.
    """

    codec: str
    output: str
    documents: int = Field(gt=0)
    mixture: dict[str, float]
    split: str = "train"
    seed: int = 0
    shard_documents: int = Field(2000, gt=0)
    batch_size: int = Field(64, gt=0)
    workers: int = Field(1, gt=0)
    threads: int = Field(1, gt=0)


def _make(job: tuple[int, dict[str, float], str, int]) -> dict[str, Any]:
    """Make document k: its task is drawn from the mixture, its content from its number."""
    from training.world.tasks import document

    k, mixture, split, seed = job
    task = random.Random(f"{seed}/{k}").choices(list(mixture), list(mixture.values()))[0]
    number = seed * 1_000_000_000 + k
    return {"task": task, "seed": number, "messages": document(task, number, split).messages}


def _detach_pictures(documents: Iterable[dict[str, Any]]) -> list[np.ndarray]:
    """Replace each picture by its number in the list that is returned."""
    pictures: list[np.ndarray] = []
    for document in documents:
        for message in document["messages"]:
            for item in message["content"]:
                if item["type"] == "image":
                    item["latents"] = len(pictures)
                    pictures.append(item.pop("image"))
    return pictures


def _encode_pictures(codec: VisionCodec, pictures: list[np.ndarray], batch_size: int) -> list[Tensor]:
    """Encode pictures of mixed sizes, batches of one size each; latents in the order given."""
    by_size: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for number, picture in enumerate(pictures):
        by_size[picture.shape].append(number)
    latents: dict[int, Tensor] = {}
    for numbers in by_size.values():
        for start in range(0, len(numbers), batch_size):
            chosen = numbers[start : start + batch_size]
            pixels = torch.from_numpy(np.stack([pictures[number] for number in chosen]))
            latents |= zip(chosen, codec.encode(pixels[:, None]), strict=True)
    return [latents[number] for number in range(len(pictures))]


def _name_shapes(documents: Iterable[dict[str, Any]], latents: list[Tensor]) -> None:
    for document in documents:
        for message in document["messages"]:
            for item in message["content"]:
                if "latents" in item:
                    item["shape"] = list(latents[item["latents"]].shape[:3])


def _check_index(folder: Path, config: EncodeConfig, codec: VisionCodec) -> None:
    """Write what the shards are made from, or compare with what is written."""
    weights = codec.autoencoder.state_dict().values()
    codec_digest = hashlib.sha256(b"".join(value.numpy().tobytes() for value in weights)).hexdigest()
    chosen = ("mixture", "split", "seed", "shard_documents")
    index = {**config.model_dump(include=set(chosen)), "codec": codec_digest, "channels": codec.channels}
    path = folder / "index.json"
    if path.exists() and json.loads(path.read_text(encoding="utf-8")) != index:
        raise ConfigError(f"{path} is of another codec, mixture or seed; delete the folder or choose another output")
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


def encode(config: EncodeConfig) -> Iterator[tuple[Path, int, int]]:
    """Write the shards that are not there yet; yield path, documents and pictures of each new one.

    Raises:
        ConfigError: a task is unknown, or the folder holds shards of something else.
        CheckpointError: the codec cannot be loaded.
    """
    from training.world.tasks import TASKS

    unknown = set(config.mixture) - set(TASKS)
    if unknown:
        raise ConfigError(f"mixture names the unknown task {sorted(unknown)[0]!r}; known are {', '.join(TASKS)}")
    codec = VisionCodec.from_folder(config.codec)
    folder = Path(config.output).expanduser()
    _check_index(folder, config, codec)
    size = config.shard_documents
    missing = [k for k in range(-(-config.documents // size)) if not shard_path(folder, k).exists()]
    numbers = [k for shard in missing for k in range(shard * size, (shard + 1) * size)]
    jobs = ((k, config.mixture, config.split, config.seed) for k in numbers)
    # Threads of torch do not survive a fork, so workers start afresh.
    with multiprocessing.get_context("spawn").Pool(config.workers) as pool:
        made = pool.imap(_make, jobs, chunksize=20)
        for shard in missing:
            documents = [next(made) for _ in range(size)]
            pictures = _detach_pictures(documents)
            latents = _encode_pictures(codec, pictures, config.batch_size)
            _name_shapes(documents, latents)
            write_shard(shard_path(folder, shard), documents, latents)
            yield shard_path(folder, shard), len(documents), len(pictures)


def main(arguments: list[str]) -> int:
    """Encode with a progress line; return the exit status."""
    if not arguments:
        print("usage: python -m training.encode CONFIG [key=value ...]", file=sys.stderr)
        return 2
    keep_freed_memory()
    try:
        config = load_settings(EncodeConfig, arguments[0], arguments[1:])
        torch.set_num_threads(config.threads)
        started, num_documents, num_pictures = time.perf_counter(), 0, 0
        for path, documents, pictures in encode(config):
            num_documents, num_pictures = num_documents + documents, num_pictures + pictures
            rate = num_pictures / (time.perf_counter() - started)
            print(
                f"{path.name}  {num_documents} documents, {num_pictures} pictures, {rate:.0f} a second",
                flush=True,
            )
    except OmniError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
