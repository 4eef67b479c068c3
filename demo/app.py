"""The page: one chat with streamed words and pictures, on Gradio; the rest is in session.py and host.py."""

import os
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any, TypedDict

# Read by gradio when it is imported: the demo works offline and tells nobody.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import gradio as gr
from gradio.utils import get_upload_folder

from demo.host import Host
from demo.session import MAX_SEED, Conversation, Settings, View, settings_of_picture
from omni import OmniError
from omni.errors import InputError

__all__ = ["build_page", "launch_options"]

TITLE = "omni"
LEAD = "One small model that talks and draws. Ask for a picture, show it one, or just say hello."
EXAMPLES = (
    "Draw a fox to the left of a house.",
    "Draw three apples on a blue background.",
    "What can you do?",
    "What is a penguin?",
)
AUTO_SIZE = "The model chooses"
SIZES = {
    AUTO_SIZE: None,
    "Square, 64 x 64": (64, 64),
    "Wide, 96 x 64": (64, 96),
    "Tall, 64 x 96": (96, 64),
}
MAX_STEPS = 100
MAX_GUIDANCE = 10.0
MAX_FOLLOWERS = 32  # pages and API calls that are served at once; the model itself answers one at a time


class PictureFile(TypedDict):
    """A picture that travels through the API as a file."""

    path: str
    meta: dict[str, str]


def launch_options() -> dict[str, Any]:
    """Return what Blocks.launch needs, beside a port, for this page."""
    return {
        "theme": gr.themes.Default(
            primary_hue="teal",
            secondary_hue="teal",
            neutral_hue="slate",
            radius_size="lg",
            # Fonts of the system: nothing to download, and nothing that looks different offline.
            font=["ui-sans-serif", "system-ui", "sans-serif"],
            font_mono=["ui-monospace", "monospace"],
        ),
        "css_paths": Path(__file__).with_name("style.css"),
        "footer_links": ["api"],
        "max_file_size": "64mb",
        "ssr_mode": False,
        "share": False,
    }


def build_page(host: Host) -> gr.Blocks:
    """Build the page and its typed endpoint.

    Args:
        host: answers, and keeps the conversations.
    """
    gr.set_static_paths(host.folder)  # pictures are served from where they lie, never copied
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True) as page:
        conversation_id = gr.BrowserState("", storage_key="omni-conversation", secret="omni")
        gr.HTML(f"<h1>{TITLE}</h1><p>{LEAD}</p>", elem_id="head")
        with gr.Row(elem_id="columns", equal_height=False):
            with gr.Column(scale=4, min_width=320):
                chat = _chatbot()
                status = gr.HTML(elem_id="status")
                box = gr.MultimodalTextbox(
                    elem_id="box",
                    show_label=False,
                    autofocus=True,
                    file_count="multiple",
                    file_types=["image"],
                    sources=["upload"],
                    placeholder="Write a message, or drop a picture here",
                    max_lines=8,
                )
                with gr.Row(elem_id="buttons"):
                    retry = gr.Button("Retry", size="sm", elem_id="retry")
                    clear = gr.Button("Clear", size="sm", elem_id="clear")
            with gr.Column(scale=1, min_width=260, elem_id="settings"):
                seed, is_new_seed, reuse, *others, made = _settings_panel()
        _connect(
            host,
            page,
            conversation_id=conversation_id,
            shown=[chat, status, box],
            settings=[seed, is_new_seed, *others],
            buttons={"retry": retry, "clear": clear, "reuse": reuse},
            made=made,
        )
        _add_endpoint(host)
    page.queue(max_size=64)
    return page


def _chatbot() -> gr.Chatbot:
    return gr.Chatbot(
        elem_id="chat",
        show_label=False,
        height="100%",
        layout="bubble",
        render_markdown=False,  # words are shown as they are, whoever wrote them
        buttons=["copy"],
        placeholder="Say something, or try one of these.",
        examples=[{"text": text} for text in EXAMPLES],
    )


