"""Train a model: python -m training.train CONFIG [section.key=value ...]"""

import os
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
    local_rank: Annotated[int, typer.Option("--local_rank", hidden=True, help="given by DeepSpeed's launcher")] = 0,
) -> None:
    """Train, resuming where an earlier run of the same output folder stopped."""
    from training.config import load_config
    from training.loop import train

    keep_freed_memory()
    try:
        settings = load_config(config, overrides)
        if settings.threads:
            torch.set_num_threads(settings.threads)
        elif "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("OMP_NUM_THREADS") == "1":
            # torchrun leaves each process a single thread where the user says nothing; share the cores out.
            cores = os.cpu_count() or 1
            torch.set_num_threads(max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
        train(settings, fresh=fresh)
    except OmniError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    app()
