import numpy as np
import pytest

from omni.errors import InputError
from omni.messages import Message, message_to_dict, parse_messages, part_from_item
from omni.parts import Action, Audio, Image, Limits, Text, Video

PIXELS = np.full((4, 6, 3), 9, np.uint8)
FRAMES = np.full((3, 4, 6, 3), 9, np.uint8)
WAVE = np.linspace(-1, 1, 8_000, dtype=np.float32)


def text(words: str) -> dict:
    return {"type": "text", "text": words}


def user(*content) -> dict:
    return {"role": "user", "content": list(content)}


@pytest.mark.parametrize(
    "messages",
    [
        "hello",
        ["hello"],
        {"role": "user", "content": "hello"},
        [{"role": "user", "content": "hello"}],
        ({"role": "user", "content": [text("hello")]},),
        {"role": "user", "content": text("hello")},
        user(Text("hello")),
        user(text("hello"), text("")),
        Message("user", (Text("hello"),)),
    ],
)
def test_every_form_of_one_user_message(messages):
    assert parse_messages(messages) == [Message("user", (Text("hello"),))]


@pytest.mark.parametrize("key", ["image", "path", "url", "file"])
def test_pictures_under_every_key(tmp_path, key):
    path = tmp_path / "a.png"
    Image(PIXELS).save(path)
    (message,) = parse_messages(user({"type": "image", key: str(path)}, text("What is it?")))
    picture, question = message.parts
    np.testing.assert_array_equal(picture.pixels, PIXELS)
    assert question == Text("What is it?")
    assert message.text == "What is it?"


def test_conversation_round_trip():
    conversation = [
        {"role": "system", "content": "Be brief."},
        user({"type": "image", "image": Image(PIXELS)}, text("Describe it.")),
        {"role": "assistant", "content": [text("A square.\0\ud800 <|image|> \u2581")]},
        {"role": "assistant", "content": []},
    ]
    parsed = parse_messages(conversation)
    written = [message_to_dict(message) for message in parsed]
    assert [message["role"] for message in written] == ["system", "user", "assistant", "assistant"]
    assert parse_messages(written) == parsed
    assert written[2] == conversation[2]


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([], "no messages"),
        (None, "Message 1 is a NoneType"),
        (7, "Message 1 is a int"),
        ([["user", "hello"]], "Message 1 is a list"),
        (b"hello", "Message 1 is a bytes"),
        ({}, "Message 1 has role None"),
        ({"role": "user"}, '"content" should be'),
        ({"role": "user", "content": None}, "NoneType"),
        ({"role": "user", "content": 5}, "int"),
        ({"role": "robot", "content": "hi"}, "'robot'; the roles are system, user, assistant"),
        ({"role": ["user"], "content": "hi"}, "has role"),
        ({"role": "user", "content": "hi", "name": "x"}, "unknown field 'name'"),
        ({"role": "user", "content": "hi", 5: "x"}, "unknown field 5"),
        (["hi", {"role": "system", "content": "x"}], "Message 2 has role 'system'"),
        ("", "Message 1 is empty; say something or attach a picture"),
        (" \n\t", "Message 1 is empty"),
        (user(), "Message 1 is empty"),
        (["hi", {"role": "assistant", "content": "hello"}, user(text(""))], "Message 3 is empty"),
        (user("hello"), "Message 1, item 1 is a str"),
        (user(text("a"), 3), "Message 1, item 2 is a int"),
        (user({}), "item 1 has type None"),
        (user({"text": "a"}), "has type None"),
        (user({"type": "text"}), "text should be a str"),
        (user({"type": "text", "text": 5}), "not int"),
        (user({"type": "text", "text": "a", "bold": True}), "unknown field 'bold'"),
        (user({"type": "image_url", "image_url": {"url": "x"}}), "image_url"),
        (user({"type": ["text"], "text": "a"}), "has type"),
        (user({"type": "smell", "smell": "a"}), "'smell'; the types are text, image, video, audio, action"),
        (user({"type": "video", "video": "no/such.mp4"}), "item 1: the clip does not exist"),
        (user({"type": "audio", "audio": "no/such.wav"}), "item 1: the recording does not exist"),
        (user({"type": "video"}), "names 0 clips"),
        (user({"type": "audio", "audio": b"", "file": "a.wav"}), "names 2 recordings"),
        (user({"type": "video", "video": FRAMES}), "fps=8"),
        (user({"type": "audio", "audio": WAVE}), "sample_rate=16000"),
        (user({"type": "video", "video": FRAMES, "rate": 8}), "unknown field 'rate'"),
        (user({"type": "image", "image": PIXELS, "fps": 8}), "unknown field 'fps'"),
        (user({"type": "video", "url": "https://example.org/a.mp4"}), "allow_urls"),
        (user({"type": "action"}), "action should be a str"),
        (user({"type": "action", "action": ""}), "1 to 64 characters"),
        (user({"type": "action", "action": "x" * 65}), "1 to 64 characters"),
        (user({"type": "image"}), "names 0 pictures"),
        (user({"type": "image", "image": PIXELS, "path": "a.png"}), "names 2 pictures"),
        (user({"type": "image", "image": None}), "item 1: the picture is a NoneType"),
        (user({"type": "image", "image": b""}), "Message 1, item 1: the picture is empty"),
        (user({"type": "image", "image": "no/such.png"}), "item 1: the picture does not exist"),
        (user({"type": "image", "url": "https://example.org/a.png"}), "allow_urls"),
        (user({"type": "image", "image": "https://example.org/a.png"}), "allow_urls"),
    ],
)
def test_parse_messages_refuses_in_one_sentence(messages, words):
    with pytest.raises(InputError) as caught:
        parse_messages(messages)
    message = str(caught.value)
    assert words in message
    assert message.endswith(".") and "\n" not in message and len(message) < 250


