"""Where documents come from, and who gets which: data sets, weighted mixtures of them, and lanes.

A step takes accumulation x ranks batches. Each of them is a lane: it has documents of its own, in an order of its
own, so that no two ranks read the same ones, and a run goes on unchanged with another number of ranks as long as
the number of lanes stays the same.
"""

import json
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from omni.chat import ChatTemplate
from omni.codecs import latents_digest
from omni.config import OmniConfig
from omni.errors import ConfigError
from omni.sequence import FlatDocument, Medium, TextRun
from omni.text import TextTokenizer
from training.config import TrainConfig
from training.data import DocumentMaker, PackedLoader
from training.folders import BadDocument, Encoder, open_folder
from training.shards import EncodedDataset

__all__ = ["Dataset", "Lane", "Mixture", "build_lanes", "check_latents", "open_source"]

NUM_CHECKED = 32
SPREAD = (0.2, 5.0)


class Dataset(Protocol):
    """Documents by number: messages in the chat form, media as latents."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> list[dict[str, Any]]: ...

    def name(self, index: int) -> str:
        """Return what errors call a document."""


class _Encoded:
    """Encoded shards, with names for their documents."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.documents = folder, EncodedDataset(folder)

    def __len__(self) -> int:
        return len(self.documents)

    def __getitem__(self, index: int) -> list[dict[str, Any]]:
        return self.documents[index]

    def name(self, index: int) -> str:
        return f"{self.folder}, document {index}"


class Span:
    """Some documents of a data set, one after another."""

    def __init__(self, dataset: Dataset, start: int, stop: int) -> None:
        self.dataset, self.start, self.stop = dataset, start, stop

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, index: int) -> list[dict[str, Any]]:
        return self.dataset[self.start + index]

    def name(self, index: int) -> str:
        """Return what errors call a document."""
        return self.dataset.name(self.start + index)


def open_source(path: str, encoder: Encoder, *, cache_mb: int) -> Dataset:
    """Open a data set, its kind by what the folder holds.

    Args:
        path: encoded shards, a folder with train.jsonl or metadata.jsonl, tar shards, or hf:NAME.
        encoder: of media that are not encoded yet.
        cache_mb: memory for their latents.

    Raises:
        ConfigError: the folder is not there, or holds none of these.
    """
    if path.startswith("hf:"):
        from training.hub import open_hub

        return open_hub(path.removeprefix("hf:"), encoder, cache_mb=cache_mb)
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise ConfigError(f"data.path {path} is no folder; give one with documents")
    opened: Dataset | None = open_folder(folder, encoder, cache_mb=cache_mb)
    if opened is None and any(folder.glob("shard-*.jsonl")):
        opened = _Encoded(folder)
    if opened is None and any(folder.glob("*.tar")):
        from training.tars import open_tars

        opened = open_tars(folder, encoder, cache_mb=cache_mb)
    if opened is None:
        raise ConfigError(
            f"data.path {path} holds no documents; it needs train.jsonl, metadata.jsonl, *.tar, or encoded shards"
        )
    return opened


