"""Encode world documents once, to latents on disk: `python -m training.encode CONFIG [key=value ...]`.

Worker processes write and draw the documents, this one runs the codecs. Finished shards are kept, so a run
that was stopped goes on, and one with more `documents` adds shards.
"""

from __future__ import annotations

import json
import multiprocessing
import random
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from omni.chat import FilmClock
from omni.codecs import Codec, VisionCodec, codec_class, latents_digest
from omni.errors import ConfigError
from training.config import Section
from training.settings import run_program
from training.shards import shard_path, write_shard

__all__ = ["EncodeConfig", "encode", "main"]

ATTEMPTS = 1000  # documents looked at to find one of those that `only` asks for

if TYPE_CHECKING:
    from omni.codecs.audio import AudioCodec


class EncodeConfig(Section):
    """What to encode.

    codecs: stream -> folder of its codec.
    output: folder of the shards.
    documents: how many; document k is the same whatever their number.
    mixture: task to share of the documents.
    in_turn: one document of each task after another, whatever the shares, and not by chance.
    split: of the world's held-out combinations.
    only: slot to the values of which its documents have one, as `{verb: [spins, rolls]}`; all documents where empty.
    shard_documents: documents of a shard.
    workers, threads: processes that draw; threads of the codec.
    """

    codecs: dict[str, str]
    output: str
    documents: int = Field(gt=0)
    mixture: dict[str, float]
    in_turn: bool = False
    split: str = "train"
    only: dict[str, list[str | int]] = {}
    seed: int = 0
    shard_documents: int = Field(2000, gt=0)
    batch_size: int = Field(64, gt=0)
    workers: int = Field(1, gt=0)
    threads: int = Field(1, gt=0)


def _make(job: tuple[int, EncodeConfig]) -> dict[str, Any]:
    """Make document k: its task is drawn from the mixture, its content from its number."""
    from training.world.tasks import document

    k, config = job
    tasks = list(config.mixture)
    drawn = random.Random(f"{config.seed}/{k}").choices(tasks, list(config.mixture.values()))[0]
    task = tasks[k % len(tasks)] if config.in_turn else drawn
    numbers = (config.seed * 1_000_000_000 + k + 1_000_000 * attempt for attempt in range(ATTEMPTS))
    for number in numbers:
        made = document(task, number, config.split)
        if _has(made.truth, config.only):
            break
    else:
        raise ConfigError(f"No document of the task {task} among {ATTEMPTS} has only={config.only}.")
    messages = made.messages
    for item in (item for message in messages for item in message["content"]):
        if item["type"] == "video":
            item["num_frames"] = len(item["frames"])
    return {"task": task, "seed": number, "messages": messages}


def _has(truth: Mapping[str, Any], only: Mapping[str, Sequence[str | int]]) -> bool:
    scenes = (*truth.get("scenes", ()), *truth.get("films", ()))
    return all(any(scene.slots.get(slot) in values for scene in scenes) for slot, values in only.items())


@dataclass
class _Job:
    """One thing for a codec: a picture or film, uint8 [F, H, W, 3], or a sound, float32 [T], and who waits for it.

    waiting: (item, key, begin, end), the latents [begin:end] go to item[key]; end None for all.
    """

    array: np.ndarray
    waiting: list[tuple[dict[str, Any], str, int, int | None]]


def _detach(document: dict[str, Any], codecs: Mapping[str, Codec]) -> list[_Job]:
    """Take the media out of a document; a film in several blocks is one job, and so is its sound."""
    jobs: list[_Job] = []
    film: list[dict[str, Any]] = []

    def close() -> None:
        if film:
            jobs.extend(_film_jobs(film, codecs))
            film.clear()

    for item in (item for message in document["messages"] for item in message["content"]):
        if item["type"] == "video":
            if not item.get("continues"):
                close()
            film.append(item)
        elif item["type"] == "image":
            jobs.append(_Job(item.pop("image")[None], [(item, "latents", 0, None)]))
        elif item["type"] == "audio":
            codec = cast("AudioCodec", codecs["audio"])
            item["latents_per_second"] = codec.latents_per_second
            jobs.append(_Job(item.pop("samples"), [(item, "sound", 0, None)]))
            del item["sample_rate"]
    close()
    return jobs


def _film_jobs(film: list[dict[str, Any]], codecs: Mapping[str, Codec]) -> Iterator[_Job]:
    vision, audio = cast(VisionCodec, codecs["vision"]), cast("AudioCodec | None", codecs.get("audio"))
    factor = vision.frames_per_latent
    spans = _latent_spans(film, factor)
    frames = _Job(np.concatenate([part for item in film for part in (*_unseen(item), item.pop("frames"))]), [])
    with_sound = [item for item in film if item.get("audio") is not None]
    rate = audio.latents_per_second if audio is not None else 0.0
    clock = FilmClock(film[0]["fps"], factor, rate or 25.0)
    for item, (begin, end) in zip(film, spans, strict=True):
        item["frames_per_latent"] = factor
        frames.waiting.append((item, "latents", begin, end))
    yield frames
    if with_sound and audio is not None:
        sound = _Job(np.concatenate([item.pop("audio") for item in with_sound]), [])
        for item, (begin, end) in zip(film, spans, strict=True):
            item["latents_per_second"] = rate
            start = clock.sound_latents(begin)
            sound.waiting.append((item, "sound", start, start + clock.sound_latents(end - begin, before=begin)))
        yield sound


def _unseen(item: dict[str, Any]) -> list[np.ndarray]:
    return [item.pop("unseen")] if "unseen" in item else []


