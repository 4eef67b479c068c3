"""Recordings: what goes in comes out, whatever the format, rate and channels; within limits."""

import io

import numpy as np
import pytest
import soundfile

from omni.errors import InputError
from omni.parts import Audio, Limits, Video
from scripts import media_files as media

RATE = 16_000


def sine(hertz: float, rate: int, seconds: float = 0.5) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


@pytest.mark.parametrize(("suffix", "most"), [(".wav", 1e-4), (".flac", 1e-4), (".ogg", 0.03), (".mp3", 0.03)])
@pytest.mark.parametrize("channels", [1, 2])
def test_saved_equals_loaded(tmp_path, suffix, most, channels):
    audio = Audio(media.tone(1.5, channels=channels), RATE, {"prompt": 'a "bell" \u2581 \ud800', "seed": 3})
    audio.save(tmp_path / f"sound{suffix}")
    again = Audio.load(tmp_path / f"sound{suffix}")
    assert again.sample_rate == RATE and again.samples.dtype == np.float32
    assert again.samples.shape[0] == channels and abs(again.duration_s - 1.5) < 5 / RATE
    length = again.samples.shape[1]
    assert np.abs(again.samples - audio.samples[:, :length])[:, 200:-200].mean() < most
    assert again.metadata == audio.metadata
    audio.save(tmp_path / f"plain{suffix}", metadata={})
    assert Audio.load(tmp_path / f"plain{suffix}").metadata == {}


def test_loud_sound_does_not_wrap():
    square = np.sign(sine(100, RATE)).astype(np.float32)[None]
    for suffix in (".wav", ".flac"):
        again = Audio.load(Audio(square, RATE).to_bytes(suffix)).samples
        assert np.abs(again - square).max() < 1e-3


@pytest.mark.parametrize("rate", [4_000, 8_000, 11_025, 22_050, 44_100, 48_000, 96_000, 192_000, 15_991])
def test_every_rate_survives(rate):
    for suffix in (".wav", ".flac"):
        again = Audio.load(Audio(sine(440, rate)[None], rate).to_bytes(suffix))
        assert again.sample_rate == rate and again.samples.shape[1] == round(0.5 * rate)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"])
def test_every_sample_format_gives_the_same_sound(subtype):
    data = media.recording(subtype=subtype)
    assert np.abs(Audio.load(data).samples - media.tone()).max() < 0.03


@pytest.mark.parametrize("codec", ["aac", "alac", "pcm_s16le", "pcm_u8", "pcm_f32le", "pcm_s24le"])
def test_sound_in_containers(codec):
    kind = "mov" if codec.startswith("pcm") else "mp4"
    audio = Audio.load(media.sound_film(kind, codec))
    assert audio.sample_rate == RATE and audio.samples.shape == (1, RATE)
    assert np.abs(audio.samples - media.tone())[:, 200:-200].mean() < (0.01 if codec != "aac" else 0.05)


def test_sound_of_a_film():
    samples = media.tone(1.5)
    film = Video(np.zeros((12, 32, 32, 3), np.uint8), 8.0, Audio(samples, RATE))
    for suffix, rate in ((".mp4", RATE), (".webm", 48_000)):
        audio = Audio.load(film.to_bytes(suffix))
        assert audio.sample_rate == rate and abs(audio.duration_s - 1.5) < 5 / RATE


