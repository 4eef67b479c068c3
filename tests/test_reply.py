"""A reply: its parts by kind, its page with the files beside it, and how events become parts."""

from pathlib import Path

import numpy as np
import pytest

from omni.errors import InputError
from omni.events import MediaFinished, MediaPreview, MediaStarted, TextDelta
from omni.messages import parse_messages
from omni.parts import Action, Audio, Image, Part, Text, Video
from omni.reply import Finished, Reply, collect

RATE = 16_000
PICTURE = Image(np.full((8, 12, 3), 40, np.uint8), {"seed": 3})
SOUND = Audio(np.linspace(-0.5, 0.5, RATE, dtype=np.float32)[None], RATE)
FILM = Video(np.full((4, 16, 32, 3), 90, np.uint8), 8.0, Audio(SOUND.samples[:, : RATE // 2], RATE))


def test_reply_sorts_its_parts():
    reply = Reply((Text("A fox "), PICTURE, FILM, Text("runs."), SOUND, Action("left")), seed=1)
    assert reply.text == "A fox runs."
    assert (reply.images, reply.videos, reply.audios) == ([PICTURE], [FILM], [SOUND])
    assert Finished(reply).reply is reply


def test_message_goes_on_with_the_conversation():
    reply = Reply((Text("Here: "), FILM, SOUND, Action("left"), PICTURE), seed=1)
    said, answer = parse_messages([{"role": "user", "content": "Hello."}, reply.message])
    assert answer.role == "assistant" and answer.parts == reply.parts


def test_save_writes_a_page_with_its_files(tmp_path: Path):
    parts = (Text(" A fox.\n"), PICTURE, FILM, SOUND, Action("left"), Text("The \ud800 end."))
    Reply(parts, seed=3).save(tmp_path / "new" / "folder")
    folder = tmp_path / "new" / "folder"
    assert sorted(path.name for path in folder.iterdir()) == ["2.png", "3.mp4", "4.wav", "reply.md"]
    page = (folder / "reply.md").read_text(encoding="utf-8", errors="surrogatepass")
    assert page == (
        "A fox.\n\n![picture 2](2.png)\n\n[film 3](3.mp4)\n\n[sound 4](4.wav)\n\n*left*\n\nThe \ud800 end.\n"
    )
    assert Image.load(folder / "2.png").metadata == {"seed": 3}
    film = Video.load(folder / "3.mp4")
    assert film.frames.shape == FILM.frames.shape and film.audio is not None
    assert film.audio.samples.shape == FILM.audio.samples.shape
    assert Audio.load(folder / "4.wav").samples.shape == SOUND.samples.shape


def test_save_says_why_it_cannot(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="Cannot make the folder"):
        Reply((Text("hello"),), seed=1).save(tmp_path / "file")


def test_events_become_parts():
    parts: list[Part] = []
    for event in (
        TextDelta("A "),
        TextDelta("fox"),
        MediaStarted("image", (8, 12)),
        MediaPreview(PICTURE.pixels, 1, 2),
        MediaFinished(PICTURE),
        TextDelta("."),
        MediaFinished(FILM),
        MediaFinished(FILM, continues=True),
        MediaFinished(SOUND),
        MediaFinished(FILM, continues=True),
    ):
        collect(parts, event)
    words, picture, stop, film, sound, later = parts
    assert words == Text("A fox") and picture is PICTURE and stop == Text(".") and sound is SOUND and later is FILM
    assert isinstance(film, Video) and film.num_frames == 8 and film.audio is not None
    assert film.audio.samples.shape == (1, RATE)
