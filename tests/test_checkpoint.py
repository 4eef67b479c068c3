"""A model folder loads back as it was saved, and every damage to it is one clear sentence."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from omni.checkpoint import Defaults, check_manifest, load_folder, write_manifest
from omni.errors import CheckpointError, ConfigError
from omni.model import OmniModel
from omni.pipeline import Omni
from omni.reader import Reader


@pytest.fixture(scope="module")
def saved(small: Omni, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    small.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


@torch.no_grad()
def logits_of(omni: Omni) -> torch.Tensor:
    return Reader(omni.model, num_rows=1).append([0], [[1, 2, 3, 4]])


def assert_same_logits(one: Omni, other: Omni) -> None:
    """Weights are equal bit for bit; sums of them may not be, as files align them differently in memory."""
    torch.testing.assert_close(logits_of(one), logits_of(other), atol=1e-6, rtol=1e-5)


def assert_same_weights(one: torch.nn.Module, other: torch.nn.Module) -> None:
    mine, theirs = one.state_dict(), other.state_dict()
    assert mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def stored(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


@pytest.fixture
def all_in_8_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count the tiny model's matrices as large."""
    monkeypatch.setattr("omni.storage.SMALLEST", 512)


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def shard(omni: Omni, folder: Path) -> None:
    """Put several weight files in place of the one."""
    (folder / "model.safetensors").unlink()
    omni.model.save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    write_manifest(folder)


def refusal(folder: Path) -> str:
    """Return the one sentence with which a folder is refused."""
    with pytest.raises(CheckpointError) as caught:
        Omni.from_pretrained(folder)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 400, message
    return message


def test_saved_equals_loaded(small: Omni, saved: Path) -> None:
    loaded = Omni.from_pretrained(saved)
    assert_same_weights(small.model, loaded.model)
    assert_same_logits(small, loaded)
    assert loaded.tokenizer.encode("a red fox") == small.tokenizer.encode("a red fox")
    assert loaded.defaults == small.defaults
    settings = {"size": (32, 48), "seed": 3}
    assert (small.image("a fox", **settings).pixels == loaded.image("a fox", **settings).pixels).all()


def test_saved_in_half_precision_loads_in_any(small: Omni, tmp_path: Path) -> None:
    small.save_pretrained(tmp_path, dtype=torch.float16)
    loaded = Omni.from_pretrained(tmp_path)
    assert {weight.dtype for weight in loaded.model.parameters()} == {torch.float32}
    torch.testing.assert_close(logits_of(loaded), logits_of(small), atol=0.05, rtol=0.05)


@pytest.mark.usefixtures("all_in_8_bits")
def test_saved_in_8_bits_loads_in_any_and_saves_the_same_again(small: Omni, tmp_path: Path) -> None:
    small.save_pretrained(tmp_path / "half", dtype=torch.float16)
    small.save_pretrained(tmp_path / "one", dtype=torch.int8)
    half, one = (stored(tmp_path / name) for name in ("half", "one"))
    assert {weight.dtype for weight in one.values()} == {torch.float16, torch.float32, torch.int8}
    assert sum(weight.nbytes for weight in one.values()) < 0.8 * sum(weight.nbytes for weight in half.values())
    loaded = Omni.from_pretrained(tmp_path / "one")
    assert {weight.dtype for weight in loaded.model.parameters()} == {torch.float32}
    for name, weight in small.model.state_dict().items():
        step = weight.abs().amax(-1, keepdim=True) / 127
        assert ((loaded.model.state_dict()[name] - weight).abs() <= 0.51 * step + 1e-3 * weight.abs()).all(), name
    torch.testing.assert_close(logits_of(loaded), logits_of(small), atol=0.05, rtol=0.05)
    loaded.save_pretrained(tmp_path / "two", dtype=torch.int8)
    two = stored(tmp_path / "two")
    assert all(torch.equal(one[name], two[name]) for name in one if one[name].dtype == torch.int8)