def test_a_recording_that_breaks_off_gives_its_beginning():
    noise = np.random.default_rng(0).normal(0, 0.1, (1, 9 * RATE)).astype(np.float32)
    whole = media.tone(9) / 2 + noise.clip(-0.4, 0.4)
    for suffix in (".wav", ".flac", ".mp3", ".ogg"):
        data = Audio(whole, RATE).to_bytes(suffix)
        samples = Audio.load(data[: len(data) * 2 // 3]).samples
        assert 3 * RATE < samples.shape[1] < 7 * RATE, suffix
        assert np.abs(samples - whole[:, : samples.shape[1]])[:, 200:-2_000].mean() < 0.05, suffix


def test_what_lossy_codecs_overshoot_is_clipped():
    audio = Audio.load(media.floats(1.5, -1.25))
    assert (audio.samples[0, 100], audio.samples[0, 101]) == (1, -1)


def test_load_takes_arrays():
    wave = sine(440, RATE)
    assert np.array_equal(Audio.load(wave, sample_rate=RATE).samples, wave[None])
    assert Audio.load(wave[None].repeat(2, 0), sample_rate=RATE).samples.shape == (2, len(wave))
    shorts = (wave * 32_767).astype(np.int16)
    assert np.abs(Audio.load(shorts, sample_rate=RATE).samples - wave).max() < 1e-4
    doubles = Audio.load(wave.astype(np.float64), sample_rate=8_000)
    assert doubles.samples.dtype == np.float32 and doubles.duration_s == pytest.approx(1)
    assert Audio.load(doubles) is doubles
    wave[:] = 1
    assert Audio.load(doubles).samples.max() < 0.6


def test_load_takes_files_and_bytes(tmp_path):
    data = media.recording()
    (tmp_path / "a.wav").write_bytes(data)
    for source in (tmp_path / "a.wav", str(tmp_path / "a.wav"), data, bytearray(data), memoryview(data)):
        assert Audio.load(source).samples.shape == (1, RATE)


WAVE = sine(440, RATE)


@pytest.mark.parametrize(
    ("source", "settings", "words"),
    [
        (WAVE, {}, "sample_rate=16000"),
        (WAVE, {"sample_rate": 16_000.5}, "sample_rate=16000"),
        (WAVE, {"sample_rate": 100}, "100 samples a second; resample it to between 4000 and 192000"),
        (WAVE, {"sample_rate": 10**6}, "between 4000 and 192000"),
        (WAVE[:0], {"sample_rate": RATE}, "empty"),
        (WAVE.reshape(2, 2, -1), {"sample_rate": RATE}, "shape 2x2x2000"),
        (np.zeros((100, 2), np.float32), {"sample_rate": RATE}, "transposed"),
        (np.zeros((9, 100), np.float32), {"sample_rate": RATE}, "9 channels; mix it down to at most 8"),
        (WAVE * 32_767, {"sample_rate": RATE}, "give floats from -1 to 1, or int16"),
        (np.full(9, np.nan), {"sample_rate": RATE}, "nan"),
        (np.zeros(9, np.int64), {"sample_rate": RATE}, "int64"),
        (np.broadcast_to(np.float32(0), 601 * RATE), {"sample_rate": RATE}, "cut it to 600 s"),
        (np.broadcast_to(np.float32(0), (8, 9_000_000)), {"sample_rate": 48_000}, "at most 64000000"),
        (media.recording(), {"sample_rate": RATE}, "own sample rate"),
        (b"", {}, "empty"),
        (b"x" * 50, {}, "not a recording"),
        (media.animation("GIF"), {}, "not a recording"),
        (media.film(), {}, "no sound"),
        (media.floats(float("nan")), {}, "not numbers"),
        (media.floats(30_000), {}, "from -1 to 1|between -1 and 1"),
        (media.wav(b""), {}, "empty"),
        (None, {}, "NoneType"),
        ([0.0, 1.0], {}, "list"),
        ("none.wav", {}, "does not exist"),
        ("https://example.org/a.wav", {}, "allow_urls"),
    ],
)
def test_load_refuses_in_one_sentence(source, settings, words):
    with pytest.raises(InputError, match=words) as caught:
        Audio.load(source, **settings)
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "data", [media.recording(), media.recording("FLAC"), media.recording("OGG"), media.recording("MP3"),
             media.sound_film("mp4", "aac")], ids=["wav", "flac", "ogg", "mp3", "m4a"],
)  # fmt: skip
@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(max_audio_seconds=0.5), "cut it to 0.5 s"),
        (Limits(max_audio_samples=8_000), "at most 8000"),
        (Limits(max_sample_rate=8_000), "and 8000"),
        (Limits(min_sample_rate=20_000), "between 20000"),
        (Limits(max_media_bytes=100), "at most 100 bytes"),
        (Limits(max_decode_s=0), "0 s to decode"),
    ],
)
def test_limits_are_in_the_error(data, limits, words):
    with pytest.raises(InputError, match=words):
        Audio.load(data, limits=limits)


