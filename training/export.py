"""Write a run's averaged weights as a self-contained model folder.

python -m training.export CONFIG --out omni/weights/nano
"""

import sys
from pathlib import Path
from typing import Annotated

import torch
import typer

from omni.checkpoint import Defaults, save_folder
from omni.codecs.vision import VisionCodec
from omni.errors import CheckpointError, OmniError
from omni.text import TextTokenizer
from training.checkpoint import latest_checkpoint, load_checkpoint
from training.config import TrainConfig, load_config
from training.loop import build_model

CARD = """---
license: apache-2.0
library_name: omni-transfusion
---
# {name}

A small model that chats about pictures of its world, draws, edits and describes them. Exported after {steps} steps of
`python -m training.train {config}`; trained on tier A data alone (see DATA_SOURCES.md). Scores: docs/MODEL_CARD.md.
"""


def export(config: TrainConfig, *, out: Path, source: str, dtype: torch.dtype = torch.float16) -> int:
    """Write the newest checkpoint's averaged weights and return its step.

    Args:
        config: the run.
        out: model folder.
        source: name of the config, for the card.
        dtype: of the weights on disk.

    Raises:
        CheckpointError: the run has no whole checkpoint.
    """
    run = Path(config.output).expanduser()
    path = latest_checkpoint(run)
    if path is None:
        raise CheckpointError(f"{run} has no whole checkpoint; train first")
    state = load_checkpoint(path)
    tokenizer = TextTokenizer.from_folder(config.tokenizer)
    model = build_model(config.model_copy(update={"start": None}), tokenizer)
    with torch.no_grad():
        for parameter, averaged in zip(model.parameters(), state["engine"]["ema"]["shadow_params"], strict=True):
            parameter.copy_(averaged)
    save_folder(
        out,
        model=model,
        tokenizer=tokenizer,
        codecs={name: VisionCodec.from_folder(folder) for name, folder in config.codecs.items()},
        defaults=Defaults(),
        dtype=dtype,
        card=CARD.format(name=out.name, steps=state["step"], config=source),
    )
    return int(state["step"])


def main(
    config: Annotated[Path, typer.Argument(help="the run's YAML file")],
    overrides: Annotated[list[str] | None, typer.Argument(help="settings, section.key=value")] = None,
    out: Annotated[Path, typer.Option(help="folder to write")] = Path("runs/model"),
) -> None:
    """Export the newest checkpoint of a run."""
    try:
        step = export(load_config(config, overrides), out=out, source=str(config))
    except OmniError as error:
        sys.exit(f"error: {error}")
    typer.echo(f"{out}: averaged weights after {step} steps")


if __name__ == "__main__":
    typer.run(main)
