"""MP4, MOV, WebM and MP3 files, opened within limits: their streams and packets.

What a container says of itself need not be true: sizes are checked before anything is decoded, and again on the way.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from omni.boxes import check_boxes
from omni.errors import InputError
from omni.images import METADATA_KEY
from omni.limits import Limits
from omni.sources import Deadline

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.stream import VideoStream

__all__ = ["comment_settings", "decoded", "opened", "packets", "picture_stream", "settings_of", "sound_stream"]

# Others are rare, slow or hardly ever tested.
_VIDEO_CODECS = {
    "h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mpeg2video", "mpeg1video", "h263", "mjpeg", "prores", "dnxhd",
    "theora", "ffv1", "png", "qtrle", "rawvideo", "gif",
}  # fmt: skip
_AUDIO_CODECS = {
    "aac",
    "mp3",
    "mp2",
    "mp1",
    "opus",
    "vorbis",
    "flac",
    "alac",
    "ac3",
    "eac3",
    "adpcm_ima_qt",
    "adpcm_ms",
}


def comment_settings(comment: Any) -> dict[str, Any]:
    """Read what a part's save wrote into a file's comment: {"omni": metadata, ...}; anything else is {}."""
    try:
        value = json.loads(comment)
    except (TypeError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) and isinstance(value.get(METADATA_KEY), dict) else {}


def _refuse_other_file(*_: Any) -> Any:
    raise InputError("a file that points at another file")


@contextmanager
def opened(file: BinaryIO, kind: str, *, name: str, limits: Limits) -> Iterator["InputContainer"]:
    """Open a container; whatever its parsers raise becomes one sentence."""
    import av

    if kind == "mov":
        check_boxes(file, name=name)
    file.seek(0)
    options = {"max_pixels": str(limits.max_frame_pixels), "threads": "1"}  # also for what opening itself decodes
    try:
        with av.open(
            _Shielded(file), format=kind, options=options, metadata_errors="replace", buffer_size=1 << 16,
            timeout=max(1.0, limits.max_decode_s), io_open=_refuse_other_file,
        ) as container:  # fmt: skip
            yield cast("InputContainer", container)
    except InputError:
        raise
    except Exception as error:  # parsers of untrusted bytes raise nearly everything, MemoryError too
        reason = " ".join(str(getattr(error, "strerror", "") or error).split()) or type(error).__name__
        raise InputError(f"{name} is damaged ({reason[:80]}); save it again as MP4, WebM or WAV.") from error


class _Shielded:
    """A file that stays open when the container closes."""

    def __init__(self, file: BinaryIO) -> None:
        self.read, self.seek, self.tell = file.read, file.seek, file.tell


def packets(container: "InputContainer", streams: Sequence["Stream"], deadline: Deadline) -> Iterator["Packet"]:
    """Yield packets with content, up to where the file ends or breaks off."""
    from av.error import FFmpegError

    source = container.demux(*streams)
    while True:
        deadline.check()
        try:
            packet = next(source)
        except (StopIteration, FFmpegError):
            return
        if packet.size:
            yield packet


def decoded(stream: "Stream", packet: "Packet | None") -> Sequence[Any]:
    """Decode one packet, or what is left; a damaged packet gives nothing."""
    from av.error import FFmpegError

    try:
        return stream.codec_context.decode(packet)  # type: ignore[attr-defined]
    except (FFmpegError, EOFError):
        return []


def picture_stream(container: "InputContainer", *, name: str) -> "VideoStream":
    from av.stream import Disposition

    streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not streams:
        sounds = bool(container.streams.audio)
        raise InputError(
            f"{name} has no video stream; " + ("send it as audio." if sounds else "save it again as MP4 or WebM.")
        )
    stream = streams[0]
    codec = stream.codec_context.codec.canonical_name if stream.codec_context else "unknown"
    if codec not in _VIDEO_CODECS:
        raise InputError(f"{name} has pictures of codec {codec}; save it again with H.264 or VP9.")
    return stream


def sound_stream(container: "InputContainer", *, name: str) -> "AudioStream | None":
    """Return the first stream of sound that can be read, None where there is none at all."""
    unknown = []
    for stream in container.streams.audio:
        codec = stream.codec_context.codec.canonical_name if stream.codec_context else "unknown"
        if codec in _AUDIO_CODECS or codec.startswith("pcm_"):
            return stream
        unknown.append(codec)
    if unknown:
        raise InputError(f"{name} has sound of codec {unknown[0]}; save it again with AAC or Opus.")
    return None


def settings_of(container: "InputContainer") -> dict[str, Any]:
    """Read what a part's save wrote into a container."""
    comments = {key.lower(): value for key, value in container.metadata.items()}
    return comment_settings(comments.get("comment"))
