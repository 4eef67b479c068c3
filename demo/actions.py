"""What the buttons and fields of the page do: from their values to a conversation, and back to values."""

from collections.abc import Callable, Iterator
from html import escape
from typing import Any
from urllib.parse import quote

import gradio as gr

from demo.examples import Example, examples_for
from demo.host import Host
from demo.media import KINDS
from demo.session import Conversation, View
from demo.settings import Settings, settings_of_file
from omni import OmniError

__all__ = ["AUTO_SIZE", "MAX_GUIDANCE", "MAX_STEPS", "SIZES", "Actions", "sendable"]

AUTO_SIZE = "The model chooses"
SIZES = {
    AUTO_SIZE: None,
    "Square, 64 x 64": (64, 64),
    "Wide, 96 x 64": (64, 96),
    "Tall, 64 x 96": (96, 64),
}
MAX_STEPS = 100
MAX_GUIDANCE = 10.0


class Actions:
    """One method for each event of the page.

    `name` is the conversation's, `chosen` the values of the settings panel. Most return the new values of the chat,
    the status line and the text box.

    Args:
        host: answers, and keeps the conversations.
    """

    def __init__(self, host: Host) -> None:
        self.host = host

    def open_page(self, name: str) -> list[Any]:
        """Find the conversation that this browser had before, or begin one."""
        name = name or self.host.new_id()
        return [name, *_show(self.host.conversation(name).view())]

    def say(self, name: str, typed: dict[str, Any], *chosen: Any) -> list[Any]:
        """Send what stands in the text box; it stays there when it cannot be sent."""
        conversation = self.host.conversation(name)
        settings = _settings(*chosen)
        is_sent = self._start(conversation, lambda: conversation.say(typed["text"], typed["files"], settings))
        return _show(conversation.view(), empty_box=is_sent)

    def say_example(self, name: str, example: gr.SelectData, *chosen: Any) -> list[Any]:
        """Send an example, with the file that belongs to it; the text box keeps what is in it."""
        known = {one.text: one for one in examples_for(self.host.modalities)}
        chosen_one = known.get(example.value["text"], Example(example.value["text"]))
        conversation = self.host.conversation(name)
        self._start(conversation, lambda: conversation.say(chosen_one.text, chosen_one.files, _settings(*chosen)))
        return _show(conversation.view())

    def retry(self, name: str, *chosen: Any) -> list[Any]:
        """Have the last message answered again."""
        conversation = self.host.conversation(name)
        self._start(conversation, lambda: conversation.retry(_settings(*chosen)))
        return _show(conversation.view())

    def follow(self, name: str) -> Iterator[list[Any]]:
        """Show an answer while it is made; the text box is told of the beginning and the end alone."""
        was_running = None
        for view in self.host.conversation(name).follow():
            chat, status, box = _show(view)
            yield [chat, status, gr.skip() if view.is_running == was_running else box]
            was_running = view.is_running

    def give_back(self, name: str, typed: dict[str, Any] | None) -> Any:
        """Put a message that could not be answered back into the text box, unless something new stands there."""
        if typed and (typed["text"] or typed["files"]):
            return gr.skip()
        draft = self.host.conversation(name).take_draft()
        return {"text": sendable(draft[0]), "files": draft[1]} if draft else gr.skip()

    def stop(self, name: str) -> None:
        """End the answer in the making."""
        self.host.conversation(name).stop()

    def clear(self, name: str) -> list[Any]:
        """Begin anew."""
        conversation = self.host.conversation(name)
        conversation.clear()
        return _show(conversation.view())

    def reuse_seed(self, name: str) -> list[Any]:
        """Return the seed of the last answer, and that it is to be kept."""
        last = self.host.conversation(name).last_seed
        return [gr.skip(), gr.skip()] if last is None else [last, False]

    def restore_settings(self, file: str) -> list[Any]:
        """Return text box, settings and an empty file field, from a file that was made here."""
        try:
            prompt, settings = settings_of_file(file)
        except OmniError as error:
            gr.Warning(str(error), title="No settings")
            return [gr.skip()] * 6 + [None]
        names = {size: name for name, size in SIZES.items()}
        return [
            {"text": sendable(prompt), "files": []},
            settings.seed,
            False,
            min(settings.steps, MAX_STEPS),
            min(settings.guidance_scale, MAX_GUIDANCE),
            names.get(settings.size, AUTO_SIZE),
            None,
        ]

    def _start(self, conversation: Conversation, action: Callable[[], None]) -> bool:
        """Do what a person asked for and have it answered, or show why not; return whether it was done."""
        try:
            self.host.check_room()
            action()
        except OmniError as error:
            conversation.refuse(error)
            return False
        self.host.start(conversation.answer)
        return True


def sendable(text: str) -> str:
    """Replace lone surrogates, which no browser can be sent; the conversation itself keeps them."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _settings(seed: float | None, is_new_seed: bool, steps: float, guidance: float, size: str) -> Settings:
    return Settings(
        seed=None if is_new_seed or seed is None else int(seed),
        steps=int(steps),
        guidance_scale=float(guidance),
        size=SIZES[size],
    )


def _show(view: View, *, empty_box: bool = False) -> list[Any]:
    box: dict[str, Any] = {"submit_btn": not view.is_running, "stop_btn": view.is_running}
    if empty_box:
        box["value"] = None
    messages = []
    for message in view.messages:
        starts = message is view.messages[-1] and message["role"] == "assistant"
        items = [_chat_item(item, starts=starts) for item in message["content"]]
        messages.append({"role": message["role"], "content": items})
    status = f'<span class="{"running" if view.is_running else "idle"}">{escape(view.status)}</span>'
    return [messages, status, gr.update(**box)]


def _chat_item(item: dict[str, Any], *, starts: bool) -> dict[str, Any]:
    kind = item["type"]
    if kind == "text":
        return {"type": "text", "text": sendable(item["text"])}
    if kind == "image":
        return {"type": "file", "file": {"path": item["image"], "mime_type": "image/png"}, "alt_text": "picture"}
    assert kind in KINDS, f"{kind} cannot be shown"
    html = _player(item[kind], is_film=kind == "video", starts=starts)
    return {"type": "component", "component": "html", "value": html, "constructor_args": {}, "props": {}}


def _player(path: str, *, is_film: bool, starts: bool) -> str:
    """Return a film or recording with controls; one that starts to play silences the others."""
    source = escape(f"gradio_api/file={quote(path)}")
    alone = "for (const other of document.querySelectorAll('#chat video, #chat audio')) other === this || other.pause()"
    common = f'src="{source}" onplay="{escape(alone)}" controls preload="auto"'
    if not is_film:
        return f'<audio {common} aria-label="recording"></audio>'
    return f'<video {common} loop playsinline {"autoplay" if starts else ""} aria-label="film"></video>'
