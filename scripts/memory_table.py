"""Memory a GPU needs, by model, GPUs and ZeRO stage, computed from configs: python scripts/memory_table.py

Weights, gradients and optimizer states follow the arithmetic of ZeRO (arXiv:1910.02054); activations are counted
from the shapes of a step. `--check` trains small models on this CPU and compares.
"""

import gc
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY))

from omni.config import OmniConfig  # noqa: E402
from omni.model import OmniModel  # noqa: E402

GB = 2**30
VISION = {"vision": {"channels": 16, "patch_size": 2, "expert": "vision", "base_tokens": 16}}


@dataclass(frozen=True)
class Plan:
    """A model and the shape of its step.

    Attributes:
        config: of the model.
        tokens: of a batch on one GPU.
        row_length: of a packed row.
        trained: share of the weights that is trained.
        is_checkpointed: whether activations are computed again in the backward pass.
        bytes_a_weight: 2 in bfloat16, 4 in float32.
    """

    config: OmniConfig
    tokens: int
    row_length: int
    trained: float = 1.0
    is_checkpointed: bool = True
    bytes_a_weight: int = 2


def num_weights(config: OmniConfig) -> int:
    """Count the weights of a model without making them."""
    with torch.device("meta"):
        return sum(p.numel() for p in OmniModel(config).parameters())


def state_bytes(weights: int, plan: Plan, *, stage: int, gpus: int) -> float:
    """Return the bytes of weights, gradients, float32 master copy, two moments and average on one GPU.

    In bfloat16 DeepSpeed keeps a float32 copy; in float32 it keeps one too, from stage 1 on. The average (EMA) is
    float32, and spread like the optimizer's states.

    Args:
        weights: of the model.
        plan: share that is trained, bytes a weight.
        stage: 0 (plain), 1, 2 or 3.
        gpus: over which it is spread.
    """
    trained = weights * plan.trained
    size = plan.bytes_a_weight
    master = 4 * trained if stage or size == 2 else 0
    optimizer = master + 4 * 3 * trained
    own = {"weights": size * weights, "gradients": size * trained, "optimizer": optimizer}
    spread = {0: (), 1: ("optimizer",), 2: ("optimizer", "gradients"), 3: ("optimizer", "gradients", "weights")}[stage]
    return sum(value / gpus if name in spread else value for name, value in own.items())


def activation_bytes(plan: Plan) -> float:
    """Return the bytes that a forward pass keeps for the backward pass, and the logits.

    A layer keeps of each token its states at the norms, queries, keys, values, the attended values, the three
    products of the feed-forward, and the changes by sigma; with checkpointing, its input alone, and one layer whole.
    """
    config = plan.config
    width = max(sizes["width"] for sizes in config.experts.values())
    ffn = max(sizes["ffn_dim"] for sizes in config.experts.values())
    heads = (2 * config.num_heads + 2 * config.num_kv_heads) * config.head_dim
    layer = plan.tokens * plan.bytes_a_weight * (10 * width + 3 * heads + 4 * ffn)
    layers = layer * config.num_layers
    if plan.is_checkpointed:
        layers = layer + config.num_layers * plan.tokens * width * plan.bytes_a_weight
    logits = plan.tokens * 0.5 * config.vocab_size * (plan.bytes_a_weight + 4)
    return layers + logits


def nano() -> OmniConfig:
    """Return the config of the shipped model."""
    import yaml

    values = yaml.safe_load((REPOSITORY / "configs" / "model" / "nano.yaml").read_text())
    return OmniConfig(**values)


def beside(width: int, ffn: int, layers: int, heads: int, kv: int, vocabulary: int, vision: int) -> OmniConfig:
    """Return the config of a language model of these sizes with a vision expert of a given width."""
    share = vision / width
    experts = {
        "text": {"width": width, "ffn_dim": ffn},
        "vision": {"width": vision, "ffn_dim": int(ffn * share)},
    }
    return OmniConfig(
        num_text_ids=vocabulary,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv,
        head_dim=128,
        experts=experts,
        streams=VISION,
    )


def models() -> dict[str, OmniConfig]:
    """Return the rows of the table: the sizes of Qwen3's own configs, with vision experts beside them."""
    return {
        "nano": nano(),
        "Qwen3-0.6B + vision 512": beside(1024, 3072, 28, 16, 8, 151936, 512),
        "Qwen3-1.7B + vision 1024": beside(2048, 6144, 28, 16, 8, 151936, 1024),
        "Qwen3-8B + vision 4096": beside(4096, 12288, 36, 32, 8, 151936, 4096),
    }


def table(*, gpus: tuple[int, ...], tokens: int) -> str:
    """Return the table in Markdown, GB a GPU, bfloat16 with checkpointing."""
    lines = ["| model | weights | GPUs | plain | ZeRO 1 | ZeRO 2 | ZeRO 3 |", "|---|---|---|---|---|---|---|"]
    for name, config in models().items():
        weights = num_weights(config)
        plan = Plan(config, tokens=tokens, row_length=2048)
        active = activation_bytes(plan)
        for count in gpus:
            cells = [f"{(state_bytes(weights, plan, stage=stage, gpus=count) + active) / GB:.1f}" for stage in range(4)]
            lines.append(f"| {name} | {weights / 1e9:.2f} B | {count} | {' | '.join(cells)} |")
    return "\n".join(lines)


def measure_state(config: OmniConfig) -> tuple[int, float]:
    """Train one step in float32 with AdamW; return the bytes of all tensors that stay, and the computed ones."""
    from training.config import TrainConfig
    from training.engine import PlainEngine

    settings = TrainConfig.model_validate(
        {
            "output": "none",
            "precision": "float32",
            "model": {},
            "tokenizer": "none",
            "data": {"path": "none"},
            "optimizer": {"kind": "adamw"},
            "schedule": {"steps": 2, "warmup": 1},
        }
    )
    gc.collect()
    before = {id(each) for each in gc.get_objects() if isinstance(each, torch.Tensor)}
    engine = PlainEngine(OmniModel(config), settings, torch.device("cpu"))
    for parameter in engine.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    engine.optimizers[0].step()
    gc.collect()
    held = {id(p): p for p in engine.model.parameters()}
    tensors = [each for each in gc.get_objects() if isinstance(each, torch.Tensor) and id(each) not in before]
    tensors += [p.grad for p in held.values() if p.grad is not None]
    unique = {each.data_ptr(): each.numel() * each.element_size() for each in tensors if each.numel()}
    plan = Plan(config, tokens=0, row_length=0, bytes_a_weight=4)
    return sum(unique.values()), state_bytes(num_weights(config), plan, stage=0, gpus=1)


def main(
    tokens: Annotated[int, typer.Option(help="of a batch on one GPU")] = 8192,
    check: Annotated[bool, typer.Option(help="compare with a training of the nano model here")] = False,
) -> None:
    """Print the table."""
    typer.echo(table(gpus=(1, 8, 64), tokens=tokens))
    if check:
        measured, computed = measure_state(nano())
        typer.echo(
            f"nano, float32, plain: measured {measured / 2**20:.1f} MB of state, computed {computed / 2**20:.1f}"
        )


if __name__ == "__main__":
    typer.run(main)
