"""The loop: read, step, report, save; it knows nothing of how weights are held."""

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from omni.config import OmniConfig
from omni.errors import ConfigError
from omni.model import OmniModel
from omni.sequence import PackedBatch
from omni.text import TextTokenizer
from training.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint
from training.config import TrainConfig
from training.data import DocumentMaker, PackedLoader, noisy_batch
from training.engine import PlainEngine, StepReport
from training.shards import EncodedDataset

__all__ = ["build_model", "train"]

VALIDATION_SEED = 1_000_003
SAMPLE_PROMPTS = [
    "Draw a fox.",
    "a flat cat on a blue background",
    "Draw three apples on a green background.",
    "a simple car at the top left",
    "a dog to the left of a house",
    "Draw a big guitar at night.",
    "a small frog on grass",
    "a pizza above a rocket",
]


def build_model(config: TrainConfig, tokenizer: TextTokenizer) -> OmniModel:
    """Make the model of a run: new weights, or those of `start`."""
    if config.start is not None:
        return OmniModel.from_pretrained(config.start, dtype=torch.float32)
    num_control = tokenizer.vocab_size - tokenizer.num_text_ids
    torch.manual_seed(config.seed)
    return OmniModel(OmniConfig(num_text_ids=tokenizer.num_text_ids, num_control_ids=num_control, **config.model))


class _Slice:
    """Some documents of a data set, by their indices."""

    def __init__(self, dataset: Any, start: int, stop: int) -> None:
        self.dataset, self.start, self.stop = dataset, start, stop

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, index: int) -> Any:
        return self.dataset[self.start + index]


def build_loaders(
    config: TrainConfig, model: OmniModel, tokenizer: TextTokenizer
) -> tuple[PackedLoader, list[PackedBatch]]:
    """Make the training loader, and the validation batches once and for all."""
    dataset = EncodedDataset(Path(config.data.path).expanduser())
    held = config.data.validation_documents
    if len(dataset) <= held:
        raise ConfigError(f"data.path holds {len(dataset)} documents; validation alone takes {held}")
    batch = config.batch

    def loader(start: int, stop: int) -> PackedLoader:
        maker = DocumentMaker(_Slice(dataset, start, stop), tokenizer, model.config, config)
        return PackedLoader(maker, stop - start, batch.row_length, batch.num_rows, seed=config.seed)

    valid = loader(len(dataset) - held, len(dataset))
    num_batches = max(1, held * 80 // (batch.row_length * batch.num_rows))
    batches = [noisy_batch(valid.next_rows(), config, seed=VALIDATION_SEED + i) for i in range(num_batches)]
    return loader(0, len(dataset) - held), batches


class Reporter:
    """Progress on the terminal, figures in a JSONL log.

    Args:
        folder: where log.jsonl goes.
        steps: of the whole run.
        start: step at which this process began.
    """

    def __init__(self, folder: Path, steps: int, start: int) -> None:
        from tqdm import tqdm

        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "log.jsonl"
        self.bar = tqdm(total=steps, initial=start, dynamic_ncols=True, mininterval=2)
        self.recent: list[StepReport] = []
        self.began = time.perf_counter()

    def step(self, report: StepReport) -> None:
        self.recent.append(report)
        self.bar.update()

    def log(self, step: int, capacity: int) -> None:
        """Write the means since the last call; capacity is the places of a step, padding included."""
        count, seconds = len(self.recent), time.perf_counter() - self.began
        means = {name: sum(r[name] for r in self.recent) / count for name in self.recent[0]}
        means["fill"] = means["tokens"] / capacity
        means["tokens_per_s"] = sum(r["tokens"] for r in self.recent) / seconds
        self.recent, self.began = [], time.perf_counter()
        self.bar.set_postfix_str(
            f"text {means['text_loss']:.3f} flow {means['flow_loss']:.4f} "
            f"{means['tokens_per_s']:.0f} tok/s fill {means['fill']:.1%}"
        )
        self.write(step, means)

    def write(self, step: int, figures: dict[str, float]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "time": time.time(), **figures}) + "\n")


def stop_at_sigterm() -> Callable[[], bool]:
    """Return a function that says whether the process was asked to end."""
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    return lambda: bool(asked)


def train(config: TrainConfig, *, fresh: bool = False) -> None:
    """Run a training to its last step, resuming from the newest whole checkpoint.

    Args:
        config: the run.
        fresh: ignore earlier checkpoints of the output folder.

    Raises:
        ConfigError, CheckpointError: a setting, the data or a checkpoint cannot be used.
    """
    output = Path(config.output).expanduser()
    tokenizer = TextTokenizer.from_folder(config.tokenizer)
    model = build_model(config, tokenizer)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    engine = PlainEngine(model, config, device)
    loader, validation = build_loaders(config, model, tokenizer)
    begin = 0 if fresh else resume(output, engine, loader)
    reporter = Reporter(output, config.schedule.steps, begin)
    is_asked_to_stop = stop_at_sigterm()
    batch = config.batch
    capacity = batch.row_length * batch.num_rows * batch.accumulation
    for step in range(begin, config.schedule.steps):
        batches = [
            noisy_batch(loader.next_rows(), config, seed=(config.seed * 7919 + step) * batch.accumulation + part)
            for part in range(batch.accumulation)
        ]
        reporter.step(engine.step(batches, step=step))
        done = step + 1
        is_last = done == config.schedule.steps or is_asked_to_stop()
        if done % config.report.log_every == 0 or is_last:
            reporter.log(done, capacity)
        if done % config.report.validate_every == 0 or is_last:
            reporter.write(done, engine.validate(validation))
        if done % config.report.save_every == 0 or is_last:
            state = {"engine": engine.state_dict(), "loader": loader.state_dict(), "step": done}
            save_checkpoint(output, state, step=done, keep=config.report.keep)
        if config.report.sample_every and (done % config.report.sample_every == 0 or is_last):
            sample(engine, config, tokenizer, output / f"samples-{done:08d}.png")
        if is_last:
            break


def resume(output: Path, engine: PlainEngine, loader: PackedLoader) -> int:
    """Load the newest whole checkpoint, if any, and return the step to go on with."""
    path = latest_checkpoint(output)
    if path is None:
        return 0
    state = load_checkpoint(path)
    engine.load_state_dict(state["engine"])
    loader.load_state_dict(state["loader"])
    return int(state["step"])


def sample(engine: PlainEngine, config: TrainConfig, tokenizer: TextTokenizer, path: Path) -> None:
    """Draw a sheet of pictures with the averaged weights."""
    from omni.codecs.vision import VisionCodec
    from omni.pipeline import Omni
    from training.sheets import contact_sheet

    engine.ema.store(engine.model.parameters())
    engine.ema.copy_to(engine.model.parameters())
    codecs = {name: VisionCodec.from_folder(folder) for name, folder in config.codecs.items()}
    omni = Omni(engine.model, tokenizer, codecs)
    pictures = [image.pixels for image in omni.image(SAMPLE_PROMPTS, seed=0)]
    contact_sheet(pictures, SAMPLE_PROMPTS).save(path)
    engine.model.train()
    engine.ema.restore(engine.model.parameters())
