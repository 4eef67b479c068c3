"""How much of what comes in is taken, checked before it is read."""

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds on input; the defaults let in what cameras and people make, and keep a laptop safe.

    A clip larger than max_video_side or max_video_pixels is scaled down while it is decoded; every other bound refuses.

    Attributes:
        max_bytes: size of one picture file.
        max_pixels: height times width of one picture.
        max_side: larger side of one picture, or of a frame in a clip's file, in pixels.
        max_media_bytes: size of one clip or recording as a file.
        max_frame_pixels: height times width of one frame in a clip's file.
        max_video_side: larger side of a clip's frames as they are kept.
        max_video_pixels: frames times height times width of one clip as it is kept (three bytes each).
        max_video_frames: frames of one clip.
        max_video_seconds: length of one clip.
        max_audio_seconds: length of one recording.
        max_audio_samples: samples of one recording, all channels together (four bytes each).
        max_audio_channels: channels of one recording.
        min_sample_rate: samples a second of one recording, at least.
        max_sample_rate: samples a second of one recording, at most.
        max_decode_s: seconds that decoding one clip or recording may take.
        max_conversation_pixels: all pictures of a conversation together.
        max_conversation_video_pixels: all clips of a conversation together.
        max_conversation_audio_samples: all sound of a conversation together, that of its clips included.
        max_text_chars: characters of one message.
        max_messages: messages of a conversation.
        url_timeout_s: seconds a download may take.
    """

    max_bytes: int = 64 * 2**20
    max_pixels: int = 36_000_000
    max_side: int = 16_384
    max_media_bytes: int = 256 * 2**20
    max_frame_pixels: int = 9_500_000
    max_video_side: int = 512
    max_video_pixels: int = 96_000_000
    max_video_frames: int = 7_200
    max_video_seconds: float = 120.0
    max_audio_seconds: float = 600.0
    max_audio_samples: int = 64_000_000
    max_audio_channels: int = 8
    min_sample_rate: int = 4_000
    max_sample_rate: int = 192_000
    max_decode_s: float = 30.0
    max_conversation_pixels: int = 144_000_000
    max_conversation_video_pixels: int = 192_000_000
    max_conversation_audio_samples: int = 128_000_000
    max_text_chars: int = 100_000
    max_messages: int = 1_000
    url_timeout_s: float = 10.0
