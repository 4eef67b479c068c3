"""The one model, the one thread that runs it, and the conversations and worlds that wait for it."""

import re
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from demo.session import Conversation
from demo.worlds import World
from omni import Omni
from omni.errors import InputError

__all__ = ["Host"]

MAX_WAITING = 16  # answers and frames of worlds
MAX_IN_MEMORY = 256  # conversations; the others wait on disk
MAX_WORLDS = 6  # each holds all that the model has read of it
_ID = re.compile(r"[A-Za-z0-9_-]{16,64}")


class Host:
    """Keep conversations and worlds apart, and let the model work for one after another.

    Args:
        omni: the model, shared by all.
        folder: where conversations are kept, one folder each.

    Attributes:
        modalities: what the model makes and takes beside words.
    """

    def __init__(self, omni: Omni, folder: Path) -> None:
        self.omni = omni
        self.folder = folder.resolve()
        self.modalities = frozenset(omni.model.config.stream_of)
        self._conversations: dict[str, Conversation] = {}
        self._worlds: dict[str, World] = {}
        self._lock = threading.Lock()
        self._num_waiting = 0
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="omni")

    def new_id(self) -> str:
        """Return a name that nobody can guess: whoever knows it can read the conversation."""
        return secrets.token_urlsafe(16)

    def conversation(self, conversation_id: str) -> Conversation:
        """Return the conversation of that name, from memory, from disk, or new.

        Raises:
            InputError: the name was not made by new_id.
        """
        _check_id(conversation_id)
        with self._lock:
            found = self._conversations.pop(conversation_id, None)
            found = found or Conversation(self.folder / conversation_id, modalities=self.modalities)
            self._conversations[conversation_id] = found  # the last in order is the last used
            self._forget_idle()
            return found

    def world(self, world_id: str) -> World | None:
        """Return the world that was opened under a name; None where there is none, or it was forgotten."""
        with self._lock:
            found = self._worlds.pop(world_id, None)
            if found:
                self._worlds[world_id] = found
            return found

    def open_world(self, world_id: str, world: World) -> None:
        """Begin a world under a name, in place of the one before.

        Raises:
            InputError: too many are being played, too much waits for the model, or new_id did not make the name.
        """
        _check_id(world_id)
        self.check_room()
        with self._lock:
            idle = [name for name, kept in self._worlds.items() if name == world_id or not kept.is_running]
            if len(self._worlds) >= MAX_WORLDS and not idle:
                raise InputError(f"{len(self._worlds)} worlds are being played; try again in a moment.")
            ended = world_id if world_id in self._worlds else idle[0] if len(self._worlds) >= MAX_WORLDS else ""
            if ended:
                self._worlds.pop(ended).close()
            self._worlds[world_id] = world
        self.start(world.go_on)

    def check_room(self) -> None:
        """Raise InputError when too much waits already."""
        if self._num_waiting >= MAX_WAITING:
            raise InputError(f"{self._num_waiting} answers are waiting for the model; try again in a moment.")

    def start(self, work: Callable[[Omni], None]) -> None:
        """Have some work done, when the model is free."""
        with self._lock:
            self._num_waiting += 1
        self._worker.submit(self._do, work)

    def close(self) -> None:
        """Stop every answer and every world, and wait for the thread's end."""
        for conversation in self._conversations.values():
            conversation.stop()
        for world in self._worlds.values():
            world.close()
        self._worker.shutdown(wait=True, cancel_futures=True)

    def _do(self, work: Callable[[Omni], None]) -> None:
        try:
            work(self.omni)
        finally:
            with self._lock:
                self._num_waiting -= 1

    def _forget_idle(self) -> None:
        idle = [name for name, kept in self._conversations.items() if not kept.is_running]
        for name in idle[: max(0, len(self._conversations) - MAX_IN_MEMORY)]:
            del self._conversations[name]


def _check_id(name: str) -> None:
    if not _ID.fullmatch(name):
        raise InputError("This page has lost its conversation; load it again.")
