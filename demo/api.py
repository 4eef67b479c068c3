"""The typed endpoint for programs: one message in, words and the files of pictures, films and recordings out."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import gradio as gr
from gradio.utils import get_upload_folder

from demo.actions import sendable
from demo.host import Host
from demo.media import files_of
from demo.settings import Settings
from omni import OmniError
from omni.errors import InputError

__all__ = ["MediaFile", "add_endpoint"]


class MediaFile(TypedDict):
    """A picture, film or recording that travels as a file."""

    path: str
    meta: dict[str, str]


def add_endpoint(host: Host, *, concurrency_limit: int) -> None:
    """Add /chat to the page that is being built.

    Args:
        host: answers, and keeps the files.
        concurrency_limit: calls and pages served at once.
    """
    defaults = host.omni.defaults

    def chat(
        message: str,
        seed: int = 0,
        files: list[MediaFile] | None = None,
        steps: int = defaults.steps,
        guidance_scale: float = defaults.guidance_scale,
    ) -> tuple[str, list[MediaFile]]:
        """Answer one message, in a conversation of its own, with words and files.

        Args:
            message: what to say.
            seed: of all the noise; the same one gives the same answer.
            files: uploaded pictures, films and recordings that come with the message.
            steps: of denoising, for each medium of the answer.
            guidance_scale: how closely they follow the words.
        """
        settings = Settings(seed=seed, steps=steps, guidance_scale=guidance_scale)
        try:
            return _answer(host, message, _uploads(files or []), settings)
        except OmniError as error:
            raise gr.Error(str(error), print_exception=False) from error

    gr.api(chat, api_name="chat", concurrency_id="model", concurrency_limit=concurrency_limit)


def _answer(host: Host, message: str, files: Sequence[str], settings: Settings) -> tuple[str, list[MediaFile]]:
    conversation = host.conversation(host.new_id())
    host.check_room()
    conversation.say(message, files, settings)
    host.start(conversation.answer)
    for _ in conversation.follow():
        pass
    if conversation.take_draft():
        raise InputError(conversation.view().messages[-1]["content"][0]["text"])
    last = conversation.messages[-1]
    answer = last["content"] if last["role"] == "assistant" else []
    words = "".join(item["text"] for item in answer if item["type"] == "text")
    return sendable(words), [{"path": file, "meta": {"_type": "gradio.FileData"}} for file in files_of(answer)]


def _uploads(files: Sequence[MediaFile]) -> list[str]:
    """Return the paths of uploaded files, and of those alone: a caller could name any file of the machine."""
    folder = Path(get_upload_folder()).resolve()
    paths = [Path(file["path"]).resolve() for file in files]
    for path in paths:
        if not path.is_relative_to(folder):
            raise InputError(f"{path.name!r} is not an uploaded file; upload it first.")
    return [str(path) for path in paths]