def _settings_panel() -> list[gr.components.Component]:
    defaults = Settings()
    seed = gr.Number(label="Seed", value=0, precision=0, minimum=0, maximum=MAX_SEED, elem_id="seed")
    is_new_seed = gr.Checkbox(label="New seed for every answer", value=True, elem_id="new-seed")
    reuse = gr.Button("Reuse last seed", size="sm", elem_id="reuse")
    steps = gr.Slider(1, MAX_STEPS, defaults.steps, step=1, label="Steps for each picture", elem_id="steps")
    guidance = gr.Slider(
        1.0,
        MAX_GUIDANCE,
        defaults.guidance_scale,
        step=0.5,
        label="Guidance",
        info="1 is none",
        elem_id="guidance",
    )
    size = gr.Dropdown(list(SIZES), value=AUTO_SIZE, label="Picture size", elem_id="size")
    made = gr.File(
        label="Settings from a picture",
        file_types=["image"],
        height=110,
        elem_id="made",
    )
    return [seed, is_new_seed, reuse, steps, guidance, size, made]


def _connect(
    host: Host,
    page: gr.Blocks,
    *,
    conversation_id: gr.BrowserState,
    shown: list[Any],
    settings: list[Any],
    buttons: dict[str, gr.Button],
    made: gr.File,
) -> None:
    chat, _, box = shown

    def open_page(name: str) -> list[Any]:
        name = name or host.new_id()
        conversation = host.conversation(name)
        return [name, *_show(conversation.view())]

    def say(name: str, value: dict[str, Any], *chosen: Any) -> list[Any]:
        conversation = host.conversation(name)
        is_taken = _try(host, conversation, lambda: conversation.say(value["text"], value["files"], _settings(*chosen)))
        return _show(conversation.view(), empty_box=is_taken)

    def say_example(name: str, event: gr.SelectData, *chosen: Any) -> list[Any]:
        conversation = host.conversation(name)
        _try(host, conversation, lambda: conversation.say(event.value["text"], [], _settings(*chosen)))
        return _show(conversation.view())

    def say_again(name: str, *chosen: Any) -> list[Any]:
        conversation = host.conversation(name)
        _try(host, conversation, lambda: conversation.retry(_settings(*chosen)))
        return _show(conversation.view())

    def follow(name: str) -> Iterator[list[Any]]:
        for view in host.conversation(name).follow():
            yield _show(view)

    def give_back(name: str, value: dict[str, Any] | None) -> Any:
        if value and (value["text"] or value["files"]):
            return gr.skip()  # something new has been typed
        draft = host.conversation(name).take_draft()
        return {"text": draft[0], "files": draft[1]} if draft else gr.skip()

    def forget(name: str) -> list[Any]:
        conversation = host.conversation(name)
        conversation.clear()
        return _show(conversation.view())

    def reuse_seed(name: str) -> list[Any]:
        last = host.conversation(name).last_seed
        return [gr.skip(), gr.skip()] if last is None else [last, False]

    # What the model does is queued; what a person does is not, so that it shows at once.
    now: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    queued: dict[str, Any] = now | {
        "queue": True,
        "concurrency_id": "model",
        "concurrency_limit": MAX_FOLLOWERS,
    }
    started = [
        page.load(open_page, conversation_id, [conversation_id, *shown], **now),
        box.submit(say, [conversation_id, box, *settings], shown, **now),
        chat.example_select(say_example, [conversation_id, *settings], shown, **now),
        buttons["retry"].click(say_again, [conversation_id, *settings], shown, **now),
    ]
    for event in started:
        event.then(follow, conversation_id, shown, **queued).then(give_back, [conversation_id, box], box, **now)
    box.stop(lambda name: host.conversation(name).stop(), conversation_id, None, **now)
    buttons["clear"].click(forget, conversation_id, shown, **now)
    buttons["reuse"].click(reuse_seed, conversation_id, settings[:2], **now)
    made.upload(_settings_from_file, made, [box, *settings, made], **now)