@pytest.mark.usefixtures("all_in_8_bits")
def test_the_bare_model_reads_8_bits(small: Omni, tmp_path: Path) -> None:
    small.save_pretrained(tmp_path, dtype=torch.int8)
    bare = OmniModel.from_pretrained(tmp_path)
    assert_same_weights(bare, Omni.from_pretrained(tmp_path).model)
    assert {weight.dtype for weight in OmniModel.from_pretrained(tmp_path, dtype=torch.bfloat16).parameters()} == {
        torch.bfloat16
    }


@pytest.mark.usefixtures("all_in_8_bits")
def test_8_bits_without_their_scales_are_refused(small: Omni, tmp_path: Path) -> None:
    small.save_pretrained(tmp_path, dtype=torch.int8)
    name = next(name for name in stored(tmp_path) if name.endswith("_scale"))
    rewrite_weights(tmp_path, lambda state: state.__delitem__(name))
    (tmp_path / "manifest.json").unlink()
    assert name.removesuffix("_scale") in refusal(tmp_path)


def test_saved_over_an_older_one_is_whole(small: Omni, folder: Path) -> None:
    shard(small, folder)
    small.save_pretrained(folder)
    assert_same_logits(Omni.from_pretrained(folder), small)


def test_shards_load_like_one_file(small: Omni, folder: Path) -> None:
    shard(small, folder)
    assert_same_logits(Omni.from_pretrained(folder), small)


def test_a_missing_shard_is_named_with_and_without_a_manifest(small: Omni, folder: Path) -> None:
    shard(small, folder)
    lost = sorted(folder.glob("model-*.safetensors"))[1]
    lost.unlink()
    assert lost.name in refusal(folder)
    (folder / "manifest.json").unlink()
    assert lost.name in refusal(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer/tokenizer.model"])
def test_a_flipped_byte_is_found_by_the_manifest(folder: Path, name: str) -> None:
    data = bytearray((folder / name).read_bytes())
    data[-9] ^= 1
    (folder / name).write_bytes(data)
    assert name.split("/")[-1] in refusal(folder)


def test_a_flipped_byte_of_the_codec_is_found_without_a_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    path = folder / "codecs" / "vision" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)
    assert "damaged" in refusal(folder)


def test_a_manifest_that_names_a_missing_file_says_so(folder: Path) -> None:
    edit_json(folder / "manifest.json", **{"extra.bin": "0" * 64})
    assert "extra.bin" in refusal(folder)
    with pytest.raises(CheckpointError, match="extra.bin"):
        check_manifest(folder)


@pytest.mark.parametrize("data", [b"{", b"[1]", b"\xff\xfe"])
def test_a_damaged_manifest_is_named(folder: Path, data: bytes) -> None:
    (folder / "manifest.json").write_bytes(data)
    assert "manifest.json" in refusal(folder)


def remove(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    change.__name__ = f"without_{name}"
    return change


def truncate(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])

    change.__name__ = f"half_of_{name}"
    return change


def empty_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")


