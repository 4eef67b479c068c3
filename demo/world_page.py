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
    "up": "\u2191 Up",
    "left": "\u2190 Left",
    "stay": "Stay (.)",
    "right": "Right \u2192",
    "down": "\u2193 Down",
    "jump": "Jump (space)",
}
HINT = "Say who is played, and where, and press Start."


@dataclass(frozen=True)
class _Parts:
    """What the page of the world is made of."""

    name: gr.BrowserState
    screen: gr.HTML
    status: gr.HTML
    prompt: gr.Textbox
    seed: gr.Number
    steps: gr.Slider
    start: gr.Button
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

    def start(self, name: str, prompt: str, seed: float | None, steps: float) -> list[Any]:
        """Begin a world, in place of the one before."""
        try:
            number = World.new_seed() if seed is None else min(max(int(seed), 0), MAX_SEED)
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


def add_world(host: Host, page: gr.Blocks, *, concurrency_limit: int) -> None:
    """Add the world to the page, or the tab, that is being built.

    Args:
        host: plays, and keeps the worlds.
        page: to be told of its loading.
        concurrency_limit: pages served at once.
    """
    actions, parts = WorldActions(host), _build(host.omni.defaults)
    now: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    now["trigger_mode"] = "multiple"
    queued = now | {"queue": True, "concurrency_id": "model", "concurrency_limit": concurrency_limit}
    shown = [parts.screen, parts.status]
    asked: list[Any] = [parts.name, parts.prompt, parts.seed, parts.steps]
    # The keys are the world's once it has been started.
    leave_field = "(...given) => { document.activeElement?.blur(); return given; }"
    started = [
        page.load(actions.open_page, parts.name, [parts.name, *shown], **now),
        gr.on([parts.start.click, parts.prompt.submit], actions.start, asked, shown, js=leave_field, **now),
        *(button.click(partial(actions.act, action), parts.name, shown, **now) for action, button in parts.pad.items()),
    ]
    for event in started:
        event.then(actions.follow, parts.name, shown, **queued)


def _build(defaults: Defaults) -> _Parts:
    name = gr.BrowserState("", storage_key="omni-world", secret="omni")
    with gr.Row(elem_id="world"):
        with gr.Column(scale=3, min_width=320):
            keys = Path(__file__).with_name("keys.js").read_text(encoding="utf-8")
            screen = gr.HTML(_picture(None), elem_id="screen", js_on_load=keys)
            status = gr.HTML(elem_id="world-status")
        with gr.Column(scale=2, min_width=300):
            prompt = gr.Textbox(
                label="Who is played, and where",
                value=PROMPTS[0],
                max_lines=1,
                max_length=MAX_PROMPT_CHARS,
                elem_id="world-prompt",
            )
            gr.Examples([[prompt] for prompt in PROMPTS], prompt, label="Such as", api_visibility="private")
            with gr.Row():
                seed = gr.Number(
                    label="Seed", placeholder="a new one", value=None, precision=0, minimum=0, maximum=MAX_SEED
                )
                steps = gr.Slider(1, MAX_STEPS, min(defaults.steps, MAX_STEPS), step=1, label="Steps")
            start = gr.Button("Start", variant="primary", elem_id="world-start")
            with gr.Row(elem_id="pad"):
                pad = {
                    action: gr.Button(LABELS[action], elem_id=f"act-{action}", min_width=60)
                    for action in sorted(ACTIONS, key=list(LABELS).index)
                }
            gr.HTML("<p>Arrow keys, space to jump, full stop to stay.</p>", elem_id="world-keys")
    return _Parts(name, screen, status, prompt, seed, steps, start, pad)


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
