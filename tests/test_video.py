"""Films: what goes in comes out, whatever the rate, size, rotation and colour; within limits."""

import io
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from omni.errors import InputError
from omni.parts import Audio, Image, Limits, Video
from scripts import malformed_media
from scripts import media_files as media

RATE = 16_000


def moving(num_frames: int = 12, height: int = 48, width: int = 64) -> np.ndarray:
    """Smooth pictures that move, gray so that halved colour costs nothing: uint8 [F, H, W, 3]."""
    rows, columns = np.mgrid[0:height, 0:width]
    frames = [128 + 90 * np.sin(rows / 9 + k / 3) * np.cos(columns / 11 - k / 4) for k in range(num_frames)]
    return np.repeat(np.stack(frames)[..., None], 3, axis=-1).astype(np.uint8)


def levels(values: list[int], size: tuple[int, int] = (32, 32)) -> np.ndarray:
    """Plain gray frames, one for each value."""
    return np.stack([np.full((*size, 3), value, np.uint8) for value in values])


def encode(stamps: list[int], base: Fraction, *, kind: str = "mp4", codec: str = "libx264", **settings) -> bytes:
    """Encode gray frames of levels 20, 40, ... at given stamps, in units of base."""
    out = io.BytesIO()
    with av.open(out, "w", format=kind) as container:
        stream = container.add_stream(codec, rate=1 / base, options={"crf": "10", **settings})
        stream.height, stream.width, stream.pix_fmt = 32, 32, "yuv420p"
        stream.time_base = stream.codec_context.time_base = base
        for number, stamp in enumerate(stamps):
            frame = av.VideoFrame.from_ndarray(levels([20 + 20 * number])[0], format="rgb24")
            frame.pts, frame.time_base = stamp, base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return out.getvalue()


def shown(video: Video) -> list[int]:
    """Tell which of encode's frames a clip shows."""
    return [round((float(frame.mean()) - 20) / 20) for frame in video.frames]


def error(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(int) - other).mean())


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".webm", ".gif"])
@pytest.mark.parametrize("fps", [8.0, 30_000 / 1_001])
def test_saved_equals_loaded(tmp_path, suffix, fps):
    frames = moving()
    video = Video(frames, fps, metadata={"prompt": 'a "fox" \u2581 \ud800', "seed": 3, "nested": {"steps": [1, 2]}})
    path = tmp_path / f"film{suffix}"
    video.save(path)
    again = Video.load(path)
    assert again.frames.shape == frames.shape and again.fps == fps and again.audio is None
    assert error(again.frames, frames) < 2
    assert again.metadata == video.metadata
    assert again.duration_s == pytest.approx(12 / fps)


@pytest.mark.parametrize(("suffix", "rate"), [(".mp4", RATE), (".mov", RATE), (".webm", 48_000)])
def test_sound_is_saved_with_the_film(tmp_path, suffix, rate):
    samples = media.tone(1.5)
    Video(moving(), 8.0, Audio(samples, RATE)).save(tmp_path / f"film{suffix}")
    sound = Video.load(tmp_path / f"film{suffix}").audio
    assert sound.sample_rate == rate and abs(sound.duration_s - 1.5) < 5 / RATE
    again = sound.resampled(RATE).samples[0]
    length = min(len(again), samples.shape[1]) - 200
    offsets = {k: error_of_shift(again, samples[0], k, length) for k in range(-20, 21)}
    assert abs(min(offsets, key=offsets.get)) <= 2
    assert min(offsets.values()) < 0.02


def error_of_shift(one: np.ndarray, other: np.ndarray, shift: int, length: int) -> float:
    return float(np.abs(one[100 + shift : length + shift] - other[100:length]).mean())


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
@pytest.mark.parametrize("size", [(33, 41), (1, 1), (2, 301), (40, 39)])
def test_odd_sizes_survive(tmp_path, suffix, size):
    frames = moving(3, *size)
    Video(frames, 5.0).save(tmp_path / f"film{suffix}")
    again = Video.load(tmp_path / f"film{suffix}")
    assert again.frames.shape == frames.shape and error(again.frames, frames) < 3


