"""Conversations in the chat form, checked and loaded: what a user gives, as a list of frozen messages.

An error names the message, the item and the remedy.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from omni.errors import InputError
from omni.parts import Image, Limits, Part, Text, shorten

__all__ = ["Message", "Role", "message_to_dict", "parse_messages", "part_from_item"]

Role = Literal["system", "user", "assistant"]

_IMAGE_KEYS = ("image", "path", "url", "file")
_LATER_TYPES = ("video", "audio", "action")


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


def part_from_item(
    item: Any, *, limits: Limits | None = None, allow_urls: bool = False, name: str = "The item"
) -> Part:
    """Turn one content item into a part.

    Args:
        item: {"type": "text", "text": str}, {"type": "image", "image" | "path" | "url" | "file": source},
            or a part, which is returned as it is.
        limits: bounds on its size.
        allow_urls: fetch URLs.
        name: what errors call it.

    Raises:
        InputError: another form or type, or what Image.load raises.
    """
    limits = limits or Limits()
    if isinstance(item, Text):
        return _text_part(item.text, name=name, limits=limits)
    if isinstance(item, Image):
        return item
    if not isinstance(item, Mapping):
        raise InputError(f'{name} is a {type(item).__name__}; write it as {{"type": "text", "text": ...}}.')
    kind = item.get("type")
    if kind == "text":
        _reject_unknown_keys(item, allowed=("type", "text"), name=name)
        return _text_part(item.get("text"), name=name, limits=limits)
    if kind == "image":
        _reject_unknown_keys(item, allowed=("type", *_IMAGE_KEYS), name=name)
        sources = [item[key] for key in _IMAGE_KEYS if key in item]
        if len(sources) != 1:
            raise InputError(f'{name} names {len(sources)} pictures; give exactly one, as "image": source.')
        return Image.load(sources[0], limits=limits, allow_urls=allow_urls, name=f"{name}: the picture")
    if isinstance(kind, str) and kind in _LATER_TYPES:
        raise InputError(f"{name} has type {kind!r}, which comes in a later version; send text or images.")
    raise InputError(f'{name} has type {shorten(kind)}; the types are "text" and "image".')


def _parse_content(content: Any, *, name: str, limits: Limits, allow_urls: bool) -> Iterator[Part]:
    if isinstance(content, (str, Text, Image, Mapping)):
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


def parse_messages(messages: Any, *, limits: Limits | None = None, allow_urls: bool = False) -> list[Message]:
    """Check a conversation in the chat form and load its pictures.

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
    num_pixels = 0
    for index, message in enumerate(listed):
        name = f"Message {index + 1}"
        parsed.append(_parse_message(message, name=name, limits=limits, allow_urls=allow_urls))
        num_pixels += sum(part.height * part.width for part in parsed[-1].parts if isinstance(part, Image))
        if num_pixels > limits.max_conversation_pixels:
            raise InputError(
                f"{name} brings the pictures to {num_pixels / 1e6:.0f} megapixels; stay within "
                f"{limits.max_conversation_pixels / 1e6:.0f}, with fewer or smaller ones."
            )
        if parsed[-1].role == "system" and index:
            raise InputError(f"{name} has role 'system'; only the first message may have it.")
    return parsed


def message_to_dict(message: Message) -> dict[str, Any]:
    """Write a message in the chat form that parse_messages reads; pictures stay Image objects."""
    content: list[dict[str, Any]] = [
        {"type": "text", "text": part.text} if isinstance(part, Text) else {"type": "image", "image": part}
        for part in message.parts
    ]
    return {"role": message.role, "content": content}
