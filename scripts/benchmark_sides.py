"""What scripts/benchmark.py measures: the same work on our side, on the peer's, and on the bare machine.

Both sides get the same width, depth and heads, the same optimiser, and documents of the same parts. Each side
offers variants (number format, packing, ways to call it), of which the fastest is taken.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from omni import OmniConfig, OmniModel
from omni.chat import ChatTemplate
from omni.decode import quantize_text
from omni.errors import ConfigError
from omni.flow import sample_sigma
from omni.generate import Forced, Generator, Request
from omni.guidance import GuidanceConfig
from omni.losses import loss_counts, loss_sums
from omni.masks import dense_mask
from omni.sequence import FlatDocument, Grid, Medium, PackedBatch, Segment, TextRun, flatten, pack
from omni.settings import GenerationSettings
from omni.studio import Studio
from omni.text import CONTROL_TOKENS
from training.engine import best_precision

Work = Callable[[], object]
Variants = dict[str, Work]

NUM_TEXT_IDS, LATENT_DIM = 512, 64
WIDTH, DEPTH, HEAD_DIM = 384, 8, 64
TEXT_LENGTHS, BLOCK_SHAPE = (24, 8), (4, 4)
BLOCK_TOKENS = math.prod(BLOCK_SHAPE)
DOCUMENT_TOKENS = sum(TEXT_LENGTHS) + len(TEXT_LENGTHS) * BLOCK_TOKENS
NUM_DOCUMENTS = 16
NEW_TEXT_TOKENS = 64
# The peer's own defaults: midpoint over 16 times, which makes 15 steps, and guidance of 3.
PICTURE_STEPS, PICTURE_SOLVER, GUIDANCE_SCALE = 15, "midpoint", 3.0
LARGE_WIDTH, LARGE_DEPTH, LARGE_TOKENS, LARGE_ROW = 768, 12, 4096, 512
PEAK_SHAPES = ((2048, 2048, 2048), (4096, 768, 2048), (4096, 2048, 768), (4096, 1024, 1024))
PEAK_FLOP = 3 * 2 * 2048**3


def in_each_precision(work: Work, device: str, *, name: str = "") -> Variants:
    """Return the work in float32 and, where the machine is fast at it, under bfloat16 autocast.

    Where it is not, a single step of the peer was seen to take minutes; hence the look before.

    Args:
        work: what to do.
        device: "cpu" or "cuda".
        name: put before the name of the number format.
    """

    def cast() -> object:
        with torch.autocast(device, dtype=torch.bfloat16):
            return work()

    variants = {f"{name}float32": work}
    if best_precision() == "bfloat16":
        variants[f"{name}bfloat16"] = cast
    return variants


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    """Return the optimiser of both sides."""
    return torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)


def random_ids(count: int) -> Tensor:
    """Draw text ids, [count]."""
    return torch.randint(0, NUM_TEXT_IDS, (count,))


# Our side.


class PlainTokenizer:
    """Ids without words, so that both sides do the model's work alone."""

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
    """Stands where a codec would: the peer is measured without one too."""

    spatial_factor = 8

    def decode(self, latents: Tensor) -> Tensor:
        return torch.zeros(*latents.shape[:2], 1, 1, 3, dtype=torch.uint8)


