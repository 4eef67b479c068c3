"""The loop: read, step, report, save; it knows nothing of how weights are held."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from omni.errors import CheckpointError, ConfigError
from omni.sequence import PackedBatch
from training.build import Parts, build_model, build_parts, load_codecs
from training.checkpoint import latest_checkpoint, load_checkpoint, publish, save_checkpoint
from training.config import TrainConfig
from training.data import noisy_batch
from training.engine import Engine, PlainEngine, StepReport, best_precision
from training.lora import check_effect, save_adapter
from training.ranks import Ranks, start_ranks
from training.report import Reporter, matmul_peak, peak_memory_mb, step_flops
from training.sources import Lane, build_lanes

__all__ = ["build_model", "train"]

VALIDATION_SEED = 1_000_003
NUM_NAMED = 20
# An adapter whose gradients are all zero for so many steps is pointed at weights that the data never use.
NUM_STEPS_WITHOUT_GRADIENT = 10
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


@contextmanager
def stop_at_sigterm() -> Iterator[Callable[[], bool]]:
    """Give a function that says whether the process was asked to end; afterwards SIGTERM acts as before."""
    asked: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGTERM, before)


def as_launched(config: TrainConfig) -> TrainConfig:
    """Take DeepSpeed's file from `accelerate launch`, where that was started with one and the config names none.

    Raises:
        ConfigError: the config does not go with DeepSpeed.
    """
    path = os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE")
    is_asked = os.environ.get("ACCELERATE_USE_DEEPSPEED", "false") == "true"
    if config.engine.kind == "deepspeed" or not is_asked or path is None:
        return config
    if config.optimizer.kind != "adamw":
        raise ConfigError("accelerate was launched with DeepSpeed, which needs optimizer.kind adamw; set it")
    engine = config.engine.model_copy(update={"kind": "deepspeed", "config": path})
    return config.model_copy(update={"engine": engine})


def start_engine(config: TrainConfig) -> tuple[Parts, Engine]:
    """Join the other processes, build what is trained, and give it to the engine."""
    precision = best_precision() if config.precision == "auto" else config.precision
    config = as_launched(config)
    if config.engine.kind == "deepspeed":
        from training.zero import ZeroEngine, start_deepspeed

        accelerator = start_deepspeed(config, precision)
        parts = build_parts(config)
        return parts, ZeroEngine(parts.model, config, accelerator, precision)
    ranks = start_ranks()
    device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    parts = build_parts(config)
    config = config.model_copy(update={"precision": precision})
    return parts, PlainEngine(parts.model, config, device, ranks)


class Run:
    """A training run: the engine, this rank's lanes of data, and what is written of it.

    Args:
        config: the run.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.output = Path(config.output).expanduser()
        self.parts, self.engine = start_engine(config)
        self.ranks: Ranks = self.engine.ranks
        self.reporter: Reporter | None = None
        share = config.batch.accumulation
        self.num_lanes = share * self.ranks.size
        # The lanes of a rank lie side by side, so that any number of ranks makes the same steps.
        self.numbers = [part * self.ranks.size + self.ranks.rank for part in range(share)]
        model = self.parts.model.config
        codecs = load_codecs(config)
        self.lanes, valid = build_lanes(
            config,
            model,
            self.parts.tokenizer,
            codecs,
            numbers=self.numbers,
            num_lanes=self.num_lanes,
            report=self.note,
        )
        self.validation = self._validation(valid) if valid is not None else []
        self.has_learnt = False
        self.bad: list[str] = []

    def note(self, message: str) -> None:
        """Write a line of words to the log."""
        if self.reporter is None:
            self.reporter = self._reporter(0, with_trackers=False)
        self.reporter.note(message)

    def _reporter(self, begin: int, *, with_trackers: bool = True) -> Reporter:
        report = self.config.report
        return Reporter(
            self.output,
            self.config.schedule.steps,
            begin,
            is_first=self.ranks.is_first,
            trackers=report.trackers if with_trackers else [],
            project=report.project,
            settings=self.config.model_dump(),
        )

    def _validation(self, lane: Lane) -> list[PackedBatch]:
        batch, held = self.config.batch, self.config.data.validation_documents
        num_batches = max(1, held * 80 // (batch.row_length * batch.num_rows))
        rows = [lane.next_rows()[0] for _ in range(num_batches)]
        return [noisy_batch(each, self.config, seed=VALIDATION_SEED + i) for i, each in enumerate(rows)]

    def train(self, *, fresh: bool) -> None:
        """Go through the steps that are left."""
        begin = 0 if fresh else self.resume()
        if self.reporter is not None:
            self.reporter.close()
        self.reporter = self._reporter(begin)
        self._measure()
        with stop_at_sigterm() as is_asked_to_stop:
            self._go(begin, is_asked_to_stop)
        self.reporter.close()

    def _go(self, begin: int, is_asked_to_stop: Callable[[], bool]) -> None:
        assert self.reporter is not None
        config, batch = self.config, self.config.batch
        capacity = batch.row_length * batch.num_rows * self.num_lanes
        for step in range(begin, config.schedule.steps):
            batches, names = self.read(step)
            report = self.engine.step(batches, step=step)
            self.reporter.step(report)
            self._guard(step, report, names)
            done = step + 1
            is_stopped = self.ranks.sum([float(is_asked_to_stop())], self.engine.device)[0] > 0
            is_last = done == config.schedule.steps or is_stopped
            if done % config.report.log_every == 0 or is_last:
                self.reporter.log(done, capacity, extra=self._figures())
            if self.validation and (done % config.report.validate_every == 0 or is_last):
                self.reporter.write(done, self.engine.validate(self.validation))
            if done % config.report.save_every == 0 or is_last:
                self.save(done)
            if config.report.sample_every and (done % config.report.sample_every == 0 or is_last):
                self.sample(self.output / f"samples-{done:08d}.png")
            if is_last:
                break

    def _measure(self) -> None:
        """Find what the machine could do at best, for the share of it that is used (MFU)."""
        assert self.reporter is not None
        dtype = torch.bfloat16 if self.engine.precision == "bfloat16" else torch.float32
        self.reporter.peak = matmul_peak(self.engine.device, dtype) * self.ranks.size
        self.reporter.flops_a_token = step_flops(self.parts.model, 1.0)

    def _figures(self) -> dict[str, float]:
        bad = sum(lane.num_bad for lane in self.lanes)
        figures = {"memory_mb": peak_memory_mb(self.engine.device)}
        return figures | ({"bad_documents": float(bad)} if bad else {})

    def read(self, step: int) -> tuple[list[PackedBatch], list[str]]:
        """Return this rank's batches of a step, and the names of their documents."""
        batches, names = [], []
        for number, lane in zip(self.numbers, self.lanes, strict=True):
            rows, dealt = lane.next_rows()
            names += dealt
            seed = (self.config.seed * 7919 + step) * self.num_lanes + number
            batches.append(noisy_batch(rows, self.config, seed=seed))
        return batches, names

    def _guard(self, step: int, report: StepReport, names: list[str]) -> None:
        """Stop a run that cannot learn.

        Raises:
            ConfigError: several steps one after another were not finite, or nothing is learnt from the data.
        """
        if report["skipped"]:
            self.bad.append(f"step {step + 1}: " + ", ".join(names[:NUM_NAMED]))
            self.note(f"loss or gradient is not finite; skipped {self.bad[-1]}")
            if len(self.bad) >= self.config.schedule.max_bad_steps:
                raise ConfigError(
                    f"{len(self.bad)} steps one after another were not finite, the last checkpoint is from before; "
                    f"lower the learning rate, or look at the documents of {self.bad[0]}"
                )
            return
        self.bad = []
        if report["text_loss"] == 0 and report["flow_loss"] == 0:
            raise ConfigError("the documents of a whole step hold nothing to learn; only what the assistant says is")
        self.has_learnt = self.has_learnt or report["grad_norm"] > 0
        if not self.has_learnt and step + 1 >= NUM_STEPS_WITHOUT_GRADIENT:
            raise ConfigError(
                f"no gradient has reached a trained weight in {step + 1} steps; choose lora.targets that the data uses"
            )

    def save(self, step: int) -> None:
        """Write a checkpoint; the first rank does, and all learn whether it could.

        Raises:
            CheckpointError: it could not.
        """
        engine = self.engine.state_dict()
        lanes = {n: s for part in self.ranks.gather(self._lane_states()) for n, s in part.items()}
        problem = None
        if self.ranks.is_first:
            state = {"engine": engine, "lanes": [lanes[number] for number in range(self.num_lanes)], "step": step}
            try:
                path = save_checkpoint(
                    self.output, state, step=step, keep=self.config.report.keep, write=self._adapter_writer(engine)
                )
                publish(path, self.output)
            except (CheckpointError, ConfigError, OSError) as error:
                problem = (isinstance(error, ConfigError), str(error))
        problem = self.ranks.gather(problem)[0]
        if problem is not None:
            raise (ConfigError if problem[0] else CheckpointError)(problem[1])

    def _lane_states(self) -> dict[int, Any]:
        return {number: lane.state_dict() for number, lane in zip(self.numbers, self.lanes, strict=True)}

    def _adapter_writer(self, state: dict[str, Any]) -> Callable[[Path], None] | None:
        """Return what writes the averaged adapter into a checkpoint, for runs that make one."""
        if not self.config.is_adapter:
            return None
        names = [name for name, _ in self.engine.trained]
        averaged = dict(zip(names, state["ema"]["shadow_params"], strict=True))
        check_effect(averaged)
        return lambda folder: save_adapter(self.parts.adapter, folder, averaged, base=self.parts.base or {})

    def resume(self) -> int:
        """Load the newest whole checkpoint, if any, and return the step to go on with.

        Raises:
            CheckpointError: it is of another config.
        """
        path = self.ranks.gather(latest_checkpoint(self.output) if self.ranks.is_first else None)[0]
        if path is None:
            return 0
        state = load_checkpoint(path, is_shared=self.ranks.size > 1)
        lanes = state["lanes"] if "lanes" in state else [state["loader"]]
        if len(lanes) != self.num_lanes:
            raise CheckpointError(
                f"{path} was made with {len(lanes)} batches a step (ranks x batch.accumulation), this run has "
                f"{self.num_lanes}; set batch.accumulation so that they are equal"
            )
        self.engine.load_state_dict(state["engine"])
        for number, lane in zip(self.numbers, self.lanes, strict=True):
            lane.load_state_dict(lanes[number])
        return int(state["step"])

    def sample(self, path: Path) -> None:
        """Draw a sheet of pictures with the averaged weights, on the first rank of a run without ZeRO-3."""
        from omni.pipeline import Omni
        from training.sheets import contact_sheet

        with self.engine.averaged():
            if self.ranks.is_first:
                omni = Omni(self.parts.model, self.parts.tokenizer, load_codecs(self.config))
                pictures = [image.pixels for image in omni.image(SAMPLE_PROMPTS, seed=0)]
                contact_sheet(pictures, SAMPLE_PROMPTS).save(path)
                self.parts.model.train()
        self.ranks.wait()


def train(config: TrainConfig, *, fresh: bool = False) -> None:
    """Run a training to its last step, resuming from the newest whole checkpoint.

    Args:
        config: the run.
        fresh: ignore earlier checkpoints of the output folder.

    Raises:
        ConfigError, CheckpointError: a setting, the data or a checkpoint cannot be used.
    """
    Run(config).train(fresh=fresh)