@pytest.mark.parametrize("fps", [1.0, 7.5, 12.5, 23.976, 24_000 / 1_001, 60.0, 240.0, 0.5])
def test_frame_rates_are_exact(fps):
    for suffix in (".mp4", ".webm"):
        assert Video.load(Video(moving(4), fps).to_bytes(suffix)).fps == fps, suffix


def test_one_frame_is_a_film():
    for suffix in (".mp4", ".webm", ".gif"):
        again = Video.load(Video(moving(1), 4.0).to_bytes(suffix))
        assert (again.num_frames, again.fps) == (1, 4.0), suffix


def test_uneven_stamps_are_put_on_the_grid_they_fit():
    video = Video.load(encode([0, 1, 3, 4, 8], Fraction(1, 10)))
    assert video.fps == 10 and shown(video) == [0, 1, 1, 2, 3, 3, 3, 3, 4]
    matroska = Video.load(encode([0, 1, 3, 4, 8], Fraction(1, 10), kind="matroska"))
    assert matroska.fps == 10 and shown(matroska) == [0, 1, 1, 2, 3, 3, 3, 3, 4]


def test_unsteady_stamps_give_the_nearest_frame():
    jitter = [0, 3_300, 5_700, 9_400, 11_700, 15_300]  # about 30 a second, in ninety-thousandths
    video = Video.load(encode(jitter, Fraction(1, 90_000)))
    assert video.fps == pytest.approx(30, rel=0.05) and shown(video) == [0, 1, 2, 3, 4, 5]


def test_reordered_frames_come_in_order():
    data = encode(list(range(11)), Fraction(1, 10), bf="3", preset="medium", g="30")
    assert shown(Video.load(data)) == list(range(11))


def test_a_film_that_starts_late_starts_at_its_first_frame():
    assert shown(Video.load(encode([70, 71, 72], Fraction(1, 10)))) == [0, 1, 2]


@pytest.mark.parametrize(
    ("durations", "fps", "wanted"),
    [
        ([100, 50, 250], 20, [0, 0, 1, 2, 2, 2, 2, 2]),
        ([120, 130] * 3, 8, [0, 1, 2, 3, 4, 5]),
        ([0, 0, 0], 10, [0, 1, 2]),
        ([300, 300], Fraction(10, 3), [0, 1]),
    ],
)
@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_animations_keep_their_time(durations, fps, wanted, kind):
    from PIL import Image as PILImage

    frames = [PILImage.fromarray(frame) for frame in levels([20 + 20 * k for k in range(len(durations))])]
    out = io.BytesIO()
    frames[0].save(out, kind, save_all=True, append_images=frames[1:], duration=durations, lossless=True)
    video = Video.load(out.getvalue())
    assert video.fps == pytest.approx(float(fps)) and shown(video) == wanted


@pytest.mark.parametrize(
    ("matrix", "turn"),
    [
        ((0, 1, -1, 0), lambda frames: np.rot90(frames, -1, axes=(1, 2))),
        ((-1, 0, 0, -1), lambda frames: np.rot90(frames, 2, axes=(1, 2))),
        ((0, -1, 1, 0), lambda frames: np.rot90(frames, 1, axes=(1, 2))),
        ((-1, 0, 0, 1), lambda frames: frames[:, :, ::-1]),
        ((1, 0, 0, 1), lambda frames: frames),
        ((0, 0, 0, 0), lambda frames: frames),
    ],
)
def test_rotation_is_honoured(matrix, turn):
    plain = Video(moving(3), 8.0).to_bytes()
    upright = Video.load(media.turned(plain, *matrix))
    np.testing.assert_array_equal(upright.frames, turn(Video.load(plain).frames))


@pytest.mark.parametrize(
    ("codec", "pixels"),
    [("libx264", "yuv420p10le"), ("libx264", "yuv444p"), ("prores_ks", "yuv422p10le"), ("mjpeg", "yuvj420p")],
)
def test_every_depth_of_colour_gives_the_same_picture(codec, pixels):
    out = io.BytesIO()
    frames = moving(3)
    with av.open(out, "w", format="mov") as container:
        options = {"crf": "8"} if codec == "libx264" else {"qscale": "2"} if codec == "mjpeg" else {}
        stream = container.add_stream(codec, rate=8, options=options)
        stream.height, stream.width, stream.pix_fmt = 48, 64, pixels
        for number, frame in enumerate(frames):
            made = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format=pixels)
            made.pts, made.time_base = number, Fraction(1, 8)
            container.mux(stream.encode(made))
        container.mux(stream.encode())
    assert error(Video.load(out.getvalue()).frames, frames) < 3


