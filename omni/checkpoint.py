"""A model folder: self-contained, safetensors only, and checked before anything in it is used.

config.json, model*.safetensors, omni.json (what goes with the weights), tokenizer/, codecs/NAME/, manifest.json
(the SHA-256 of every file), README.md (the card).
"""

import difflib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from omni.codecs.vision import VisionCodec
from omni.config import OmniConfig
from omni.errors import CheckpointError, ConfigError
from omni.model import OmniModel
from omni.text import TextTokenizer

__all__ = ["Defaults", "check_manifest", "load_folder", "save_folder", "write_manifest"]

MANIFEST, SETTINGS, CONFIG = "manifest.json", "omni.json", "config.json"
TOKENIZER, CODECS = "tokenizer", "codecs"


@dataclass(frozen=True)
class Defaults:
    """What a model was made for; the caller's arguments go before.

    Attributes:
        steps: solver steps of a medium.
        guidance_scale: of text.
        max_block_tokens: latent tokens of the largest medium seen in training.
    """

    steps: int = 24
    guidance_scale: float = 3.0
    max_block_tokens: int = 24


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing; restore the model folder") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); restore the file") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} is no JSON object; restore the file")
    return values


def write_manifest(folder: Path) -> None:
    """Write the SHA-256 of every file in a model folder."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    sums = {p.relative_to(folder).as_posix(): _digest(p) for p in files}
    (folder / MANIFEST).write_text(json.dumps(sums, indent=1) + "\n", encoding="utf-8")


def check_manifest(folder: Path) -> None:
    """Compare every file with the manifest, where there is one.

    Raises:
        CheckpointError: a file is missing or differs.
    """
    if not (folder / MANIFEST).is_file():
        return
    for name, expected in _read_json(folder / MANIFEST).items():
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"{path} is missing but the manifest names it; restore the model folder")
        if _digest(path) != expected:
            raise CheckpointError(f"{path} is damaged: its SHA-256 is not the manifest's; restore the file")


def _load_config(folder: Path) -> OmniConfig:
    values = _read_json(folder / CONFIG)
    known = set(OmniConfig().to_dict()) | {"architectures", "dtype", "transformers_version", "num_text_ids"}
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "it may come from a newer version of omni"
            raise CheckpointError(f"{folder / CONFIG}: {key!r} is no setting of a model; {hint}")
    try:
        return OmniConfig(**values)
    except (ConfigError, TypeError, ValueError, KeyError) as error:
        raise CheckpointError(f"{folder / CONFIG} describes no model: {error}; restore the file") from error


def _load_model(folder: Path, dtype: torch.dtype) -> OmniModel:
    from safetensors import SafetensorError

    if not list(folder.glob("model*.safetensors")):
        raise CheckpointError(f"{folder} has no model.safetensors; weights are read from safetensors alone")
    try:
        model, info = OmniModel.from_pretrained(
            folder, config=_load_config(folder), dtype=dtype, use_safetensors=True, output_loading_info=True
        )
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{folder}: the weights cannot be loaded ({first}); restore the folder") from error
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info[problem]:
            name = sorted(map(str, info[problem]))[0]
            raise CheckpointError(
                f"{folder}: {problem.replace('_', ' ')}, {name} among them; the weights do not fit config.json"
            )
    return model


def load_folder(
    path: str | Path, *, dtype: torch.dtype = torch.float32
) -> tuple[OmniModel, TextTokenizer, dict[str, VisionCodec], Defaults]:
    """Load a model folder.

    Args:
        path: the folder.
        dtype: of the weights in memory.

    Raises:
        CheckpointError: something is missing, damaged, or does not fit; the message names it.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is no folder; give a model folder or the name of one on the Hub")
    check_manifest(folder)
    settings = _read_json(folder / SETTINGS)
    unknown = set(settings) - {field.name for field in fields(Defaults)}
    if unknown:
        raise CheckpointError(f"{folder / SETTINGS}: {sorted(unknown)[0]!r} is no setting; restore the file")
    model = _load_model(folder, dtype).eval()
    tokenizer = TextTokenizer.from_folder(folder / TOKENIZER)
    if tokenizer.num_text_ids != model.config.num_text_ids:
        raise CheckpointError(
            f"{folder}: the tokenizer has {tokenizer.num_text_ids} text ids, the model {model.config.num_text_ids}; "
            "they are from different models"
        )
    codecs = {name: VisionCodec.from_folder(folder / CODECS / name) for name in model.config.streams}
    return model, tokenizer, codecs, Defaults(**settings)


def save_folder(
    path: str | Path,
    *,
    model: OmniModel,
    tokenizer: TextTokenizer,
    codecs: Mapping[str, VisionCodec],
    defaults: Defaults,
    dtype: torch.dtype | None = None,
    card: str | None = None,
) -> None:
    """Write a model folder that load_folder reads.

    Args:
        path: the folder; made where it does not exist.
        model: its weights are written in safetensors.
        tokenizer: of the text.
        codecs: by stream.
        defaults: what the model was made for.
        dtype: of the weights on disk; the model's own where left out.
        card: text of README.md.
    """
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    state = model.state_dict()
    if dtype is not None:
        state = {name: tensor.to(dtype) for name, tensor in state.items()}
    model.save_pretrained(folder, state_dict=state)
    tokenizer.save(folder / TOKENIZER)
    for name, codec in codecs.items():
        codec.save(folder / CODECS / name)
    (folder / SETTINGS).write_text(json.dumps(asdict(defaults), indent=1) + "\n", encoding="utf-8")
    if card is not None:
        (folder / "README.md").write_text(card, encoding="utf-8")
    write_manifest(folder)
