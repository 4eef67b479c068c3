"""The page: a chat with streamed words and media, and a world to play in, on Gradio.

What its events do is in actions.py; the world is in world_page.py.
"""

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

# Read by gradio when it is imported: the demo works offline and tells nobody.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import gradio as gr  # noqa: E402

from demo.actions import AUTO_SIZE, MAX_GUIDANCE, MAX_STEPS, SIZES, Actions  # noqa: E402
from demo.api import add_endpoint  # noqa: E402
from demo.examples import examples_for  # noqa: E402
from demo.host import Host  # noqa: E402
from demo.media import KINDS  # noqa: E402
from demo.settings import MAX_SEED  # noqa: E402
from demo.world_page import add_world  # noqa: E402
from omni.checkpoint import Defaults  # noqa: E402

__all__ = ["build_page", "launch_options"]

TITLE = "omni"
VERBS = {"image": "draws", "video": "films", "audio": "makes sound"}
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
    known = [kind for kind in KINDS if kind in host.modalities]
    gr.set_static_paths(host.folder)  # media are served from where they lie, never copied
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True) as page:
        classes = ["tabbed"] if "video" in known else []
        gr.HTML(f"<h1>{TITLE}</h1><p>{_lead(known)}</p>", elem_id="head", elem_classes=classes)
        if "video" in known:
            world = gr.BrowserState("", storage_key="omni-world", secret="omni")
            with gr.Tabs(elem_id="tabs"):
                with gr.Tab("Chat"):
                    _add_chat(host, page, known)
                with gr.Tab("World"):
                    add_world(host, page, world, concurrency_limit=MAX_FOLLOWERS)
        else:
            _add_chat(host, page, known)
        add_endpoint(host, concurrency_limit=MAX_FOLLOWERS)
    page.queue(max_size=MAX_QUEUED)
    return page


def _lead(known: Collection[str]) -> str:
    *others, last = ["talks", *(VERBS[kind] for kind in known)]
    does = f"{', '.join(others)} and {last}" if others else last
    asks = "Ask for a picture, show it one" if "image" in known else "Ask it something"
    return f"One small model that {does}. <span>{asks}, or just say hello.</span>"


def _add_chat(host: Host, page: gr.Blocks, known: Collection[str]) -> None:
    name = gr.BrowserState("", storage_key="omni-conversation", secret="omni")
    with gr.Row(elem_id="columns"):
        with gr.Column(scale=4, min_width=320):
            shown, buttons = _chat_column(known)
        with gr.Column(scale=1, min_width=260, elem_id="settings"):
            settings, reuse, made = _settings_column(host.omni.defaults, known)
    _connect(Actions(host), page, name=name, shown=shown, settings=settings, buttons=[*buttons, reuse], made=made)


def _chat_column(known: Collection[str]) -> tuple[list[Any], list[gr.Button]]:
    """Return chat, status line and text box; and the buttons for retry and clear."""
    chat = gr.Chatbot(
        elem_id="chat",
        show_label=False,
        height="100%",
        layout="bubble",
        render_markdown=False,  # words are shown as they are, whoever wrote them
        buttons=["copy"],
        placeholder="Say something, or try one of these.",
        examples=[{"text": one.text, "files": one.files} for one in examples_for(known)],
    )
    with gr.Row(elem_id="bar"):
        status = gr.HTML(elem_id="status")
        retry = gr.Button("Retry", size="sm", min_width=80, scale=0, elem_id="retry")
        clear = gr.Button("Clear", size="sm", min_width=80, scale=0, elem_id="clear")
    adds = "Write, or add a file" if len(known) > 1 else "Write, or add a picture" if known else "Write"
    box = gr.MultimodalTextbox(
        elem_id="box",
        show_label=False,
        autofocus=True,
        file_count="multiple",
        file_types=list(known),
        sources=["upload"] if known else [],
        placeholder=adds,
        max_lines=8,
    )
    return [chat, status, box], [retry, clear]


def _settings_column(defaults: Defaults, known: Collection[str]) -> tuple[list[Any], gr.Button, gr.File]:
    """Return seed, whether to draw a new one, steps, guidance and size; the reuse button; the file field."""
    seed = gr.Number(label="Seed", value=0, precision=0, minimum=0, maximum=MAX_SEED, elem_id="seed")
    is_new_seed = gr.Checkbox(label="New seed for every answer", value=True, elem_id="new-seed")
    reuse = gr.Button("Reuse last seed", size="sm", elem_id="reuse")
    steps = gr.Slider(1, MAX_STEPS, defaults.steps, step=1, label="Steps", elem_id="steps")
    guidance = gr.Slider(1.0, MAX_GUIDANCE, defaults.guidance_scale, step=0.5, label="Guidance", elem_id="guidance")
    label = "Size of pictures and films" if "video" in known else "Picture size"
    size = gr.Dropdown(list(SIZES), value=AUTO_SIZE, label=label, elem_id="size")
    label = "Settings from a file made here" if len(known) > 1 else "Settings from a picture"
    made = gr.File(label=label, file_types=list(known), height=140, elem_id="made")
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
