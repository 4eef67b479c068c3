import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

from omni.errors import InputError
from omni.parts import Image, Limits, Text
from scripts import make_malformed

REPOSITORY = Path(__file__).parents[1]
MEMORY_MB = 600

# Runs in a process of its own, so that the most memory it ever held can be asked for.
READ_ALL = """
import json, resource, sys, time
from pathlib import Path
from omni import errors, parts
answers = {}
start_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sorted(Path(sys.argv[1]).iterdir()):
    start = time.process_time()
    try:
        answer = repr(parts.Image.load(path))
    except errors.InputError as error:
        answer = "InputError: " + str(error)
    answers[path.name] = [answer, time.process_time() - start]
peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start_kb
print(json.dumps({"answers": answers, "peak_mb": peak_kb / 1024}))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("malformed")
    assert make_malformed.write(folder) >= 100
    return folder


@pytest.fixture(scope="module")
def answers(folder) -> dict:
    command = [sys.executable, "-c", READ_ALL, str(folder)]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=True)
    return json.loads(run.stdout)


def test_malformed_pictures_get_a_picture_or_a_sentence(answers):
    for name, (answer, _) in answers["answers"].items():
        refused = answer.startswith("InputError: The picture")
        assert refused or answer.startswith("Image("), (name, answer)
        assert not (name.startswith("good_") and refused), (name, answer)
        assert not (name.startswith("bad_") and not refused), (name, answer)
        if refused:
            assert name in answer, answer
            assert answer.endswith(".") and "; " in answer and "\n" not in answer, answer


def test_malformed_pictures_are_answered_within_a_second(answers):
    slow = {name: seconds for name, (_, seconds) in answers["answers"].items() if seconds > 1}
    assert not slow


def test_malformed_pictures_take_bounded_memory(answers):
    assert answers["peak_mb"] < MEMORY_MB


def test_malformed_corpus_is_always_the_same(folder):
    again = dict(make_malformed.corpus())
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == again
    assert {name.split("_")[0] for name in again} == {"good", "bad", "any"}


def gradient() -> np.ndarray:
    return np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)


def encoded(picture: PILImage.Image, kind: str = "PNG", **settings) -> bytes:
    return make_malformed.encoded(picture, kind, **settings)


@pytest.mark.parametrize("kind", ["path", "str", "bytes", "bytearray", "pil", "array", "list_of_rows_tensor", "image"])
def test_load_reads_every_source(tmp_path, kind):
    import torch

    pixels = gradient()
    data = encoded(PILImage.fromarray(pixels))
    (tmp_path / "a.png").write_bytes(data)
    source = {
        "path": tmp_path / "a.png",
        "str": str(tmp_path / "a.png"),
        "bytes": data,
        "bytearray": bytearray(data),
        "pil": PILImage.open(io.BytesIO(data)),
        "array": pixels,
        "list_of_rows_tensor": torch.from_numpy(pixels),
        "image": Image(pixels),
    }[kind]
    image = Image.load(source)
    assert image.pixels.dtype == np.uint8
    np.testing.assert_array_equal(image.pixels, pixels)
    assert (image.height, image.width) == (6, 8)


def test_load_scales_16_bit_gray():
    values = np.array([[0, 257, 65_535], [32_768, 514, 65_000]], dtype=np.uint16)
    image = Image.load(encoded(PILImage.fromarray(values)))
    np.testing.assert_array_equal(image.pixels[..., 0], values // 257)


def test_load_puts_transparency_on_white():
    pixels = np.zeros((2, 2, 4), dtype=np.uint8)
    pixels[0, 0] = (200, 10, 20, 255)
    for source in (pixels, encoded(PILImage.fromarray(pixels)), PILImage.fromarray(pixels)):
        image = Image.load(source)
        assert image.pixels[0, 0].tolist() == [200, 10, 20]
        assert image.pixels[1, 1].tolist() == [255, 255, 255]
    palette = PILImage.new("P", (2, 2), 0)
    assert Image.load(encoded(palette, "GIF", transparency=0)).pixels.min() == 255


def test_load_turns_photos_upright():
    pixels = np.zeros((8, 16, 3), dtype=np.uint8)
    pixels[:, :8] = 255
    exif = PILImage.Exif()
    exif[0x0112] = 6
    image = Image.load(encoded(PILImage.fromarray(pixels), "JPEG", exif=exif, quality=95))
    assert image.pixels.shape == (16, 8, 3)
    assert image.pixels[:6].min() > 200 and image.pixels[-6:].max() < 50


def test_load_takes_the_first_frame():
    frames = [PILImage.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    for kind in ("GIF", "PNG", "TIFF"):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        assert Image.load(data).pixels[0, 0].tolist() == [255, 0, 0], kind


def test_load_reads_cmyk_and_gray():
    red = PILImage.new("RGB", (8, 8), (250, 0, 0))
    pixels = Image.load(encoded(red.convert("CMYK"), "TIFF")).pixels
    assert np.abs(pixels.astype(int) - [250, 0, 0]).max() < 10
    assert Image.load(np.full((4, 5), 7, np.uint8)).pixels.tolist() == [[[7, 7, 7]] * 5] * 4
    assert Image.load(np.full((4, 5, 1), 7, np.uint8)).pixels.shape == (4, 5, 3)


def test_load_scales_floats():
    image = Image.load(np.array([[0.0, 0.5, 1.0]]))
    assert image.pixels[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((3, 64, 64), np.uint8), "shape 3x64x64"),
        (np.zeros((1, 8, 8, 3), np.uint8), "shape 1x8x8x3"),
        (np.zeros((), np.uint8), "single number"),
        (np.zeros((0, 5, 3), np.uint8), "no pixels"),
        (np.zeros((4, 5, 3), np.int64), "type int64"),
        (np.zeros((4, 5, 3), bool), "type bool"),
        (np.array([["a"]]), "type <U1"),
        (np.full((4, 5, 3), np.nan), "nan"),
        (np.full((4, 5), np.inf), "inf"),
        (np.full((4, 5), -0.1), "-0.1"),
        (np.full((4, 5), 255.0), "255"),
        (np.broadcast_to(np.uint8(0), (30_000, 30_000, 3)), "too large"),
        (np.broadcast_to(np.float32(0), (1, 20_000)), "too large"),
    ],
)
def test_load_refuses_arrays_that_are_no_picture(array, words):
    with pytest.raises(InputError, match=words):
        Image.load(array)


def test_load_refuses_other_sources(tmp_path):
    import torch

    (tmp_path / "folder").mkdir()
    for source, words in [
        (tmp_path / "none.png", "does not exist"),
        (tmp_path / "folder", "is not a file"),
        ("/dev/zero", "is not a file"),
        ("a\0b.png", "does not exist|cannot be read"),
        ("x" * 5_000, "does not exist|cannot be read"),
        ("https://example.org/a.png", "allow_urls"),
        ("HTTP://example.org/a.png", "allow_urls"),
        ("file:///etc/hostname", "allow_urls"),
        ("data:image/png;base64,AAAA", "URL"),
        (None, "NoneType"),
        (7, "int"),
        ([[0, 0]], "list"),
        (torch.zeros(4, 4, requires_grad=True), "NumPy"),
    ]:
        with pytest.raises(InputError, match=words) as caught:
            Image.load(source)
        assert len(str(caught.value)) < 300


def test_load_looks_at_the_limits_before_it_reads(tmp_path):
    data = encoded(PILImage.new("RGB", (100, 50)))
    (tmp_path / "a.png").write_bytes(data)
    for source in (data, tmp_path / "a.png", PILImage.open(io.BytesIO(data))):
        assert Image.load(source, limits=Limits(max_side=100, max_pixels=5_000)).width == 100
        for limits in (Limits(max_side=99), Limits(max_pixels=4_999)):
            with pytest.raises(InputError, match="100x50"):
                Image.load(source, limits=limits)
    for source in (data, tmp_path / "a.png"):
        with pytest.raises(InputError, match="bytes"):
            Image.load(source, limits=Limits(max_bytes=50))


def test_image_refuses_other_pixels():
    for pixels in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(InputError, match="Image.load"):
            Image(pixels)


@pytest.mark.parametrize("name", ["a.png", "a.PNG", "a.jpg", "a.jpeg", "a.webp"])
def test_saved_equals_loaded(tmp_path, name):
    image = Image(np.full((16, 16, 3), 120, np.uint8))
    image.save(tmp_path / name)
    difference = Image.load(tmp_path / name).pixels.astype(int) - 120
    assert np.abs(difference).max() <= (0 if "png" in name.lower() else 3)


def test_metadata_travels_in_png(tmp_path):
    settings = {
        "prompt": 'A fox \u2581 \ud800 \0 "quoted"\n',
        "seed": 7,
        "settings": {"steps": 24, "sizes": [64, 96]},
    }
    image = Image(gradient())
    image.save(tmp_path / "a.png", metadata=settings)
    again = Image.load(tmp_path / "a.png")
    assert again.metadata == settings
    again.save(tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert Image.load(image.to_png()).metadata == {}
    image.save(tmp_path / "plain.png")
    assert "omni" not in PILImage.open(tmp_path / "plain.png").text


def test_save_refuses_what_it_cannot_write(tmp_path):
    image = Image(gradient())
    for name, settings, words in [
        ("a.gif", {}, "a.gif"),
        ("a", {}, "name in .png"),
        ("a.jpg", {"metadata": {"seed": 1}}, "metadata"),
        ("none/a.png", {}, "Cannot write"),
        ("none/a.jpg", {}, "Cannot write"),
    ]:
        with pytest.raises(InputError, match=words):
            image.save(tmp_path / name, **settings)


def test_image_shows_itself():
    image = Image(gradient())
    assert repr(image) == "Image(height=6, width=8)"
    np.testing.assert_array_equal(Image.load(image._repr_png_()).pixels, image.pixels)
    np.testing.assert_array_equal(np.asarray(image.to_pil()), image.pixels)
    assert Text("a") == Text("a")