def _try(host: Host, conversation: Conversation, action: Any) -> bool:
    """Do what a person asked for and start the answer, or show why not; return whether it was done."""
    try:
        host.check_room()
        action()
    except OmniError as error:
        conversation.refuse(error)
        return False
    host.start(conversation)
    return True


def _settings(seed: float | None, is_new_seed: bool, steps: float, guidance: float, size: str) -> Settings:
    return Settings(
        seed=None if is_new_seed or seed is None else int(seed),
        steps=int(steps),
        guidance_scale=float(guidance),
        size=SIZES[size],
    )


def _settings_from_file(file: str) -> list[Any]:
    try:
        prompt, settings = settings_of_picture(file)
    except OmniError as error:
        gr.Warning(str(error), title="No settings")
        return [gr.skip()] * 6 + [None]
    sizes = {size: name for name, size in SIZES.items()}
    return [
        {"text": prompt, "files": []},
        settings.seed,
        False,
        min(settings.steps, MAX_STEPS),
        min(settings.guidance_scale, MAX_GUIDANCE),
        sizes.get(settings.size, AUTO_SIZE),
        None,
    ]


def _show(view: View, *, empty_box: bool = False) -> list[Any]:
    """Turn a view into the values of chat, status and text box."""
    box: dict[str, Any] = {"submit_btn": not view.is_running, "stop_btn": view.is_running}
    if empty_box:
        box["value"] = {"text": "", "files": []}
    line = f'<span class="{"running" if view.is_running else "idle"}">{escape(view.status)}</span>'
    return [[_chat_message(message) for message in view.messages], line, gr.update(**box)]


def _chat_message(message: dict[str, Any]) -> dict[str, Any]:
    return {"role": message["role"], "content": [_chat_item(item) for item in message["content"]]}


def _chat_item(item: dict[str, Any]) -> dict[str, Any]:
    if item["type"] == "text":
        return {"type": "text", "text": _sendable(item["text"])}
    return {"type": "file", "file": {"path": item["image"], "mime_type": "image/png"}, "alt_text": "picture"}


def _sendable(text: str) -> str:
    """Replace lone surrogates, which no browser can be sent; the conversation itself keeps them."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _add_endpoint(host: Host) -> None:
    def chat(
        message: str,
        seed: int = 0,
        pictures: list[PictureFile] | None = None,
        steps: int = Settings().steps,
        guidance_scale: float = Settings().guidance_scale,
    ) -> tuple[str, list[PictureFile]]:
        """Answer one message in a conversation of its own.

        Args:
            message: what to say.
            seed: of all the noise; the same one gives the same answer.
            pictures: uploaded files that come with the message.
            steps: of denoising, for each picture of the answer.
            guidance_scale: how closely a picture follows the words.
        """
        conversation = host.conversation(host.new_id())
        settings = Settings(seed=seed, steps=steps, guidance_scale=guidance_scale)
        try:
            host.check_room()
            conversation.say(message, _uploads(pictures or []), settings)
            host.start(conversation)
            final = list(conversation.follow())[-1]
        except OmniError as error:
            raise gr.Error(str(error), print_exception=False) from error
        answer = final.messages[-1]["content"] if final.messages else []
        words = "".join(item["text"] for item in answer if item["type"] == "text")
        files = [item["image"] for item in answer if item["type"] == "image"]
        return _sendable(words), [{"path": file, "meta": {"_type": "gradio.FileData"}} for file in files]

    gr.api(chat, api_name="chat", concurrency_id="model", concurrency_limit=MAX_FOLLOWERS)


def _uploads(pictures: Sequence[PictureFile]) -> list[str]:
    """Return the paths of uploaded files, and of those alone: a caller could name any file of the machine."""
    folder = Path(get_upload_folder()).resolve()
    paths = [Path(picture["path"]).resolve() for picture in pictures]
    for path in paths:
        if not path.is_relative_to(folder):
            raise InputError(f"{path.name!r} is not an uploaded file; upload it first.")
    return [str(path) for path in paths]
