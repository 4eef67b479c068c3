"""Chat state and events of the demo, with no Gradio in it.

A Conversation lives in a folder of its own (conversation.json and its pictures, films and recordings), so that it
survives a reload of the page and a restart of the program. One thread answers, any number of pages follow.
"""

import json
import logging
import os
import secrets
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from demo.media import KINDS, Media, files_of, keep, load_media, modality_of, shrunk
from demo.settings import MAX_SEED, Settings, metadata_of
from omni import Omni, OmniError
from omni.errors import InputError
from omni.events import MediaFinished, MediaPreview, MediaStarted, TextDelta
from omni.messages import parse_messages
from omni.parts import Image, Video

__all__ = ["Conversation", "View"]

MAX_VIEWS_PER_S = 15  # a page draws its whole chat anew at each one
MAX_PREVIEWS = 8  # of one picture, film or recording
MAKING = {"image": "Drawing", "video": "Filming", "audio": "Making sound"}
MADE = {"image": "picture", "video": "film", "audio": "recording"}  # how the names of their files begin

Content = list[dict[str, Any]]  # items of the chat form; a medium is the path of its file


@dataclass(frozen=True, kw_only=True)
class View:
    """What a page shows.

    Attributes:
        messages: in the chat form, the unfinished answer and the sentence of an error included.
        status: one line on what is going on, or on how the last answer was made.
        is_running: whether an answer is being made.
    """

    messages: list[dict[str, Any]]
    status: str
    is_running: bool


@dataclass(eq=False)
class _Run:
    """An answer in the making."""

    settings: Settings
    content: Content = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)
    has_preview: bool = False  # whether the last item is a look at what is not finished
    film: Video | None = None  # where the last finished item is a film, which may go on


