"""Films and recordings in the demo's chat: what comes in, what is kept of it, and how answers are shown."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

from demo.host import Host
from demo.media import MAX_KEPT_FILM_SIDE, MAX_KEPT_FPS, MAX_KEPT_SAMPLE_RATE, load_media
from demo.session import Conversation
from demo.settings import Settings, settings_of_file
from omni import InputError
from omni.events import MediaFinished, MediaPreview, MediaStarted, TextDelta
from omni.parts import Audio, Image, Video

QUICK = Settings(seed=3, steps=2)


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """A film of 12 frames a second, 0.75 s, with sound."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    Video(np.stack([np.full((32, 48, 3), 25 * n, np.uint8) for n in range(9)]), 12.0, tone(0.75)).save(path)
    return path


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("recording") / "tone.flac"
    tone(0.5, channels=2, rate=32_000).save(path)
    return path


def tone(seconds: float, *, channels: int = 1, rate: int = 16_000) -> Audio:
    wave = 0.3 * np.sin(np.arange(round(seconds * rate), dtype=np.float32) * (880 * np.pi / rate))
    return Audio(np.repeat(wave[None], channels, axis=0).astype(np.float32), rate)


class Playing:
    """A model whose answer is known beforehand; notes what the page says after each event of it."""

    def __init__(self, conversation, *events) -> None:
        self.conversation, self.events, self.said = conversation, events, []

    def stream(self, messages, **settings):
        for event in self.events:
            yield event
            self.said.append(self.conversation.view().status)


def film_of(num_frames: int, *, sound: bool = True) -> Video:
    frames = np.full((num_frames, 32, 32, 3), 90, np.uint8)
    return Video(frames, 8.0, tone(num_frames / 8) if sound else None)


def test_uploads_of_all_kinds_are_kept_and_survive_a_restart(every, conversation, photo, clip, recording):
    conversation.say("What is this?", [photo, clip, recording], Settings(seed=1, steps=2))
    kept = conversation.messages[0]["content"]
    assert [item["type"] for item in kept] == ["image", "video", "audio", "text"]
    film, sound = Video.load(kept[1]["video"]), Audio.load(kept[2]["audio"])
    assert (film.num_frames, film.fps, film.height, film.width) == (9, 12, 32, 48)
    assert film.audio is not None and film.audio.samples.std() > 0.1
    assert sound.sample_rate == MAX_KEPT_SAMPLE_RATE and len(sound.samples) == 1
    conversation.answer(every)
    assert conversation.messages[-1]["role"] == "assistant"
    assert Conversation(conversation.folder).messages == conversation.messages


def test_uploads_are_kept_small(conversation, tmp_path):
    path = tmp_path / "large.mp4"
    Video(np.zeros((30, 200, 2 * MAX_KEPT_FILM_SIDE, 3), np.uint8), 30.0).save(path)
    conversation.say("", [path], QUICK)
    film = Video.load(conversation.messages[0]["content"][0]["video"])
    assert (film.height, film.width, film.fps, film.num_frames) == (100, MAX_KEPT_FILM_SIDE, MAX_KEPT_FPS, 16)


def test_content_decides_what_a_file_is(tmp_path, clip, recording):
    named = {"film.png": clip.read_bytes(), "sound.mp4": recording.read_bytes()}
    frames = [PILImage.new("RGB", (16, 16), color) for color in ("red", "blue")]
    for suffix in ("gif", "webp"):
        frames[0].save(tmp_path / f"still.{suffix}")
        frames[0].save(tmp_path / f"moving.{suffix}", save_all=True, append_images=frames[1:], duration=200)
    for name, data in named.items():
        (tmp_path / name).write_bytes(data)
    kinds = {path.name: type(load_media(path)) for path in tmp_path.iterdir()}
    assert kinds == {
        "film.png": Video, "sound.mp4": Audio, "still.gif": Image, "still.webp": Image, "moving.gif": Video,
        "moving.webp": Video,
    }  # fmt: skip
    assert type(load_media(tmp_path / "moving.gif", modalities={"image"})) is Image