class Mixture:
    """Several data sets, each as often as its weight says; every one is gone through evenly, none of it twice early.

    Args:
        datasets: one or more.
        weights: as many; a source of weight 2 gives twice as many documents as one of weight 1.
    """

    def __init__(self, datasets: Sequence[Dataset], weights: Sequence[float]) -> None:
        self.datasets = list(datasets)
        self._starts = [sum(map(len, self.datasets[:k])) for k in range(len(self.datasets))]
        total = sum(map(len, self.datasets))
        shares = [weight / sum(weights) for weight in weights]
        # Documents of each source in one round; a single source goes through all of its own.
        self.counts = [max(1, round(share * total)) for share in shares] if len(shares) > 1 else [total]
        self.counts[self.counts.index(max(self.counts))] += total - sum(self.counts)
        self._ends = [sum(self.counts[: k + 1]) for k in range(len(self.counts))]

    def __len__(self) -> int:
        return sum(self.counts)

    def __getitem__(self, index: int) -> list[dict[str, Any]]:
        number = bisect_right(self._starts, index) - 1
        return self.datasets[number][index - self._starts[number]]

    def name(self, index: int) -> str:
        """Return what errors call a document."""
        number = bisect_right(self._starts, index) - 1
        return self.datasets[number].name(index - self._starts[number])

    def place(self, epoch: int, position: int) -> tuple[int, int]:
        """Return which time round, and which document, stands at a position of a round.

        Args:
            epoch: number of the round.
            position: below len(self).
        """
        if len(self.datasets) == 1:
            return epoch, position
        number = bisect_right(self._ends, position)
        within = position - self._ends[number] + self.counts[number]
        size = len(self.datasets[number])
        cycle, rest = divmod(epoch * self.counts[number] + within, size)
        generator = torch.Generator().manual_seed(1_000_003 * number + cycle)
        return cycle, self._starts[number] + int(torch.randperm(size, generator=generator)[rest])


class Lane:
    """One stream of packed batches, with documents of its own.

    Args:
        maker: (epoch, index) -> flat document.
        mixture: of all documents.
        config: batch shape, seed, what to do with bad lines.
        number, num_lanes: which lane of how many.
    """

    def __init__(
        self,
        maker: Callable[[int, int], FlatDocument],
        mixture: Mixture,
        config: TrainConfig,
        *,
        number: int,
        num_lanes: int,
        report: Callable[[str], None],
    ) -> None:
        self.maker, self.mixture, self.config = maker, mixture, config
        self.number, self.num_lanes, self.report = number, num_lanes, report
        self.num_bad = 0
        self._names: dict[int, str] = {}
        self._bad: set[int] = set()
        own = len(range(number, len(mixture), num_lanes))
        batch = config.batch
        self.loader = PackedLoader(self._make, own, batch.row_length, batch.num_rows, seed=config.seed)

    def _make(self, epoch: int, index: int) -> FlatDocument | None:
        cycle, document = self.mixture.place(epoch, index * self.num_lanes + self.number)
        try:
            flat = self.maker(cycle, document)
        except BadDocument as error:
            if self.config.data.bad_lines == "stop":
                raise ConfigError(f"{error} (data.bad_lines is 'stop'; 'skip' goes on without it)") from error
            self._note(document, str(error))
            return None
        self._names[id(flat)] = self.mixture.name(document)
        return flat

    def _note(self, document: int, message: str) -> None:
        self.num_bad += 1
        if document in self._bad:
            return
        self._bad.add(document)
        self.report(f"skipped {message}")
        if len(self._bad) == len(self.mixture):
            raise ConfigError(f"not one document of the data can be used; the last one: {message}")

    def next_rows(self) -> tuple[list[list[FlatDocument]], list[str]]:
        """Return the rows of the next batch, and the names of its documents."""
        rows = self.loader.next_rows()
        return rows, [self._names.pop(id(flat), "a document") for row in rows for flat in row]

    def state_dict(self) -> dict[str, Any]:
        """Return where the lane stands."""
        return self.loader.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a state_dict was taken."""
        self.loader.load_state_dict(state)


class Maker(DocumentMaker):
    """Makes flat documents of media that are blocks already, beside those that are latents."""

    def _item(self, item: dict[str, Any], template: ChatTemplate, film: list[Medium]) -> str | TextRun | Medium:
        return item["block"] if item["type"] == "block" else super()._item(item, template, film)


def _latents(item: Mapping[str, Any]) -> list[torch.Tensor]:
    """Return the latents of an item of a message, [..., C] each."""
    if "block" in item:
        return [grid.latents for grid in item["block"].grids]
    return [item[name] for name in ("latents", "sound") if isinstance(item.get(name), torch.Tensor)]


def check_latents(dataset: Dataset, *, bad_lines: str) -> None:
    """Refuse data whose latents are far from unit variance: another codec's, or not normalised.

    Args:
        dataset: of which the first documents are looked at.
        bad_lines: "skip" passes over documents that cannot be used.

    Raises:
        ConfigError: the spread is out of bounds.
    """
    seen: list[torch.Tensor] = []
    for index in range(min(NUM_CHECKED, len(dataset))):
        try:
            document = dataset[index]
        except BadDocument as error:
            if bad_lines == "stop":
                raise ConfigError(f"{error} (data.bad_lines is 'stop'; 'skip' goes on without it)") from error
            continue
        seen += [latents.flatten() for message in document for item in message["content"] for latents in _latents(item)]
    if not seen:
        return
    spread = float(torch.cat(seen).float().std())
    if not SPREAD[0] <= spread <= SPREAD[1]:
        raise ConfigError(
            f"the latents of the data have a standard deviation of {spread:.3g}, where about 1 is meant; "
            "they are of another codec, or lack its normalisation: encode them again with the model's own"
        )


def _check_index(path: str, codecs: Mapping[str, Any]) -> None:
    """Refuse encoded shards that another codec than the run's has made."""
    index = Path(path).expanduser() / "index.json"
    if not index.is_file():
        return
    made_by = json.loads(index.read_text(encoding="utf-8")).get("codecs", {})
    for stream in sorted(set(made_by) & set(codecs)):
        if made_by[stream] != latents_digest(codecs[stream]):
            raise ConfigError(
                f"{index}: the data were encoded by another {stream} codec than the model's; encode them again"
            )


