"""The audio codec: lengths, laws, both classes, damaged folders, and the shipped one."""

import dataclasses
import json
import math
import time
from pathlib import Path

import pytest
import torch

from omni.codecs import AudioCodec, AudioCodecConfig
from omni.codecs.mel import AutoencoderLogMel, LogMelConfig, mel_filters
from omni.errors import CheckpointError, InputError

NANO = Path(__file__).resolve().parents[1] / "tokenizers" / "audio" / "nano"
OOBLECK = {
    "encoder_hidden_size": 8,
    "downsampling_ratios": [2, 4, 8],
    "channel_multiples": [1, 2, 2],
    "decoder_channels": 4,
    "decoder_input_channels": 4,
    "audio_channels": 2,
    "sampling_rate": 16000,
}


def _log_mel(**config):
    autoencoder = AutoencoderLogMel(LogMelConfig(latent_channels=8, fft_size=160, bands=16, iterations=4))
    return AudioCodec(autoencoder, AudioCodecConfig("AutoencoderLogMel", **config))


def _oobleck(**config):
    from diffusers.models import AutoencoderOobleck

    torch.manual_seed(0)
    return AudioCodec(AutoencoderOobleck(**OOBLECK), AudioCodecConfig("AutoencoderOobleck", "diffusers", **config))


def _tune(codec, seconds=1.0, pitches=(262.0, 330.0, 392.0)):
    """Three sines one after another, [1, T]."""
    time_s = torch.arange(int(seconds * codec.sample_rate)) / codec.sample_rate
    pitch = torch.tensor(pitches)[(time_s / seconds * len(pitches)).long()]
    return 0.3 * torch.sin(2 * math.pi * torch.cumsum(pitch / codec.sample_rate, 0))[None]


@pytest.fixture(scope="module")
def nano():
    return AudioCodec.from_folder(NANO)