def test_a_long_silence_in_a_small_file_is_refused_unread():
    out = io.BytesIO()
    with soundfile.SoundFile(out, "w", 192_000, 1, format="FLAC") as file:
        for _ in range(700):
            file.write(np.zeros(192_000, np.float32))
    assert len(out.getvalue()) < 4e6
    with pytest.raises(InputError, match="lasts 700 s; cut it to 600 s"):
        Audio.load(out.getvalue())


def test_audio_refuses_what_is_none():
    for samples, rate in [
        (np.zeros(9, np.float32), RATE),
        (np.zeros((1, 9)), RATE),
        (np.zeros((1, 0), np.float32), RATE),
        (np.full((1, 9), 1.1, np.float32), RATE),
        (np.full((1, 9), np.nan, np.float32), RATE),
        (np.zeros((1, 9), np.float32), 0),
        (np.zeros((1, 9), np.float32), 8_000.0),
    ]:
        with pytest.raises(InputError):
            Audio(samples, rate)


@pytest.mark.parametrize(("old", "new"), [(48_000, 16_000), (44_100, 16_000), (16_000, 48_000), (192_000, 16_000),
                                          (11_025, 16_000), (15_991, 16_000), (16_000, 8_000)])  # fmt: skip
def test_resampled_keeps_the_sound(old, new):
    audio = Audio(sine(1_000, old)[None], old).resampled(new)
    assert audio.sample_rate == new and audio.samples.shape == (1, round(round(0.5 * old) * new / old))
    difference = (audio.samples[0] - sine(1_000, new, 1)[: audio.samples.shape[1]])[200:-200]
    assert 20 * np.log10(np.abs(difference).max() / 0.5) < -60


def test_resampled_removes_what_the_new_rate_cannot_hold():
    audio = Audio(sine(11_000, 48_000)[None], 48_000).resampled(16_000)
    assert np.abs(audio.samples[0, 200:-200]).max() < 0.5 * 10 ** (-60 / 20)


def test_resampled_mixes_to_one_channel_or_keeps_them():
    left, right = sine(500, RATE), sine(700, RATE)
    audio = Audio(np.stack([left, right]), RATE)
    np.testing.assert_allclose(audio.resampled(RATE).samples[0], (left + right) / 2, atol=1e-6)
    assert audio.resampled(8_000, mono=False).samples.shape == (2, 4_000)
    assert Audio(np.full((1, 1), 0.5, np.float32), RATE).resampled(8_000).samples.shape == (1, 1)
    for rate in (0, -1, 8_000.5, True):
        with pytest.raises(InputError, match="sample_rate"):
            audio.resampled(rate)


def test_save_refuses_what_it_cannot_write(tmp_path):
    audio = Audio(media.tone(0.1), RATE)
    for name, sound, words in [
        ("a.aac", audio, "use .wav"),
        ("a", audio, "use .wav"),
        ("none/a.wav", audio, "Cannot write"),
        ("a.mp3", Audio(media.tone(0.1, channels=3), RATE), "3 channels"),
        ("a.flac", Audio(media.tone(0.1, channels=9), RATE), "9 channels"),
    ]:
        with pytest.raises(InputError, match=words):
            sound.save(tmp_path / name)


def test_mp3_takes_the_next_rate_it_knows():
    again = Audio.load(Audio(sine(440, 15_991)[None], 15_991).to_bytes(".mp3"))
    assert again.sample_rate == 16_000 and abs(again.duration_s - 0.5) < 1e-3


def test_audio_shows_itself():
    audio = Audio(media.tone(0.5), RATE)
    assert repr(audio) == "Audio(channels=1, sample_rate=16000, duration_s=0.500)"
    page = audio._repr_html_()
    assert page.startswith("<audio controls") and "data:audio/wav;base64," in page
    assert audio.duration_s == 0.5