@pytest.mark.parametrize(("tag", "space"), [(1, "ITU709"), (6, "ITU601")])
def test_colours_follow_their_tag(tag, space):
    colour = np.full((2, 32, 32, 3), (200, 40, 60), np.uint8)
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=8, options={"crf": "4"})
        stream.height, stream.width, stream.pix_fmt = 32, 32, "yuv420p"
        stream.codec_context.colorspace = tag
        for number, frame in enumerate(colour):
            made = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="yuv420p", dst_colorspace=space)
            made.pts, made.time_base = number, Fraction(1, 8)
            container.mux(stream.encode(made))
        container.mux(stream.encode())
    assert np.abs(Video.load(out.getvalue()).frames.astype(int) - (200, 40, 60)).max() <= 4
    assert np.abs(Video.load(Video(colour, 8.0).to_bytes()).frames.astype(int) - (200, 40, 60)).max() <= 4


def test_pixels_become_square():
    video = Video.load(media.film(stretch=Fraction(4, 3)))
    assert (video.height, video.width) == (30, 48)
    assert Video.load(media.film(stretch=Fraction(30_000))).width == 48


@pytest.mark.parametrize(("start_s", "silence"), [(0.0, 0), (0.5, 8_000)])
def test_sound_keeps_its_place_in_the_film(start_s, silence):
    data = media.film(sound=media.tone(0.4), sound_start=round(start_s * RATE))
    samples = Video.load(data).audio.samples[0]
    loud = np.flatnonzero(np.abs(samples) > 0.05)
    assert abs(loud[0] - silence) < 100


def test_large_frames_are_scaled_down_while_they_are_read():
    frames = np.zeros((4, 600, 1_000, 3), np.uint8)
    frames[:, :300] = 200
    data = Video(frames, 8.0).to_bytes()
    video = Video.load(data)
    assert (video.height, video.width) == (307, 512)
    assert video.frames[:, :140].min() > 190 and video.frames[:, 170:].max() < 10
    assert Video.load(data, limits=Limits(max_video_side=2_000)).width == 1_000
    small = Video.load(data, limits=Limits(max_video_pixels=40_000))
    assert small.frames.size <= 3 * 40_000 and small.width / small.height == pytest.approx(1_000 / 600, rel=0.05)
    gif = Video.load(Video(frames[:, ::2, ::2], 8.0).to_bytes(".gif"), limits=Limits(max_video_pixels=40_000))
    assert gif.num_frames == 4 and gif.frames.size <= 3 * 40_000


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".gif"])
@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(max_video_frames=11), "more than 11 frames"),
        (Limits(max_video_seconds=1.4), "within 1.4 s"),
        (Limits(max_frame_pixels=3_000), "0.003 megapixels"),
        (Limits(max_side=63), "63 pixels a side"),
        (Limits(max_media_bytes=100, max_bytes=100), "at most 100 bytes"),
        (Limits(max_decode_s=0), "0 s to decode"),
    ],
)
def test_limits_are_in_the_error(suffix, limits, words):
    with pytest.raises(InputError, match=words):
        Video.load(Video(moving(), 8.0).to_bytes(suffix), limits=limits)


def test_the_beginning_of_a_long_film_can_be_taken():
    hours = media.film(stamps=range(0, 4 * 3_600, 60), rate=Fraction(1), size=(16, 16))
    with pytest.raises(InputError, match="lasts 14[34].* s; keep within 120 s, or take its beginning with max_frames"):
        Video.load(hours)
    assert Video.load(hours, max_frames=2).num_frames == 2
    data = Video(moving(), 8.0, Audio(media.tone(1.5), RATE)).to_bytes()
    start = Video.load(data, max_frames=4, limits=Limits(max_video_frames=4, max_video_seconds=0.5))
    assert start.num_frames == 4 and start.audio.samples.shape[1] == RATE // 2
    assert error(start.frames, moving()[:4]) < 2
    assert Video.load(Video(moving(), 8.0).to_bytes(".gif"), max_frames=3).num_frames == 3
    assert Video.load(moving(), fps=8, max_frames=3).num_frames == 3


