"""Conversations in the chat form, checked and loaded: what a user gives, as a list of frozen messages.

An error names the message, the item and the remedy.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from omni.errors import InputError
from omni.parts import Action, Audio, Image, Limits, Part, Text, Video, shorten

__all__ = ["Message", "Role", "message_to_dict", "newest", "parse_messages", "part_from_item"]

Role = Literal["system", "user", "assistant"]

_SOURCE_KEYS = ("path", "url", "file")
_MEDIA = {"image": "picture", "video": "clip", "audio": "recording"}
# Beside the source: what an array does not say of itself.
_SETTINGS = {"image": (), "video": ("fps",), "audio": ("sample_rate",)}
_TYPES = ("text", *_MEDIA, "action")


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Role
    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        """All text parts, joined."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))


def _check_length(num_chars: int, *, name: str, limits: Limits) -> None:
    if num_chars > limits.max_text_chars:
        raise InputError(
            f"{name} has {num_chars} characters; shorten it to {limits.max_text_chars}, or send it in parts."
        )


def _text_part(text: Any, *, name: str, limits: Limits) -> Text:
    if not isinstance(text, str):
        raise InputError(f"{name}: text should be a str, not {type(text).__name__}.")
    _check_length(len(text), name=name, limits=limits)
    return Text(text)


def _reject_unknown_keys(value: Mapping[Any, Any], *, allowed: tuple[str, ...], name: str) -> None:
    unknown = [key for key in value if key not in allowed]
    if unknown:
        raise InputError(f"{name} has an unknown field {shorten(unknown[0])}; the fields are {', '.join(allowed)}.")


def _media_part(item: Mapping[Any, Any], *, limits: Limits, allow_urls: bool, name: str) -> Part:
    kind = item["type"]
    keys, settings = (kind, *_SOURCE_KEYS), _SETTINGS[kind]
    _reject_unknown_keys(item, allowed=("type", *keys, *settings), name=name)
    sources = [item[key] for key in keys if key in item]
    if len(sources) != 1:
        raise InputError(f'{name} names {len(sources)} {_MEDIA[kind]}s; give exactly one, as "{kind}": source.')
    given = {key: item[key] for key in settings if key in item}
    load: Any = {"image": Image.load, "video": Video.load, "audio": Audio.load}[kind]
    part: Part = load(sources[0], limits=limits, allow_urls=allow_urls, name=f"{name}: the {_MEDIA[kind]}", **given)
    return part


def part_from_item(
    item: Any, *, limits: Limits | None = None, allow_urls: bool = False, name: str = "The item"
) -> Part:
    """Turn one content item into a part.

    Args:
        item: {"type": "text", "text": str}, {"type": "image", "image" | "path" | "url" | "file": source}, the same
            with "video" (and "fps" for an array) and "audio" (and "sample_rate" for an array),
            {"type": "action", "action": name}, or a part, which is returned as it is.
        limits: bounds on its size.
        allow_urls: fetch URLs.
        name: what errors call it.

    Raises:
        InputError: another form or type, or what Image.load, Video.load and Audio.load raise.
    """
    limits = limits or Limits()
    if isinstance(item, Text):
        return _text_part(item.text, name=name, limits=limits)
    if isinstance(item, Part):
        return item
    if not isinstance(item, Mapping):
        raise InputError(f'{name} is a {type(item).__name__}; write it as {{"type": "text", "text": ...}}.')
    kind = item.get("type")
    if kind == "text":
        _reject_unknown_keys(item, allowed=("type", "text"), name=name)
        return _text_part(item.get("text"), name=name, limits=limits)
    if kind == "action":
        _reject_unknown_keys(item, allowed=("type", "action"), name=name)
        if not isinstance(item.get("action"), str):
            raise InputError(f"{name}: action should be a str, not {type(item.get('action')).__name__}.")
        return Action(item["action"])
    if isinstance(kind, str) and kind in _MEDIA:
        return _media_part(item, limits=limits, allow_urls=allow_urls, name=name)
    raise InputError(f"{name} has type {shorten(kind)}; the types are {', '.join(_TYPES)}.")


def _parse_content(content: Any, *, name: str, limits: Limits, allow_urls: bool) -> Iterator[Part]:
    if isinstance(content, (str, Part, Mapping)):
        content = [{"type": "text", "text": content} if isinstance(content, str) else content]
    if not isinstance(content, list | tuple):
        raise InputError(f'{name}: "content" should be a str or a list of items, not {type(content).__name__}.')
    num_chars = 0
    for index, item in enumerate(content):
        part = part_from_item(item, limits=limits, allow_urls=allow_urls, name=f"{name}, item {index + 1}")
        num_chars += len(part.text) if isinstance(part, Text) else 0
        _check_length(num_chars, name=name, limits=limits)
        if not isinstance(part, Text) or part.text:
            yield part