class Conversation:
    """One person's messages, and the answer in the making; safe to use from several threads.

    Args:
        folder: where it is kept; read when it is there.
        modalities: what the model takes beside words.
    """

    def __init__(self, folder: Path, *, modalities: Collection[str] = KINDS) -> None:
        self.folder = folder
        self.modalities = modalities
        self.messages: list[dict[str, Any]] = []
        self.settings = Settings()
        self._status = ""
        self._error = ""
        self._failed: dict[str, Any] | None = None  # a message that raised: it goes back to its writer
        self._run: _Run | None = None
        self._stale: list[Path] = []  # previews that a page may still be asking for
        self._version = 0
        self._changed = threading.Condition(threading.RLock())
        if self._file.exists():
            self._load()

    @property
    def is_running(self) -> bool:
        """Whether an answer is being made."""
        return self._run is not None

    @property
    def last_seed(self) -> int | None:
        """The seed of the last answer, or of the one in the making."""
        return self.settings.seed

    def view(self) -> View:
        """Return what there is to see now."""
        with self._changed:
            shown = [*self.messages, *([self._failed] if self._failed else [])]
            if self._run and self._run.content:
                shown.append({"role": "assistant", "content": [dict(item) for item in self._run.content]})
            if self._error:
                shown.append({"role": "assistant", "content": [{"type": "text", "text": self._error}]})
            return View(messages=shown, status=self._status, is_running=self.is_running)

    def follow(self) -> Iterator[View]:
        """Yield views while an answer is made, at most MAX_VIEWS_PER_S a second; the last one is final."""
        while True:
            with self._changed:
                seen, view = self._version, self.view()
            yield view
            if not view.is_running:
                return
            time.sleep(1 / MAX_VIEWS_PER_S)
            with self._changed:
                self._changed.wait_for(lambda: self._version != seen, timeout=5.0)  # noqa: B023

    def say(self, text: str, files: Sequence[str | Path], settings: Settings) -> None:
        """Add a message of the user's, to be answered next.

        Args:
            text: what was typed, any str at all.
            files: pictures, films and recordings that came with it.
            settings: for the answer to it.

        Raises:
            InputError: it is empty or too long, a file is of no use to the model, or an answer is being made.
        """
        self._check_idle()
        parts = [load_media(file, modalities=self.modalities) for file in files]
        words: Content = [{"type": "text", "text": text}] if text else []
        items = [{"type": modality_of(part), modality_of(part): part} for part in parts]
        parse_messages([*self.messages, {"role": "user", "content": [*items, *words]}])
        smaller = [shrunk(part) for part in parts]
        with self._changed:
            self._check_idle()
            kept = [keep(part, self.folder, name="upload") for part in smaller]
            self.messages.append({"role": "user", "content": [*kept, *words]})
            self._begin(settings)

    def retry(self, settings: Settings) -> None:
        """Take the last answer back, so that it is given again.

        Raises:
            InputError: there is nothing to answer, or an answer is being made.
        """
        with self._changed:
            self._check_idle()
            if self._failed:
                self.messages.append(self._failed)
            elif self.messages and self.messages[-1]["role"] == "assistant":
                self.messages.pop()
            if not self.messages:
                raise InputError("There is nothing to retry yet; write a message first.")
            self._begin(settings)

    def stop(self) -> None:
        """End the answer in the making at its next token or step; what there is of it stays."""
        with self._changed:
            if self._run:
                self._run.stop.set()
                self._status = "Stopping"
                self._touch()

    def clear(self) -> None:
        """Forget everything said; what was finished stays in the folder."""
        with self._changed:
            if self._run:
                self._run.stop.set()
                self._drop_preview(self._run)
            self._delete_stale()
            self.messages, self._run, self._failed = [], None, None
            self._status = self._error = ""
            self._save()

    def refuse(self, error: OmniError) -> None:
        """Show the sentence of an error below the chat, until something else is said."""
        with self._changed:
            self._error = str(error)
            self._touch()

    def take_draft(self) -> tuple[str, list[str]] | None:
        """Take a message that could not be answered off the chat, and return its (text, files)."""
        with self._changed:
            if self._failed is None:
                return None
            content: Content = self._failed["content"]
            self._failed = None
            self._touch()
        return "".join(item["text"] for item in content if item["type"] == "text"), files_of(content)

    def answer(self, omni: Omni) -> None:
        """Let the model answer the last message; returns when it has, was stopped, or has failed.

        Args:
            omni: the model.
        """
        with self._changed:
            run, messages = self._run, [*self.messages]
        if run is None:  # cleared while it waited
            return
        started_s = time.monotonic()
        try:
            if not run.stop.is_set():
                self._consume(omni, run, messages)
        except OmniError as error:
            self._end(run, error=str(error))
        except Exception:  # the edge of a thread: the page hears of it, the log gets the rest
            logging.getLogger(__name__).exception("an answer failed")
            self._end(run, error="The model failed on this message; the terminal of the demo shows why.")
        else:
            self._end(run, seconds=time.monotonic() - started_s)

    def _consume(self, omni: Omni, run: _Run, messages: list[dict[str, Any]]) -> None:
        settings = run.settings
        preview, making = 0, ""
        for event in omni.stream(
            messages,
            seed=settings.seed,
            steps=settings.steps,
            guidance_scale=settings.guidance_scale,
            size=settings.size,
            should_stop=run.stop.is_set,
        ):
            match event:
                case TextDelta(text=text):
                    self._write(run, text)
                case MediaStarted(modality=modality):
                    preview, making = 0, MAKING[modality]
                    self._tell(run, making)
                case MediaPreview(image=pixels, step=step, num_steps=num_steps):
                    if step * MAX_PREVIEWS // num_steps > preview:
                        preview = step * MAX_PREVIEWS // num_steps
                        self._preview(run, Image(pixels), f"{making}, step {step} of {num_steps}")
                case MediaFinished():
                    self._finish(run, event, metadata_of(messages[-1], settings))

    def _write(self, run: _Run, text: str) -> None:
        with self._changed:
            run.film = None
            if run.content and run.content[-1]["type"] == "text":
                run.content[-1]["text"] += text
            else:
                run.content.append({"type": "text", "text": text})
            self._touch()

    def _tell(self, run: _Run, status: str) -> None:
        with self._changed:
            if self._run is run:
                self._status = status
                self._touch()

    def _preview(self, run: _Run, image: Image, status: str) -> None:
        with self._changed:
            if self._run is run:
                self._drop_preview(run)
                run.content.append(keep(image, self.folder, name="preview"))
                run.has_preview = True
                self._tell(run, status)

    def _finish(self, run: _Run, event: MediaFinished, metadata: dict[str, Any]) -> None:
        """Show a finished medium; what goes on with the film before it takes that film's place."""
        part: Media = event.part
        before = run.film if event.continues else None
        if before is not None and isinstance(part, Video):
            part = before.followed_by(part)
        kept = keep(part, self.folder, name=MADE[modality_of(part)], metadata=metadata)
        with self._changed:
            if self._run is not run:
                self._stale += map(Path, files_of([kept]))
                return
            self._drop_preview(run)
            if before is not None:
                self._stale += map(Path, files_of([run.content.pop()]))
            run.content.append(kept)
            run.film = part if isinstance(part, Video) else None
            self._tell(run, "Writing")

    def _drop_preview(self, run: _Run) -> None:
        if run.has_preview:
            self._stale += map(Path, files_of([run.content.pop()]))
            run.has_preview = False

    def _delete_stale(self) -> None:
        while self._stale:
            self._stale.pop().unlink(missing_ok=True)

    def _begin(self, settings: Settings) -> None:
        self._delete_stale()
        seed = secrets.randbelow(MAX_SEED + 1) if settings.seed is None else settings.seed
        self.settings = replace(settings, seed=seed)
        self._run = _Run(self.settings)
        self._failed, self._error, self._status = None, "", "Thinking"
        self._save()

    def _end(self, run: _Run, *, error: str = "", seconds: float = 0.0) -> None:
        with self._changed:
            if self._run is not run:
                return
            self._drop_preview(run)
            self._run, self._error = None, error
            self._status = "" if error else _describe(run.settings, seconds, is_stopped=run.stop.is_set())
            if error:
                self._failed = self.messages.pop()
            elif run.content:
                self.messages.append({"role": "assistant", "content": run.content})
            self._save()

    def _check_idle(self) -> None:
        if self.is_running:
            raise InputError("An answer is being made; wait for its end, or stop it first.")

    def _touch(self) -> None:
        self._version += 1
        self._changed.notify_all()

    @property
    def _file(self) -> Path:
        return self.folder / "conversation.json"

    def _save(self) -> None:
        """Write what outlives the program, in one step, and tell the followers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        kept = {"messages": self.messages, "settings": asdict(self.settings)}
        temporary = self._file.with_suffix(".tmp")
        temporary.write_text(json.dumps(kept), encoding="utf-8")
        os.replace(temporary, self._file)
        self._touch()

    def _load(self) -> None:
        kept = json.loads(self._file.read_text(encoding="utf-8"))
        settings = kept["settings"]
        self.messages = kept["messages"]
        self.settings = Settings(**settings | {"size": settings["size"] and tuple(settings["size"])})


def _describe(settings: Settings, seconds: float, *, is_stopped: bool) -> str:
    made = f"seed {settings.seed}, {settings.steps} steps, guidance {settings.guidance_scale:g}"
    return f"Stopped ({made})" if is_stopped else f"{made}, {seconds:.1f} s"
