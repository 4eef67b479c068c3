"""Write a run's averaged weights as a self-contained model folder, whatever engine and number of ranks made them.

python -m training.export CONFIG --out omni/weights/nano
"""

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from omni.checkpoint import Defaults, load_folder, save_folder
from omni.errors import CheckpointError, OmniError
from omni.storage import of_bits
from training.build import build_parts, load_codecs
from training.checkpoint import latest_checkpoint, load_checkpoint
from training.config import TrainConfig, load_config

__all__ = ["averaged_weights", "export"]

CARD = """---
license: apache-2.0
library_name: omni-transfusion
---
# {name}

A small model of one sequence: {modalities}. Exported after {steps} steps of
`python -m training.train {config}`; trained on tier A data alone (see DATA_SOURCES.md). Scores: docs/MODEL_CARD.md.
"""


def averaged_weights(state: Mapping[str, Any], names: list[str]) -> dict[str, Tensor]:
    """Return the averaged weights of a checkpoint by name.

    Args:
        state: of the engine.
        names: of the trained weights, in the model's order.

    Raises:
        CheckpointError: they are not as many.
    """
    held = state["ema"]["shadow_params"]
    if len(held) != len(names):
        raise CheckpointError(
            f"the checkpoint holds {len(held)} averaged weights, the config makes {len(names)}; give the run's own"
        )
    return dict(zip(names, held, strict=True))


@torch.no_grad()
def export(
    config: TrainConfig,
    *,
    out: Path,
    source: str,
    dtype: torch.dtype = torch.float16,
    memory: int | None = None,
) -> int:
    """Write the newest checkpoint's averaged weights and return its step; an adapter is merged into its base.

    Args:
        config: the run.
        out: model folder.
        source: name of the config, for the card.
        dtype: of the weights on disk, see omni.checkpoint.save_folder.
        memory: of a chat, see omni.checkpoint.Defaults; as in `start` where left out.

    Raises:
        CheckpointError: the run has no whole checkpoint.
    """
    run = Path(config.output).expanduser()
    path = latest_checkpoint(run)
    if path is None:
        raise CheckpointError(f"{run} has no whole checkpoint; train first")
    state = load_checkpoint(path)
    parts = build_parts(config)
    named = {name: p for name, p in parts.model.named_parameters() if p.requires_grad}
    for name, value in averaged_weights(state["engine"], list(named)).items():
        named[name].copy_(value)
    if parts.adapter is not None:
        parts.adapter.base_model.merge_and_unload()
    defaults = load_folder(config.start)[3] if config.start is not None else Defaults()
    if memory is not None:
        defaults = replace(defaults, memory=memory)
    modalities = ", ".join(["text", *parts.model.config.stream_of])
    save_folder(
        out,
        model=parts.model,
        tokenizer=parts.tokenizer,
        codecs=dict(load_codecs(config)),
        defaults=defaults,
        dtype=dtype,
        card=CARD.format(name=out.name, steps=state["step"], config=source, modalities=modalities),
    )
    return int(state["step"])


def main(
    config: Annotated[Path, typer.Argument(help="the run's YAML file")],
    overrides: Annotated[list[str] | None, typer.Argument(help="settings, section.key=value")] = None,
    out: Annotated[Path, typer.Option(help="folder to write")] = Path("runs/model"),
    memory: Annotated[int | None, typer.Option(min=0, help="earlier exchanges that a reply goes by; 0: all")] = None,
    bits: Annotated[int, typer.Option(help="of a weight on disk: 32, 16 or 8")] = 16,
) -> None:
    """Export the newest checkpoint of a run."""
    try:
        loaded = load_config(config, overrides)
        step = export(loaded, out=out, source=str(config), dtype=of_bits(bits), memory=memory)
    except OmniError as error:
        sys.exit(f"error: {error}")
    typer.echo(f"{out}: averaged weights after {step} steps")


if __name__ == "__main__":
    typer.run(main)