def pickle_alone(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def shards_without_index(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")


def index_of_nothing(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    (folder / "model.safetensors.index.json").write_text("{}")


def rewrite_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def wrong_shape(folder: Path) -> None:
    rewrite_weights(folder, lambda state: state.update({"norm.weight": torch.ones(31)}))


def missing_weight(folder: Path) -> None:
    rewrite_weights(folder, lambda state: state.__delitem__("layers.1.experts.text.q_proj.weight"))


def unknown_weight(folder: Path) -> None:
    rewrite_weights(folder, lambda state: state.update({"norm.bias": torch.ones(32)}))


def config(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        edit_json(folder / "config.json", **changes)

    change.__name__ = "config_" + "_".join(changes)
    return change


def settings(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        edit_json(folder / "omni.json", **changes)

    change.__name__ = "settings_" + "_".join(changes)
    return change


def other_codec_shapes(folder: Path) -> None:
    edit_json(folder / "codecs" / "vision" / "config.json", block_out_channels=[8] * 4)


def other_channels(folder: Path) -> None:
    edit_json(folder / "codecs" / "vision" / "codec_config.json", latents_mean=[0.0] * 3)


DAMAGES: list[tuple[Callable[[Path], None], list[str]]] = [
    (remove("config.json"), ["config.json", "missing"]),
    (truncate("config.json"), ["config.json"]),
    (remove("omni.json"), ["omni.json", "missing"]),
    (settings(stepz=3), ["omni.json", "stepz"]),
    (settings(steps="many"), ["omni.json", "steps", "many"]),
    (remove("model.safetensors"), ["model.safetensors", "missing"]),
    (truncate("model.safetensors"), ["model.safetensors", "damaged"]),
    (empty_weights, ["model.safetensors", "damaged"]),
    (pickle_alone, ["pytorch_model.bin", "pickle", "safetensors"]),
    (shards_without_index, ["model.safetensors", "missing"]),
    (index_of_nothing, ["model.safetensors.index.json"]),
    (wrong_shape, ["norm.weight", "[31]", "[32]"]),
    (missing_weight, ["layers.1.experts.text.q_proj.weight"]),
    (unknown_weight, ["norm.bias"]),
    (config(num_layer=3), ["config.json", "num_layer", "'num_layers'"]),
    (config(zzz=3), ["config.json", "zzz"]),
    (config(num_layers="six"), ["config.json", "num_layers", "six"]),
    (config(num_layers=3), ["layers.2"]),
    (config(num_heads=3), ["config.json", "num_kv_heads"]),
    (config(experts={"text": {"width": 32}}), ["config.json", "experts.text.ffn_dim"]),
    (config(experts=7), ["config.json"]),
    (config(streams={"vision": {"channels": 4}}), ["config.json", "streams.vision.patch_size"]),
    (config(rope_parameters={"rope_type": "spiral"}), ["config.json", "rope_type", "spiral"]),
    (config(model_type="qwen3"), ["config.json", "qwen3", "from_language_model"]),
    (config(num_text_ids=401), ["embed_tokens.weight"]),
    (remove("tokenizer"), ["tokenizer"]),
    (truncate("tokenizer/tokenizer.model"), ["tokenizer.model"]),
    (remove("codecs"), ["codec_config.json", "missing"]),
    (remove("codecs/vision/model.safetensors"), ["vision/model.safetensors", "missing"]),
    (remove("codecs/vision/config.json"), ["vision/config.json", "missing"]),
    (truncate("codecs/vision/model.safetensors"), ["vision/model.safetensors", "damaged"]),
    (other_channels, ["latents_mean"]),
    (other_codec_shapes, ["vision", "config.json", "does not fit"]),
]


@pytest.mark.parametrize(("damage", "said"), DAMAGES, ids=[damage.__name__ for damage, _ in DAMAGES])
def test_damage_without_a_manifest_is_named(folder: Path, damage: Callable[[Path], None], said: list[str]) -> None:
    """As in a folder made by hand."""
    (folder / "manifest.json").unlink()
    damage(folder)
    message = refusal(folder)
    assert all(words in message for words in said), message


def test_a_model_that_does_not_fit_its_codec_is_refused(folder: Path) -> None:
    from omni.checkpoint import _load_codec

    with pytest.raises(CheckpointError, match="4 channels"):
        _load_codec(folder, "vision", 5)


@pytest.mark.parametrize("path", ["nothing", "model.txt", "a/b/c"])
def test_what_is_no_folder_is_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "model.txt").write_text("not a model")
    with pytest.raises(CheckpointError, match="no folder"):
        load_folder(tmp_path / path)


def test_an_impossible_device_is_refused(saved: Path) -> None:
    with pytest.raises(ConfigError, match="device is 'toaster'"):
        Omni.from_pretrained(saved, device="toaster")


def test_a_place_that_cannot_be_written_is_refused(small: Omni, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="another place"):
        small.save_pretrained(tmp_path / "file")


WRONG_DEFAULTS = [
    {"steps": -1},
    {"steps": 2.5},
    {"guidance_scale": "high"},
    {"image_scale": -1},
    {"max_block_tokens": True},
]


@pytest.mark.parametrize("wrong", WRONG_DEFAULTS)
def test_impossible_defaults_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Defaults(**wrong)
