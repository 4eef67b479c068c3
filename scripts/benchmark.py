"""Compare with peers and with the machine, side by side in one run.

    python scripts/benchmark.py [--json FILE] [--markdown FILE] [--only NAME] [--rounds N] [--clock wall|cpu]

Needs the extra `bench`. Every row compares two sides, each in a process of its own that waits while the other
works. They take turns, and the ratio is the median over the rounds, so that a busy machine slows both alike.
Before the rounds each side tries its variants (scripts/benchmark_sides.py) and keeps the fastest.
"""

import argparse
import json
import multiprocessing as mp
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from omni.errors import ConfigError, OmniError  # noqa: E402
from omni.memory import keep_freed_memory  # noqa: E402
from omni.solvers import num_evaluations  # noqa: E402
from scripts import benchmark_sides as sides  # noqa: E402


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        ours: builds our side on a device.
        peer: builds the other.
        unit: what both are measured in.
        amounts: how many units one piece of work is, on each side.
        note: what is compared, for readers.
    """

    ours: Callable[[str], sides.Variants]
    peer: Callable[[str], sides.Variants]
    unit: str
    amounts: Callable[[], tuple[float, float]]
    note: str


@dataclass(frozen=True)
class Figure:
    """A row's result. ratio is larger when we are better; peak_memory_mb is our process's."""

    ours: float
    peer: float
    ratio: float
    unit: str
    peak_memory_mb: float


def _gigaflop() -> tuple[float, float]:
    config = sides.large_config()
    return sides.training_flop(config, sides.large_batch(config)) / 1e9, sides.PEAK_FLOP / 1e9


_DECODE_NOTE = f"{sides.NEW_TEXT_TOKENS} tokens after {sides.TEXT_LENGTHS[0]}, greedy, one conversation, cache on"
_EVALUATIONS = num_evaluations(sides.PICTURE_SOLVER, sides.PICTURE_STEPS)

ROWS: Mapping[str, Row] = {
    "train_step/transfusion_pytorch": Row(
        sides.our_train_step,
        sides.peer_train_step,
        "tokens/s",
        lambda: (sides.NUM_DOCUMENTS * sides.DOCUMENT_TOKENS,) * 2,
        f"{sides.NUM_DOCUMENTS} documents a step, packing and AdamW included; copies and control ids not counted",
    ),
    "picture/transfusion_pytorch": Row(
        sides.our_picture,
        sides.peer_picture,
        "pictures/s",
        lambda: (1, 1),
        f"{sides.BLOCK_TOKENS} tokens, {_EVALUATIONS} guided evaluations on both sides, no codec on either",
    ),
    "decode/transfusion_pytorch": Row(
        sides.our_decode,
        sides.peer_decode,
        "tokens/s",
        lambda: (sides.NEW_TEXT_TOKENS,) * 2,
        f"{_DECODE_NOTE}; both sides may go on to a picture",
    ),
    "decode_int8/transfusion_pytorch": Row(
        sides.our_decode_int8,
        sides.peer_decode,
        "tokens/s",
        lambda: (sides.NEW_TEXT_TOKENS,) * 2,
        f"{_DECODE_NOTE}; our text phase with weights of eight bits",
    ),
    "decode/transfusion_pytorch_text_only": Row(
        sides.our_decode,
        sides.peer_decode_text_only,
        "tokens/s",
        lambda: (sides.NEW_TEXT_TOKENS,) * 2,
        f"{_DECODE_NOTE}; the peer's sampler for models of text alone",
    ),
    "train_step/gemm_peak": Row(
        sides.large_train_step,
        sides.machine_peak,
        "GFLOP/s",
        _gigaflop,
        f"width {sides.LARGE_WIDTH}, depth {sides.LARGE_DEPTH}, {sides.LARGE_TOKENS} tokens in rows of "
        f"{sides.LARGE_ROW}, float32, AdamW included, against the best float32 matrix product",
    ),
}


def serve(build: Callable[[str], sides.Variants], device: str, clock: str, connection: Connection) -> None:
    """Build a side, try its variants, then work once for every message; runs in the side's own process.

    Args:
        build: makes the variants.
        device: where they run.
        clock: "wall" or "cpu".
        connection: takes True for another turn and False for the end; gives the chosen variant, then the
            seconds of each turn, then the peak memory in MB. An OmniError comes in place of the variant.
    """
    keep_freed_memory()
    torch.manual_seed(0)
    if clock == "cpu":
        torch.set_num_threads(1)
    try:
        variants = build(device)
    except OmniError as error:
        connection.send(error)
        return
    for work in variants.values():
        work()
    tried = {name: _seconds(work, device, clock) for name, work in variants.items()}
    best = min(tried, key=tried.__getitem__)
    connection.send(best)
    while connection.recv():
        connection.send(_seconds(variants[best], device, clock))
    connection.send(_peak_memory_mb(device))


def _seconds(work: sides.Work, device: str, clock: str) -> float:
    now = time.process_time if clock == "cpu" else time.perf_counter
    if device == "cuda":
        torch.cuda.synchronize()
    start = now()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return now() - start


def _peak_memory_mb(device: str) -> float:
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest / (1e6 if sys.platform == "darwin" else 1e3)


@contextmanager
def _side(build: Callable[[str], sides.Variants], device: str, clock: str) -> Any:
    """Run a side in a process; yield its pipe and the variant that it chose."""
    context = mp.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(build, device, clock, there), daemon=True)
    process.start()
    there.close()
    try:
        answer = here.recv()
        if isinstance(answer, OmniError):
            raise answer
        yield here, answer
    finally:
        process.terminate()
        process.join()


def measure(row: Row, *, rounds: int, device: str = "cpu", clock: str = "wall") -> tuple[Figure, tuple[str, str]]:
    """Let the two sides of a row take turns.

    Args:
        row: what to compare.
        rounds: turns of each side.
        device: "cpu" or "cuda".
        clock: "wall", or "cpu" for one thread timed by its own work.

    Returns:
        the figure, and the variant that each side chose.

    Raises:
        ConfigError: a peer is not installed, or rounds is not positive.
    """
    if rounds < 1:
        raise ConfigError(f"rounds is {rounds}; at least 1 is needed")
    times: list[list[float]] = []
    # The second side starts when the first has chosen: two that try variants at once would disturb each other.
    with _side(row.ours, device, clock) as (ours, our_choice), _side(row.peer, device, clock) as (peer, peer_choice):
        for _ in range(rounds):
            times.append([_turn(ours), _turn(peer)])
        ours.send(False)
        memory = ours.recv()
    rates = [[amount / taken for amount, taken in zip(row.amounts(), pair, strict=True)] for pair in times]
    ratio = statistics.median(mine / other for mine, other in rates)
    our_rate, peer_rate = (statistics.median(column) for column in zip(*rates, strict=True))
    figure = Figure(round(our_rate, 3), round(peer_rate, 3), round(ratio, 3), row.unit, round(memory, 1))
    return figure, (our_choice, peer_choice)


def _turn(pipe: Connection) -> float:
    pipe.send(True)
    return pipe.recv()


PAGE = """# Benchmarks

