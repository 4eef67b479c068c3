"""Worlds that are played, with no Gradio in it: actions wait their turn, and frames are shown in their order.

A World lives in memory alone. One thread goes on with it, any number of pages follow.
"""

import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from math import isqrt

from PIL import Image as PILImage

from demo.settings import MAX_SEED
from omni import Omni, OmniError
from omni.chat import ACTIONS
from omni.errors import InputError
from omni.parts import Video
from omni.play import World as PlayedWorld

__all__ = ["Clip", "World", "WorldView"]

MAX_PENDING = 4  # actions, the one that is being answered included
MAX_CLIPS = 8  # kept for those who have not seen them yet
MAX_PROMPT_CHARS = 200
MAX_VIEWS_PER_S = 15
SIDE = 64  # pixels of a frame


@dataclass(frozen=True, kw_only=True)
class Clip:
    """The frames that answer an action.

    Attributes:
        number: of the clip in its world, from 1 on; the first picture is the first clip.
        png: an animation that plays once and stays at its last frame.
        seconds: how long it plays.
    """

    number: int
    png: bytes
    seconds: float


@dataclass(frozen=True, kw_only=True)
class WorldView:
    """What a page shows.

    Attributes:
        clip: the frames to play; None where there are none yet.
        status: one line on what is going on.
        is_running: whether more comes without another action.
    """

    clip: Clip | None
    status: str
    is_running: bool


class World:
    """One world and the actions that wait for it; safe to use from several threads.

    Args:
        prompt: who is played, and where.
        seed: the same one and the same actions give the same world.
        steps: of denoising, for each clip.

    Raises:
        InputError: the prompt is empty or too long.
    """

    def __init__(self, prompt: str, *, seed: int, steps: int) -> None:
        if not prompt.strip():
            raise InputError("Say who is played, and where, such as: a fox on the grass.")
        if len(prompt) > MAX_PROMPT_CHARS:
            raise InputError(f"Say in at most {MAX_PROMPT_CHARS} characters who is played, and where.")
        self.prompt, self.seed, self.steps = prompt.strip(), seed, steps
        self._played: PlayedWorld | None = None
        self._pending: deque[str] = deque([""])  # the first opens the world
        self._clips: deque[Clip] = deque(maxlen=MAX_CLIPS)
        self._num_clips = 0
        self._error = ""
        self._is_closed = False
        self._followers: set[str] = set()
        self._version = 0
        self._changed = threading.Condition(threading.RLock())

    @staticmethod
    def new_seed() -> int:
        """Return a seed that nobody chose."""
        return secrets.randbelow(MAX_SEED + 1)

    @property
    def is_running(self) -> bool:
        """Whether frames are being made, or wait to be."""
        return bool(self._pending)

    @property
    def num_steps(self) -> int:
        """The actions that were answered."""
        return max(0, self._num_clips - 1)

    def act(self, action: str) -> bool:
        """Do something; return whether `go_on` is to be called for it, or too many actions wait already.

        Args:
            action: one of omni.chat.ACTIONS.

        Raises:
            InputError: there is no such action, or the world is closed or could not be opened.
        """
        if action not in ACTIONS:
            raise InputError(f"There is no action {action!r}; the actions are {', '.join(ACTIONS)}.")
        with self._changed:
            if self._is_closed or not (self._played or self._pending):
                raise InputError("This world has ended; start a new one.")
            if len(self._pending) >= MAX_PENDING:
                return False
            self._pending.append(action)
            self._error = ""
            self._touch()
            return True

    def close(self) -> None:
        """Forget everything; who follows hears no more of it."""
        with self._changed:
            self._is_closed, self._played = True, None
            self._pending.clear()
            self._touch()

    def go_on(self, omni: Omni) -> None:
        """Answer the action that has waited longest; returns when its frames are there, or it has failed.

        Args:
            omni: the model.
        """
        with self._changed:
            if not self._pending:  # closed, or failed before
                return
            action, played = self._pending[0], self._played
        try:
            if played is None:
                played = omni.play(self.prompt, size=_size(omni), seed=self.seed, steps=self.steps)
                video = played.first
            else:
                video = played.send(action)
            png = _animation(video)
        except OmniError as error:
            self._fail(str(error), played)
        except Exception:  # the edge of a thread: the page hears of it, the log gets the rest
            logging.getLogger(__name__).exception("a world failed")
            self._fail("The model failed on this world; the terminal of the demo shows why.", None)
        else:
            self._show(played, png, video.duration_s)

    def view(self) -> WorldView:
        """Return what there is to see now."""
        with self._changed:
            return self._view(self._clips[-1] if self._clips else None)

    def follow(self, follower: str) -> Iterator[WorldView]:
        """Yield views while there is something to come, each clip for as long as it plays; the last one is final.

        Args:
            follower: who looks, by a name; nothing is yielded where the same one is looking already.
        """
        with self._changed:
            if follower in self._followers:
                return
            self._followers.add(follower)
            shown = self._num_clips
        try:
            while True:
                with self._changed:
                    if self._is_closed:
                        return
                    version, clip = self._version, self._next_clip(shown)
                    view = self._view(clip)
                yield view
                is_new = clip is not None and clip.number > shown
                shown = clip.number if clip else 0
                time.sleep(max(clip.seconds if clip and is_new else 0, 1 / MAX_VIEWS_PER_S))
                with self._changed:
                    if not view.is_running and self._version == version:
                        self._followers.discard(follower)  # at once, so that who acts now follows anew
                        return
                    if self._num_clips <= shown and self._version == version:
                        self._changed.wait(timeout=5.0)
        finally:
            with self._changed:
                self._followers.discard(follower)

    def _next_clip(self, shown: int) -> Clip | None:
        """Return the clip after those that were shown, or the last one."""
        return next((clip for clip in self._clips if clip.number > shown), self._clips[-1] if self._clips else None)

    def _view(self, clip: Clip | None) -> WorldView:
        is_last = clip is None or clip.number == self._num_clips
        is_running = self.is_running or not is_last
        if self._error and is_last:
            return WorldView(clip=clip, status=self._error, is_running=is_running)
        if clip is None:
            return WorldView(clip=None, status="Opening the world", is_running=is_running)
        waiting = [action for action in self._pending if action]
        doing = f", next: {', '.join(waiting)}" if waiting else ""
        return WorldView(clip=clip, status=f"Step {clip.number - 1}, seed {self.seed}{doing}", is_running=is_running)

    def _show(self, played: PlayedWorld, png: bytes, seconds: float) -> None:
        with self._changed:
            if self._is_closed:
                return
            self._played = played
            self._pending.popleft()
            self._num_clips += 1
            self._clips.append(Clip(number=self._num_clips, png=png, seconds=seconds))
            self._touch()

    def _fail(self, error: str, played: PlayedWorld | None) -> None:
        with self._changed:
            self._played = None if self._is_closed else played
            self._error = error
            self._pending.clear()
            self._touch()

    def _touch(self) -> None:
        self._version += 1
        self._changed.notify_all()


def _size(omni: Omni) -> tuple[int, int]:
    """Return the size of a world in pixels: SIDE, or the largest square that the model makes."""
    step = omni.studio.token_side("video")
    side = step * max(1, min(SIDE // step, isqrt(omni.defaults.max_block_tokens)))
    return side, side


def _animation(video: Video) -> bytes:
    """Return a PNG that plays the frames once."""
    first, *others = [PILImage.fromarray(frame) for frame in video.frames]
    stream = BytesIO()
    first.save(stream, format="PNG", save_all=True, append_images=others, duration=1000 / video.fps, loop=1)
    return stream.getvalue()
