"""Write a corpus of damaged, hostile and merely odd pictures, clips and recordings, to test what comes in.

    python scripts/make_malformed.py FOLDER

Pictures go into the folder itself, clips into FOLDER/clips and recordings into FOLDER/recordings. The name says what
is to happen: `good_*` must load, `bad_*` must be refused, `any_*` may do either.
"""

import argparse
import io
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts import malformed_media as media  # noqa: E402

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEIGHT, WIDTH = 40, 48
TRUNCATE_AT = (0.02, 0.1, 0.25, 0.4, 0.55, 0.7, 0.85)
NUM_FLIPPED = 6

Case = tuple[str, bytes]


def photo(mode: str = "RGB") -> Image.Image:
    """Return a small picture, smooth in places and noisy in others, so that no format makes it tiny."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    noise = np.random.default_rng(0).integers(0, 64, (HEIGHT, WIDTH))
    pixels = np.stack([rows * 4 + noise, columns * 4, 255 - rows - columns], axis=-1).clip(0, 255)
    return Image.fromarray(pixels.astype(np.uint8)).convert(mode)


def encoded(picture: Image.Image, kind: str, **settings: object) -> bytes:
    """Return a picture as the bytes of a file."""
    stream = io.BytesIO()
    picture.save(stream, format=kind, **settings)
    return stream.getvalue()


def plain_files() -> dict[str, bytes]:
    """Return the same picture once in each format that is read."""
    return {
        "png": encoded(photo(), "PNG"),
        "jpeg": encoded(photo(), "JPEG"),
        "webp": encoded(photo(), "WEBP", lossless=True),
        "gif": encoded(photo("P"), "GIF"),
        "bmp": encoded(photo(), "BMP"),
        "tiff": encoded(photo(), "TIFF", compression="tiff_lzw"),
    }


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return one PNG chunk with its checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *, depth: int = 8, colour: int = 0, rows: bytes = b"", extra: bytes = b"") -> bytes:
    """Assemble a PNG by hand: `rows` are its compressed bytes, `extra` further chunks before them."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return PNG_SIGNATURE + chunk(b"IHDR", header) + extra + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def zeros(num_bytes: int) -> bytes:
    """Compress zeros piece by piece: a few bytes that stand for many."""
    packer = zlib.compressobj(9)
    piece = bytes(1 << 20)
    body = b"".join(
        packer.compress(piece[: min(len(piece), num_bytes - start)]) for start in range(0, num_bytes, 1 << 20)
    )
    return body + packer.flush()


def tiff(tags: dict[int, int], *, data: bytes = b"") -> bytes:
    """Assemble a little-endian TIFF of one directory; a tag 273 or 324 of value 0 points at `data`."""
    directory = struct.pack("<H", len(tags))
    start = 8 + 2 + 12 * len(tags) + 4
    for tag, value in sorted(tags.items()):
        directory += struct.pack("<HHII", tag, 4, 1, start if tag in (273, 324) and value == 0 else value)
    return b"II*\0" + struct.pack("<I", 8) + directory + struct.pack("<I", 0) + data


def damaged() -> Iterator[Case]:
    """Yield files cut off at many places, with bytes changed, and with bytes at the end."""
    rng = np.random.default_rng(1)
    for kind, data in plain_files().items():
        for share in TRUNCATE_AT:
            # Much of a picture may be there already: then it is for the decoder to say whether it is usable.
            yield (
                f"{'bad' if share < 0.5 else 'any'}_cut_at_{share:.2f}.{kind}",
                data[: int(len(data) * share)],
            )
        for index in range(NUM_FLIPPED):
            changed = bytearray(data)
            for place in rng.integers(8, len(data), 1 + 3 * index):
                changed[place] ^= int(rng.integers(1, 256))
            yield f"any_flipped_{index}.{kind}", bytes(changed)
        yield f"any_first_bytes_zero.{kind}", bytes(4) + data[4:]
        yield f"good_trailing_bytes.{kind}", data + b"<script>" * 9
    data = plain_files()["png"]
    middle = data.index(b"IDAT")
    yield "bad_wrong_checksum_header.png", data[:29] + bytes([data[29] ^ 255]) + data[30:]
    yield "any_wrong_checksum_pixels.png", data[:-16] + bytes(4) + data[-12:]
    yield "bad_no_pixels.png", data[: middle - 4] + chunk(b"IEND", b"")
    yield "any_length_of_chunk.png", data[: middle - 4] + b"\xff\xff\xff\xff" + data[middle:]