def _latent_spans(film: list[dict[str, Any]], factor: int) -> list[tuple[int, int]]:
    """Return where the latent frames of each block of a film begin and end."""
    spans, passed = list[tuple[int, int]](), 0
    for item in film:
        begin = passed + len(item.get("unseen", ()))
        passed = begin + item.pop("num_frames")
        spans.append((0 if not begin else 1 + (begin - 1) // factor, 1 + (passed - 1) // factor))
    return spans


def _given(item: dict[str, Any], latents: Tensor, *, factor: int) -> Tensor | None:
    """Return which latents of an item are given, [F, H, W]: those all of whose pixels are."""
    given = item.pop("given", None)
    if given is None:
        return None
    frames, rows, columns = latents.shape[:3]
    if isinstance(given, list):
        counts = torch.zeros(1 + (frames - 1) * factor if not item.get("continues") else frames * factor)
        counts[given] = 1
        whole = torch.tensor([bool(part.all()) for part in _by_latent(counts, frames, factor)])
        return whole.float()[:, None, None].expand(frames, rows, columns)
    area = torch.from_numpy(np.asarray(given)).float()
    area = area if area.dim() == 3 else area[None].expand(frames, -1, -1)
    side = area.shape[-1] // columns
    return (torch.nn.functional.avg_pool2d(area[:frames], side) == 1).float()


def _by_latent(values: Tensor, frames: int, factor: int) -> list[Tensor]:
    first = len(values) - (frames - 1) * factor
    return list(values.split([first, *[factor] * (frames - 1)]))


def _encode_jobs(jobs: Sequence[_Job], codecs: Mapping[str, Codec], batch_size: int) -> list[Tensor]:
    """Encode all jobs, batches of one shape each; hand the latents out, and return what items now refer to."""
    by_shape: dict[tuple[int, ...], list[_Job]] = defaultdict(list)
    for job in jobs:
        by_shape[job.array.shape].append(job)
    tensors: list[Tensor] = []
    for shape, alike in by_shape.items():
        size = max(1, batch_size // shape[0]) if len(shape) == 4 else batch_size
        for start in range(0, len(alike), size):
            chosen = alike[start : start + size]
            batch = torch.from_numpy(np.stack([job.array for job in chosen]))
            encoded = codecs["vision" if len(shape) == 4 else "audio"].encode(batch)
            for job, latents in zip(chosen, encoded, strict=True):
                _hand_out(job, latents, codecs, tensors)
    return tensors


def _hand_out(job: _Job, latents: Tensor, codecs: Mapping[str, Codec], tensors: list[Tensor]) -> None:
    def put(item: dict[str, Any], key: str, tensor: Tensor) -> None:
        item[key] = len(tensors)
        item.setdefault("shapes", {})[key] = list(tensor.shape)
        tensors.append(tensor)

    for item, key, begin, end in job.waiting:
        own = latents[begin:end]
        given = None
        if key == "latents" and "given" in item:
            factor = 1 if item["type"] == "image" else cast(VisionCodec, codecs["vision"]).frames_per_latent
            given = _given(item, own, factor=factor)
        put(item, key, own)
        if given is not None:
            put(item, "given", given)


def _check_index(folder: Path, config: EncodeConfig, codecs: Mapping[str, Codec]) -> None:
    """Write what the shards are made from, or compare with what is written."""
    digests = {name: latents_digest(codec) for name, codec in sorted(codecs.items())}
    chosen = ("mixture", "in_turn", "split", "seed", "shard_documents")
    index = {**config.model_dump(include=set(chosen)), "codecs": digests}
    if config.only:
        index["only"] = config.only
    path = folder / "index.json"
    if path.exists() and json.loads(path.read_text(encoding="utf-8")) != index:
        raise ConfigError(f"{path} is of another codec, mixture or seed; delete the folder or choose another output")
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


def encode(config: EncodeConfig) -> Iterator[tuple[Path, int, int]]:
    """Write the shards that are not there yet; yield path, documents and media of each new one.

    Raises:
        ConfigError: a task is unknown, or the folder holds shards of something else.
        CheckpointError: the codec cannot be loaded.
    """
    from training.world.tasks import TASKS

    unknown = set(config.mixture) - set(TASKS)
    if unknown:
        raise ConfigError(f"mixture names the unknown task {sorted(unknown)[0]!r}; known are {', '.join(TASKS)}")
    codecs = {name: codec_class(name).from_folder(path) for name, path in config.codecs.items()}
    folder = Path(config.output).expanduser()
    _check_index(folder, config, codecs)
    size = config.shard_documents
    missing = [k for k in range(-(-config.documents // size)) if not shard_path(folder, k).exists()]
    numbers = [k for shard in missing for k in range(shard * size, (shard + 1) * size)]
    jobs = ((k, config) for k in numbers)
    # Threads of torch do not survive a fork, so workers start afresh.
    with multiprocessing.get_context("spawn").Pool(config.workers) as pool:
        made = pool.imap(_make, jobs, chunksize=20)
        for shard in missing:
            documents = [next(made) for _ in range(size)]
            jobs = [job for document in documents for job in _detach(document, codecs)]
            tensors = _encode_jobs(jobs, codecs, config.batch_size)
            write_shard(shard_path(folder, shard), documents, tensors)
            yield shard_path(folder, shard), len(documents), len(jobs)


def main(config: EncodeConfig) -> None:
    """Encode with a progress line."""
    torch.set_num_threads(config.threads)
    started, num_documents, num_media = time.perf_counter(), 0, 0
    for path, documents, media in encode(config):
        num_documents, num_media = num_documents + documents, num_media + media
        rate = num_media / (time.perf_counter() - started)
        print(f"{path.name}  {num_documents} documents, {num_media} media, {rate:.0f} a second", flush=True)


if __name__ == "__main__":
    sys.exit(run_program(EncodeConfig, main, "training.encode"))
