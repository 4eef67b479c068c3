"""The page of the world: frames as they come, buttons and keys to play with."""

from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from demo.host import Host
from demo.settings import MAX_SEED
from demo.worlds import MAX_PROMPT_CHARS, World, WorldView
from omni import OmniError
from omni.chat import ACTIONS
from omni.checkpoint import Defaults

__all__ = ["add_world"]

MAX_STEPS = 50
PROMPTS = ("a fox on the grass", "a penguin in the snow", "a sailboat in the sea", "a rocket at night")
# What stands on the buttons, in the order of the pad; keys.js presses them by their ids.
LABELS = {
    "up": "\u2191",
    "left": "\u2190",
    "stay": "Stay",
    "right": "\u2192",
    "down": "\u2193",
    "jump": "Jump",
}
HINT = "Say who is played, and where, and press Start."


@dataclass(frozen=True)
class _Parts:
    """What the page of the world is made of."""

    shown: list[Any]  # the screen and the status line
    prompt: gr.Textbox
    start: gr.Button
    settings: list[Any]  # seed, whether to draw a new one, steps
    pad: dict[str, gr.Button]


class WorldActions:
    """One method for each event of the page; they return the screen and the status line.

    Args:
        host: plays, and keeps the worlds.
    """

    def __init__(self, host: Host) -> None:
        self.host = host

    def open_page(self, name: str) -> list[Any]:
        """Find the world that this browser had before."""
        name = name or self.host.new_id()
        world = self.host.world(name)
        return [name, *(_show(world.view()) if world else _message(HINT))]

    def start(self, name: str, prompt: str, seed: float | None, is_new_seed: bool, steps: float) -> list[Any]:
        """Begin a world, in place of the one before."""
        try:
            number = World.new_seed() if is_new_seed or seed is None else min(max(int(seed), 0), MAX_SEED)
            world = World(prompt or "", seed=number, steps=int(steps))
            self.host.open_world(name, world)
        except OmniError as error:
            return [gr.skip(), _line(str(error), is_running=False)]
        return _show(world.view())

    def act(self, action: str, name: str) -> list[Any]:
        """Do something in the world; what is too much at once is dropped."""
        world = self.host.world(name)
        if world is None:
            return _message("There is no world to play in; press Start.")
        try:
            self.host.check_room()
            if world.act(action):
                self.host.start(world.go_on)
        except OmniError as error:
            return [gr.skip(), _line(str(error), is_running=False)]
        return [gr.skip(), gr.skip()]

    def follow(self, name: str, request: gr.Request) -> Iterator[list[Any]]:
        """Show the frames as they come, each clip for as long as it plays."""
        world = self.host.world(name)
        yield [gr.skip(), gr.skip()]
        for view in world.follow(str(request.session_hash)) if world else ():
            yield _show(view)
        yield [gr.skip(), gr.skip()]  # gradio shows the last of these again at its end, when another world may be on


def add_world(host: Host, page: gr.Blocks, name: gr.BrowserState, *, concurrency_limit: int) -> None:
    """Add the world to the page, or the tab, that is being built.

    Args:
        host: plays, and keeps the worlds.
        page: to be told of its loading.
        name: of this browser's world; outside of any tab, for what stands in a hidden one is not read.
        concurrency_limit: pages served at once.
    """
    actions, parts = WorldActions(host), _build(host.omni.defaults)
    now: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    now["trigger_mode"] = "multiple"
    queued = now | {"queue": True, "concurrency_id": "model", "concurrency_limit": concurrency_limit}
    shown, asked = parts.shown, [name, parts.prompt, *parts.settings]
    # The keys are the world's once it has been started.
    leave_field = "(...given) => { document.activeElement?.blur(); return given; }"
    started = [
        page.load(actions.open_page, name, [name, *shown], **now),
        gr.on([parts.start.click, parts.prompt.submit], actions.start, asked, shown, js=leave_field, **now),
        *(button.click(partial(actions.act, action), name, shown, **now) for action, button in parts.pad.items()),
    ]
    for event in started:
        event.then(actions.follow, name, shown, **queued)


def _build(defaults: Defaults) -> _Parts:
    with gr.Row(elem_id="world"):
        with gr.Column(scale=4, min_width=320):
            prompt, start = _request()
            with gr.Row(elem_id="stage"):
                with gr.Column(scale=3, min_width=256):
                    keys = Path(__file__).with_name("keys.js").read_text(encoding="utf-8")
                    screen = gr.HTML(_picture(None), elem_id="screen", js_on_load=keys)
                with gr.Column(scale=2, min_width=256):
                    status = gr.HTML(elem_id="world-status")
                    with gr.Row(elem_id="pad"):
                        pad = {action: _button(action) for action in sorted(ACTIONS, key=list(LABELS).index)}
                    gr.HTML("<p>On a keyboard: the arrows, space to jump, full stop to stay.</p>", elem_id="keys")
        with gr.Column(scale=1, min_width=260):
            seed = gr.Number(label="Seed", value=0, precision=0, minimum=0, maximum=MAX_SEED, elem_id="world-seed")
            is_new_seed = gr.Checkbox(label="New seed for every world", value=True, elem_id="world-new-seed")
            steps = gr.Slider(
                1, MAX_STEPS, min(defaults.steps, MAX_STEPS), step=1, label="Steps", elem_id="world-steps"
            )
    return _Parts([screen, status], prompt, start, [seed, is_new_seed, steps], pad)


def _request() -> tuple[gr.Textbox, gr.Button]:
    """Return the field that says who is played, and the button that begins."""
    with gr.Row(elem_id="world-request"):
        prompt = gr.Textbox(
            label="Who is played, and where",
            value=PROMPTS[0],
            max_lines=1,
            max_length=MAX_PROMPT_CHARS,
            scale=4,
            min_width=180,
            elem_id="world-prompt",
        )
        start = gr.Button("Start", variant="primary", scale=0, min_width=90, elem_id="world-start")
    gr.Examples([[words] for words in PROMPTS], prompt, label="Such as", api_visibility="private", elem_id="such")
    return prompt, start


def _button(action: str) -> gr.Button:
    return gr.Button(LABELS[action], size="sm", min_width=60, elem_id=f"act-{action}")


def _picture(png: bytes | None) -> str:
    if png is None:
        return '<div class="empty"></div>'
    return f'<img src="data:image/png;base64,{b64encode(png).decode()}" alt="the world">'


def _line(text: str, *, is_running: bool) -> str:
    return f'<span class="{"running" if is_running else "idle"}">{escape(text)}</span>'


def _message(text: str) -> list[Any]:
    return [_picture(None), _line(text, is_running=False)]


def _show(view: WorldView) -> list[Any]:
    return [_picture(view.clip.png if view.clip else None), _line(view.status, is_running=view.is_running)]