def _parse_message(message: Any, *, name: str, limits: Limits, allow_urls: bool) -> Message:
    if isinstance(message, Message):
        message = {"role": message.role, "content": message.parts}
    if isinstance(message, str):
        message = {"role": "user", "content": message}
    if not isinstance(message, Mapping):
        raise InputError(f'{name} is a {type(message).__name__}; write it as {{"role": "user", "content": ...}}.')
    _reject_unknown_keys(message, allowed=("role", "content"), name=name)
    role = message.get("role")
    if not isinstance(role, str) or role not in get_args(Role):
        raise InputError(f"{name} has role {shorten(role)}; the roles are {', '.join(get_args(Role))}.")
    parts = tuple(_parse_content(message.get("content"), name=name, limits=limits, allow_urls=allow_urls))
    says_nothing = all(isinstance(part, Text) and not part.text.strip() for part in parts)
    if says_nothing and role != "assistant":  # a model may have had nothing to say, and the talk goes on
        raise InputError(f"{name} is empty; say something or attach a picture.")
    return Message(cast(Role, role), parts)


class _Totals:
    """What a conversation's media come to, against the limits on all of them together."""

    def __init__(self, limits: Limits) -> None:
        self._limits, self._pixels, self._video_pixels, self._samples = limits, 0, 0, 0

    def add(self, part: Part, *, name: str) -> None:
        """Count a part.

        Raises:
            InputError: with it there is too much.
        """
        if isinstance(part, Image):
            self._pixels += part.height * part.width
        if isinstance(part, Video):
            self._video_pixels += part.num_frames * part.height * part.width
        sound = part.audio if isinstance(part, Video) else part
        if isinstance(sound, Audio):
            self._samples += sound.samples.size
        for what, total, most in (
            ("pictures", self._pixels, self._limits.max_conversation_pixels),
            ("clips", self._video_pixels, self._limits.max_conversation_video_pixels),
        ):
            if total > most:
                raise InputError(
                    f"{name} brings the {what} to {total / 1e6:.0f} megapixels; stay within "
                    f"{most / 1e6:.0f}, with fewer or smaller ones."
                )
        if self._samples > self._limits.max_conversation_audio_samples:
            raise InputError(
                f"{name} brings the sound to {self._samples / 1e6:.0f} million samples; stay within "
                f"{self._limits.max_conversation_audio_samples / 1e6:.0f}, with fewer or shorter recordings."
            )


def parse_messages(messages: Any, *, limits: Limits | None = None, allow_urls: bool = False) -> list[Message]:
    """Check a conversation in the chat form and load its media.

    Args:
        messages: a str (one user message), one message, or a list of messages, each
            {"role": "system" | "user" | "assistant", "content": str or list of items} or a Message.
        limits: bounds on everything in it.
        allow_urls: fetch URLs.

    Raises:
        InputError: names the message, the item and the remedy.
    """
    limits = limits or Limits()
    listed = messages if isinstance(messages, list | tuple) else [messages]
    if not listed:
        raise InputError("The conversation has no messages; give at least one.")
    if len(listed) > limits.max_messages:
        raise InputError(f"The conversation has {len(listed)} messages; keep the last {limits.max_messages}.")
    parsed = []
    totals = _Totals(limits)
    for index, message in enumerate(listed):
        name = f"Message {index + 1}"
        parsed.append(_parse_message(message, name=name, limits=limits, allow_urls=allow_urls))
        for part in parsed[-1].parts:
            totals.add(part, name=name)
        if parsed[-1].role == "system" and index:
            raise InputError(f"{name} has role 'system'; only the first message may have it.")
    return parsed


def _item(part: Part) -> dict[str, Any]:
    match part:
        case Text():
            return {"type": "text", "text": part.text}
        case Action():
            return {"type": "action", "action": part.name}
        case Image():
            return {"type": "image", "image": part}
        case Video():
            return {"type": "video", "video": part}
        case Audio():
            return {"type": "audio", "audio": part}


def message_to_dict(message: Message) -> dict[str, Any]:
    """Write a message in the chat form that parse_messages reads; media stay Image, Video and Audio objects."""
    return {"role": message.role, "content": [_item(part) for part in message.parts]}


def newest(messages: Sequence[Message], memory: int) -> list[Message]:
    """Return the last message of the user with so many exchanges before it, behind what the system said.

    Args:
        messages: the conversation; an exchange begins with each message of the user.
        memory: exchanges that are kept; 0 for all.
    """
    starts = [place for place, message in enumerate(messages) if message.role == "user"]
    if not memory or len(starts) <= memory + 1:
        return list(messages)
    return [*(one for one in messages[: starts[0]] if one.role == "system"), *messages[starts[-memory - 1] :]]
