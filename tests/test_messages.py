import numpy as np
import pytest

from omni.errors import InputError
from omni.messages import Message, message_to_dict, parse_messages, part_from_item
from omni.parts import Image, Limits, Text

PIXELS = np.full((4, 6, 3), 9, np.uint8)


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
        (user({"type": "video", "video": "a.mp4"}), "'video', which comes in a later version"),
        (user({"type": "audio", "audio": "a.wav"}), "'audio', which comes in a later version"),
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
