"""The one model, the one thread that runs it, and the conversations that wait for it."""

import re
import secrets
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from demo.session import Conversation
from omni import Omni
from omni.errors import InputError

__all__ = ["Host"]

MAX_WAITING = 16  # answers
MAX_IN_MEMORY = 256  # conversations; the others wait on disk
_ID = re.compile(r"[A-Za-z0-9_-]{16,64}")


class Host:
    """Keep conversations apart, and answer them one after another.

    Args:
        omni: the model, shared by all.
        folder: where conversations are kept, one folder each.
    """

    def __init__(self, omni: Omni, folder: Path) -> None:
        self.omni = omni
        self.folder = folder.resolve()
        self._conversations: dict[str, Conversation] = {}
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
        if not _ID.fullmatch(conversation_id):
            raise InputError("This page has lost its conversation; load it again.")
        with self._lock:
            found = self._conversations.pop(conversation_id, None)
            found = found or Conversation(self.folder / conversation_id)
            self._conversations[conversation_id] = found  # the last in order is the last used
            self._forget_idle()
            return found

    def check_room(self) -> None:
        """Raise InputError when too many answers wait already."""
        if self._num_waiting >= MAX_WAITING:
            raise InputError(f"{self._num_waiting} answers are waiting for the model; try again in a moment.")

    def start(self, conversation: Conversation) -> None:
        """Have the last message answered, when the model is free."""
        with self._lock:
            self._num_waiting += 1
        self._worker.submit(self._answer, conversation)

    def close(self) -> None:
        """Stop every answer and wait for the thread's end."""
        for conversation in self._conversations.values():
            conversation.stop()
        self._worker.shutdown(wait=True, cancel_futures=True)

    def _answer(self, conversation: Conversation) -> None:
        try:
            conversation.answer(self.omni)
        finally:
            with self._lock:
                self._num_waiting -= 1

    def _forget_idle(self) -> None:
        idle = [name for name, kept in self._conversations.items() if not kept.is_running]
        for name in idle[: max(0, len(self._conversations) - MAX_IN_MEMORY)]:
            del self._conversations[name]