Written by `python scripts/benchmark.py --markdown docs/BENCHMARKS.md`; do not edit by hand.

{machine}. The sides of a row took turns, {rounds} rounds; the ratio is the median over the rounds, larger when we
are better (for `gemm_peak` it is the share of the peak that is reached). Each side ran in the fastest of its
variants.

| row | ours | peer | ratio | unit | peak memory, MB | variants (ours; peer) | what |
|---|---|---|---|---|---|---|---|
{rows}
"""


def page(results: Mapping[str, Figure], chosen: Mapping[str, tuple[str, str]], *, rounds: int, clock: str) -> str:
    """Return the results as Markdown.

    Args:
        results: row name -> figure.
        chosen: row name -> variant of each side.
        rounds: as measured.
        clock: as measured.
    """
    threads = 1 if clock == "cpu" else torch.get_num_threads()
    lines = [
        f"| `{name}` | {f.ours:,.4g} | {f.peer:,.4g} | {f.ratio:.2f} | {f.unit} | {f.peak_memory_mb:,.0f} "
        f"| {'; '.join(chosen[name])} | {ROWS[name].note} |"
        for name, f in results.items()
    ]
    machine = f"torch {torch.__version__}, {threads} CPU thread(s), {clock} time"
    return PAGE.format(machine=machine, rounds=rounds, rows="\n".join(lines))


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Compare with peers and with the machine.")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--markdown", type=Path, help="write them as a page to this file")
    parser.add_argument("--only", choices=ROWS, action="append", help="run this row alone; may be repeated")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    clock_help = "cpu: one thread, timed by its own work; for a machine that is busy with something else"
    parser.add_argument("--clock", default="wall", choices=("wall", "cpu"), help=clock_help)
    return parser.parse_args(arguments)


def main() -> None:
    """Run the rows and write what was asked for."""
    options = parse_arguments()
    results: dict[str, Figure] = {}
    chosen: dict[str, tuple[str, str]] = {}
    for name in options.only or ROWS:
        results[name], chosen[name] = measure(
            ROWS[name], rounds=options.rounds, device=options.device, clock=options.clock
        )
        print(name, json.dumps(asdict(results[name])), *chosen[name], sep="  ", flush=True)
    if options.json:
        text = json.dumps({name: asdict(figure) for name, figure in results.items()}, indent=2)
        options.json.write_text(text + "\n", encoding="utf-8")
    if options.markdown:
        text = page(results, chosen, rounds=options.rounds, clock=options.clock)
        options.markdown.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except OmniError as error:
        sys.exit(f"error: {error}")
