"""Compare with peers and with the machine, side by side in one run.

    python scripts/benchmark.py [--json FILE] [--markdown FILE] [--only NAME] [--rounds N] [--clock wall|cpu]

Needs the extra `bench`. Every row compares two sides, each in a process of its own that waits while the other
works. They take turns, and the ratio is the median over the rounds, so that a busy machine slows both alike.
Before the rounds each side tries its own variants (number format, ways to call it) and keeps the fastest.

Both sides get width 384, depth 8, 6 heads of 64, 512 text ids, and documents of 24 text tokens, 16 latent tokens
of 64 numbers, 8 text tokens and 16 latent tokens.
"""

import argparse
import json
import math
import multiprocessing as mp
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from omni import OmniConfig, OmniModel
from omni.chat import ChatTemplate
from omni.errors import ConfigError, OmniError
from omni.flow import sample_sigma
from omni.generate import GenerationSettings, Generator, Request
from omni.guidance import GuidanceConfig
from omni.losses import loss_counts, loss_sums
from omni.masks import dense_mask
from omni.memory import keep_freed_memory
from omni.sequence import FlatDocument, Medium, PackedBatch, Segment, TextRun, flatten, pack
from omni.solvers import num_evaluations
from omni.text import CONTROL_TOKENS

PEER = "transfusion-pytorch"
NUM_TEXT_IDS, LATENT_DIM = 512, 64
WIDTH, DEPTH, HEADS, HEAD_DIM = 384, 8, 6, 64
TEXT_LENGTHS, BLOCK_SHAPE = (24, 8), (4, 4)
BLOCK_TOKENS = math.prod(BLOCK_SHAPE)
DOCUMENT_TOKENS = sum(TEXT_LENGTHS) + 2 * BLOCK_TOKENS
NUM_DOCUMENTS = 16
NEW_TEXT_TOKENS = 64
# The peer's own default: midpoint over 16 times, which is 15 steps, with guidance of 3.
PICTURE_STEPS, PICTURE_SOLVER, GUIDANCE_SCALE = 15, "midpoint", 3.0
# The row that is compared with the machine instead of a peer.
LARGE_WIDTH, LARGE_DEPTH, LARGE_TOKENS, LARGE_ROW = 768, 12, 4096, 512

Work = Callable[[], object]
# One side of a row: names of its variants, and what each does once. The side's unit count is in the row.
Variants = dict[str, Work]


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        unit: what ours and peer are measured in.
        amount: how many units one piece of work is, on each side.
        ours: builds our side.
        peer: builds the other.
        is_share: whether ratio is ours over peer of two rates, rather than of two speeds at the same work.
    """

    unit: str
    amount: Callable[[], tuple[float, float]]
    ours: Callable[[str], Variants]
    peer: Callable[[str], Variants]
    note: str


@dataclass(frozen=True)
class Figure:
    """A row of the result. ratio is larger when we are better; peak_memory_mb is that of our process."""

    ours: float
    peer: float
    ratio: float
    unit: str
    peak_memory_mb: float


# What both sides share.


def is_bfloat16_worth_trying(device: str) -> bool:
    """Whether matrices multiply at least as fast in bfloat16; where they do not, a whole step takes minutes."""

    def seconds(dtype: torch.dtype) -> float:
        x = torch.ones(256, 256, dtype=dtype, device=device)
        x @ x
        start = time.perf_counter()
        float((x @ x).sum())
        return time.perf_counter() - start

    return seconds(torch.bfloat16) <= seconds(torch.float32)


def in_each_precision(work: Callable[[], object], device: str, *, name: str = "") -> Variants:
    """Return the work in float32 and, where it may pay, under bfloat16 autocast."""

    def cast() -> object:
        with torch.autocast(device, dtype=torch.bfloat16):
            return work()

    variants: Variants = {f"{name}float32": work}
    if is_bfloat16_worth_trying(device):
        variants[f"{name}bfloat16"] = cast
    return variants


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    """Return the optimiser of both sides."""
    return torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)


def random_ids(count: int) -> Tensor:
    return torch.randint(0, NUM_TEXT_IDS, (count,))


# Our side.


class PlainTokenizer:
    """Ids without words, so that the work measured is the model's on both sides."""

    num_text_ids = NUM_TEXT_IDS

    def control(self, name: str) -> int:
        return NUM_TEXT_IDS + CONTROL_TOKENS.index(name)

    def stream_decoder(self) -> "PlainTokenizer":
        return self

    def push(self, token: int) -> str:
        return "x"

    def flush(self) -> str:
        return ""


