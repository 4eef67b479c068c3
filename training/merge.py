"""Average the weights of model folders that were trained from one another (model soups, arXiv:2203.05482).

python -m training.merge A B --out MEAN

A stage that teaches one thing forgets a little of another; the mean of the models before and after it keeps most of
both.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer

from omni.checkpoint import HUB_FILES, file_sums, find_folder, load_folder, save_folder
from omni.errors import ConfigError, OmniError

__all__ = ["merge"]

CARD = """---
license: apache-2.0
library_name: omni-transfusion
---
# {name}

The mean of {count} models' weights, made by `python -m training.merge {sources}`. Scores: docs/MODEL_CARD.md.
"""


def _inner_sums(folder: Path) -> dict[str, str]:
    """Digests of the tokenizer and the codecs."""
    return {name: digest for name, digest in file_sums(folder).items() if "/" in name}


@torch.no_grad()
def merge(folders: Sequence[str | Path], *, out: Path, dtype: torch.dtype = torch.float16) -> None:
    """Write the mean of some models, with the tokenizer, codecs and settings of the first.

    Args:
        folders: two or more model folders, alike in everything but weights.
        out: model folder.
        dtype: of the weights on disk.

    Raises:
        ConfigError: there are too few, or they differ in size, tokenizer or codecs.
        CheckpointError: a folder is missing or damaged.
    """
    if len(folders) < 2:
        raise ConfigError(f"a mean needs two models or more; {len(folders)} given")
    paths = [find_folder(folder, files=HUB_FILES) for folder in folders]
    model, tokenizer, codecs, defaults = load_folder(paths[0])
    total = dict(model.named_parameters())
    for path in paths[1:]:
        other = load_folder(path)[0]
        if other.config.to_diff_dict() != model.config.to_diff_dict():
            raise ConfigError(f"{path} and {paths[0]} are models of different sizes; only equal ones have a mean")
        if _inner_sums(path) != _inner_sums(paths[0]):
            raise ConfigError(f"{path} and {paths[0]} have other tokenizers or codecs; only equal ones have a mean")
        for name, parameter in other.named_parameters():
            total[name] += parameter
    for parameter in total.values():
        parameter /= len(paths)
    sources = " ".join(str(folder) for folder in folders)
    save_folder(
        out,
        model=model,
        tokenizer=tokenizer,
        codecs=codecs,
        defaults=defaults,
        dtype=dtype,
        card=CARD.format(name=out.name, count=len(folders), sources=sources),
    )


def main(
    folders: Annotated[list[Path], typer.Argument(help="two or more model folders")],
    out: Annotated[Path, typer.Option(help="folder to write")],
) -> None:
    """Average the weights of models."""
    try:
        merge(folders, out=out)
    except OmniError as error:
        sys.exit(f"error: {error}")
    typer.echo(f"{out}: the mean of {len(folders)} models")


if __name__ == "__main__":
    typer.run(main)
