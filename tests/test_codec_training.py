"""Training of the codec, and encoding of documents."""

import json
from pathlib import Path

import pytest
import torch

from omni.codecs import VisionCodec
from omni.codecs.clips import ClipPath
from omni.errors import CheckpointError, ConfigError
from training.codecs.config import PictureCodecConfig
from training.codecs.export import export
from training.codecs.film import FilmCodecConfig, FilmTrainer, start_time_kernels
from training.codecs.train import PictureTrainer
from training.codecs.trainer import flicker
from training.encode import EncodeConfig, encode
from training.muon import orthogonalise
from training.settings import load_settings
from training.shards import EncodedDataset, load_shard

NANO = Path(__file__).parents[1] / "tokenizers" / "vision" / "nano"
TINY = {
    "patch_size": 2,
    "in_channels": 12,
    "out_channels": 12,
    "base_dim": 4,
    "dim_mult": [1, 2, 2],
    "num_res_blocks": 1,
    "temperal_downsample": [True, True],
    "z_dim": 4,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("codec")


def _config(folder, **changes):
    values = {
        "autoencoder": TINY,
        "sizes": [[48, 48, 0.5, 4], [64, 64, 0.5, 4]],
        "batch_size": 2,
        "steps": 6,
        "threads": 1,
        "output": str(folder),
        "export": str(folder / "export"),
    }
    return PictureCodecConfig(**{**values, **changes})


@pytest.fixture(scope="module")
def trainer(folder):
    trainer = PictureTrainer(_config(folder))
    for _ in range(6):
        trainer.train_step()
    return trainer


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("shape", [(3, 8, 20), (3, 20, 8)])
def test_orthogonalise_brings_singular_values_near_one(dtype, shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    steps = orthogonalise(matrices, dtype=dtype)
    values = torch.linalg.svdvals(steps)
    assert steps.dtype == matrices.dtype
    assert values.min() > 0.6 and values.max() < 1.3


def test_codec_training_resumes_as_if_uninterrupted(folder, trainer):
    first = PictureTrainer(_config(folder))
    for _ in range(3):
        first.train_step()
    first.save()
    second = PictureTrainer(_config(folder))
    assert second.resume() and second.step == 3
    for _ in range(3):
        second.train_step()
    expected = trainer.model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in second.model.state_dict().items())


def test_codec_training_lowers_its_loss(folder):
    trainer = PictureTrainer(_config(folder, steps=30, absolute_weight=0.0, edge_weight=0.0))
    losses = [trainer.train_step()["loss"] for _ in range(30)]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


def test_export_writes_a_codec_with_unit_latents(folder, trainer):
    trainer.export()
    codec = VisionCodec.from_folder(folder / "export")
    pixels = torch.cat([torch.from_numpy(trainer.banks[1][:].copy())])[:, None]
    assert 0.3 < codec.encode(pixels).std() < 3.0
    # Nothing was learnt about time, so a still clip comes back as one picture over and over.
    wan = codec.autoencoder.state_dict()
    assert all(not value[:, :, :-1].any() for value in wan.values() if value.dim() == 5)


def test_encoding_is_resumable_and_loads_as_messages(folder, trainer):
    trainer.model.write_back(trainer.autoencoder)
    codec = export(trainer.autoencoder, config=trainer.config, banks=trainer.banks)
    config = EncodeConfig(
        codecs={"vision": str(folder / "export")},
        output=str(folder / "latents"),
        documents=16,
        shard_documents=8,
        mixture={"text_to_image": 0.5, "edit": 0.3, "chat": 0.2},
    )
    paths = [path for path, _, _ in encode(config)]
    assert len(paths) == 2 and list(encode(config)) == []
    before = load_shard(paths[1])
    paths[1].unlink()
    assert [path for path, _, _ in encode(config)] == paths[1:]
    dataset = EncodedDataset(folder / "latents")
    assert len(dataset) == 16
    assert str(before[3]) == str(dataset[11])
    _assert_equals_world(dataset, codec)
    with pytest.raises(ConfigError, match="another codec, mixture or seed"):
        list(encode(config.model_copy(update={"seed": 1})))


def test_only_documents_asked_for_are_encoded(tmp_path, monkeypatch):
    from training import encode as encoding
    from training.world.tasks import document

    config = EncodeConfig(
        codecs={"vision": str(NANO)}, output=str(tmp_path), documents=4, shard_documents=4,
        mixture={"text_to_image": 1}, only={"count": [2]},
    )  # fmt: skip
    list(encode(config))
    dataset = EncodedDataset(tmp_path)
    seeds = [dataset.shards[0].about(k)["seed"] for k in range(4)]
    assert [document("text_to_image", seed).truth["scenes"][0].slots["count"] for seed in seeds] == [2] * 4
    with pytest.raises(ConfigError, match="another codec, mixture or seed"):
        list(encode(config.model_copy(update={"only": {"count": [3]}})))
    monkeypatch.setattr(encoding, "ATTEMPTS", 3)
    with pytest.raises(ConfigError, match="No document of the task text_to_image among 3"):
        encoding._make((0, config.model_copy(update={"only": {"count": [100]}})))


def _assert_equals_world(dataset, codec):
    from training.world.tasks import document

    about = dataset.shards[0].about(0)
    for message, truth in zip(dataset[0], document(about["task"], about["seed"]).messages, strict=True):
        for item, true_item in zip(message["content"], truth["content"], strict=True):
            if item["type"] == "text":
                assert item == true_item
            else:
                latents = codec.encode(torch.from_numpy(true_item["image"].copy())[None, None])[0]
                torch.testing.assert_close(item["latents"], latents, atol=1e-2, rtol=1e-2)


def test_frames_that_pass_unseen_stand_before_the_next_latents(tmp_path):
    from training.world.motion import render_film
    from training.world.tasks import document

    codec = VisionCodec.from_folder(NANO)
    config = EncodeConfig(
        codecs={"vision": str(NANO)}, output=str(tmp_path), documents=1, shard_documents=1, mixture={"played_world": 1}
    )
    list(encode(config))
    dataset = EncodedDataset(tmp_path)
    latents = [item["latents"] for message in dataset[0] for item in message["content"] if item["type"] == "video"]
    about = dataset.shards[0].about(0)
    film = render_film(document(about["task"], about["seed"]).truth["films"][0])
    whole = codec.encode(torch.from_numpy(film)[None])[0]
    expected = [whole[:1], *whole[len(whole) - len(latents) + 1 :].split(1)]
    for part, true in zip(latents, expected, strict=True):
        torch.testing.assert_close(part.to(true.dtype), true, atol=1e-2, rtol=1e-2)


def test_damaged_shards_are_named(tmp_path):
    with pytest.raises(CheckpointError, match="no encoded documents"):
        EncodedDataset(tmp_path)
    (tmp_path / "shard-00000.jsonl").write_text("{}\n")
    with pytest.raises(CheckpointError, match=r"shard-00000.safetensors"):
        EncodedDataset(tmp_path)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [(["minuts=3"], "did you mean 'minutes'"), (["minutes=long"], "minutes"), (["minutes"], "no '='")],
)
def test_settings_name_the_mistake(tmp_path, overrides, message):
    path = tmp_path / "codec.yaml"
    path.write_text(json.dumps({"autoencoder": TINY, "sizes": [[64, 64, 1, 4]], "export": "x"}))
    assert load_settings(PictureCodecConfig, path, ["minutes=3"]).minutes == 3.0
    with pytest.raises(ConfigError, match=message):
        load_settings(PictureCodecConfig, path, overrides)


