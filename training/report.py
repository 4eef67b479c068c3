"""What a run says of itself: a progress bar, a JSONL log always, trackers where they are named."""

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from omni.errors import ConfigError
from omni.model import OmniModel

__all__ = ["Reporter", "matmul_peak", "step_flops"]


def step_flops(model: OmniModel, num_tokens: float) -> float:
    """Estimate the floating-point operations of a training step: 6 a token and weight that it meets.

    A token meets the weights of its own expert; with several experts this takes their mean. Attention scores and
    embeddings are left out, and frozen weights counted at 4.

    Args:
        model: its weights are counted.
        num_tokens: of the step.
    """
    num_experts = len(model.config.experts)
    flops = 0.0
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2 and ".experts." in name:
            size = getattr(parameter, "ds_numel", parameter.numel())
            flops += (6 if parameter.requires_grad else 4) * size / num_experts
    return flops * num_tokens


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Measure the floating-point operations a second of a large matrix product here; smaller ones where it is slow."""
    peak = 0.0
    for size in (256, 512, 1024) if device.type == "cpu" else (1024, 4096, 8192):
        x = torch.randn(size, size, device=device, dtype=dtype)
        for _ in range(3):
            start = time.perf_counter()
            float((x @ x)[0, 0])
            seconds = time.perf_counter() - start
            peak = max(peak, 2 * size**3 / seconds)
        if seconds > 0.03:
            break
    return peak


def peak_memory_mb(device: torch.device) -> float:
    """Return the most memory that this process has held so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Reporter:
    """Progress on the terminal, figures in log.jsonl and in trackers; silent on all ranks but the first.

    Args:
        folder: where log.jsonl goes.
        steps: of the whole run.
        start: step at which this process began.
        is_first: whether this rank speaks.
        trackers: names of Accelerate's.
        project: under which trackers file the run.
        settings: of the run, for the trackers.
    """

    def __init__(
        self,
        folder: Path,
        steps: int,
        start: int,
        *,
        is_first: bool = True,
        trackers: list[str] | None = None,
        project: str = "omni",
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        from tqdm import tqdm

        self.is_first = is_first
        self.path = folder / "log.jsonl"
        self.recent: list[Mapping[str, float]] = []
        self.began = time.perf_counter()
        self.flops_a_token = self.peak = 0.0
        self.bar = tqdm(total=steps, initial=start, dynamic_ncols=True, mininterval=2, disable=not is_first)
        self._trackers = self._start(folder, trackers or [], project, settings or {}) if is_first else []
        if is_first:
            folder.mkdir(parents=True, exist_ok=True)

    def _start(self, folder: Path, names: list[str], project: str, settings: Mapping[str, Any]) -> list[Any]:
        if not names:
            return []
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        started = []
        for name in names:
            kind = LOGGER_TYPE_TO_CLASS[name]
            where = (str(folder),) if kind.requires_logging_directory else ()
            try:
                tracker = kind(project, *where)
                if hasattr(tracker, "start"):
                    tracker.start()
                tracker.store_init_configuration(_flat(settings))
            except (ImportError, NameError) as error:
                raise ConfigError(
                    f"report.trackers names {name!r}, which is not installed; pip install {name}"
                ) from error
            started.append(tracker)
        return started

    def step(self, report: Mapping[str, float]) -> None:
        """Take the figures of one step."""
        self.recent.append(report)
        self.bar.update()

    def log(self, step: int, capacity: int, *, extra: Mapping[str, float] | None = None) -> None:
        """Write the means since the last call.

        Args:
            step: the number of steps done.
            capacity: places of a step, padding included.
            extra: further figures.
        """
        seconds = time.perf_counter() - self.began
        names = dict.fromkeys(name for report in self.recent for name in report)
        means = {}
        for name in names:
            values = [r[name] for r in self.recent if name in r and math.isfinite(r[name])]
            means[name] = sum(values) / len(values) if values else math.nan
        means["fill"] = means["tokens"] / capacity
        means["tokens_per_s"] = sum(r["tokens"] for r in self.recent) / seconds
        if self.peak:
            means["mfu"] = means["tokens_per_s"] * self.flops_a_token / self.peak
        means |= extra or {}
        self.recent, self.began = [], time.perf_counter()
        self.bar.set_postfix_str(
            f"text {means['text_loss']:.3f} flow {means['flow_loss']:.4f} "
            f"{means['tokens_per_s']:.0f} tok/s fill {means['fill']:.1%}"
        )
        self.write(step, means)

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Write figures to the log and the trackers."""
        if not self.is_first:
            return
        finite = {name: value if math.isfinite(value) else None for name, value in figures.items()}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "time": time.time(), **finite}) + "\n")
        for tracker in self._trackers:
            tracker.log({name: value for name, value in finite.items() if value is not None}, step=step)

    def note(self, message: str) -> None:
        """Write a line of words to the log and the terminal; on any rank."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"time": time.time(), "note": message}) + "\n")
        self.bar.write(message) if self.is_first else print(message, flush=True)

    def close(self) -> None:
        """End the bar and the trackers."""
        self.bar.close()
        for tracker in self._trackers:
            tracker.finish()


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            out |= _flat(value, f"{prefix}{name}.")
        else:
            out[prefix + name] = value if isinstance(value, (int, float, str, bool)) else str(value)
    return out


Note = Callable[[str], None]
