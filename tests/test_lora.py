"""LoRA on a folder of one's own: the whole run, what it leaves behind, and what it refuses."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PILImage
from tests.conftest import EXPERTS, SIZES, randomise

from omni.adapters import Adapters
from omni.checkpoint import Defaults, load_folder, save_folder
from omni.codecs.vision import VisionCodec
from omni.config import OmniConfig
from omni.errors import ConfigError
from omni.model import OmniModel
from training.checkpoint import latest_checkpoint, load_checkpoint
from training.config import TrainConfig
from training.loop import train


def pictures(folder: Path, count: int = 6) -> Path:
    """Write a folder of pictures with metadata.jsonl."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    lines = []
    for number in range(count):
        pixels = np.full((32, 32 + 16 * (number % 2), 3), rng.integers(0, 255, 3), dtype=np.uint8)
        PILImage.fromarray(pixels).save(folder / f"{number}.png")
        lines.append(json.dumps({"file_name": f"{number}.png", "text": f"a zorp {number}"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory, tokenizer, codec) -> Path:
    """A model folder whose codec gives latents of unit variance."""
    folder = tmp_path_factory.mktemp("base") / "model"
    sample = torch.randint(0, 255, (8, 1, 32, 32, 3), dtype=torch.uint8) // 64 * 64
    latents = codec.encode(sample).flatten(0, 3)
    settings = dataclasses.replace(
        codec.config, latents_mean=tuple(latents.mean(0).tolist()), latents_std=tuple((3 * latents.std(0)).tolist())
    )
    num_control = tokenizer.vocab_size - tokenizer.num_text_ids
    config = OmniConfig(num_text_ids=tokenizer.num_text_ids, num_control_ids=num_control, **SIZES, **EXPERTS)
    torch.manual_seed(0)
    model = randomise(OmniModel(config))
    fitted = VisionCodec(codec.autoencoder, settings)
    save_folder(folder, model=model, tokenizer=tokenizer, codecs={"vision": fitted}, defaults=Defaults())
    return folder


@pytest.fixture
def settings(tmp_path, base) -> TrainConfig:
    return TrainConfig(
        output=str(tmp_path / "lora"),
        precision="float32",
        start=str(base),
        data={"path": str(pictures(tmp_path / "data")), "validation_documents": 0},
        batch={"row_length": 96, "num_rows": 1, "num_noisy": 2},
        optimizer={"kind": "adamw", "vector_lr": 1e-2},
        schedule={"steps": 6, "warmup": 1},
        report={"log_every": 2, "save_every": 3},
        lora={"rank": 2, "targets": ["vision"]},
    )


def changed(settings: TrainConfig, **sections: dict) -> TrainConfig:
    return TrainConfig.model_validate(
        settings.model_dump() | {k: settings.model_dump()[k] | v for k, v in sections.items()}
    )


def test_lora_run_leaves_an_adapter_that_loads(settings, base):
    train(settings)
    folder = Path(settings.output)
    assert {"adapter_config.json", "adapter_model.safetensors", "base.json"} <= {p.name for p in folder.iterdir()}
    model = load_folder(base)[0]
    before = {name: p.clone() for name, p in model.named_parameters()}
    adapters = Adapters(model)
    adapters.load(folder)
    moved = [p for name, p in model.named_parameters() if "lora_B" in name and p.any()]
    assert moved and all(".vision." in name for name, _ in model.named_parameters() if "lora_" in name)
    adapters.unload()
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_lora_checkpoints_hold_the_adapter_alone_and_resume_bit_for_bit(settings, tmp_path):
    train(settings)
    newest = latest_checkpoint(Path(settings.output))
    assert newest is not None
    weights = load_checkpoint(newest)["engine"]["model"]
    assert weights and all("lora_" in name for name in weights)
    broken = settings.model_copy(update={"output": str(tmp_path / "broken")})
    train(broken)
    (tmp_path / "broken" / "step-00000006" / "state.pt").write_bytes(b"")
    train(broken)
    again = latest_checkpoint(tmp_path / "broken")
    assert again is not None
    resumed = load_checkpoint(again)["engine"]["model"]
    assert all(torch.equal(weights[name], resumed[name]) for name in weights)
    for name in ("adapter_model.safetensors", "base.json"):
        assert (tmp_path / "broken" / name).read_bytes() == (Path(settings.output) / name).read_bytes()


def test_bad_lines_are_named_and_skipped_or_fatal(settings):
    path = Path(settings.data.path) / "metadata.jsonl"
    lines = path.read_text().splitlines()
    lines[1] = '{"file_name": "1.png", "tex'
    lines[2] = json.dumps({"file_name": "none.png", "text": "x"})
    lines[3] = json.dumps({"file_name": "3.png"})
    path.write_text("\n".join(lines) + "\n")
    train(settings)
    notes = [
        json.loads(line).get("note", "") for line in (Path(settings.output) / "log.jsonl").read_text().splitlines()
    ]
    for number, words in ((2, "no JSON"), (3, "does not exist"), (4, 'no "text"')):
        assert any(f"metadata.jsonl:{number}: " in note and words in note for note in notes), (number, notes)
    last = [json.loads(line) for line in (Path(settings.output) / "log.jsonl").read_text().splitlines()][-1]
    assert last["bad_documents"] >= 3
    with pytest.raises(ConfigError, match=r"metadata.jsonl:\d.*data.bad_lines is 'stop'"):
        train(changed(settings, data={"bad_lines": "stop"}), fresh=True)


def test_chat_folder_trains_and_needs_an_assistant(settings, tmp_path):
    folder = Path(settings.data.path)
    (folder / "metadata.jsonl").unlink()
    item = {"type": "image", "path": "0.png"}
    good = {"messages": [{"role": "user", "content": "a zorp"}, {"role": "assistant", "content": [item]}]}
    (folder / "train.jsonl").write_text(json.dumps(good) + "\n")
    train(settings)
    (folder / "train.jsonl").write_text(json.dumps({"messages": good["messages"][:1]}) + "\n")
    with pytest.raises(ConfigError, match="not one document.*train.jsonl:1: nothing to learn from"):
        train(settings, fresh=True)


def test_tar_shards_train_and_name_what_is_bad(settings, tmp_path):
    import tarfile

    folder = Path(settings.data.path)
    shards = tmp_path / "shards"
    shards.mkdir()
    talk = [
        {"role": "user", "content": "a zorp"},
        {"role": "assistant", "content": [{"type": "image", "path": ".png"}]},
    ]
    for number in range(4):
        (folder / f"{number}.txt").write_text(f"a zorp {number}")
    (folder / "4.json").write_text(json.dumps({"messages": talk}))
    (folder / "5.txt").write_text("alone")
    with tarfile.open(shards / "a.tar", "w") as tar:
        for path in sorted(folder.glob("[0-4].*")):
            tar.add(path, path.name)
    with tarfile.open(shards / "b.tar", "w") as tar:
        tar.add(folder / "5.txt", "5.txt")
    train(changed(settings, data={"path": str(shards)}))
    log = (Path(settings.output) / "log.jsonl").read_text()
    assert "b.tar:5: a caption with 0 media" in log and "a.tar" not in log


def test_hugging_face_data_sets_train(settings, tmp_path):
    datasets = pytest.importorskip("datasets")
    folder = Path(settings.data.path)
    rows = {"image": [str(folder / f"{n}.png") for n in range(4)], "text": [f"a zorp {n}" for n in range(4)]}
    table = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
    table.save_to_disk(tmp_path / "table")
    train(changed(settings, data={"path": f"hf:{tmp_path / 'table'}"}))
    with pytest.raises(ConfigError, match="it needs messages"):
        datasets.Dataset.from_dict({"x": [1]}).save_to_disk(tmp_path / "other")
        train(changed(settings, data={"path": f"hf:{tmp_path / 'other'}"}))


def test_empty_and_missing_data_are_refused(settings, tmp_path):
    (tmp_path / "empty").mkdir()
    for path, message in ((tmp_path / "empty", "holds no documents"), (tmp_path / "none", "no folder")):
        with pytest.raises(ConfigError, match=message):
            train(changed(settings, data={"path": str(path)}))
    (tmp_path / "empty" / "train.jsonl").write_text("\n")
    with pytest.raises(ConfigError, match="is empty"):
        train(changed(settings, data={"path": str(tmp_path / "empty")}))


def test_adapter_that_changes_nothing_is_refused(settings, tmp_path):
    folder = tmp_path / "words"
    folder.mkdir()
    talk = {"messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "a fox"}]}
    (folder / "train.jsonl").write_text((json.dumps(talk) + "\n") * 3)
    words = changed(settings, data={"path": str(folder)}, schedule={"steps": 12})
    with pytest.raises(ConfigError, match="changes nothing|no gradient"):
        train(words)
    assert not (Path(settings.output) / "adapter_model.safetensors").exists()


def test_latents_far_from_unit_variance_are_refused(settings, base, tmp_path):
    import shutil

    shutil.copytree(base, tmp_path / "model")
    path = tmp_path / "model" / "codecs" / "vision" / "codec_config.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"latents_std": [100 * x for x in values["latents_std"]]}))
    (tmp_path / "model" / "manifest.json").unlink()
    with pytest.raises(ConfigError, match="standard deviation"):
        train(settings.model_copy(update={"start": str(tmp_path / "model")}))


def test_data_of_another_codec_are_refused(settings, tmp_path):
    from tests.test_training import encoded

    folder = encoded(tmp_path / "encoded")
    (folder / "index.json").write_text(json.dumps({"codecs": {"vision": "0" * 64}}))
    with pytest.raises(ConfigError, match="another vision codec"):
        train(changed(settings, data={"path": str(folder)}))


def test_encoded_once_equals_on_the_fly(settings, base, tokenizer):
    from omni.chat import ChatTemplate
    from training.build import build_parts, load_codecs
    from training.folders import Encoder, open_folder
    from training.shards import EncodedDataset, shard_path, write_shard
    from training.sources import Maker

    parts, codecs = build_parts(settings), load_codecs(settings)
    limits = {"max_block_tokens": 24, "max_video_tokens": 80, "max_audio_tokens": 100}
    encoder = Encoder(parts.model.config, codecs, ChatTemplate(tokenizer.control), limits)
    fresh = open_folder(Path(settings.data.path), encoder, cache_mb=1)
    assert fresh is not None
    documents, latents = [], []
    for number in range(len(fresh)):
        picture = torch.from_numpy(np.asarray(PILImage.open(Path(settings.data.path) / f"{number}.png")))
        latents.append(codecs["vision"].encode(picture[None, None])[0])
        item = {"type": "image", "latents": number, "shapes": {"latents": list(latents[-1].shape)}}
        words = {"type": "text", "text": f"a zorp {number}"}
        messages = [{"role": "user", "content": [words]}, {"role": "assistant", "content": [item]}]
        documents.append({"task": "test", "seed": number, "messages": messages})
    folder = Path(settings.data.path) / "shards"
    folder.mkdir()
    write_shard(shard_path(folder, 0), documents, latents)
    once = EncodedDataset(folder)
    for number in range(len(fresh)):
        one, two = (Maker(d, tokenizer, parts.model.config, settings)(0, number) for d in (fresh, once))
        assert one.ids == two.ids and one.labels == two.labels
        for mine, theirs in zip(one.latents, two.latents, strict=True):
            torch.testing.assert_close(mine.latents, theirs.latents, atol=5e-3, rtol=1e-3)  # on disk they are float16


def test_mixture_deals_each_source_by_weight_and_evenly():
    from training.sources import Mixture

    class Numbers:
        def __init__(self, count: int) -> None:
            self.count = count

        def __len__(self) -> int:
            return self.count

        def __getitem__(self, index: int) -> list:
            return [index]

        def name(self, index: int) -> str:
            return str(index)

    mixture = Mixture([Numbers(5), Numbers(45)], [1.0, 1.0])
    assert len(mixture) == 50
    dealt = [mixture.place(epoch, position)[1] for epoch in range(9) for position in range(50)]
    few, many = [d for d in dealt if d < 5], [d for d in dealt if d >= 5]
    assert len(few) == len(many) == 225
    assert all(few.count(d) == 45 for d in range(5)) and all(many.count(d) == 5 for d in range(5, 50))
    assert sorted(few[:5]) == list(range(5)) and sorted(many[:45]) == list(range(5, 50))
    assert mixture[7] == [2] and mixture.name(7) == "2"


def test_lanes_share_the_documents_out(settings, tokenizer, tmp_path):
    from tests.test_training import MODEL, encoded

    from training.build import build_model
    from training.sources import build_lanes

    data = {"path": str(encoded(tmp_path / "encoded")), "validation_documents": 0}
    plain = TrainConfig.model_validate(
        settings.model_dump() | {"lora": None, "start": None, "model": MODEL, "tokenizer": "x", "data": data}
    )
    model = build_model(plain, tokenizer)
    lanes, _ = build_lanes(
        plain, model.config, tokenizer, {}, numbers=range(3), num_lanes=3, report=lambda message: None
    )
    dealt: list[set[str]] = []
    for lane in lanes:
        names: list[str] = []
        while lane.loader.epoch < 2:
            names += lane.next_rows()[1]
        dealt.append(set(names))
    assert set.union(*dealt) == {f"{tmp_path / 'encoded'}, document {k}" for k in range(40)}
    assert not any(dealt[a] & dealt[b] for a, b in ((0, 1), (0, 2), (1, 2)))