def test_films_are_learnt_and_the_latents_of_pictures_stay_near(folder, trainer):
    trainer.export()
    drift = {}
    for anchor_weight in (0.0, 1.0):
        config = FilmCodecConfig(
            codec=str(folder / "export"), output=str(folder / f"film{anchor_weight}"), export=str(folder / "films"),
            steps=24, batch_size=1, num_pictures=1, num_frames=5, threads=1, matrix_lr=0.004, vector_lr=5e-4,
            anchor_weight=anchor_weight, validate_every=24, save_every=12,
        )  # fmt: skip
        films = FilmTrainer(config)
        films.held_out, films.held_out_pictures = films.held_out[:2, :5], films.held_out_pictures[:2]
        before = films.validate()
        films.run()
        after = films.validate()
        assert after["valid_psnr"] > before["valid_psnr"]
        assert before["valid_drift"] < 0.02  # standard deviations
        drift[anchor_weight] = after["valid_drift"]
    assert drift[1.0] < 0.7 * drift[0.0]
    films.export()
    codec = VisionCodec.from_folder(folder / "films")
    assert codec.config.latents_std == films.teacher.config.latents_std
    assert any(value[:, :, :-1].any() for value in codec.autoencoder.state_dict().values() if value.dim() == 5)
    again = FilmTrainer(config)
    assert again.resume() and again.step == 24


def test_a_still_is_coded_without_flicker_before_any_training(folder, trainer):
    trainer.export()
    codec = VisionCodec.from_folder(folder / "export")
    start_time_kernels(codec)
    still = torch.rand(1, 1, 3, 32, 32).expand(-1, 9, -1, -1, -1) * 2 - 1
    path = ClipPath(codec.autoencoder)
    with torch.no_grad():
        rebuilt = path.decode(path.encode(still).chunk(2, dim=2)[0])
    assert flicker(rebuilt, still) < 1e-3
