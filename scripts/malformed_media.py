"""Damaged, hostile and merely odd clips and recordings; make_malformed.py writes them beside the pictures."""

import io
import struct
import zlib
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
from PIL import Image

from scripts.media_files import (
    NUM_FRAMES,
    RATE,
    animation,
    base_clips,
    base_recordings,
    film,
    flac_header,
    floats,
    one_picture,
    patched,
    pcm_bomb,
    picture,
    recording,
    sound_film,
    tiny_gif,
    tone,
    turned,
    u32,
    wav,
)  # fmt: skip

TWENTIETHS = range(1, 20)
NUM_FLIPPED = 4
HUGE = 1 << 27
FOUR_HOURS_S = 4 * 3_600

Case = tuple[str, bytes]


def damaged(files: dict[str, bytes]) -> Iterator[Case]:
    """Yield files cut off at every twentieth, with bytes changed, with zeros first, and with bytes at the end."""
    rng = np.random.default_rng(1)
    for kind, data in files.items():
        for part in TWENTIETHS:
            # The tables of a plain MP4 or MOV stand at its end.
            verdict = "bad" if kind in ("mp4", "mov") else "any"
            yield f"{verdict}_cut_at_{part:02d}_of_20.{kind}", data[: len(data) * part // 20]
        for index in range(NUM_FLIPPED):
            changed = bytearray(data)
            for place in rng.integers(8, len(data), 1 + 4 * index):
                changed[place] ^= int(rng.integers(1, 256))
            yield f"any_flipped_{index}.{kind}", bytes(changed)
        yield f"any_first_bytes_zero.{kind}", bytes(8) + data[8:]
        yield f"any_middle_zero.{kind}", data[: len(data) // 3] + bytes(len(data) // 3) + data[len(data) // 3 * 2 :]
        yield f"any_trailing_bytes.{kind}", data + b"<script>" * 9


def lying_clips() -> Iterator[Case]:
    """Yield containers whose tables say what is not so."""
    plain, mixed = film(), film(sound=tone())
    fragments = film(options={"movflags": "frag_keyframe+empty_moov"})
    webm = film("webm", "libvpx", deadline="realtime", cpu_used="8")
    sized = patched(plain, b"stsz", 4, u32(1, HUGE))
    timed = patched(sized, b"stts", 8, u32(HUGE, 1))
    yield "bad_billion_samples.mp4", timed
    yield "bad_billion_times.mp4", patched(plain, b"stts", 8, u32(HUGE))
    yield "bad_billion_in_fragment.mp4", patched(fragments, b"trun", 1, bytes(3) + u32(HUGE))
    yield "bad_billion_edits.mp4", patched(plain, b"elst", 4, u32(HUGE))
    yield "bad_billions_in_chunk_of_sound.mov", pcm_bomb()
    yield "any_billion_chunks.mp4", patched(plain, b"stco", 4, u32(HUGE))
    yield "any_billion_runs.mp4", patched(plain, b"stsc", 4, u32(HUGE))
    yield "any_billion_in_chunk.mp4", patched(plain, b"stsc", 12, u32(HUGE))
    yield "bad_offsets_outside_file.mp4", patched(plain, b"stco", 8, u32(2**31))
    yield "any_offsets_zero.mp4", patched(plain, b"stco", 8, u32(0))
    yield "any_sizes_huge.mp4", patched(plain, b"stsz", 12, u32(*[2**30] * NUM_FRAMES))
    yield "any_sizes_zero.mp4", patched(plain, b"stsz", 12, u32(*[0] * NUM_FRAMES))
    yield "bad_no_samples.mp4", patched(patched(plain, b"stsz", 8, u32(0)), b"stts", 8, u32(0))
    for seconds in (FOUR_HOURS_S, 0):
        lies = patched(mixed, b"mvhd", 16, u32(seconds * 1_000))
        lies = patched(lies, b"tkhd", 20, u32(seconds * 1_000), every=True)
        yield f"any_says_{seconds}_s.mp4", patched(lies, b"mdhd", 16, u32(seconds * 10_240), every=True)
        spoken = webm.index(b"\x44\x89\x88")
        yield f"any_says_{seconds}_s.webm", webm[: spoken + 3] + struct.pack(">d", seconds * 1e3) + webm[spoken + 11 :]
    hours = film(stamps=range(0, FOUR_HOURS_S, 60), rate=Fraction(1), size=(16, 16))
    yield "bad_lasts_4_hours.mp4", hours
    yield "bad_lasts_4_hours_says_1_s.mp4", patched(patched(hours, b"mvhd", 16, u32(1_000)), b"mdhd", 16, u32(16_384))
    yield (
        "bad_lasts_4_hours.webm",
        film("webm", "libvpx", stamps=range(0, FOUR_HOURS_S, 60), rate=Fraction(1), size=(16, 16), deadline="realtime"),
    )
    yield "bad_too_many_frames.mov", one_picture(7_300)
    yield "bad_stamps_far_apart.mp4", film(stamps=(0, 1, 2, 10**6))
    header = webm.index(b"\x9d\x01\x2a")
    large = webm[: header + 3] + struct.pack("<HH", 16_383, 16_383) + webm[header + 7 :]
    yield "any_frame_of_16383x16383.webm", large
    yield (
        "any_frame_and_header_of_16383x16383.webm",
        patched(patched(large, b"\xb0\x81", 0, b"\xff"), b"\xba\x81", 0, b"\xff"),
    )
    jpeg = film("mov", "mjpeg", pixels="yuvj420p")
    yield "bad_frame_of_65500x65500.mov", patched(jpeg, b"\xff\xc0", 3, struct.pack(">HH", 65_500, 65_500), every=True)
    sides = plain.index(b"avc1", plain.index(b"stsd")) + 28
    yield "any_header_of_65535x65535.mp4", plain[:sides] + b"\xff" * 4 + plain[sides + 4 :]
    yield (
        "bad_nested_boxes.mp4",
        b"\0\0\0\x10ftypisom\0\0\0\0" + b"".join(u32(8 * (5_000 - depth)) + b"moov" for depth in range(5_000)),
    )
    yield "bad_box_of_no_size.mp4", b"\0\0\0\x10ftypisom\0\0\0\0" + b"\0\0\0\x01moov" + b"\xff" * 8
    yield (
        "bad_compressed_header.mov",
        b"\0\0\0\x14ftypqt  \0\0\0\0qt  " + u32(40) + b"moov" + u32(32) + b"cmov" + bytes(24),
    )
    yield "bad_ebml_of_exabytes.webm", b"\x1a\x45\xdf\xa3\x01" + b"\xff" * 200
    yield "any_ebml_unknown_size.webm", patched(webm, b"\x18\x53\x80\x67", 0, b"\x01" + b"\xff" * 7)
    yield "any_points_at_other_file.mov", patched(film("mov", "mpeg4"), b"url ", -4, b"alis" + bytes(4))


def hostile_animations() -> Iterator[Case]:
    """Yield GIF and WebP files that are far larger than they look."""
    files = {"gif": animation("GIF"), "webp": animation("WEBP")}
    yield "bad_screen_of_65535x65535.gif", patched(files["gif"], b"GIF89a", 0, b"\xff" * 4)
    place = files["gif"].index(b",\0\0\0\0")
    yield "bad_frame_of_65535x65535.gif", files["gif"][: place + 5] + b"\xff" * 4 + files["gif"][place + 9 :]
    yield "bad_too_many_frames.gif", tiny_gif(7_300)
    yield "bad_200000_frames.gif", tiny_gif(200_000)
    yield "good_no_pixels_in_frame_but_canvas.gif", tiny_gif(3, (5, 7))
    yield "bad_canvas_of_16777216.webp", patched(files["webp"], b"VP8X", 8, b"\xff\xff\xff\xfe\xff\0")
    yield "bad_lasts_hours.gif", animation("GIF", [60_000] * 6)
    yield "bad_lasts_hours.webp", animation("WEBP", [2**24 - 1] * 6)
    comment = b"\x21\xfe" + (b"\xff" + b"x" * 255) * 40_000 + b"\0"
    yield (
        "bad_comment_of_10_megabytes.gif",
        files["gif"][:13] + files["gif"][13 : 13 + 768] + comment + files["gif"][13 + 768 :],
    )


def other_things(kind: str) -> Iterator[Case]:
    """Yield what is neither clip nor recording, under such a name."""
    png = io.BytesIO()
    Image.fromarray(picture(0)).save(png, "PNG")
    yield f"bad_empty.{kind}", b""
    yield f"bad_one_byte.{kind}", b"\0"
    yield f"bad_zeros.{kind}", bytes(5_000)
    yield f"bad_noise.{kind}", np.random.default_rng(2).bytes(20_000)
    yield f"bad_text.{kind}", b"This is not a clip.\n" * 50
    yield f"bad_page.{kind}", b"<!DOCTYPE html><html><body></body></html>"
    yield f"bad_picture.{kind}", png.getvalue()
    yield f"bad_playlist.{kind}", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n"
    yield f"bad_list_of_files.{kind}", b"ffconcat version 1.0\nfile /etc/hostname\n"
    yield f"bad_session.{kind}", b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nm=video 1234 RTP/AVP 96\n"
    yield f"bad_notes.{kind}", b"MThd\0\0\0\6\0\0\0\1\0\x60MTrk\0\0\0\4\0\xff\x2f\0"
    yield f"bad_program.{kind}", b"\x7fELF\x02\x01\x01" + bytes(200)
    yield f"bad_header_alone.{kind}", b"\0\0\0\x18ftypisom\0\0\2\0isomiso2"


def odd_clips() -> Iterator[Case]:
    """Yield rarer kinds of clip, all of them sound."""
    plain = film()
    vp9 = {"deadline": "realtime", "cpu_used": "8"}
    uneven = (0, 1, 3, 4, 9, 10, 11, 20, 22, 23)
    for angle, matrix in {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}.items():
        yield f"good_turned_{angle}.mp4", turned(plain, *matrix)
    yield "good_mirrored.mp4", turned(plain, -1, 0, 0, 1)
    yield "good_matrix_of_zeros.mp4", turned(plain, 0, 0, 0, 0)
    yield "good_10_bit.mp4", film(pixels="yuv420p10le")
    yield "good_10_bit.mkv", film("matroska", pixels="yuv420p10le")
    yield "good_10_bit.mov", film("mov", "prores_ks", pixels="yuv422p10le")
    yield "good_full_colour.mp4", film(pixels="yuv444p")
    yield "good_gray.mp4", film(pixels="gray")
    yield "good_lossless.mp4", film(pixels="yuv444p", qp="0")
    yield "good_full_range.mov", film("mov", "mjpeg", pixels="yuvj420p")
    yield "good_part_2.mp4", film("mp4", "mpeg4")
    yield "good_still_pictures.mov", film("mov", "png", pixels="rgb24")
    yield "good_old.webm", film("webm", "libvpx", **vp9)
    yield "good_uneven_rate.mp4", film(stamps=uneven, rate=Fraction(24))
    yield "good_uneven_rate.webm", film("webm", "libvpx-vp9", stamps=uneven, rate=Fraction(30), **vp9)
    yield "good_unsteady_rate.mp4", film(stamps=[k * 3_003 + k * k % 7 * 90 for k in range(12)], rate=Fraction(90_000))
    yield "good_gap_of_a_minute.mp4", film(stamps=(0, 1, 2, 600, 601, 602))
    yield "good_starts_late.mp4", film(stamps=range(50, 60))
    yield "good_240_a_second.mp4", film(rate=Fraction(240))
    yield "good_television_rate.mp4", film(rate=Fraction(30_000, 1_001))
    yield "good_one_a_minute.mp4", film(stamps=(0, 1), rate=Fraction(1, 50))
    yield "good_odd_size.mp4", film(pixels="yuv444p", size=(33, 41))
    yield "good_odd_size.webm", film("webm", "libvpx-vp9", size=(33, 41), **vp9)
    yield "good_one_pixel.webm", film("webm", "libvpx-vp9", size=(1, 1), **vp9)
    yield "good_wide_and_low.mp4", film(size=(2, 2_000), stamps=range(3))
    yield "good_large.mp4", film(size=(1_080, 1_920), stamps=(0,))
    yield "good_wide_pixels.mp4", film(stretch=Fraction(4, 3))
    yield "good_absurd_pixels.mp4", film(stretch=Fraction(30_000, 1))
    yield "good_one_frame.mp4", film(stamps=(0,))
    yield "good_two_groups.mp4", film(g="5", bf="2", preset="medium")
    yield "good_fragments.mp4", film(options={"movflags": "frag_keyframe+empty_moov"})
    yield "good_sound_of_8_channels.mp4", film(sound=tone(channels=8))
    yield "good_sound_longer.mp4", film(sound=tone(5))
    yield "good_sound_shorter.mp4", film(sound=tone(0.2))
    yield "good_sound_later.mp4", film(sound=tone(0.5), sound_start=RATE // 2)
    yield "good_plain_sound.mov", film("mov", "mpeg4", sound=tone(), sound_codec="pcm_s16le")
    yield (
        "any_sound_says_9_hours.mov",
        patched(
            film("mov", "mpeg4", sound=tone(), sound_codec="pcm_s16le"),
            b"mdhd",
            16,
            u32(10_240 * FOUR_HOURS_S),
            every=True,
        ),
    )
    yield "bad_no_pictures.mp4", sound_film("mp4", "aac")
    yield "bad_no_pictures.webm", sound_film("webm", "libopus")
    yield "bad_only_sound.mp4", recording()
    yield "bad_only_sound.webm", recording("OGG")
    yield "good_film_named.webm", plain
    yield "good_film_named.gif", film("webm", "libvpx-vp9", **vp9)
    yield "good_animation_named.mp4", animation("GIF")
    yield "good_animation_named.mov", animation("WEBP")
    yield "good_uneven_rate.gif", animation("GIF", [100, 50, 500, 20, 30, 100])
    yield "good_untimed.gif", animation("GIF", 0)
    yield "good_one_frame.gif", animation("GIF", count=1)
    yield "good_palette.gif", animation("GIF", mode="P", disposal=2)
    yield "good_transparent.webp", animation("WEBP", mode="RGBA", lossless=True)
    yield "good_one_frame.webp", animation("WEBP", count=1)
    yield "good_uneven_rate.webp", animation("WEBP", [100, 50, 500, 20, 30, 100])


def odd_recordings() -> Iterator[Case]:
    """Yield recordings that lie, that are unusual, and some that are out of bounds."""
    files = base_recordings()
    yield "bad_no_samples.wav", wav(b"")
    yield "bad_no_data.wav", wav()[:36]
    yield "bad_no_samples.flac", recording("FLAC", samples=np.zeros((1, 0), np.float32))
    yield "bad_not_a_number.wav", floats(float("nan"))
    yield "bad_infinite.wav", floats(float("inf"))
    yield "bad_other_scale.wav", floats(30_000.0)
    yield "good_somewhat_loud.wav", floats(1.5, -1.2)
    yield "bad_rate_of_0.wav", wav(rate=0)
    yield "bad_rate_of_1.wav", wav(rate=1)
    yield "bad_rate_of_4_billion.wav", wav(rate=2**32 - 1)
    yield "bad_no_channels.wav", wav(channels=0)
    yield "bad_16_channels.wav", recording(samples=tone(0.1, channels=16))
    yield "bad_65535_channels.wav", wav(channels=65_535)
    yield "bad_0_bits.wav", wav(bits=0)
    yield "any_block_of_0.wav", wav(block=0)
    yield "any_unknown_kind.wav", wav(kind=0x1234)
    yield "any_data_of_no_size.wav", wav(size=0)
    yield "good_says_4_gigabytes.wav", wav(size=2**32 - 1)
    yield "good_says_a_bit_more.wav", wav(size=9_999)
    yield "good_long_notes.wav", wav(extra=b"LIST" + struct.pack("<I", 1 << 20) + bytes(1 << 20))
    yield "any_notes_outside_file.wav", wav(extra=b"LIST" + struct.pack("<I", 2**31) + bytes(64))
    silence = np.zeros((1, 8_000 * 700), np.float32)
    yield "bad_silence_of_700_s.flac", recording("FLAC", samples=silence, rate=8_000)
    flac = files["flac"]
    yield "bad_says_4_hours.flac", flac[:21] + struct.pack(">Q", flac_header(RATE, FOUR_HOURS_S * RATE))[3:] + flac[26:]
    yield "any_says_nothing.flac", flac[:21] + struct.pack(">Q", flac_header(RATE, 0))[3:] + flac[26:]
    for rate in (4_000, 8_000, 11_025, 44_100, 48_000, 96_000, 192_000):
        yield f"good_rate_of_{rate}.wav", recording(samples=tone(0.2, rate), rate=rate)
    yield "good_rate_of_192000.flac", recording("FLAC", samples=tone(0.2, 192_000), rate=192_000)
    yield "bad_rate_of_384000.wav", recording(samples=tone(0.1, 384_000), rate=384_000)
    for channels in (2, 6, 8):
        yield f"good_{channels}_channels.wav", recording(samples=tone(channels=channels))
        yield f"good_{channels}_channels.flac", recording("FLAC", samples=tone(channels=channels))
    for subtype in ("PCM_U8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM", "GSM610"):
        yield f"good_{subtype.lower()}.wav", recording(subtype=subtype, rate=8_000)
    yield "good_extended.wav", recording("WAVEX")
    yield "good_64_bit.wav", recording("RF64")
    yield "good_opus.ogg", recording("OGG", "OPUS", rate=48_000)
    yield "good_stereo.mp3", recording("MP3", samples=tone(channels=2), rate=44_100)
    yield "good_one_sample.wav", wav(b"\0\1")
    yield "good_apple_lossless.m4a", sound_film("mp4", "alac")
    yield "good_sound_alone.webm", sound_film("webm", "libopus")
    yield "good_sound_of_film.mp4", film(sound=tone())
    yield "good_sound_of_film.webm", film("webm", "libvpx", sound=tone(), sound_codec="libopus", deadline="realtime")
    yield "bad_silent_film.mp4", film()
    yield "bad_animation.mp3", animation("GIF")
    yield "bad_sound_of_billions.mov", pcm_bomb()
    yield "good_mp3_named.wav", files["mp3"]
    yield "good_wav_named.mp3", files["wav"]
    yield "good_ogg_named.flac", files["ogg"]
    yield "any_junk_first.mp3", b"\xff\xfb" + bytes(2_000) + files["mp3"]
    yield "any_header_of_256_megabytes.mp3", b"ID3\4\0\0\x7f\x7f\x7f\x7f" + files["mp3"]
    yield "good_long_header.mp3", b"ID3\4\0\0\0\x40\0\0" + bytes(1 << 20) + files["mp3"]
    yield "any_sync_alone.mp3", b"\xff\xfb\x90\x64" * 400
    yield "any_raw_aac.aac", b"\xff\xf1\x50\x80" * 400
    yield "any_wrong_checksum.ogg", files["ogg"][:22] + bytes(4) + files["ogg"][26:]
    yield "bad_other_kind.aiff", recording("AIFF")
    yield "bad_compressed_text.ogg", b"OggS" + zlib.compress(bytes(9_999))


def clips() -> Iterator[Case]:
    """Yield every clip as (file name, content), always the same."""
    yield from damaged(base_clips())
    yield from lying_clips()
    yield from hostile_animations()
    yield from odd_clips()
    for kind in ("mp4", "webm"):
        yield from other_things(kind)


def recordings() -> Iterator[Case]:
    """Yield every recording as (file name, content), always the same."""
    yield from damaged(base_recordings())
    yield from odd_recordings()
    for kind in ("wav", "mp3"):
        yield from other_things(kind)