@pytest.mark.parametrize("key", ["path", "url", "file", None])
def test_films_and_sound_under_every_key(tmp_path, key):
    Video(FRAMES, 8.0).save(tmp_path / "a.mp4")
    Audio(WAVE[None], 16_000).save(tmp_path / "a.wav")
    items = [
        {"type": kind, key or kind: str(tmp_path / f"a.{end}")} for kind, end in (("video", "mp4"), ("audio", "wav"))
    ]
    (message,) = parse_messages(user(*items, {"type": "action", "action": "left"}))
    video, audio, action = message.parts
    assert video.frames.shape == FRAMES.shape and video.fps == 8
    assert audio.samples.shape == (1, 8_000) and action == Action("left")


def test_arrays_come_with_their_rate():
    film = {"type": "video", "video": FRAMES, "fps": 12.5}
    sound = {"type": "audio", "audio": WAVE, "sample_rate": 8_000}
    video, audio = parse_messages(user(film, sound))[0].parts
    assert video.fps == 12.5 and audio.sample_rate == 8_000


def test_media_round_trip():
    parts = (Video(FRAMES, 8.0, Audio(WAVE[None], 16_000)), Audio(WAVE[None], 16_000), Action("left"), Image(PIXELS))
    message = Message("assistant", parts)
    written = message_to_dict(message)
    assert [item["type"] for item in written["content"]] == ["video", "audio", "action", "image"]
    assert parse_messages(written) == [message]
    for part in parts:
        assert part_from_item(part) is part
        assert parse_messages({"role": "user", "content": part})[0].parts == (part,)


def test_films_and_sound_are_limited_by_conversation():
    film = Video(np.zeros((10, 10, 10, 3), np.uint8), 8.0, Audio(np.zeros((1, 100), np.float32), 16_000))
    sound = Audio(np.zeros((2, 100), np.float32), 16_000)
    frames = Limits(max_conversation_video_pixels=2_000)
    assert len(parse_messages([user(film), user(film)], limits=frames)) == 2
    with pytest.raises(InputError, match="Message 3 brings the clips to 0 megapixels; stay within 0"):
        parse_messages([user(film)] * 3, limits=frames)
    samples = Limits(max_conversation_audio_samples=500)
    assert len(parse_messages([user(film), user(sound), user(sound)], limits=samples)) == 3
    with pytest.raises(InputError, match="Message 4 brings the sound"):
        parse_messages([user(film), user(sound), user(sound), user(film)], limits=samples)


def test_text_is_limited_by_message():
    limits = Limits(max_text_chars=10)
    assert parse_messages("x" * 10, limits=limits)[0].text == "x" * 10
    for messages in ("x" * 11, user(text("x" * 6), text("x" * 5)), user(Text("x" * 11))):
        with pytest.raises(InputError, match="11 characters"):
            parse_messages(messages, limits=limits)
    assert len(parse_messages("x" * 100_000)[0].text) == 100_000
    with pytest.raises(InputError, match="100001 characters"):
        parse_messages("x" * 100_001)


def test_conversations_are_limited():
    with pytest.raises(InputError, match="keep the last 2"):
        parse_messages(["a", "b", "c"], limits=Limits(max_messages=2))
    picture = {"type": "image", "image": np.zeros((100, 100, 3), np.uint8)}
    limits = Limits(max_conversation_pixels=20_000)
    assert len(parse_messages([user(picture), user(picture)], limits=limits)) == 2
    with pytest.raises(InputError, match="Message 3 brings the pictures"):
        parse_messages([user(picture)] * 3, limits=limits)


def test_part_from_item_gives_parts_back():
    picture = Image(PIXELS)
    assert part_from_item(picture) is picture
    assert part_from_item({"type": "image", "image": picture}) is picture
    assert part_from_item(text("a")) == Text("a")