def huge() -> Iterator[Case]:
    """Yield small files that stand for gigabytes."""
    yield "bad_bomb_30000x30000.png", png(30_000, 30_000, depth=1, rows=zeros(30_000 * 3_751))
    yield "bad_bomb_12000x12000.png", png(12_000, 12_000, depth=1, rows=zeros(12_000 * 1_501))
    yield "bad_bomb_header.png", png(2**31 - 1, 2**31 - 1, colour=6, rows=zeros(100))
    yield "bad_long_1x20000.png", png(1, 20_000, rows=zeros(40_000))
    yield "bad_long_20000x1.png", png(20_000, 1, rows=zeros(20_001))
    yield "bad_more_rows_than_data.png", png(5_000, 5_000, rows=zeros(1_000))
    yield "any_more_data_than_rows.png", png(16, 16, rows=zeros(64 << 20))
    packed = zeros(16 << 20)
    yield "any_text_bomb.png", png(8, 8, rows=zeros(72), extra=chunk(b"zTXt", b"omni\0\0" + packed))
    yield "any_profile_bomb.png", png(8, 8, rows=zeros(72), extra=chunk(b"iCCP", b"p\0\0" + packed))
    yield (
        "any_text_bombs.png",
        png(8, 8, rows=zeros(72), extra=chunk(b"zTXt", b"x\0\0" + zeros(1 << 20)) * 70),
    )
    files = plain_files()
    jpeg = bytearray(files["jpeg"])
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 65_500, 65_500)
    yield "bad_bomb.jpeg", bytes(jpeg)
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 4_000, 4_000)
    yield "any_more_rows_than_data.jpeg", bytes(jpeg)
    gif = bytearray(files["gif"])
    gif[6:10] = struct.pack("<HH", 65_535, 65_535)
    yield "bad_bomb.gif", bytes(gif)
    gif = bytearray(files["gif"])
    frame = gif.index(b",\0\0\0\0")
    gif[frame + 5 : frame + 9] = struct.pack("<HH", 65_535, 65_535)
    yield "bad_bomb_in_frame.gif", bytes(gif)
    comment = b"\x21\xfe" + (b"\xff" + b"x" * 255) * 40_000 + b"\0"
    start = 13 + (3 << (files["gif"][10] & 7) + 1)
    yield "bad_comment_of_10_megabytes.gif", files["gif"][:start] + comment + files["gif"][start:]
    bmp = bytearray(files["bmp"])
    bmp[18:26] = struct.pack("<ii", 60_000, 60_000)
    yield "bad_bomb.bmp", bytes(bmp)
    bmp[18:26] = struct.pack("<ii", 48, -(2**31))
    yield "bad_negative_height.bmp", bytes(bmp)
    canvas = b"\x10\0\0\0" + b"\xff\xff\xff" + b"\xfe\xff\0"
    body = b"WEBPVP8X" + struct.pack("<I", len(canvas)) + canvas + files["webp"][12:]
    yield "bad_bomb_canvas.webp", b"RIFF" + struct.pack("<I", len(body)) + body
    yield "bad_bomb_bits.webp", files["webp"][:21] + b"\xff\xff\xff\x0f" + files["webp"][25:]
    yield from huge_tiffs()


