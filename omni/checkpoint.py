"""A model folder: self-contained, safetensors only, and checked before anything in it is used.

config.json, model*.safetensors, omni.json (what goes with the weights), tokenizer/, codecs/NAME/, manifest.json
(the SHA-256 of every file), README.md (the card).
"""

import difflib
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from omni.codecs import Codec, codec_class
from omni.config import OmniConfig
from omni.errors import CheckpointError, ConfigError
from omni.model import OmniModel
from omni.storage import in_8_bits, restored_shapes
from omni.text import TextTokenizer

__all__ = [
    "HUB_FILES", "Defaults", "check_manifest", "file_sums", "find_folder", "load_folder", "save_folder",
    "write_manifest",
]  # fmt: skip

MANIFEST, SETTINGS, CONFIG = "manifest.json", "omni.json", "config.json"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
TOKENIZER, CODECS = "tokenizer", "codecs"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
HUB_FILES = ("*.json", "*.safetensors", "*.model", "*.md")


@dataclass(frozen=True)
class Defaults:
    """What a model was made for; the caller's arguments go before.

    Attributes:
        steps: solver steps of a medium.
        guidance_scale: of text.
        image_scale: of given media that a film goes on with by itself: animate, continue_.
        max_block_tokens: latent tokens of the largest picture, or latent frame, seen in training.
        max_video_tokens: latent tokens of the largest block of a film.
        max_audio_tokens: latents of the longest recording.
        max_context_tokens: tokens of the longest conversation that is read.
        memory: how many exchanges before the last message a reply goes by; 0 for all. A small model is confused by
            longer talks than it was trained on.
    """

    steps: int = 24
    guidance_scale: float = 3.0
    image_scale: float = 1.0
    max_block_tokens: int = 24
    max_video_tokens: int = 80
    max_audio_tokens: int = 100
    max_context_tokens: int = 8192
    memory: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            is_number = isinstance(value, (int, float) if field.name.endswith("_scale") else int)
            if not is_number or isinstance(value, bool) or value < 0:
                raise ConfigError(f"{field.name} is {value!r}; it should be a number, and not negative")


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


def file_sums(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file in a model folder but the manifest, by its path inside."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    return {p.relative_to(folder).as_posix(): _digest(p) for p in files}


def write_manifest(folder: Path) -> None:
    """Write the SHA-256 of every file in a model folder."""
    (folder / MANIFEST).write_text(json.dumps(file_sums(folder), indent=1) + "\n", encoding="utf-8")


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


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def find_folder(path_or_id: str | Path, *, files: Iterable[str]) -> Path:
    """Return a folder, or a copy of one on the Hugging Face Hub.

    Args:
        path_or_id: a folder, or a name on the Hub.
        files: patterns of the files wanted from the Hub.

    Raises:
        CheckpointError: there is neither.
    """
    folder = Path(path_or_id).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists() or not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", str(path_or_id)):
        raise CheckpointError(f"{folder} is no folder; give a model folder or the name of one on the Hub")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(path_or_id), allow_patterns=list(files)))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path_or_id} is no folder here, and the Hub does not give it ({_first_line(error)}); check the name"
        ) from error


def _load_config(folder: Path) -> OmniConfig:
    values = _read_json(folder / CONFIG)
    family = values.get("model_type", OmniConfig.model_type)
    if family != OmniConfig.model_type:
        raise CheckpointError(
            f"{folder / CONFIG}: model_type is {family!r}, not 'omni'; a language model can be built upon with "
            "omni.llm.from_language_model"
        )
    known = set(OmniConfig().to_dict()) | {"architectures", "dtype", "transformers_version", "num_text_ids"}
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "it may come from a newer version of omni"
            raise CheckpointError(f"{folder / CONFIG}: {key!r} is no setting of a model; {hint}")
    try:
        return OmniConfig(**values)
    except (ConfigError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{folder / CONFIG} describes no model: {error}; restore the file") from error


def _load_defaults(folder: Path) -> Defaults:
    settings = _read_json(folder / SETTINGS)
    unknown = set(settings) - {field.name for field in fields(Defaults)}
    if unknown:
        raise CheckpointError(f"{folder / SETTINGS}: {sorted(unknown)[0]!r} is no setting; restore the file")
    try:
        return Defaults(**settings)
    except ConfigError as error:
        raise CheckpointError(f"{folder / SETTINGS}: {error}") from error


def _weight_files(folder: Path) -> list[Path]:
    """Return the files of the weights: one, or the shards that an index names."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        shards = _read_json(folder / INDEX).get("weight_map")
        if not isinstance(shards, dict) or not shards:
            raise CheckpointError(f"{folder / INDEX} has no weight_map; restore the file")
        paths = [folder / name for name in sorted(set(map(str, shards.values())))]
        for path in paths:
            if not path.is_file():
                raise CheckpointError(f"{path} is missing but {INDEX} names it; restore the file")
        return paths
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
    if pickles:
        raise CheckpointError(
            f"{folder} has {pickles[0]} but no {WEIGHTS}; pickles are never loaded: convert it to safetensors"
        )
    raise CheckpointError(f"{folder / WEIGHTS} is missing; weights are read from safetensors alone: restore the file")


def _stored_shapes(files: Iterable[Path]) -> dict[str, tuple[int, ...]]:
    """Read the shape of every stored weight, from the files' headers."""
    from safetensors import SafetensorError, safe_open

    shapes: dict[str, tuple[int, ...]] = {}
    for path in files:
        try:
            with safe_open(path, framework="pt") as file:
                shapes |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path} is damaged ({_first_line(error)}); restore the file") from error
    return shapes


