"""Average the weights of model folders that were trained from one another (model soups, arXiv:2203.05482).

python -m training.merge A B --out MEAN [--share .6 --share .4]

A stage that teaches one thing forgets a little of another; the mean of the models before and after it keeps most of
both.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from omni.checkpoint import HUB_FILES, file_sums, find_folder, load_folder, save_folder
from omni.config import OmniConfig
from omni.errors import ConfigError, OmniError
from omni.storage import of_bits

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


def _sizes(config: OmniConfig) -> dict[str, Any]:
    """Return what models with a mean have in common: all but what a stream reads beside its noise."""
    values = config.to_diff_dict()
    streams = {
        name: {key: value for key, value in stream.items() if key != "reads_previous"}
        for name, stream in config.streams.items()
    }
    return values | {"streams": streams}


def _shares(given: Sequence[float] | None, count: int) -> list[float]:
    """Return the share of each model, equal ones where none are given."""
    shares = list(given or [1 / count] * count)
    if len(shares) != count or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
        raise ConfigError(f"shares are {shares}; give one above 0 for each of {count} models, 1 together")
    return shares


@torch.no_grad()
def merge(
    folders: Sequence[str | Path],
    *,
    out: Path,
    shares: Sequence[float] | None = None,
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write the mean of some models, with the tokenizer, codecs and settings of the first.

    Args:
        folders: two or more model folders, alike in everything but weights; those that only the first has stay.
        out: model folder.
        shares: of each model, 1 together; equal where left out.
        dtype: of the weights on disk, see omni.checkpoint.save_folder.

    Raises:
        ConfigError: there are too few, shares do not fit, or they differ in size, tokenizer or codecs.
        CheckpointError: a folder is missing or damaged.
    """
    if len(folders) < 2:
        raise ConfigError(f"a mean needs two models or more; {len(folders)} given")
    first, *rest = _shares(shares, len(folders))
    paths = [find_folder(folder, files=HUB_FILES) for folder in folders]
    model, tokenizer, codecs, defaults = load_folder(paths[0])
    others = []
    for path in paths[1:]:
        other = load_folder(path)[0]
        others.append(dict(other.named_parameters()))
        if _sizes(other.config) != _sizes(model.config) or others[-1].keys() - dict(model.named_parameters()).keys():
            raise ConfigError(f"{path} and {paths[0]} are models of different sizes; only equal ones have a mean")
        if _inner_sums(path) != _inner_sums(paths[0]):
            raise ConfigError(f"{path} and {paths[0]} have other tokenizers or codecs; only equal ones have a mean")
    for name, parameter in model.named_parameters():
        if all(name in other for other in others):
            terms = [share * other[name] for share, other in zip(rest, others, strict=True)]
            parameter.copy_(sum(terms, first * parameter))
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
    share: Annotated[list[float] | None, typer.Option(help="of each model, 1 together; equal where left out")] = None,
    bits: Annotated[int, typer.Option(help="of a weight on disk: 32, 16 or 8")] = 16,
) -> None:
    """Average the weights of models."""
    try:
        merge(folders, out=out, shares=share, dtype=of_bits(bits))
    except OmniError as error:
        sys.exit(f"error: {error}")
    typer.echo(f"{out}: the mean of {len(folders)} models")


if __name__ == "__main__":
    typer.run(main)