def huge_tiffs() -> Iterator[Case]:
    """Yield TIFFs whose size, tiles or counts are far beyond what they hold."""
    base = {256: 64, 257: 64, 258: 8, 259: 8, 262: 1, 277: 1}
    deflated = zeros(64 << 20)
    yield (
        "bad_bomb.tiff",
        tiff(base | {256: 100_000, 257: 100_000, 273: 0, 278: 100_000, 279: 100}, data=deflated),
    )
    tile = {322: 40_000, 323: 40_000, 324: 0, 325: len(deflated)}
    yield "bad_bomb_in_tile.tiff", tiff(base | tile, data=deflated)
    strip = {273: 0, 278: 2**32 - 1, 279: len(deflated)}
    yield "any_strip_longer_than_picture.tiff", tiff(base | strip, data=deflated)
    yield "bad_strip_outside_file.tiff", tiff(base | {273: 2**31, 278: 64, 279: 4_096})
    yield "bad_many_samples.tiff", tiff(base | {277: 60_000, 273: 0, 278: 64, 279: 100}, data=deflated)
    loop = bytearray(plain_files()["tiff"])
    loop[4:8] = struct.pack("<I", 2**32 - 8)
    yield "bad_directory_outside_file.tiff", bytes(loop)


def other_things() -> Iterator[Case]:
    """Yield what is no picture, or one of a kind that is not read, under a picture's name."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(zipfile.ZipInfo("picture.png"), plain_files()["png"])
    svg = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9" height="9"/></svg>'
    yield "bad_empty.png", b""
    yield "bad_one_byte.png", b"\x89"
    yield "bad_signature_alone.png", PNG_SIGNATURE
    yield "bad_zeros.png", bytes(1_000)
    yield "bad_noise.png", np.random.default_rng(2).bytes(5_000)
    yield "bad_zip.png", archive.getvalue()
    yield (
        "bad_pdf.png",
        b"%PDF-1.7\n1 0 obj\n<< /Type /Catalog >>\nendobj\ntrailer\n<< /Root 1 0 R >>\n%%EOF\n",
    )
    yield "bad_html.jpg", b"<!DOCTYPE html><html><body><img src='x.png'></body></html>"
    yield "bad_text.jpg", b"This is not a picture.\n"
    yield "bad_vector.svg", svg
    yield "bad_vector.png", svg
    yield (
        "bad_postscript.eps",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n0 0 9 9 rectfill\nshowpage\n%%EOF\n",
    )
    yield "bad_pixmap.ppm", encoded(photo(), "PPM")
    yield "bad_targa.tga", encoded(photo(), "TGA")
    yield "bad_icon.ico", encoded(photo(), "ICO")
    yield "bad_paintbrush.pcx", encoded(photo(), "PCX")
    yield "bad_jpeg_2000.jp2", b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100)
    yield "bad_photoshop.psd", b"8BPS\0\x01" + bytes(6) + struct.pack(">HIIHH", 3, 64, 64, 8, 3) + bytes(100)
    yield "bad_film.mp4", b"\0\0\0\x18ftypisom" + bytes(100)
    yield "bad_sound.wav", b"RIFF" + struct.pack("<I", 36) + b"WAVEfmt " + bytes(28)
    yield "bad_pickle.png", b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94\x93\x94."
    yield "bad_program.png", b"\x7fELF\x02\x01\x01" + bytes(200)
    yield "bad_no_width.png", png(0, 16, rows=zeros(16))
    yield "bad_depth_of_3.png", png(16, 16, depth=3, rows=zeros(200))
    yield "bad_floats.tiff", encoded(photo("F"), "TIFF")
    yield "bad_32_bits.tiff", encoded(Image.fromarray(np.full((8, 8), 1 << 20, np.int32)), "TIFF")


def odd_but_good() -> Iterator[Case]:
    """Yield rarer kinds of picture, all of them sound."""
    small = photo()
    turned = Image.Exif()
    turned[0x0112] = 6
    gray_16 = Image.fromarray((np.arange(HEIGHT * WIDTH, dtype=np.uint16) * 34).reshape(HEIGHT, WIDTH))
    rgb_16 = zlib.compress(b"".join(b"\0" + np.arange(48, dtype=">u2").tobytes() for _ in range(16)))
    faint = photo("RGBA")
    faint.putalpha(Image.linear_gradient("L").resize(faint.size))
    frames = {"save_all": True, "append_images": [small.rotate(angle) for angle in (90, 180)], "duration": 50}
    yield "good_one_pixel.png", encoded(small.resize((1, 1)), "PNG")
    yield "good_palette.png", encoded(photo("P"), "PNG")
    yield "good_palette_transparent.png", encoded(photo("P"), "PNG", transparency=3)
    yield "good_one_bit.png", encoded(photo("1"), "PNG")
    yield "good_gray.png", encoded(photo("L"), "PNG")
    yield "good_gray_transparent.png", encoded(photo("LA"), "PNG")
    yield "good_gray_key_colour.png", encoded(photo("L"), "PNG", transparency=40)
    yield "good_gray_16_bit.png", encoded(gray_16, "PNG")
    yield "good_gray_16_bit.tiff", encoded(gray_16, "TIFF")
    yield "good_colour_16_bit.png", png(16, 16, depth=16, colour=2, rows=rgb_16)
    yield "good_transparent.png", encoded(faint, "PNG")
    yield "good_transparent.webp", encoded(faint, "WEBP")
    yield "good_animated.png", encoded(small, "PNG", **frames)
    yield "good_animated.gif", encoded(photo("P"), "GIF", **frames)
    yield "good_animated.webp", encoded(small, "WEBP", **frames)
    yield "good_many_pages.tiff", encoded(small, "TIFF", **frames)
    yield "good_four_inks.jpeg", encoded(photo("CMYK"), "JPEG")
    yield "good_four_inks.tiff", encoded(photo("CMYK"), "TIFF")
    yield "good_luma_chroma.jpeg", encoded(photo("YCbCr"), "JPEG", subsampling=2, progressive=True)
    yield "good_gray.jpeg", encoded(photo("L"), "JPEG")
    yield "good_turned.jpeg", encoded(small, "JPEG", exif=turned)
    yield (
        "good_broken_camera_data.jpeg",
        encoded(small, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f" + b"\xee" * 60),
    )
    yield "good_broken_profile.jpeg", encoded(small, "JPEG", icc_profile=b"no profile" * 50)
    yield "good_broken_profile.png", encoded(small, "PNG", icc_profile=b"\xff" * 500)
    yield (
        "good_foreign_settings.png",
        png(8, 8, rows=zeros(72), extra=chunk(b"tEXt", b"omni\0{[" + b"[" * 9_000)),
    )
    yield "good_palette.bmp", encoded(photo("P"), "BMP")
    yield "good_large_1_bit.png", png(6_000, 6_000, depth=1, rows=zeros(6_000 * 751))


def corpus() -> Iterator[Case]:
    """Yield every picture as (file name, content), always the same."""
    yield from damaged()
    yield from huge()
    yield from other_things()
    yield from odd_but_good()


def write(folder: Path, cases: Iterable[Case] | None = None) -> int:
    """Write cases into a folder, the pictures if none are given, and return the number of files."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [name for name, data in cases or corpus() if (folder / name).write_bytes(data) >= 0]
    assert len(names) == len(set(names)), "two cases have the same name"
    return len(names)


def main(argv: list[str] | None = None) -> None:
    """Write the corpus where the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args(argv).folder
    print(f"{write(folder)} pictures in {folder}")
    print(f"{write(folder / 'clips', media.clips())} clips in {folder / 'clips'}")
    print(f"{write(folder / 'recordings', media.recordings())} recordings in {folder / 'recordings'}")


if __name__ == "__main__":
    main()