class NoCodec:
    """Stands where a codec would: the peer's figures are without one too."""

    spatial_factor = 8

    def decode(self, latents: Tensor) -> Tensor:
        return torch.zeros(*latents.shape[:2], 1, 1, 3, dtype=torch.uint8)


def our_model(*, width: int = WIDTH, depth: int = DEPTH) -> OmniModel:
    """Build a model with two experts, as we ship it; feed-forward of the peer's size."""
    expert = {"width": width, "ffn_dim": width * 8 // 3}
    stream = {"channels": LATENT_DIM // 4, "patch_size": 2, "expert": "vision", "base_tokens": BLOCK_TOKENS}
    config = OmniConfig(
        num_text_ids=NUM_TEXT_IDS,
        num_control_ids=len(CONTROL_TOKENS),
        num_layers=depth,
        num_heads=width // HEAD_DIM,
        head_dim=HEAD_DIM,
        experts={"text": expert, "vision": expert},
        streams={"vision": stream},
        stream_of={"image": "vision"},
    )
    return OmniModel(config)


def our_document() -> list[Segment]:
    """Return a document of the shared shape, all of it to be learnt."""
    template = ChatTemplate(PlainTokenizer().control)
    document: list[Segment] = []
    for length in TEXT_LENGTHS:
        latents = torch.randn(1, *BLOCK_SHAPE, LATENT_DIM)
        document.append(TextRun(tuple(random_ids(length).tolist()), is_target=True))
        header = template.header("image", BLOCK_SHAPE)
        document.append(Medium("image", header, template.media_end, latents, is_target=True))
    return document


def our_step(model: OmniModel, next_batch: Callable[[], PackedBatch]) -> Work:
    """Return one training step: pack, forward, backward, optimiser."""
    optimizer = adamw(model.train())

    def step() -> None:
        batch = next_batch().to(model.device)
        sums, counts = loss_sums(model, batch), loss_counts(batch)
        loss = sums.text / counts.text + sums.flow["vision"] / counts.flow["vision"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def draw_sigma(shifts: Tensor) -> Tensor:
    return sample_sigma(shifts, generator=None)


def our_train_step(device: str) -> Variants:
    model, documents = our_model().to(device), [our_document() for _ in range(NUM_DOCUMENTS)]

    def batch_of(per_row: int) -> Callable[[], PackedBatch]:
        def next_batch() -> PackedBatch:
            flats = [flatten(document, model.config) for document in documents]
            rows = [flats[start : start + per_row] for start in range(0, len(flats), per_row)]
            return pack(rows, sample_sigma=draw_sigma)

        return next_batch

    variants: Variants = {}
    for per_row in (1, 4):
        variants |= in_each_precision(our_step(model, batch_of(per_row)), device, name=f"{per_row} a row, ")
    return variants


def our_generator(model: OmniModel) -> Generator:
    codecs: Any = {"vision": NoCodec()}
    tokenizer: Any = PlainTokenizer()
    return Generator(model.eval(), tokenizer, codecs)


def our_picture(device: str) -> Variants:
    generator = our_generator(our_model().to(device))
    prompt = TextRun(tuple(random_ids(TEXT_LENGTHS[0]).tolist()))
    settings = GenerationSettings(
        steps=PICTURE_STEPS, solver=PICTURE_SOLVER, guidance=GuidanceConfig(scale=GUIDANCE_SCALE)
    )

    def picture() -> None:
        list(generator.run([Request([prompt], seed=0, forced=("image", BLOCK_SHAPE))], settings))

    return in_each_precision(picture, device)


def our_decode(device: str) -> Variants:
    generator = our_generator(our_model().to(device))
    prompt = TextRun(tuple(random_ids(TEXT_LENGTHS[0]).tolist()))
    settings = GenerationSettings(max_new_tokens=NEW_TEXT_TOKENS, max_media=0, temperature=0.0)

    def decode() -> None:
        events = list(generator.run([Request([prompt], seed=0)], settings))
        assert len(events) == NEW_TEXT_TOKENS, f"{len(events)} tokens: the untrained model ended its reply"

    return in_each_precision(decode, device)


# The peer's side.


def peer_model(**settings: Any) -> nn.Module:
    """Build the peer's model, or say which extra holds it."""
    try:
        from loguru import logger
        from transfusion_pytorch import Transfusion, transfusion
    except ImportError as error:
        raise ConfigError(f"{error.name} is not installed; run: pip install 'omni-transfusion[bench]'") from error
    logger.disable("transfusion_pytorch")
    # Its progress bars write to the terminal at every token.
    transfusion.tqdm = lambda *args, **kwargs: _Silent(*args)
    transformer = {"dim": WIDTH, "depth": DEPTH, "heads": HEADS, "dim_head": HEAD_DIM}
    return Transfusion(
        num_text_tokens=NUM_TEXT_IDS,
        dim_latent=LATENT_DIM,
        modality_default_shape=BLOCK_SHAPE,
        transformer=transformer,
        **settings,
    )


class _Silent:
    """A progress bar that shows nothing."""

    def __init__(self, items: Sequence[Any] = ()) -> None:
        self._items = items

    def __enter__(self) -> "_Silent":
        return self

    def __exit__(self, *error: object) -> None: ...

    def __iter__(self) -> Any:
        return iter(self._items)

    def update(self, count: int) -> None: ...

    def set_description(self, text: str) -> None: ...


def peer_train_step(device: str) -> Variants:
    """Its forward takes documents as lists, and packs them itself; all its faster ways to do so compete."""
    documents = [
        [part for length in TEXT_LENGTHS for part in (random_ids(length), torch.randn(*BLOCK_SHAPE, LATENT_DIM))]
        for _ in range(NUM_DOCUMENTS)
    ]
    documents = [[part.to(device) for part in document] for document in documents]
    variants: Variants = {}
    for packing in ("grouped", "flat"):
        model = peer_model(modality_processing=packing).to(device)
        variants |= in_each_precision(_peer_step(model, documents), device, name=f"{packing}, ")
    return variants


def _peer_step(model: nn.Module, documents: Sequence[Sequence[Tensor]]) -> Work:
    optimizer = adamw(model)

    def step() -> None:
        model(documents).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def peer_picture(device: str) -> Variants:
    """Both its samplers compete: one recomputes the prompt at every evaluation, the other keeps a cache."""
    model: Any = peer_model().to(device).eval()
    prompt = random_ids(TEXT_LENGTHS[0]).to(device)
    wanted = {"max_length": 1, "force_modality_at_start": (0, BLOCK_SHAPE), "cfg_scale": GUIDANCE_SCALE}
    wanted |= {"modality_steps": PICTURE_STEPS + 1, "return_without_prompt": True}

    def one() -> None:
        model.sample_one(prompt, **wanted)

    def many() -> None:
        model.sample_many([prompt], **wanted)

    return in_each_precision(one, device, name="alone, ") | in_each_precision(many, device, name="cached, ")


def peer_decode(device: str) -> Variants:
    model: Any = peer_model().to(device).eval()
    prompt = random_ids(TEXT_LENGTHS[0]).unsqueeze(0).to(device)

    def decode() -> None:
        model.generate_text_only(prompt, prompt.shape[1] + NEW_TEXT_TOKENS, temperature=0.0, cache_kv=True)

    return in_each_precision(decode, device)


# The machine's peak.


def large_batch(config: OmniConfig) -> PackedBatch:
    """Fill rows with documents of the shared shape; what is left of a row is text."""
    rows: list[list[FlatDocument]] = []
    for _ in range(LARGE_TOKENS // LARGE_ROW):
        row: list[FlatDocument] = []
        while (room := LARGE_ROW - sum(map(len, row))) > 0:
            flat = flatten(our_document(), config)
            row.append(flat if len(flat) <= room else _text_document(room))
        rows.append(row)
    return pack(rows, length=LARGE_ROW, sample_sigma=draw_sigma)


def _text_document(length: int) -> FlatDocument:
    flat = FlatDocument()
    flat.add_text(random_ids(length).tolist(), is_target=True)
    return flat


def large_model() -> OmniModel:
    return our_model(width=LARGE_WIDTH, depth=LARGE_DEPTH)


def large_train_step(device: str) -> Variants:
    model = large_model().to(device)
    batch = large_batch(model.config)
    return {"float32": our_step(model, lambda: batch)}


def training_flop(config: OmniConfig, batch: PackedBatch) -> float:
    """Count the matrix-multiply work that a training step needs, in FLOP.

    6 for each weight and token that meets it (2 forward, 4 backward), and 12 * width for each pair of tokens that
    may see each other: masked pairs, recomputation, norms, AdaLN and the optimiser count as no work.
    """
    tokens = {"text": int((batch.modality == 0).sum()), "vision": len(batch.latents["vision"])}
    heads_dim = config.num_heads * config.head_dim
    flop = 0.0
    for name, sizes in config.experts.items():
        weights = 4 * sizes["width"] * heads_dim + 3 * sizes["width"] * sizes["ffn_dim"]
        flop += 6 * config.num_layers * weights * tokens[name]
    flop += 6 * config.experts["vision"]["width"] * 2 * LATENT_DIM * tokens["vision"]
    flop += 6 * config.experts["text"]["width"] * config.vocab_size * len(batch.logit_index)
    return flop + 12 * config.num_layers * heads_dim * int(dense_mask(batch.attention).sum())


def machine_peak(device: str) -> Variants:
    """Square products large enough to reach the peak, and the shapes of the model's own layers."""

    def product(rows: int, inner: int, columns: int) -> Work:
        one, other = torch.randn(rows, inner, device=device), torch.randn(inner, columns, device=device)
        # As many repeats as make every shape the same amount of work.
        repeats = round(PEAK_FLOP / (2 * rows * inner * columns))
        return lambda: [one @ other for _ in range(repeats)]

    return {str(shape): product(*shape) for shape in PEAK_SHAPES}


PEAK_SHAPES = ((2048, 2048, 2048), (4096, 768, 2048), (4096, 2048, 768), (4096, 1024, 1024))
PEAK_FLOP = 2 * 2048**3 * 3


def large_amounts() -> tuple[float, float]:
    torch.manual_seed(0)
    with torch.device("meta"):
        config = large_model().config
    return training_flop(config, large_batch(config)) / 1e9, PEAK_FLOP / 1e9


ROWS: Mapping[str, Row] = {
    f"train_step/{PEER.replace('-', '_')}": Row(
        "tokens/s",
        lambda: (NUM_DOCUMENTS * DOCUMENT_TOKENS,) * 2,
        our_train_step,
        peer_train_step,
        f"{NUM_DOCUMENTS} documents a step, packing and AdamW included; copies and control tokens not counted",
    ),
    f"picture/{PEER.replace('-', '_')}": Row(
        "pictures/s",
        lambda: (1, 1),
        our_picture,
        peer_picture,
        f"{BLOCK_TOKENS} tokens, {num_evaluations(PICTURE_SOLVER, PICTURE_STEPS)} guided evaluations "
        f"({PICTURE_SOLVER}), without a codec",
    ),
    f"decode/{PEER.replace('-', '_')}": Row(
        "tokens/s",
        lambda: (NEW_TEXT_TOKENS,) * 2,
        our_decode,
        peer_decode,
        f"{NEW_TEXT_TOKENS} tokens after {TEXT_LENGTHS[0]}, greedy, one conversation, cache on",
    ),
    "train_step/gemm_peak": Row(
        "GFLOP/s",
        large_amounts,
        large_train_step,
        machine_peak,
        f"width {LARGE_WIDTH}, depth {LARGE_DEPTH}, {LARGE_TOKENS} tokens in rows of {LARGE_ROW}, float32, AdamW "
        "included, against the machine's best float32 matrix product",
    ),
}


# Measuring.


def _serve(build: Callable[[str], Variants], device: str, clock: str, connection: Connection) -> None:
    """Build a side, try its variants, then do its work once for every message, answering with the seconds."""
    try:
        keep_freed_memory()
        torch.manual_seed(0)
        if clock == "cpu":
            torch.set_num_threads(1)
        variants = build(device)
        tried = {name: _seconds(work, device, clock, warm_up=True) for name, work in variants.items()}
    except OmniError as error:
        connection.send(error)
        return
    best = min(tried, key=tried.__getitem__)
    connection.send(best)
    while connection.recv():
        connection.send(_seconds(variants[best], device, clock))
    connection.send(_peak_memory_mb(device))


def _seconds(work: Work, device: str, clock: str, *, warm_up: bool = False) -> float:
    now = time.process_time if clock == "cpu" else time.perf_counter
    if warm_up:
        work()
    _wait(device)
    start = now()
    work()
    _wait(device)
    return now() - start


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _peak_memory_mb(device: str) -> float:
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes / 1e3 if sys.platform != "darwin" else kilobytes / 1e6


def measure(row: Row, *, rounds: int, device: str, clock: str) -> tuple[Figure, tuple[str, str]]:
    """Let the sides of a row take turns.

    Returns:
        the figure, and the variant that each side chose.
    """
    context = mp.get_context("spawn")
    sides = []
    for build in (row.ours, row.peer):
        here, there = context.Pipe()
        process = context.Process(target=_serve, args=(build, device, clock, there), daemon=True)
        process.start()
        there.close()
        sides.append((process, here))
        # One after the other: two sides that try their variants at once would disturb each other.
        answer = here.recv()
        if isinstance(answer, OmniError):
            raise answer
        sides[-1] = (process, here, answer)
    times: list[list[float]] = [[], []]
    for _ in range(rounds):
        for (_, pipe, _), taken in zip(sides, times, strict=True):
            pipe.send(True)
            taken.append(pipe.recv())
    for _, pipe, _ in sides:
        pipe.send(False)
    memory = [pipe.recv() for _, pipe, _ in sides]
    for process, _, _ in sides:
        process.join()
    return _figure(row, times, memory[0]), (sides[0][2], sides[1][2])


def _figure(row: Row, times: Sequence[Sequence[float]], memory: float) -> Figure:
    rates = [[amount / seconds for seconds in taken] for amount, taken in zip(row.amount(), times, strict=True)]
    ratio = statistics.median(ours / peer for ours, peer in zip(*rates, strict=True))
    ours, peer = map(statistics.median, rates)
    return Figure(round(ours, 3), round(peer, 3), round(ratio, 3), row.unit, round(memory, 1))


MARKDOWN = """# Benchmarks

Written by `python scripts/benchmark.py --markdown docs/BENCHMARKS.md`; do not edit by hand.

{machine}.
Both sides of a row ran in turns, {rounds} rounds; the ratio is the median over the rounds, larger when we are
better (for `gemm_peak` it is the share of the peak). Each side ran in the fastest of its variants.

| row | ours | peer | ratio | unit | peak memory (MB) | variants (ours; peer) | what |
|---|---|---|---|---|---|---|---|
{rows}
"""


def markdown(results: Mapping[str, Figure], chosen: Mapping[str, tuple[str, str]], *, rounds: int, clock: str) -> str:
    """Write the results as a page."""
    cpus = 1 if clock == "cpu" else torch.get_num_threads()
    machine = f"torch {torch.__version__}, {cpus} thread(s), timed by {clock} time"
    lines = [
        f"| `{name}` | {f.ours:,.4g} | {f.peer:,.4g} | {f.ratio:.2f} | {f.unit} | {f.peak_memory_mb:,.0f} "
        f"| {'; '.join(chosen[name])} | {ROWS[name].note} |"
        for name, f in results.items()
    ]
    return MARKDOWN.format(machine=machine, rounds=rounds, rows="\n".join(lines))


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--markdown", type=Path, help="write them as a page here")
    parser.add_argument("--only", choices=ROWS, action="append", help="run this row alone; may be repeated")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument(
        "--clock",
        default="wall",
        choices=("wall", "cpu"),
        help="cpu: one thread, timed by its own work; for a machine that is busy with something else",
    )
    return parser.parse_args(arguments)


def main() -> None:
    options = parse_arguments()
    results: dict[str, Figure] = {}
    chosen: dict[str, tuple[str, str]] = {}
    try:
        for name in options.only or ROWS:
            results[name], chosen[name] = measure(
                ROWS[name], rounds=options.rounds, device=options.device, clock=options.clock
            )
            print(f"{name}: {results[name]}  variants: {chosen[name]}", flush=True)
    except OmniError as error:
        sys.exit(f"error: {error}")
    if options.json:
        options.json.write_text(json.dumps({k: asdict(v) for k, v in results.items()}, indent=2) + "\n")
    if options.markdown:
        options.markdown.write_text(markdown(results, chosen, rounds=options.rounds, clock=options.clock))


if __name__ == "__main__":
    main()
