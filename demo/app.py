"""The page: one chat with streamed words and pictures, on Gradio. What its events do is in actions.py."""

import os
from pathlib import Path
from typing import Any

# Read by gradio when it is imported: the demo works offline and tells nobody.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import gradio as gr  # noqa: E402

from demo.actions import AUTO_SIZE, MAX_GUIDANCE, MAX_STEPS, SIZES, Actions  # noqa: E402
from demo.api import add_endpoint  # noqa: E402
from demo.host import Host  # noqa: E402
from demo.session import MAX_SEED  # noqa: E402
from omni.checkpoint import Defaults  # noqa: E402

__all__ = ["build_page", "launch_options"]

TITLE = "omni"
LEAD = "One small model that talks and draws. Ask for a picture, show it one, or just say hello."
EXAMPLES = (
    "Draw a fox to the left of a house.",
    "Draw three apples on a blue background.",
    "What can you do?",
    "What is a penguin?",
)
MAX_QUEUED = 64  # events
MAX_FOLLOWERS = 32  # pages and calls served at once; the model itself answers one at a time


def launch_options() -> dict[str, Any]:
    """Return what Blocks.launch needs for this page, beside an address."""
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
        name = gr.BrowserState("", storage_key="omni-conversation", secret="omni")
        gr.HTML(f"<h1>{TITLE}</h1><p>{LEAD}</p>", elem_id="head")
        with gr.Row(elem_id="columns"):
            with gr.Column(scale=4, min_width=320):
                shown, buttons = _chat_column()
            with gr.Column(scale=1, min_width=260, elem_id="settings"):
                settings, reuse, made = _settings_column(host.omni.defaults)
        _connect(Actions(host), page, name=name, shown=shown, settings=settings, buttons=[*buttons, reuse], made=made)
        add_endpoint(host, concurrency_limit=MAX_FOLLOWERS)
    page.queue(max_size=MAX_QUEUED)
    return page


def _chat_column() -> tuple[list[Any], list[gr.Button]]:
    """Return chat, status line and text box; and the buttons for retry and clear."""
    chat = gr.Chatbot(
        elem_id="chat",
        show_label=False,
        height="100%",
        layout="bubble",
        render_markdown=False,  # words are shown as they are, whoever wrote them
        buttons=["copy"],
        placeholder="Say something, or try one of these.",
        examples=[{"text": text} for text in EXAMPLES],
    )
    with gr.Row(elem_id="bar"):
        status = gr.HTML(elem_id="status")
        retry = gr.Button("Retry", size="sm", min_width=80, scale=0, elem_id="retry")
        clear = gr.Button("Clear", size="sm", min_width=80, scale=0, elem_id="clear")
    box = gr.MultimodalTextbox(
        elem_id="box",
        show_label=False,
        autofocus=True,
        file_count="multiple",
        file_types=["image"],
        sources=["upload"],
        placeholder="Write, or add a picture",
        max_lines=8,
    )
    return [chat, status, box], [retry, clear]


def _settings_column(defaults: Defaults) -> tuple[list[Any], gr.Button, gr.File]:
    """Return seed, whether to draw a new one, steps, guidance and size; the reuse button; the file field."""
    seed = gr.Number(label="Seed", value=0, precision=0, minimum=0, maximum=MAX_SEED, elem_id="seed")
    is_new_seed = gr.Checkbox(label="New seed for every answer", value=True, elem_id="new-seed")
    reuse = gr.Button("Reuse last seed", size="sm", elem_id="reuse")
    steps = gr.Slider(1, MAX_STEPS, defaults.steps, step=1, label="Steps", elem_id="steps")
    guidance = gr.Slider(1.0, MAX_GUIDANCE, defaults.guidance_scale, step=0.5, label="Guidance", elem_id="guidance")
    size = gr.Dropdown(list(SIZES), value=AUTO_SIZE, label="Picture size", elem_id="size")
    made = gr.File(label="Settings from a picture", file_types=["image"], height=140, elem_id="made")
    return [seed, is_new_seed, steps, guidance, size], reuse, made


def _connect(
    actions: Actions,
    page: gr.Blocks,
    *,
    name: gr.BrowserState,
    shown: list[Any],
    settings: list[Any],
    buttons: list[gr.Button],
    made: gr.File,
) -> None:
    chat, _, box = shown
    retry, clear, reuse = buttons
    # What the model does is queued; what a person does is not, so that it shows at once.
    now: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    queued: dict[str, Any] = now | {"queue": True, "concurrency_id": "model", "concurrency_limit": MAX_FOLLOWERS}
    started = [
        page.load(actions.open_page, name, [name, *shown], **now),
        box.submit(actions.say, [name, box, *settings], shown, **now),
        chat.example_select(actions.say_example, [name, *settings], shown, **now),
        retry.click(actions.retry, [name, *settings], shown, **now),
    ]
    for event in started:
        event.then(actions.follow, name, shown, **queued).then(actions.give_back, [name, box], box, **now)
    box.stop(actions.stop, name, None, **now)
    gr.on([clear.click, chat.clear], actions.clear, name, shown, **now)
    reuse.click(actions.reuse_seed, name, settings[:2], **now)
    made.upload(actions.restore_settings, made, [box, *settings, made], **now)
