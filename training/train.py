"""Train a model: python -m training.train CONFIG [section.key=value ...]"""

import sys
from pathlib import Path
from typing import Annotated

import torch
import typer

from omni.errors import OmniError
from omni.memory import keep_freed_memory

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    config: Annotated[Path, typer.Argument(help="YAML file, such as configs/train/nano.yaml")],
    overrides: Annotated[list[str] | None, typer.Argument(help="settings, section.key=value")] = None,
    fresh: Annotated[bool, typer.Option(help="start anew instead of resuming the run in `output`")] = False,
) -> None:
    """Train, resuming where an earlier run of the same output folder stopped."""
    from training.config import load_config
    from training.loop import train

    keep_freed_memory()
    try:
        settings = load_config(config, overrides)
        if settings.threads:
            torch.set_num_threads(settings.threads)
        train(settings, fresh=fresh)
    except OmniError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    app()
