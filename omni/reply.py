"""What the model answers: text and media in the order of writing, saved as a page with files beside it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omni.errors import InputError
from omni.events import Event, MediaFinished, TextDelta
from omni.messages import Message, message_to_dict
from omni.parts import Action, Audio, Image, Part, Text, Video

__all__ = ["Finished", "Reply", "collect"]


@dataclass(frozen=True)
class Reply:
    """What the model answered.

    Attributes:
        parts: text and media, in the order in which they were written.
        seed: with which the same answer comes again.
    """

    parts: tuple[Part, ...]
    seed: int

    @property
    def text(self) -> str:
        """All text parts, joined."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))

    @property
    def images(self) -> list[Image]:
        """The pictures."""
        return [part for part in self.parts if isinstance(part, Image)]

    @property
    def videos(self) -> list[Video]:
        """The films, each with its sound."""
        return [part for part in self.parts if isinstance(part, Video)]

    @property
    def audios(self) -> list[Audio]:
        """The recordings, without the sound of films."""
        return [part for part in self.parts if isinstance(part, Audio)]

    @property
    def message(self) -> dict[str, Any]:
        """The reply as a message, to go on with the conversation."""
        return message_to_dict(Message("assistant", self.parts))

    def save(self, folder: str | Path) -> None:
        """Write reply.md, with the media beside it: .png, .mp4 (with sound) and .wav.

        Args:
            folder: made where it does not exist.

        Raises:
            InputError: it cannot be made, or a file cannot be written.
        """
        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"Cannot make the folder {folder} ({error.strerror}); choose another place.") from error
        lines = [_save_part(part, folder, number) for number, part in enumerate(self.parts, start=1)]
        text = "\n\n".join(lines) + "\n"
        (folder / "reply.md").write_text(text, encoding="utf-8", errors="surrogatepass")


def _save_part(part: Part, folder: Path, number: int) -> str:
    """Write a part's file and return its line of the page."""
    match part:
        case Text():
            return part.text.strip()
        case Action():
            return f"*{part.name}*"
        case Image():
            file, line = f"{number}.png", f"![picture {number}]({number}.png)"
        case Video():
            file, line = f"{number}.mp4", f"[film {number}]({number}.mp4)"
        case Audio():
            file, line = f"{number}.wav", f"[sound {number}]({number}.wav)"
    part.save(folder / file)
    return line


@dataclass(frozen=True)
class Finished:
    """The reply is complete, or was stopped; what was done by then is in it."""

    reply: Reply


def collect(parts: list[Part], event: Event) -> None:
    """Add an event to the parts of a reply: words to the words before them, frames that go on to their film."""
    last = parts[-1] if parts else None
    match event:
        case TextDelta() if isinstance(last, Text):
            parts[-1] = Text(last.text + event.text)
        case TextDelta():
            parts.append(Text(event.text))
        case MediaFinished(part=Video() as video, continues=True) if isinstance(last, Video):
            parts[-1] = last.followed_by(video)
        case MediaFinished():
            parts.append(event.part)
