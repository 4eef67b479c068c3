"""The vision codec: its frame path, any autoencoder by name, damaged folders, and the shipped one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import models

from omni.codecs import CodecConfig, VisionCodec
from omni.codecs.frames import FramePath
from omni.errors import CheckpointError, InputError

NANO = Path(__file__).resolve().parents[1] / "tokenizers" / "vision" / "nano"
WAN = {
    "base_dim": 4,
    "z_dim": 4,
    "dim_mult": [1, 2, 2],
    "num_res_blocks": 1,
    "temperal_downsample": [True, True],
}
PATCHED = {**WAN, "patch_size": 2, "in_channels": 12, "out_channels": 12}
WHOLE = {**WAN, "dim_mult": [1, 2, 2, 2], "temperal_downsample": [False, True, True]}
KL = {
    "block_out_channels": [4, 8],
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "latent_channels": 3,
    "norm_num_groups": 2,
    "scaling_factor": 0.5,
    "shift_factor": 0.25,
}
DC = {
    "latent_channels": 4,
    "encoder_block_out_channels": [4, 8, 8],
    "decoder_block_out_channels": [4, 8, 8],
    "encoder_layers_per_block": [1, 1, 1],
    "decoder_layers_per_block": [1, 1, 1],
    "encoder_block_types": "ResBlock",
    "decoder_block_types": "ResBlock",
    "encoder_qkv_multiscales": [[], [], []],
    "decoder_qkv_multiscales": [[], [], []],
}
CLASSES = [("AutoencoderKLWan", PATCHED), ("AutoencoderKL", KL), ("AutoencoderDC", DC)]


def _codec(class_name="AutoencoderKLWan", options=PATCHED, **config):
    torch.manual_seed(0)
    # The statistics that Wan's class has by default are those of its published codec.
    own = {"latents_mean": [0.0] * 4, "latents_std": [1.0] * 4} if class_name == "AutoencoderKLWan" else {}
    autoencoder = getattr(models, class_name)(**options, **own)
    return VisionCodec(autoencoder, CodecConfig(class_name, **config))


def _pixels(*shape):
    return torch.randint(0, 256, (*shape, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("options", [PATCHED, WHOLE])
def test_frame_path_equals_causal_path(options):
    codec = _codec(options=options)
    wan, frames = codec.autoencoder, codec.frames
    pictures = _pixels(2, 48, 32).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        moments = wan.encode(pictures[:, :, None]).latent_dist.parameters[:, :, 0]
        torch.testing.assert_close(frames.encode(pictures), moments, atol=1e-5, rtol=1e-4)
        latents = torch.randn(2, 4, 6, 4, generator=torch.Generator().manual_seed(2))
        rebuilt = wan.decode(latents[:, :, None]).sample[:, :, 0]
        torch.testing.assert_close(frames.decode(latents).clamp(-1, 1), rebuilt, atol=1e-5, rtol=1e-4)


def test_frame_path_writes_back_what_it_learnt():
    codec = _codec()
    path = FramePath(codec.autoencoder)
    with torch.no_grad():
        for param in path.parameters():
            param.add_(0.01)
    path.write_back(codec.autoencoder)
    again = FramePath(codec.autoencoder).state_dict()
    assert all(torch.equal(again[name], value) for name, value in path.state_dict().items())


@pytest.mark.parametrize(("class_name", "options"), CLASSES)
def test_any_autoencoder_drops_in_by_name(tmp_path, class_name, options):
    _codec(class_name, options).save(tmp_path)
    codec = VisionCodec.from_folder(tmp_path)
    latents = codec.encode(_pixels(2, 1, 32, 48))
    factor = codec.spatial_factor
    assert latents.shape == (2, 1, 32 // factor, 48 // factor, codec.channels)
    assert codec.decode(latents).shape == (2, 1, 32, 48, 3)
    assert codec.preview(latents).shape == (*latents.shape[:4], 3)


def test_codec_takes_statistics_from_the_autoencoders_own_config():
    codec = _codec("AutoencoderKL", KL)
    assert codec.config.latents_std == pytest.approx((2.0,) * 3)
    assert codec.config.latents_mean == pytest.approx((0.25,) * 3)


def test_codec_codes_clips():
    codec = _codec()
    latents = codec.encode(_pixels(1, 5, 16, 16))
    assert latents.shape == (1, 2, 2, 2, 4)
    assert codec.decode(latents).shape == (1, 5, 16, 16, 3)
    first = codec.encode(_pixels(1, 5, 16, 16)[:, :1])
    torch.testing.assert_close(latents[:, :1], first, atol=1e-5, rtol=1e-4)


def test_saving_over_a_link_leaves_what_it_points_to(tmp_path):
    """The weights in tokenizers/ are links to the shipped model's."""
    weights = tmp_path / "shipped" / "model.safetensors"
    _codec(stored_dtype="bfloat16").save(tmp_path / "shipped")
    before = weights.read_bytes()
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / weights.name).symlink_to(weights)
    _codec(stored_dtype="float32").save(tmp_path / "own")
    assert weights.read_bytes() == before != (tmp_path / "own" / weights.name).read_bytes()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_codec_saved_equals_loaded(tmp_path, dtype):
    _codec(stored_dtype=dtype, rgb_map=((0.1, 0.2, 0.3),) * 5).save(tmp_path / "a")
    first = VisionCodec.from_folder(tmp_path / "a")
    first.save(tmp_path / "b")
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (tmp_path / "b" / "model.safetensors").read_bytes()
    assert VisionCodec.from_folder(tmp_path / "b").config == first.config


