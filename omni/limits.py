"""How much of what comes in is taken, checked before it is read."""

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds on input; the defaults let in what cameras and people make, and keep a laptop safe.

    Attributes:
        max_bytes: size of one file.
        max_pixels: height times width of one picture.
        max_side: larger side of one picture, in pixels.
        max_conversation_pixels: all pictures of a conversation together.
        max_text_chars: characters of one message.
        max_messages: messages of a conversation.
        url_timeout_s: seconds a download may take.
    """

    max_bytes: int = 64 * 2**20
    max_pixels: int = 36_000_000
    max_side: int = 16_384
    max_conversation_pixels: int = 144_000_000
    max_text_chars: int = 100_000
    max_messages: int = 1_000
    url_timeout_s: float = 10.0