def build_lanes(
    config: TrainConfig,
    model: OmniConfig,
    tokenizer: TextTokenizer,
    codecs: Mapping[str, Any],
    *,
    numbers: Sequence[int],
    num_lanes: int,
    report: Callable[[str], None],
) -> tuple[list[Lane], Lane | None]:
    """Open the data; return this rank's lanes, and one of held-back documents for validation, if any are.

    Args:
        config: data and batch.
        model: streams and patch sizes.
        tokenizer: of the text.
        codecs: stream -> codec; only those of media that are not encoded yet are used.
        numbers: this rank's lanes.
        num_lanes: of all ranks.
        report: takes a line about each bad document.

    Raises:
        ConfigError: the data cannot be used, or are too few.
    """
    names = ("max_block_tokens", "max_video_tokens", "max_audio_tokens")
    limits = {name: getattr(config.data, name) for name in names}
    encoder = Encoder(model, codecs, ChatTemplate(tokenizer.control), limits)
    wanted = config.data.sources
    paths = [source.path for source in wanted] or [str(config.data.path)]
    weights = [source.weight for source in wanted] or [1.0]
    datasets = []
    for path in paths:
        if config.is_adapter:
            _check_index(path, codecs)
        datasets.append(open_source(path, encoder, cache_mb=config.data.cache_mb))
        check_latents(datasets[-1], bad_lines=config.data.bad_lines)
    total, held = sum(map(len, datasets)), config.data.validation_documents
    if total - held < num_lanes:
        raise ConfigError(
            f"data.path holds {total} documents; validation takes {held}, and {num_lanes} batches a step (ranks x "
            "batch.accumulation) need at least one each: give more, or lower data.validation_documents"
        )
    cuts = [round(held * len(dataset) / total) for dataset in datasets]
    kept = [Span(dataset, 0, len(dataset) - cut) for dataset, cut in zip(datasets, cuts, strict=True)]
    if not all(map(len, kept)):
        raise ConfigError(f"data.validation_documents {held} leaves a source without any to train on; lower it")
    back = [Span(d, len(d) - cut, len(d)) for d, cut in zip(datasets, cuts, strict=True) if cut]

    def lane(parts: Sequence[Dataset], shares: Sequence[float], number: int, count: int) -> Lane:
        mixture = Mixture(parts, shares)
        maker = Maker(mixture, tokenizer, model, config)
        return Lane(maker, mixture, config, number=number, num_lanes=count, report=report)

    lanes = [lane(kept, weights, number, num_lanes) for number in numbers]
    return lanes, lane(back, [1.0] * len(back), 0, 1) if back else None