def test_sound_of_a_film_has_limits_too():
    data = Video(moving(), 8.0, Audio(media.tone(1.5), RATE)).to_bytes()
    with pytest.raises(InputError, match="in its sound.* cut it to 1 s"):
        Video.load(data, limits=Limits(max_audio_seconds=1))


def test_a_file_that_breaks_off_gives_its_beginning():
    data = media.film(options={"movflags": "frag_keyframe+empty_moov"}, g="2")
    video = Video.load(data[: len(data) * 3 // 4])
    assert 3 <= video.num_frames < 10
    assert error(video.frames, Video.load(data).frames[: video.num_frames]) < 1


def test_a_file_that_lies_about_its_length_is_read_for_what_it_holds():
    start = time.monotonic()
    with pytest.raises(InputError, match="samples"):
        Video.load(dict(malformed_media.lying_clips())["bad_billion_samples.mp4"])
    assert time.monotonic() - start < 10
    hours = media.film(stamps=range(0, 4 * 3_600, 60), rate=Fraction(1), size=(16, 16))
    lies = media.patched(media.patched(hours, b"mvhd", 16, media.u32(1_000)), b"mdhd", 16, media.u32(16_384))
    with pytest.raises(InputError, match="keep within 120 s"):
        Video.load(lies)


# In a process of its own, so that the most memory it ever held can be asked for.
LOAD = """
import resource, sys
import av
from omni.parts import Limits, Video
start_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert Video.load(sys.argv[1], limits=Limits(max_video_side=64)).num_frames == 150
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start_kb) / 1024)
"""


def test_decoding_holds_few_frames_at_once(tmp_path):
    (tmp_path / "large.mp4").write_bytes(media.film(size=(720, 1_280), stamps=range(150), same=True))
    command = [sys.executable, "-c", LOAD, str(tmp_path / "large.mp4")]
    ended = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True)
    all_mb = 150 * 720 * 1_280 * 1.5 / 2**20
    assert float(ended.stdout) < all_mb / 3


def test_load_takes_arrays():
    frames = moving(5)
    video = Video.load(frames, fps=8)
    np.testing.assert_array_equal(video.frames, frames)
    frames[:] = 0
    assert video.frames.max() > 0
    floats = Video.load(moving(5).astype(np.float64) / 255, fps=29.97)
    assert floats.fps == 29.97 and error(floats.frames, moving(5)) == 0
    assert Video.load(video) is video
    assert Video.load(np.zeros((2, 700, 10, 3), np.uint8), fps=1).height == 512


@pytest.mark.parametrize(
    ("source", "settings", "words"),
    [
        (moving(2), {}, "fps=8"),
        (moving(2), {"fps": 0}, "fps is 0"),
        (moving(2), {"fps": float("nan")}, "fps is nan"),
        (moving(2), {"fps": "8"}, "fps is '8'"),
        (moving(2)[0], {"fps": 8}, "shape 48x64x3"),
        (moving(2)[..., :1], {"fps": 8}, "shape 2x48x64x1"),
        (moving(2)[:0], {"fps": 8}, "no frames"),
        (moving(2)[:, :0], {"fps": 8}, "no size"),
        (moving(2).astype(np.int64), {"fps": 8}, "int64"),
        (np.full((1, 2, 2, 3), np.nan), {"fps": 8}, "nan"),
        (np.broadcast_to(np.uint8(0), (9_999, 2, 2, 3)), {"fps": 99}, "7200 frames"),
        (np.broadcast_to(np.uint8(0), (2, 4_000, 4_000, 3)), {"fps": 1}, "too large"),
        (b"x" * 50, {"fps": 8}, "own frame rate"),
        (b"", {}, "empty"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), {}, "send it as an image"),
        (b"RIFF\0\0\0\0WAVE" + bytes(50), {}, "send it as audio"),
        (b"x" * 50, {}, "not a clip"),
        (None, {}, "NoneType"),
        ("none.mp4", {}, "does not exist"),
        ("https://example.org/a.mp4", {}, "allow_urls"),
        (moving(2), {"fps": 8, "max_frames": 0}, "max_frames is 0"),
    ],
)
def test_load_refuses_in_one_sentence(source, settings, words):
    with pytest.raises(InputError, match=words) as caught:
        Video.load(source, **settings)
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