def _check_weights(folder: Path, config: OmniConfig) -> None:
    """Compare names and shapes of the stored weights with those that the config makes.

    transformers only prints such differences in a table, or fills what is missing with noise.
    """
    stored = restored_shapes(_stored_shapes(_weight_files(folder)))
    with torch.device("meta"):
        expected = {name: tuple(weight.shape) for name, weight in OmniModel(config).state_dict().items()}
    if config.tie_word_embeddings:
        stored.pop("lm_head.weight", None)
        expected.pop("lm_head.weight")
    for name in sorted(expected.keys() | stored.keys()):
        if name not in stored:
            raise CheckpointError(f"{folder}: the weights lack {name}, which {CONFIG} asks for; restore the folder")
        if name not in expected:
            raise CheckpointError(f"{folder}: the weights hold {name}, of which {CONFIG} knows nothing; restore it")
        if stored[name] != expected[name]:
            raise CheckpointError(
                f"{folder}: the weight {name} is {list(stored[name])}, but {CONFIG} makes it {list(expected[name])}; "
                "restore the folder"
            )


def _load_model(folder: Path, dtype: torch.dtype) -> OmniModel:
    config = _load_config(folder)
    _check_weights(folder, config)
    try:
        return OmniModel.from_pretrained(folder, config=config, dtype=dtype, use_safetensors=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"{folder}: the weights cannot be loaded ({_first_line(error)}); restore the folder"
        ) from error


def _load_codec(folder: Path, stream: str, channels: int) -> Codec:
    codec: Codec = codec_class(stream).from_folder(folder / CODECS / stream)
    if codec.channels != channels:
        raise CheckpointError(
            f"{folder / CODECS / stream} makes latents of {codec.channels} channels, the model reads {channels}; "
            "they are from different models"
        )
    return codec


def load_folder(
    path_or_id: str | Path, *, dtype: torch.dtype = torch.float32
) -> tuple[OmniModel, TextTokenizer, dict[str, Codec], Defaults]:
    """Load a model folder.

    Args:
        path_or_id: the folder, or the name of one on the Hugging Face Hub.
        dtype: of the weights in memory.

    Raises:
        CheckpointError: something is missing, damaged, or does not fit; the message names it.
    """
    folder = find_folder(path_or_id, files=HUB_FILES)
    check_manifest(folder)
    model = _load_model(folder, dtype).eval()
    defaults = _load_defaults(folder)
    tokenizer = TextTokenizer.from_folder(folder / TOKENIZER)
    if tokenizer.num_text_ids != model.config.num_text_ids:
        raise CheckpointError(
            f"{folder}: the tokenizer has {tokenizer.num_text_ids} text ids, the model {model.config.num_text_ids}; "
            "they are from different models"
        )
    streams = model.config.streams.items()
    codecs = {name: _load_codec(folder, name, stream["channels"]) for name, stream in streams}
    return model, tokenizer, codecs, defaults


def save_folder(
    path: str | Path,
    *,
    model: OmniModel,
    tokenizer: TextTokenizer,
    codecs: Mapping[str, Codec],
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
        dtype: of the weights on disk; the model's own where left out. torch.int8 stores large matrices in 8 bits
            (omni.storage) and all else as float16.
        card: text of README.md.

    Raises:
        CheckpointError: the folder cannot be made.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be made ({error.strerror}); choose another place") from error
    state = model.state_dict()
    if model.config.tie_word_embeddings:
        del state["lm_head.weight"]  # a cast copy would no longer be recognised as the same tensor
    if dtype is not None:
        floats = torch.float16 if dtype == torch.int8 else dtype
        state = {name: tensor.to(floats) for name, tensor in state.items()}
        state = in_8_bits(state) if dtype == torch.int8 else state
    model.save_pretrained(folder, state_dict=state)
    tokenizer.save(folder / TOKENIZER)
    for name, codec in codecs.items():
        codec.save(folder / CODECS / name)
    (folder / SETTINGS).write_text(json.dumps(asdict(defaults), indent=1) + "\n", encoding="utf-8")
    if card is not None:
        (folder / "README.md").write_text(card, encoding="utf-8")
    write_manifest(folder)