@pytest.mark.parametrize(
    "pixels",
    [_pixels(1, 1, 20, 16), _pixels(1, 16, 16), _pixels(1, 1, 16, 16).float()],
    ids=["size", "rank", "type"],
)
def test_codec_names_unfit_pixels(pixels):
    with pytest.raises(InputError, match="multiple of 8|give uint8"):
        _codec().encode(pixels)


def test_codec_names_unfit_latents():
    with pytest.raises(InputError, match=r"give \[clips, frames, rows, columns, 4\]"):
        _codec().decode(torch.zeros(1, 2, 2, 4))


def _flip_byte(folder):
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-100] ^= 1
    (folder / "model.safetensors").write_bytes(data)


def _truncate(folder):
    data = (folder / "model.safetensors").read_bytes()[:-100]
    (folder / "model.safetensors").write_bytes(data)
    _set(folder, sha256=None)


def _set(folder, *, file="codec_config.json", **values):
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "codec_config.json").unlink(), "codec_config.json is missing"),
        (lambda f: (f / "codec_config.json").write_text("{"), "not valid JSON"),
        (lambda f: (f / "config.json").write_text("[]"), "not a JSON object"),
        (lambda f: (f / "model.safetensors").unlink(), "model.safetensors is missing"),
        (_flip_byte, "SHA-256"),
        (_truncate, "is damaged"),
        (lambda f: _set(f, nonsense=1), "unknown key 'nonsense'"),
        (lambda f: _set(f, class_name="UNet2DModel"), "not an autoencoder"),
        (lambda f: _set(f, class_name="AutoencoderOfTomorrow"), "not an autoencoder"),
        (lambda f: _set(f, package="os"), "not an autoencoder"),
        (lambda f: _set(f, latents_std=[1.0]), "latents_mean and latents_std need 4 values"),
        (lambda f: _set(f, rgb_map=[[0, 0, 0]]), "rgb_map needs 5 rows"),
        (lambda f: _set(f, file="config.json", base_dim=8), "does not fit"),
    ],
)
def test_codec_names_what_is_wrong_with_a_folder(tmp_path, damage, message):
    _codec().save(tmp_path)
    damage(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        VisionCodec.from_folder(tmp_path)


def test_codecs_import_without_diffusers():
    code = "import sys, omni.codecs; sys.exit('diffusers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=NANO.parents[2], check=False).returncode == 0


def test_shipped_codec_rebuilds_held_out_scenes():
    from training.codecs.measure import measure_psnr, round_trips

    codec = VisionCodec.from_folder(NANO)
    trips = round_trips(codec, count=16)
    assert measure_psnr(trips)["psnr/all"] >= 27.0


def test_shipped_codec_has_latents_of_unit_variance_and_a_true_preview():
    from training.codecs.scenes import render_scenes

    codec = VisionCodec.from_folder(NANO)
    pixels = torch.from_numpy(render_scenes(0, 32, size=(64, 64), split="validation", seed=5))[:, None]
    latents = codec.encode(pixels)
    assert latents.std((0, 1, 2, 3)).sub(1).abs().max() < 0.3
    small = pixels.float().unflatten(2, (8, 8)).unflatten(4, (8, 8)).mean((3, 5))
    assert (codec.preview(latents).float() - small).abs().mean() < 16


def test_clip_path_equals_the_piece_by_piece_path(film_codec: VisionCodec) -> None:
    """Whole clips at once, pieces carried over, and a film decoded as it comes give the same numbers."""
    from omni.codecs.clips import ClipPath

    generator = torch.Generator().manual_seed(0)
    wan = film_codec.autoencoder
    clips = torch.rand(2, 13, 3, 32, 48, generator=generator) * 2 - 1
    latents = torch.randn(2, 4, 4, 4, 6, generator=generator)
    with torch.no_grad():
        moments = wan.encode(clips.transpose(1, 2)).latent_dist.parameters.transpose(1, 2)
        torch.testing.assert_close(ClipPath(wan).encode(clips), moments, atol=1e-4, rtol=1e-4)
        pixels = wan.decode(latents.transpose(1, 2)).sample.transpose(1, 2)
        torch.testing.assert_close(ClipPath(wan).decode(latents).clamp(-1, 1), pixels, atol=1e-4, rtol=1e-4)


def test_film_decoder_equals_decoding_at_once(film_codec: VisionCodec) -> None:
    latents = torch.randn(1, 5, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    decoder = film_codec.film_decoder()
    pieces = torch.cat([decoder.decode(latents[:, a:b]) for a, b in ((0, 1), (1, 3), (3, 5))], dim=1)
    whole = film_codec.decode(latents)
    assert pieces.shape == whole.shape == (1, 17, 32, 32, 3) and decoder.num_latents == 5
    assert (pieces.int() - whole.int()).abs().max() <= 1


def test_two_films_are_decoded_side_by_side(film_codec: VisionCodec) -> None:
    """What a film remembers is its own."""
    generator = torch.Generator().manual_seed(2)
    films = [torch.randn(1, 3, 4, 4, 4, generator=generator) for _ in range(2)]
    decoders = [film_codec.film_decoder() for _ in films]
    pieces: list[list[torch.Tensor]] = [[], []]
    for step in range(3):
        for number, film in enumerate(films):
            pieces[number].append(decoders[number].decode(film[:, step : step + 1]))
    for film, mine in zip(films, pieces, strict=True):
        assert (torch.cat(mine, dim=1).int() - film_codec.decode(film).int()).abs().max() <= 1


def test_first_latent_depends_on_the_first_frame_alone(film_codec: VisionCodec) -> None:
    generator = torch.Generator().manual_seed(3)
    clip = torch.randint(0, 256, (1, 9, 32, 32, 3), generator=generator, dtype=torch.uint8)
    other = torch.cat(
        [clip[:, :1], torch.randint(0, 256, (1, 8, 32, 32, 3), generator=generator, dtype=torch.uint8)], 1
    )
    first = film_codec.encode(clip)
    torch.testing.assert_close(first[:, :1], film_codec.encode(other)[:, :1])
    torch.testing.assert_close(first[:, :1], film_codec.encode(clip[:, :1]), atol=1e-4, rtol=1e-4)
    assert film_codec.frames_per_latent == 4