def test_video_refuses_what_is_none():
    for frames, fps, audio in [
        (np.zeros((2, 4, 4), np.uint8), 8, None),
        (np.zeros((2, 4, 4, 3)), 8, None),
        (np.zeros((0, 4, 4, 3), np.uint8), 8, None),
        (moving(2), 0, None),
        (moving(2), 8, media.tone()),
    ]:
        with pytest.raises(InputError):
            Video(frames, fps, audio)


def test_resampled_takes_the_nearest_frame():
    video = Video(levels(list(range(12))), 12.0, Audio(media.tone(), RATE))
    assert video.resampled(fps=6).frames[:, 0, 0, 0].tolist() == [0, 2, 4, 6, 8, 10]
    assert video.resampled(fps=24).frames[:6, 0, 0, 0].tolist() == [0, 0, 1, 1, 2, 2]
    assert video.resampled(fps=8).frames[:, 0, 0, 0].tolist() == [0, 1, 3, 4, 6, 7, 9, 10]
    assert video.resampled(fps=0.1).num_frames == 1
    assert video.resampled(fps=6).audio is video.audio and video.resampled(fps=6).duration_s == 1
    for settings in ({"fps": -1}, {"size": (0, 4)}, {"size": (4,)}):
        with pytest.raises(InputError):
            video.resampled(**settings)


def test_resampled_does_not_alias():
    stripes = np.zeros((2, 64, 96, 3), np.uint8)
    stripes[:, :, ::2] = 255
    small = Video(stripes, 8.0).resampled(size=(16, 24))
    assert small.frames.shape == (2, 16, 24, 3)
    assert np.abs(small.frames[:, :, 1:-1].astype(int) - 128).max() < 8


def test_films_go_on():
    first = Video(levels([1, 2]), 8.0, Audio(media.tone(0.25), RATE))
    silent = Video(levels([3, 4]), 8.0)
    both = first.followed_by(silent)
    assert both.frames[:, 0, 0, 0].tolist() == [1, 2, 3, 4]
    assert both.audio.samples.shape == (1, RATE // 2) and not both.audio.samples[:, RATE // 4 :].any()
    late = silent.followed_by(first).audio.samples
    np.testing.assert_allclose(late[:, RATE // 4 :], first.audio.samples, atol=1e-6)
    assert silent.followed_by(silent).audio is None
    assert both.first(2).audio.samples.shape[1] == RATE // 4 and both.first(9) is both
    for other in (Video(levels([1]), 9.0), Video(levels([1], (16, 32)), 8.0)):
        with pytest.raises(InputError, match="same size"):
            first.followed_by(other)


def test_save_refuses_what_it_cannot_write(tmp_path):
    video = Video(moving(2), 8.0, Audio(media.tone(), RATE))
    for name, film, words in [
        ("a.avi", video, "use .mp4"),
        ("a", video, "use .mp4"),
        ("a.gif", video, "no sound"),
        ("a.gif", Video(moving(2), 60.0), "50 frames a second"),
        ("none/a.mp4", video, "Cannot write"),
        ("a.mp4", Video(moving(2), 8.0, Audio(media.tone(channels=9), RATE)), "8 channels"),
    ]:
        with pytest.raises(InputError, match=words):
            film.save(tmp_path / name)


def test_every_channel_is_saved():
    samples = media.tone(channels=8)
    again = Video.load(Video(moving(2), 2.0, Audio(samples, RATE)).to_bytes()).audio
    assert again.samples.shape == samples.shape
    assert np.abs(again.samples - samples)[[0, 1, 2, 4, 5, 6, 7], 200:-200].mean() < 0.05  # the low one is filtered


def test_video_shows_itself():
    video = Video(moving(3), 8.0, Audio(media.tone(0.1), RATE))
    assert repr(video) == (
        "Video(num_frames=3, height=48, width=64, fps=8, audio=Audio(channels=1, sample_rate=16000, duration_s=0.100))"
    )
    page = video._repr_html_()
    assert page.startswith("<video controls") and "data:video/mp4;base64," in page
    picture = video.image(-1)
    assert isinstance(picture, Image) and (picture.pixels == video.frames[2]).all()
