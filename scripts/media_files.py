"""Make small clips and recordings of every kind, whole or subtly wrong, for the corpus and the tests."""

import io
import struct
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np
import soundfile
from PIL import Image

HEIGHT, WIDTH, NUM_FRAMES = 40, 48, 10
RATE = 16_000


def picture(number: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Return a frame, uint8 [H, W, 3], in which something moves."""
    rows, columns = np.mgrid[0:height, 0:width]
    pixels = np.stack([rows * 5 + 9 * number, columns * 5, (rows + columns) * 2 + 4 * number], axis=-1)
    return (pixels % 256).astype(np.uint8)


def tone(seconds: float = 1.0, rate: int = RATE, channels: int = 1) -> np.ndarray:
    """Return a rising tone, float32 [channels, T]."""
    time = np.arange(round(seconds * rate)) / rate
    waves = [0.4 * np.sin(2 * np.pi * (300 + 40 * channel) * time * (1 + time)) for channel in range(channels)]
    return np.stack(waves).astype(np.float32)


def film(
    kind: str = "mp4", codec: str = "libx264", *, pixels: str = "yuv420p", size: tuple[int, int] = (HEIGHT, WIDTH),
    stamps: Sequence[int] = range(NUM_FRAMES), rate: Fraction = Fraction(10), sound: np.ndarray | None = None,
    sound_codec: str = "aac", sound_start: int = 0, options: dict[str, str] | None = None,
    stretch: Fraction | None = None, same: bool = False, **settings: str,
) -> bytes:  # fmt: skip
    """Encode a film with one frame at each stamp, in units of 1 / rate; `same` shows the first all along."""
    out = io.BytesIO()
    with av.open(out, "w", format=kind, options={"fflags": "+bitexact", **(options or {})}) as container:
        defaults = {"preset": "ultrafast"} if codec == "libx264" else {}
        chosen = {name.replace("_", "-"): value for name, value in settings.items()}
        stream = container.add_stream(codec, rate=rate, options={"threads": "1", **defaults, **chosen})
        stream.height, stream.width, stream.pix_fmt = *size, pixels
        stream.time_base = stream.codec_context.time_base = 1 / rate
        if stretch is not None:
            stream.codec_context.sample_aspect_ratio = stretch
        heard = (
            None if sound is None else container.add_stream(sound_codec, rate=RATE if sound_codec == "aac" else 48_000)
        )
        if heard is not None:
            heard.layout = {1: "mono", 2: "stereo", 8: "7.1"}[len(sound)]
        first = picture(0, *size)
        for number, stamp in enumerate(stamps):
            shown = first if same else picture(number, *size)
            frame = av.VideoFrame.from_ndarray(shown, format="rgb24").reformat(format=pixels)
            frame.pts, frame.time_base = stamp, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if heard is not None:
            put_sound(container, heard, sound, sound_start)
    return out.getvalue()


def put_sound(container: Any, stream: Any, samples: np.ndarray, start: int = 0) -> None:
    """Encode sound into a stream."""
    layout = stream.layout.name
    resampler = av.AudioResampler(
        format=stream.codec_context.format, layout=layout, rate=stream.rate,
        frame_size=stream.codec_context.frame_size or 1_024,
    )  # fmt: skip
    interleaved = np.ascontiguousarray(samples.T).reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(interleaved, format="flt", layout=layout)
    frame.sample_rate, frame.pts, frame.time_base = RATE, start, Fraction(1, RATE)
    for ready in (*resampler.resample(frame), *resampler.resample(None)):
        container.mux(stream.encode(ready))
    container.mux(stream.encode())


def recording(
    kind: str = "WAV", subtype: str | None = None, samples: np.ndarray | None = None, rate: int = RATE
) -> bytes:
    """Encode sound with libsndfile; Ogg with a serial number that is always the same."""
    out = io.BytesIO()
    samples = tone() if samples is None else samples
    with soundfile.SoundFile(out, "w", rate, len(samples), format=kind, subtype=subtype) as file:
        for start in range(0, samples.shape[1], 1 << 16):  # the Vorbis encoder crashes on much at once
            file.write(samples[:, start : start + (1 << 16)].T)
    return same_serial(out.getvalue()) if kind == "OGG" else out.getvalue()


def same_serial(data: bytes) -> bytes:
    """Copy the packets of an Ogg file into one whose serial number is not random."""
    out = io.BytesIO()
    with av.open(io.BytesIO(data)) as old, av.open(out, "w", format="ogg", options={"fflags": "+bitexact"}) as new:
        stream = new.add_stream_from_template(old.streams.audio[0])
        for packet in old.demux(audio=0):
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)
    return out.getvalue()


def sound_film(kind: str, codec: str, options: dict[str, str] | None = None) -> bytes:
    """Encode sound alone in a container of films."""
    out = io.BytesIO()
    with av.open(out, "w", format=kind, options={"fflags": "+bitexact", **(options or {})}) as container:
        stream = container.add_stream(codec, rate=48_000 if codec == "libopus" else RATE)
        stream.layout = "mono"
        put_sound(container, stream, tone())
    return out.getvalue()


def animation(
    kind: str, durations: int | list[int] = 100, *, mode: str = "RGB", count: int = 6, **settings: Any
) -> bytes:
    """Encode an animation with Pillow; durations in milliseconds."""
    frames = [Image.fromarray(picture(number)).convert(mode) for number in range(count)]
    out = io.BytesIO()
    frames[0].save(out, kind, save_all=True, append_images=frames[1:], duration=durations, loop=0, **settings)
    return out.getvalue()


def one_picture(count: int) -> bytes:
    """Return a film of 100 frames a second, all the same."""
    single = film("mov", "mjpeg", pixels="yuvj420p", stamps=(0,), rate=Fraction(100))
    out = io.BytesIO()
    with av.open(io.BytesIO(single)) as old, av.open(out, "w", format="mov", options={"fflags": "+bitexact"}) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        data = bytes(next(old.demux(video=0)))
        for number in range(count):
            packet = av.Packet(data)
            packet.pts = packet.dts = number
            packet.time_base, packet.stream, packet.is_keyframe = Fraction(1, 100), stream, True
            new.mux(packet)
    return out.getvalue()


def pcm_bomb() -> bytes:
    """Return a film whose uncompressed sound has one chunk of billions of samples."""
    data = film("mov", "mpeg4", sound=tone(), sound_codec="pcm_s16le")
    place = data.rindex(b"stsc")
    return data[: place + 16] + u32(2**32 - 1) + data[place + 20 :]


def tiny_gif(count: int, size: tuple[int, int] = (1, 1)) -> bytes:
    """Assemble a GIF of many frames, a few bytes each."""
    height, width = size
    frame = b"\x21\xf9\4\0\1\0\0\0" + b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\2\2\x44\1\0"
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6) + frame * count + b";"


def wav(
    data: bytes = bytes(3_200), *, kind: int = 1, channels: int = 1, rate: int = RATE, bits: int = 16,
    size: int | None = None, extra: bytes = b"", block: int | None = None,
) -> bytes:  # fmt: skip
    """Assemble a WAV by hand; `size` is what it says of its data."""
    block = channels * bits // 8 if block is None else block
    header = struct.pack("<HHIIHH", kind, channels, rate, rate * block & 0xFFFFFFFF, block & 0xFFFF, bits)
    body = b"WAVEfmt " + struct.pack("<I", 16) + header + extra
    body += b"data" + struct.pack("<I", len(data) if size is None else size) + data
    return b"RIFF" + struct.pack("<I", len(body) & 0xFFFFFFFF) + body


def floats(*values: float) -> bytes:
    """Return a WAV of floats: a tone with some values in it."""
    samples = tone(0.1)[0].copy()
    samples[100 : 100 + len(values)] = values
    return wav(samples.astype("<f4").tobytes(), kind=3, bits=32)


def flac_header(rate: int, length: int) -> int:
    """Return the last five bytes of rate, channels, bits and length in a FLAC's header (mono, 16 bits)."""
    return (rate << 44 | 0 << 41 | 15 << 36 | length) & (2**40 - 1)


def base_clips() -> dict[str, bytes]:
    """Return one clip of each kind that is read."""
    return {
        "mp4": film(sound=tone()),
        "frag.mp4": film(sound=tone(), options={"movflags": "frag_keyframe+empty_moov"}, g="4"),
        "mov": film("mov", "mpeg4"),
        "webm": film("webm", "libvpx-vp9", sound=tone(), sound_codec="libopus", deadline="realtime", cpu_used="8"),
        "gif": animation("GIF"),
        "webp": animation("WEBP"),
    }


def base_recordings() -> dict[str, bytes]:
    """Return one recording of each kind that is read."""
    return {
        "wav": recording(),
        "flac": recording("FLAC"),
        "ogg": recording("OGG"),
        "mp3": recording("MP3"),
        "m4a": sound_film("mp4", "aac", {"movflags": "frag_keyframe+empty_moov"}),
    }


def u32(*values: int) -> bytes:
    """Pack big-endian numbers of four bytes."""
    return struct.pack(f">{len(values)}I", *values)


def patched(data: bytes, box: bytes, offset: int, value: bytes, *, every: bool = False) -> bytes:
    """Overwrite bytes at an offset from the end of a box's name, in its first or every place."""
    changed = bytearray(data)
    place = data.index(box)
    while place >= 0:
        changed[place + len(box) + offset : place + len(box) + offset + len(value)] = value
        place = data.find(box, place + 1) if every else -1
    return bytes(changed)


def turned(data: bytes, a: int, b: int, c: int, d: int) -> bytes:
    """Set the matrix of a track's header (version 0) to a rotation."""
    matrix = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    return patched(data, b"tkhd", 40, matrix)