def our_config(*, width: int = WIDTH, depth: int = DEPTH) -> OmniConfig:
    """Describe a model with two experts, as the shipped one; its feed-forwards are as wide as the peer's."""
    expert = {"width": width, "ffn_dim": width * 8 // 3}
    stream = {"channels": LATENT_DIM // 4, "patch_size": 2, "expert": "vision", "base_tokens": BLOCK_TOKENS}
    return OmniConfig(
        num_text_ids=NUM_TEXT_IDS,
        num_control_ids=len(CONTROL_TOKENS),
        num_layers=depth,
        num_heads=width // HEAD_DIM,
        head_dim=HEAD_DIM,
        experts={"text": expert, "vision": expert},
        streams={"vision": stream},
        stream_of={"image": "vision"},
    )


def our_document() -> list[Segment]:
    """Draw a document of the shared parts, all of it to be learnt."""
    template = ChatTemplate(PlainTokenizer().control)
    document: list[Segment] = [TextRun((template.bos,))]
    for length in TEXT_LENGTHS:
        latents, header = torch.randn(1, *BLOCK_SHAPE, LATENT_DIM), template.header("image", BLOCK_SHAPE)
        document.append(TextRun(tuple(random_ids(length).tolist()), is_target=True))
        document.append(Medium(header, template.media_end, (Grid("image", latents),), is_target=True))
    return document


def our_step(model: OmniModel, next_batch: Callable[[], PackedBatch]) -> Work:
    """Return a training step: pack, forward, backward, optimiser.

    Args:
        model: trained in place.
        next_batch: makes the batch; its time counts.
    """
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
    """Offer rows of one document and of several."""
    model = OmniModel(our_config()).to(device)
    documents = [our_document() for _ in range(NUM_DOCUMENTS)]

    def batches_of(per_row: int) -> Callable[[], PackedBatch]:
        def next_batch() -> PackedBatch:
            flats = [flatten(document, model.config) for document in documents]
            rows = [flats[start : start + per_row] for start in range(0, len(flats), per_row)]
            return pack(rows, sample_sigma=draw_sigma)

        return next_batch

    variants: Variants = {}
    for per_row in (1, 4):
        variants |= in_each_precision(our_step(model, batches_of(per_row)), device, name=f"{per_row} a row, ")
    return variants


def our_generator(device: str) -> tuple[Generator, list[Segment]]:
    """Build an untrained model's generator, and a prompt."""
    codecs: Any = {"vision": NoCodec()}
    tokenizer: Any = PlainTokenizer()
    model = OmniModel(our_config()).to(device).eval()
    limits = {"max_block_tokens": BLOCK_TOKENS, "max_video_tokens": BLOCK_TOKENS, "max_audio_tokens": 1}
    studio = Studio(model.config, codecs, ChatTemplate(tokenizer.control), **limits)
    return Generator(model, tokenizer, studio), [TextRun(tuple(random_ids(TEXT_LENGTHS[0]).tolist()))]


def our_picture(device: str) -> Variants:
    """Offer the whole state machine for one forced picture, commit included."""
    generator, prompt = our_generator(device)
    guidance = GuidanceConfig(scale=GUIDANCE_SCALE)
    settings = GenerationSettings(steps=PICTURE_STEPS, solver=PICTURE_SOLVER, guidance=guidance)

    def picture() -> None:
        list(generator.run([Request(prompt, seed=0, forced=(Forced("image", BLOCK_SHAPE),))], settings))

    return in_each_precision(picture, device)


def our_decode(device: str) -> Variants:
    """Offer the whole state machine for text."""
    generator, prompt = our_generator(device)
    settings = GenerationSettings(max_new_tokens=NEW_TEXT_TOKENS, max_media=0, temperature=0.0)

    def decode() -> None:
        count = len(list(generator.run([Request(prompt, seed=0)], settings)))
        assert count == NEW_TEXT_TOKENS, f"the untrained model ended its reply after {count} tokens"

    return in_each_precision(decode, device)


def our_decode_int8(device: str) -> Variants:
    """Offer the same with weights of eight bits in the text phase."""
    generator, prompt = our_generator(device)
    quantize_text(generator.model)
    settings = GenerationSettings(max_new_tokens=NEW_TEXT_TOKENS, max_media=0, temperature=0.0)

    def decode() -> None:
        count = len(list(generator.run([Request(prompt, seed=0)], settings)))
        assert count == NEW_TEXT_TOKENS, f"the untrained model ended its reply after {count} tokens"

    return {"int8": decode}


# The peer's side: transfusion-pytorch.


class _Silent:
    """A progress bar that shows nothing; the peer's own write to the terminal at every token."""

    def __init__(self, items: Sequence[Any] = (), **settings: Any) -> None:
        self._items = items

    def __enter__(self) -> "_Silent":
        return self

    def __exit__(self, *error: object) -> None: ...

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items)

    def update(self, count: int) -> None: ...

    def set_description(self, text: str) -> None: ...


def peer_model(**settings: Any) -> Any:
    """Build the peer's model.

    Args:
        settings: passed on to its constructor.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        from loguru import logger
        from transfusion_pytorch import Transfusion, transfusion
    except ImportError as error:
        remedy = "pip install 'omni-transfusion[bench]'"
        raise ConfigError(f"the peer needs {error.name}, which is not installed; run: {remedy}") from error
    logger.disable("transfusion_pytorch")
    transfusion.tqdm = _Silent
    return Transfusion(
        num_text_tokens=NUM_TEXT_IDS,
        dim_latent=LATENT_DIM,
        modality_default_shape=BLOCK_SHAPE,
        transformer={"dim": WIDTH, "depth": DEPTH, "heads": WIDTH // HEAD_DIM, "dim_head": HEAD_DIM},
        **settings,
    )


def peer_train_step(device: str) -> Variants:
    """Offer the two fastest of its ways to pack documents, which its forward takes as lists."""
    documents = [
        [part.to(device) for n in TEXT_LENGTHS for part in (random_ids(n), torch.randn(*BLOCK_SHAPE, LATENT_DIM))]
        for _ in range(NUM_DOCUMENTS)
    ]
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
    """Offer both its samplers: one reads the prompt again at every evaluation, the other keeps a cache."""
    model = peer_model().to(device).eval()
    prompt = random_ids(TEXT_LENGTHS[0]).to(device)
    wanted: dict[str, Any] = {"max_length": 1, "force_modality_at_start": (0, BLOCK_SHAPE)}
    wanted |= {"modality_steps": PICTURE_STEPS + 1, "cfg_scale": GUIDANCE_SCALE, "return_without_prompt": True}

    def one() -> None:
        model.sample_one(prompt, **wanted)

    def many() -> None:
        model.sample_many([prompt], **wanted)

    return in_each_precision(one, device, name="one, ") | in_each_precision(many, device, name="cached, ")


def peer_decode(device: str) -> Variants:
    """Offer both its samplers that may go on to a picture, with the cache on."""
    model = peer_model().to(device).eval()
    prompt = random_ids(TEXT_LENGTHS[0]).to(device)
    with torch.no_grad():  # an untrained model would soon write the end, or a picture
        model.to_text_logits.weight[NUM_TEXT_IDS:] = 0
    # It writes one token more than max_length.
    wanted: dict[str, Any] = {"max_length": NEW_TEXT_TOKENS - 1, "text_temperature": 0.0, "cfg_scale": 1.0}

    def check(parts: Sequence[Any]) -> None:
        count = sum(part.numel() for part in parts if torch.is_tensor(part)) - len(prompt)
        assert count >= NEW_TEXT_TOKENS, f"the untrained peer ended its reply after {count} tokens"

    def one() -> None:
        check(model.sample_one(prompt, cache_kv=True, **wanted))

    def many() -> None:
        check(model.sample_many([prompt], **wanted)[0])

    return in_each_precision(one, device, name="one, ") | in_each_precision(many, device, name="many, ")


def peer_decode_text_only(device: str) -> Variants:
    """Offer its sampler for models of text alone, which cannot go on to a picture."""
    model = peer_model().to(device).eval()
    prompt = random_ids(TEXT_LENGTHS[0]).unsqueeze(0).to(device)

    def decode() -> None:
        model.generate_text_only(prompt, prompt.shape[1] + NEW_TEXT_TOKENS, temperature=0.0, cache_kv=True)

    return in_each_precision(decode, device)


# The machine's side.


def large_config() -> OmniConfig:
    """Describe the model whose step is held against the machine's peak."""
    return our_config(width=LARGE_WIDTH, depth=LARGE_DEPTH)


def large_batch(config: OmniConfig) -> PackedBatch:
    """Fill rows with documents of the shared parts; what is left of a row is text."""
    rows: list[list[FlatDocument]] = []
    for _ in range(LARGE_TOKENS // LARGE_ROW):
        row: list[FlatDocument] = []
        while (room := LARGE_ROW - sum(map(len, row))) > 0:
            flat = flatten(our_document(), config)
            if len(flat) > room:
                flat = flatten([TextRun(tuple(random_ids(room).tolist()), is_target=True)], config)
            row.append(flat)
        rows.append(row)
    return pack(rows, length=LARGE_ROW, sample_sigma=draw_sigma)


def large_train_step(device: str) -> Variants:
    """Offer the step in float32, the peak's own format."""
    model = OmniModel(large_config()).to(device)
    batch = large_batch(model.config)
    return {"float32": our_step(model, lambda: batch)}


def training_flop(config: OmniConfig, batch: PackedBatch) -> float:
    """Count the matrix-multiply work that a training step cannot do without, in FLOP.

    6 for each weight and each token that meets it (2 forward, 4 backward; 4 where the input needs no gradient),
    and 12 a head's width for each pair of tokens that see each other. Masked pairs, what is computed again in the
    backward pass, norms, modulation and the optimiser count as no work.

    Args:
        config: of the model.
        batch: what it learns from.
    """
    tokens = {"text": int((batch.modality == 0).sum()), "vision": len(batch.latents["vision"])}
    attention_dim = config.num_heads * config.head_dim
    flop = 12.0 * config.num_layers * attention_dim * int(dense_mask(batch.attention).sum())
    for name, sizes in config.experts.items():
        weights = sizes["width"] * (4 * attention_dim + 3 * sizes["ffn_dim"])
        flop += 6 * config.num_layers * weights * tokens[name]
    flop += (4 + 6) * config.experts["vision"]["width"] * config.token_dim("vision") * tokens["vision"]
    return flop + 6 * config.experts["text"]["width"] * config.vocab_size * len(batch.logit_index)


def machine_peak(device: str) -> Variants:
    """Offer large matrix products, square and of the layers' shapes, each repeated to the same work."""

    def product(rows: int, inner: int, columns: int) -> Work:
        one, other = torch.randn(rows, inner, device=device), torch.randn(inner, columns, device=device)
        out = torch.empty(rows, columns, device=device)
        repeats = PEAK_FLOP // (2 * rows * inner * columns)

        def multiply() -> None:
            for _ in range(repeats):
                torch.mm(one, other, out=out)

        return multiply

    return {"x".join(map(str, shape)): product(*shape) for shape in PEAK_SHAPES}