@pytest.mark.parametrize("make", [_log_mel, _oobleck])
@pytest.mark.parametrize("num_samples", [1, 63, 64, 65, 777])
def test_lengths_are_whole_latents(make, num_samples):
    codec = make()
    samples = 0.1 * torch.randn(2, num_samples, generator=torch.Generator().manual_seed(0))
    latents = codec.encode(samples)
    count = -(-num_samples // codec.samples_per_latent)
    assert latents.shape == (2, count, codec.channels) and latents.dtype == torch.float32
    assert codec.num_latents(num_samples) == count
    assert codec.decode(latents).shape == (2, count * codec.samples_per_latent)
    assert codec.decode(latents, num_samples).shape == (2, num_samples)
    pictures = codec.preview(latents)
    assert pictures.dtype == torch.uint8 and pictures.shape[0] == 2 and pictures.shape[3] == 3


@pytest.mark.parametrize("make", [_log_mel, _oobleck])
def test_saved_equals_loaded(tmp_path, make):
    make(latents_mean=(0.5,) * make().channels).save(tmp_path / "a")
    codec = AudioCodec.from_folder(tmp_path / "a")
    codec.save(tmp_path / "b")
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (tmp_path / "b" / "model.safetensors").read_bytes()
    again = AudioCodec.from_folder(tmp_path / "b")
    assert again.config == codec.config
    samples = _tune(codec)
    assert torch.equal(codec.encode(samples), again.encode(samples))


def test_stereo_autoencoder_is_given_and_gives_mono():
    codec = _oobleck()
    assert (codec.samples_per_latent, codec.channels, codec.latents_per_second) == (64, 4, 250.0)


def test_spectrum_and_sound_are_inverse():
    autoencoder = AutoencoderLogMel(LogMelConfig(latent_channels=4))
    samples = torch.randn(2, 20 * autoencoder.hop, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(autoencoder.sound(autoencoder.spectrum(samples)), samples, atol=1e-5, rtol=0)


def test_spectrum_of_a_sine_has_its_amplitude():
    autoencoder = AutoencoderLogMel(LogMelConfig(latent_channels=4))
    time_s = torch.arange(9600) / 16000
    spectrum = autoencoder.spectrum(0.5 * torch.sin(2 * math.pi * 1000.0 * time_s)[None])
    assert spectrum.abs()[0, 10].max().item() == pytest.approx(0.5, rel=1e-3)


def test_filters_are_sums_over_neighbours():
    filters = mel_filters(128, fft_size=1280, sample_rate=16000)
    torch.testing.assert_close(filters.sum(1), torch.ones(128))
    peaks = filters.argmax(1)
    assert bool((peaks[1:] > peaks[:-1]).all()), "every band hears frequencies of its own"


def test_codec_is_at_most_25_latents_a_second(nano):
    assert nano.sample_rate == 16000 and nano.latents_per_second <= 25


def test_decode_then_encode_is_close(nano):
    latents = nano.encode(_tune(nano))
    again = nano.encode(nano.decode(latents))
    inside = (latents - again)[:, 2:-2].square().mean() / latents[:, 2:-2].square().mean()
    assert inside < 0.15


def test_pitch_survives(nano):
    for pitch in (110.0, 196.0, 262.0, 440.0, 880.0):
        sound = nano.decode(nano.encode(_tune(nano, pitches=(pitch,))))[0]
        loudest = torch.fft.rfft(sound * torch.hann_window(len(sound))).abs().argmax().item()
        heard = loudest * nano.sample_rate / len(sound)
        assert abs(12 * math.log2(heard / pitch)) < 0.5


def test_loudness_survives(nano):
    samples = _tune(nano)
    for gain in (0.1, 1.0):
        sound = nano.decode(nano.encode(gain * samples))
        assert sound.square().mean().sqrt().item() == pytest.approx(
            gain * samples.square().mean().sqrt().item(), rel=0.2
        )


def test_silence_stays_silent(nano):
    sound = nano.decode(nano.encode(torch.zeros(1, 16000)))
    assert sound.abs().max() < 2e-3


def test_decode_is_deterministic_and_rows_do_not_mix(nano):
    first, second = nano.encode(_tune(nano)), nano.encode(_tune(nano, pitches=(500.0, 200.0)))
    alone = nano.decode(first)
    assert torch.equal(alone, nano.decode(first))
    torch.testing.assert_close(nano.decode(torch.cat([first, second]))[:1], alone, atol=1e-3, rtol=0)


def test_wild_latents_give_finite_samples(nano):
    wild = 10.0 * torch.randn(1, 25, nano.channels, generator=torch.Generator().manual_seed(0))
    sound = nano.decode(wild)
    assert torch.isfinite(sound).all() and sound.abs().max() <= 1.0


def test_latents_of_the_world_are_near_unit(nano):
    from training.codecs.audio_material import recordings

    latents = torch.cat([nano.encode(torch.from_numpy(each.samples)[None])[0] for each in recordings("test", 24)])
    assert latents.std().item() == pytest.approx(1.0, abs=0.3)
    assert latents.mean().abs() < 0.3


def test_three_seconds_are_quick(nano):
    samples = _tune(nano, seconds=3.0)
    nano.decode(nano.encode(samples))
    started = time.process_time()
    nano.decode(nano.encode(samples))
    assert (time.process_time() - started) / torch.get_num_threads() < 1.0


@pytest.mark.parametrize(
    "samples",
    [
        torch.zeros(16000),
        torch.zeros(1, 0),
        torch.zeros(0, 16000),
        torch.zeros(1, 16000, dtype=torch.int16),
        torch.full((1, 16000), float("nan")),
        torch.full((1, 16000), float("inf")),
    ],
)
def test_bad_samples_are_refused(samples):
    with pytest.raises(InputError, match="samples"):
        _log_mel().encode(samples)


@pytest.mark.parametrize("latents", [torch.zeros(1, 3, 7), torch.zeros(3, 8), torch.full((1, 3, 8), float("nan"))])
def test_bad_latents_are_refused(latents):
    for use in (_log_mel().decode, _log_mel().preview):
        with pytest.raises(InputError, match="latents"):
            use(latents)


@pytest.mark.parametrize("num_samples", [0, -1, 10**6])
def test_samples_that_are_not_there_are_refused(num_samples):
    with pytest.raises(InputError, match="num_samples"):
        _log_mel().decode(torch.zeros(1, 3, 8), num_samples)


def _spoil_json(folder, name, **changes):
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _flip_byte(folder):
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "codec_config.json").unlink(), "is missing"),
        (lambda folder: (folder / "config.json").unlink(), "is missing"),
        (lambda folder: (folder / "model.safetensors").unlink(), "is missing"),
        (lambda folder: (folder / "config.json").write_text("{"), "not valid JSON"),
        (lambda folder: (folder / "codec_config.json").write_text("[]"), "not a JSON object"),
        (_flip_byte, "SHA-256"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"1234"), "damaged"),
        (lambda folder: _spoil_json(folder, "codec_config.json", surprise=1), "unknown key 'surprise'"),
        (lambda folder: _spoil_json(folder, "codec_config.json", class_name="Pickle"), "no audio autoencoder"),
        (lambda folder: _spoil_json(folder, "codec_config.json", stored_dtype="int8"), "stored_dtype"),
        (lambda folder: _spoil_json(folder, "codec_config.json", latents_std=[1.0]), "need 8 values"),
        (lambda folder: _spoil_json(folder, "codec_config.json", latents_std=[0.0] * 8), "all of std positive"),
        (lambda folder: _spoil_json(folder, "config.json", bands=-1), "does not build"),
        (lambda folder: _spoil_json(folder, "config.json", latent_channels=9), "does not fit"),
        (lambda folder: _spoil_json(folder, "config.json", surprise=1), "does not build"),
    ],
)
def test_damaged_folders_are_named(tmp_path, spoil, message):
    _log_mel().save(tmp_path)
    spoil(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        AudioCodec.from_folder(tmp_path)


def test_log_mel_config_refuses_nonsense():
    good = dataclasses.asdict(LogMelConfig(latent_channels=8))
    for change in ({"fft_size": 1281}, {"latent_channels": 257}, {"floor": 0.0}, {"momentum": 1.0}):
        with pytest.raises(ValueError, match="needs"):
            LogMelConfig(**(good | change))