def test_sound_in_the_file_of_a_film_is_a_recording(tmp_path, recording):
    import av

    path = tmp_path / "voice.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone(0.5).samples, format="fltp", layout="mono")
        frame.sample_rate = 16_000
        for packet in (*stream.encode(frame), *stream.encode()):
            container.mux(packet)
    assert type(load_media(path)) is Audio


@pytest.mark.parametrize(
    ("name", "head"),
    [("bad.mp4", b"\0\0\0\x18ftypmp42"), ("bad.wav", b"RIFF\x24\0\0\0WAVEfmt "), ("bad.webm", b"\x1a\x45\xdf\xa3")],
)
def test_damaged_film_or_recording_is_one_sentence(conversation, tmp_path, name, head):
    bad = tmp_path / name
    bad.write_bytes(head + b"\0" * 40)
    with pytest.raises(InputError, match=name) as caught:
        conversation.say("What is this?", [bad], QUICK)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")
    assert conversation.messages == [] and not list(conversation.folder.glob("*"))


def test_model_without_films_says_so(omni, tmp_path, clip, recording):
    host = Host(omni, tmp_path)
    talk = host.conversation(host.new_id())
    for file in (clip, recording):
        with pytest.raises(InputError, match=f"{file.name}.* and this model takes pictures alone"):
            talk.say("What is this?", [file], QUICK)
    host.close()


def test_failed_message_gives_its_film_back(every, conversation, clip, recording):
    conversation.say("Hear this.", [clip, recording], Settings(seed=1, size=(10, 10)))
    conversation.answer(every)
    text, files = conversation.take_draft()
    assert text == "Hear this." and [type(load_media(file)) for file in files] == [Video, Audio]
    conversation.say(text, files, Settings(seed=1, steps=2))  # what was given back can be sent again


def test_answer_of_every_kind_is_shown_and_kept(conversation):
    look = np.zeros((8, 8, 3), np.uint8)
    conversation.say("Tell me a story.", [], Settings(seed=4, steps=2))
    model = Playing(
        conversation, TextDelta("One"),
        MediaStarted("image", (16, 16)), MediaPreview(look, 1, 2), MediaFinished(Image(look)),
        MediaStarted("video", (5, 32, 32)), MediaPreview(look, 1, 2), MediaFinished(film_of(5)),
        MediaStarted("audio", (8000,)), MediaPreview(look, 1, 2), MediaFinished(tone(0.5)),
    )  # fmt: skip
    conversation.answer(model)
    content = conversation.messages[-1]["content"]
    assert [item["type"] for item in content] == ["text", "image", "video", "audio"]
    assert model.said[1:] == [
        "Drawing", "Drawing, step 1 of 2", "Writing", "Filming", "Filming, step 1 of 2", "Writing",
        "Making sound", "Making sound, step 1 of 2", "Writing",
    ]  # fmt: skip
    for item in content[1:]:
        assert settings_of_file(item[item["type"]]) == ("Tell me a story.", Settings(seed=4, steps=2))


def test_film_that_goes_on_takes_the_place_of_the_film_before(conversation):
    conversation.say("A long film.", [], QUICK)
    going_on = MediaFinished(film_of(4), continues=True)
    conversation.answer(Playing(conversation, MediaFinished(film_of(5)), MediaStarted("video", (4, 32, 32)), going_on))
    [item] = conversation.messages[-1]["content"]
    film = Video.load(item["video"])
    assert film.num_frames == 9 and film.audio.duration_s == pytest.approx(9 / 8, abs=0.1)
    conversation.clear()
    assert len(list(conversation.folder.glob("*.mp4"))) == 1


def test_film_that_goes_on_with_an_upload_stands_alone(conversation, clip):
    conversation.say("Go on with this film.", [clip], QUICK)
    conversation.answer(Playing(conversation, MediaFinished(film_of(4), continues=True)))
    [item] = conversation.messages[-1]["content"]
    assert Video.load(item["video"]).num_frames == 4


def test_retry_answers_a_film_anew(every, conversation, clip):
    conversation.say("What happens in this video?", [clip], Settings(seed=2, steps=2))
    conversation.answer(every)
    first = [item for item in conversation.messages[-1]["content"] if item["type"] == "text"]
    conversation.retry(Settings(seed=2, steps=2))
    conversation.answer(every)
    assert [item for item in conversation.messages[-1]["content"] if item["type"] == "text"] == first
