"""Kill a training at random moments, saving included, and see that it always goes on: python scripts/check_kills.py

Every kill is followed by a look at the checkpoints on disk, and by a resume. At the end the weights are compared,
bit for bit, with those of a run that was never disturbed.
"""

import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
import yaml

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY))
FORK = multiprocessing.get_context("fork")

MODEL = {
    "num_layers": 2,
    "num_heads": 2,
    "head_dim": 8,
    "sigma_dim": 16,
    "experts": {"text": {"width": 64, "ffn_dim": 96}, "vision": {"width": 64, "ffn_dim": 96}},
    "streams": {"vision": {"channels": 4, "patch_size": 2, "expert": "vision", "base_tokens": 4}},
}
CHUNK_BYTES, PAUSE_S = 1 << 16, 0.001
STEPS_A_LIFE = 5  # at most, between two kills


def write_data(folder: Path, count: int = 30) -> None:
    """Write encoded documents, latents of noise."""
    from training.shards import shard_path, write_shard

    generator = torch.Generator().manual_seed(0)
    documents, latents = [], []
    for number in range(count):
        item = {"type": "image", "latents": number, "shapes": {"latents": [1, 4, 4, 4]}}
        latents.append(torch.randn(1, 4, 4, 4, generator=generator))
        words = {"type": "text", "text": f"a red fox {number % 7}"}
        messages = [{"role": "user", "content": [words]}, {"role": "assistant", "content": [words, item]}]
        documents.append({"task": "test", "seed": number, "messages": messages})
    folder.mkdir(parents=True)
    write_shard(shard_path(folder, 0), documents, latents)


def write_config(folder: Path, name: str, *, steps: int) -> Path:
    """Write the config of a tiny run that saves at every second step."""
    values = {
        "output": str(folder / name),
        "precision": "float32",
        "model": MODEL,
        "tokenizer": str(REPOSITORY / "tokenizers" / "text" / "nano"),
        "data": {"path": str(folder / "data"), "validation_documents": 0},
        "batch": {"row_length": 96, "num_rows": 1, "num_noisy": 1},
        "schedule": {"steps": steps, "warmup": 2},
        "report": {"log_every": 100, "save_every": 2, "keep": 2},
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def run(config: Path, *, is_slow: bool) -> None:
    """Train, in a process of its own; where is_slow, state.pt is written bit by bit, so that kills fall into it."""
    from training.config import load_config
    from training.loop import train

    torch.set_num_threads(1)
    os.dup2(os.open(config.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    real = torch.save

    def save(state: Any, path: Path) -> None:
        real(state, path)
        data = path.read_bytes()
        with path.open("wb", buffering=0) as file:
            for start in range(0, len(data), CHUNK_BYTES):
                file.write(data[start : start + CHUNK_BYTES])
                time.sleep(PAUSE_S)

    if is_slow:
        torch.save = save
    train(load_config(config))


def finish(config: Path, output: Path, *, is_slow: bool) -> tuple[float, float]:
    """Let a run go to its end; return the seconds until its first checkpoint, and until its end."""
    began, first = time.perf_counter(), 0.0
    process = FORK.Process(target=run, args=(config,), kwargs={"is_slow": is_slow})
    process.start()
    while process.exitcode is None:
        process.join(0.01)
        if not first and any(output.glob("step-*")):
            first = time.perf_counter() - began
    assert process.exitcode == 0, config.with_suffix(".log").read_text()[-2000:]
    return first, time.perf_counter() - began


def kill_once(config: Path, after_s: float) -> bool:
    """Start a run and kill it; False where it was at its end before."""
    process = FORK.Process(target=run, args=(config,), kwargs={"is_slow": True})
    process.start()
    process.join(after_s)
    if process.exitcode is not None:
        assert process.exitcode == 0, config.with_suffix(".log").read_text()[-2000:]
        return False
    process.kill()
    process.join()
    return True


def check(folder: Path, *, kills: int, steps: int, seed: int = 0) -> dict[str, int]:
    """Kill a run so many times, resume it each time, and compare its end with an undisturbed one.

    Args:
        folder: empty.
        kills: how many.
        steps: of the run, which must be long enough for them.
        seed: of the moments.
    """
    import training.loop  # noqa: F401  imported once, here, and by no child again
    from training.checkpoint import latest_checkpoint, load_checkpoint

    write_data(folder / "data")
    randomness = random.Random(seed)
    figures = {"kills": 0, "in_saving": 0, "with_progress": 0}
    first, end = finish(write_config(folder, "whole", steps=steps), folder / "whole", is_slow=True)
    latest = first + (end - first) * STEPS_A_LIFE / steps
    config, output, last = write_config(folder, "killed", steps=steps), folder / "killed", -1
    while figures["kills"] < kills and kill_once(config, randomness.uniform(0.6 * first, latest)):
        figures["kills"] += 1
        figures["in_saving"] += any(output.glob(".step-*.part"))
        newest = latest_checkpoint(output)
        assert newest is not None or last < 0, "a kill has left no loadable checkpoint"
        if newest is not None:
            step = int(load_checkpoint(newest)["step"])
            assert step >= last, f"after a kill the newest checkpoint is of step {step}, before it was {last}"
            figures["with_progress"] += step > last
            last = step
    finish(config, output, is_slow=False)
    ends = [latest_checkpoint(folder / name) for name in ("whole", "killed")]
    assert all(ends), "a run has left no checkpoint"
    mine, theirs = (load_checkpoint(end)["engine"] for end in ends if end is not None)
    for name, weight in mine["model"].items():
        assert torch.equal(weight, theirs["model"][name]), f"{name} differs from the undisturbed run's"
    for one, other in zip(mine["ema"]["shadow_params"], theirs["ema"]["shadow_params"], strict=True):
        assert torch.equal(one, other), "averaged weights differ from the undisturbed run's"
    return figures


def main(
    kills: Annotated[int, typer.Option(help="how many")] = 50,
    seed: Annotated[int, typer.Option(help="of the moments")] = 0,
) -> None:
    """Kill a training again and again, and compare it with an undisturbed one."""
    with tempfile.TemporaryDirectory() as folder:
        typer.echo(json.dumps(check(Path(folder), kills=kills, steps=8 * kills, seed=seed)))


if __name__ == "__main__":
    typer.run(main)
