"""Talking with a model: every way in and out, and what is refused."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PILImage

from omni.chat import Turn, to_document
from omni.errors import ConfigError, InputError
from omni.events import MediaFinished, MediaPreview, MediaStarted, TextDelta
from omni.guidance import GuidanceConfig
from omni.images import METADATA_KEY
from omni.messages import Message, newest
from omni.parts import Image, Text
from omni.pipeline import Finished, Omni, Reply
from omni.sequence import Medium, TextRun
from omni.text import CONTROL_TOKENS

FAST: dict[str, Any] = {"steps": 2, "max_new_tokens": 12}
SMALL = (16, 32)


def pixels(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def same(one: Reply, other: Reply) -> bool:
    """Whether two replies say the same words and show the same pictures."""
    pictures = list(zip(one.images, other.images, strict=True)) if len(one.images) == len(other.images) else None
    return (
        one.text == other.text
        and pictures is not None
        and all(np.array_equal(mine.pixels, theirs.pixels) for mine, theirs in pictures)
    )


# Chat and stream.


def test_chat_answers_and_the_seed_gives_the_answer_again(omni: Omni) -> None:
    reply = omni.chat("Draw a small red fox.", **FAST)
    assert isinstance(reply.seed, int) and reply.seed >= 0
    assert same(reply, omni.chat("Draw a small red fox.", seed=reply.seed, **FAST))


def test_stream_is_chat_in_pieces(omni: Omni) -> None:
    settings_ = FAST | {"temperature": 2.0, "max_new_tokens": 40}
    events = list(omni.stream("Draw a fox.", seed=5, **settings_))
    assert isinstance(events[-1], Finished)
    reply = events[-1].reply
    assert same(reply, omni.chat("Draw a fox.", seed=5, **settings_))
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == reply.text
    assert [event.part for event in events if isinstance(event, MediaFinished)] == reply.images


@pytest.fixture
def drawer(omni: Omni) -> Iterator[Omni]:
    """The model, with weights that want to draw wherever they may."""
    image = omni.template.kinds["image"]

    def prefer(module: Any, arguments: Any, logits: torch.Tensor) -> torch.Tensor:
        return logits.index_fill(-1, torch.tensor([image]), 1e4)

    hook = omni.model.lm_head.register_forward_hook(prefer)
    yield omni
    hook.remove()


@pytest.mark.parametrize("previews", [True, False])
def test_stream_shows_a_picture_as_it_is_made(drawer: Omni, previews: bool) -> None:
    more = {"size": SMALL, "max_media": 1, "max_new_tokens": 6}
    events = list(drawer.stream("Draw a fox.", seed=0, steps=3, previews=previews, **more))
    media = [event for event in events if isinstance(event, MediaStarted | MediaPreview | MediaFinished)]
    assert [type(event) for event in media] == [MediaStarted, *[MediaPreview] * (2 * previews), MediaFinished]
    assert media[0].shape == SMALL and media[-1].part.pixels.shape == (*SMALL, 3)
    assert [(event.step, event.num_steps) for event in media[1:-1]] == [(1, 3), (2, 3)][: 2 * previews]


def test_stream_stops_inside_a_picture_and_leaves_it_out(drawer: Omni) -> None:
    steps: list[int] = []
    for event in drawer.stream("Draw.", seed=0, steps=20, size=SMALL, should_stop=lambda: len(steps) >= 2):
        if isinstance(event, MediaPreview):
            steps.append(event.step)
    assert isinstance(event, Finished) and steps == [1, 2] and not event.reply.images


def test_a_reply_holds_several_pictures_of_the_size_asked_for(drawer: Omni) -> None:
    reply = drawer.chat("Draw.", seed=0, steps=1, size=SMALL, max_media=2, max_new_tokens=10)
    assert [image.pixels.shape for image in reply.images] == [(*SMALL, 3)] * 2
    assert np.any(reply.images[0].pixels != reply.images[1].pixels)


def test_stream_stops_and_keeps_what_is_there(omni: Omni) -> None:
    said: list[str] = []
    for event in omni.stream("hello", seed=4, max_media=0, temperature=3.0, should_stop=lambda: len(said) >= 3):
        if isinstance(event, TextDelta):
            said.append(event.text)
    assert isinstance(event, Finished) and event.reply.text == "".join(said) and len(said) == 3


def test_stream_stopped_at_once_says_nothing_and_the_talk_goes_on(omni: Omni) -> None:
    (finished,) = omni.stream("hello", should_stop=lambda: True)
    assert finished.reply.parts == ()
    messages = [{"role": "user", "content": "hello"}, finished.reply.message, {"role": "user", "content": "and now?"}]
    assert isinstance(omni.chat(messages, **FAST), Reply)


def test_reply_message_goes_back_in(omni: Omni) -> None:
    reply = Reply((Text("Here is a fox: "), Image(pixels(32, 16)), Text("It is red.")), seed=1)
    messages = [{"role": "user", "content": "Draw a fox."}, reply.message, {"role": "user", "content": "Make it blue."}]
    assert same(omni.chat(messages, seed=2, **FAST), omni.chat(messages, seed=2, **FAST))
    items = [item["type"] for item in reply.message["content"]]
    assert reply.message["role"] == "assistant" and items == ["text", "image", "text"]


def test_reply_saves_words_and_pictures(tmp_path: Any) -> None:
    parts = (Text("A fox: \ud83d "), Image(pixels(32, 16), {"seed": 3}), Text("Done."))
    Reply(parts, seed=3).save(tmp_path / "new" / "folder")
    text = (tmp_path / "new" / "folder" / "reply.md").read_bytes().decode("utf-8", "surrogatepass")
    assert text == "A fox: \ud83d\n\n![picture 2](2.png)\n\nDone.\n"
    with PILImage.open(tmp_path / "new" / "folder" / "2.png") as saved:
        assert np.array_equal(np.asarray(saved), parts[1].pixels)
        assert json.loads(saved.info[METADATA_KEY]) == {"seed": 3}


def test_reply_is_not_saved_over_a_file(tmp_path: Any) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="another place"):
        Reply((Text("hello"),), seed=1).save(tmp_path / "file")


# Many at once.


def test_a_reply_goes_by_as_many_exchanges_as_the_memory_holds(omni: Omni, monkeypatch: Any) -> None:
    exchange = [{"role": "user", "content": "What is a fox?"}, {"role": "assistant", "content": "An animal."}]
    asked = {"role": "user", "content": "Draw it."}

    def answer(exchanges: int) -> Reply:
        return omni.chat([*exchange * exchanges, asked], seed=0, temperature=2.0, **FAST)

    whole = [answer(exchanges) for exchanges in range(3)]
    assert not same(whole[0], whole[1]) and not same(whole[1], whole[2])
    for memory in (1, 2):
        monkeypatch.setattr(omni, "defaults", replace(omni.defaults, memory=memory))
        assert same(answer(9), whole[memory])


def test_what_the_system_said_is_never_forgotten() -> None:
    said = [Message(role, (Text(role),)) for role in ("system", *("user", "assistant") * 3, "user")]
    assert newest(said, 0) == said == newest(said, 3)
    assert newest(said, 1) == [said[0], *said[-3:]]
    assert newest(said[:2], 1) == said[:2]


def test_generate_answers_each_as_if_alone(omni: Omni) -> None:
    talks = ["Draw a fox.", "hello there!", [{"role": "user", "content": "What is this?"}]]
    together = omni.generate(talks, seed=[1, 2, 3], **FAST)
    assert [reply.seed for reply in together] == [1, 2, 3]
    for talk, seed, reply in zip(talks, [1, 2, 3], together, strict=True):
        alone = omni.chat(talk, seed=seed, **FAST)
        assert alone.text == reply.text and len(alone.images) == len(reply.images)
    assert [reply.seed for reply in omni.generate(talks, seed=7, **FAST)] == [7, 8, 9]
    assert omni.generate([]) == []


@pytest.mark.parametrize("wrong", ["hello", {"role": "user", "content": "hello"}, None, 3])
def test_generate_takes_a_list(omni: Omni, wrong: Any) -> None:
    with pytest.raises(InputError, match="list"):
        omni.generate(wrong)


# One thing at a time.


def test_image_draws_one_or_many(omni: Omni) -> None:
    one = omni.image("a fox", size=SMALL, seed=4, steps=2)
    assert one.pixels.shape == (*SMALL, 3) and one.metadata == {"prompt": "a fox", "seed": 4}
    many = omni.image(["a fox", "a house"], size=SMALL, seed=4, steps=2)
    assert [image.metadata["seed"] for image in many] == [4, 5]
    assert np.abs(many[0].pixels.astype(int) - one.pixels).max() <= 1
    assert [i.metadata["seed"] for i in omni.image(["a", "b"], size=SMALL, seed=[9, 2], steps=2)] == [9, 2]
    assert omni.image([], size=SMALL) == []
    assert omni.image("a fox", size=[16, 16], seed=np.int64(4), steps=1).pixels.shape == (16, 16, 3)


def test_edit_keeps_the_shape(omni: Omni) -> None:
    picture = Image(pixels(32, 48))
    edited = omni.edit(picture, "remove the fox", seed=1, steps=2)
    assert edited.pixels.shape == (32, 48, 3)
    pair = omni.edit([picture, pixels(16, 16)], ["remove the fox", "add a fox"], seed=1, steps=2)
    assert [image.pixels.shape for image in pair] == [(32, 48, 3), (16, 16, 3)]


def test_caption_says_words_alone(omni: Omni) -> None:
    assert isinstance(omni.caption(pixels(32, 32), max_new_tokens=6), str)
    words = omni.caption([pixels(32, 32), pixels(16, 48, seed=1)], max_new_tokens=6)
    assert len(words) == 2 and all(isinstance(text, str) for text in words)


def test_edit_and_caption_read_from_files_and_bytes(omni: Omni, tmp_path: Any) -> None:
    Image(pixels(32, 32)).save(tmp_path / "fox.png")
    from_file = omni.edit(str(tmp_path / "fox.png"), "blue", seed=1, steps=1)
    from_bytes = omni.edit((tmp_path / "fox.png").read_bytes(), "blue", seed=1, steps=1)
    assert np.array_equal(from_file.pixels, from_bytes.pixels)
    with pytest.raises(InputError, match="nothing.png"):
        omni.caption(tmp_path / "nothing.png")


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 2000), (2000, 1), (33, 47), (500, 500), (16, 4096)])
def test_pictures_of_any_size_are_read(omni: Omni, height: int, width: int) -> None:
    fitted = omni.studio.fit(pixels(height, width))
    rows, columns = fitted.shape[0] // 16, fitted.shape[1] // 16
    assert fitted.shape == (16 * rows, 16 * columns, 3) and 1 <= rows * columns <= omni.defaults.max_block_tokens
    assert isinstance(omni.caption(pixels(height, width), max_new_tokens=2), str)


def test_large_pictures_keep_their_proportions(omni: Omni) -> None:
    shapes = {(100, 100): (64, 64), (640, 960): (64, 96), (960, 640): (96, 64), (64, 96): (64, 96), (48, 32): (48, 32)}
    for size, fitted in shapes.items():
        assert omni.studio.fit(pixels(*size)).shape[:2] == fitted


# Settings.


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"step": 3}, "'steps'"),
        ({"guidance_scal": 3}, "'guidance_scale'"),
        ({"zzz": 3}, "known are"),
        ({"steps": 0}, "steps is 0"),
        ({"steps": 2.5}, "steps is 2.5"),
        ({"solver": "magic"}, "euler"),
        ({"temperature": -1}, "temperature is -1"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_p": 0}, "top_p is 0"),
        ({"max_new_tokens": -1}, "max_new_tokens is -1"),
        ({"max_media": True}, "max_media is True"),
        ({"max_block_tokens": 0}, "max_block_tokens is 0"),
        ({"guidance_scale": "high"}, "guidance_scale is 'high'"),
        ({"guidance_scale": -1}, "-1"),
        ({"guidance": 3}, "guidance is 3"),
        ({"guidance": GuidanceConfig(), "guidance_scale": 2}, "give one of them"),
        ({"image_scale": "high"}, "image_scale is 'high'"),
        ({"guidance": GuidanceConfig(), "image_scale": 2}, "give one of them"),
        ({"image_scale": 2, "max_media": 1}, "image_scale"),
        ({"guidance": GuidanceConfig(image_scale=2), "max_media": 1}, "image_scale"),
        ({"shape": (1, 1), "size": SMALL}, "give one of them"),
        ({"shape": (0, 1)}, "shape is (0, 1)"),
        ({"shape": (1, 1, 1)}, "rows, columns"),
        ({"size": (60, 64)}, "try 48x64"),
        ({"size": (0, 64)}, "try 16x64"),
        ({"size": (-16, 64)}, "try 16x64"),
        ({"size": (640, 640)}, "smaller"),
        ({"size": 64}, "height, width"),
        ({"size": (64, 64, 3)}, "height, width"),
        ({"size": "big"}, "height, width"),
        ({"size": (64.0, 64.0)}, "height, width"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": "a"}, "seed is 'a'"),
        ({"seed": True}, "seed is True"),
        ({"seed": 1.5}, "seed is 1.5"),
        ({"limits": {"max_bytes": 3}}, "limits"),
    ],
)
def test_impossible_settings_are_refused(omni: Omni, wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        omni.chat("hello", **wrong)
    assert said in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(ConfigError):
        list(omni.stream("hello", **wrong))


def test_settings_without_effect_are_refused(omni: Omni) -> None:
    with pytest.raises(ConfigError, match="settled already"):
        omni.image("a fox", size=SMALL, shape=(1, 1))
    with pytest.raises(ConfigError, match="settled already"):
        omni.edit(pixels(16, 16), "blue", size=SMALL)


def test_counts_that_disagree_are_refused(omni: Omni) -> None:
    with pytest.raises(InputError, match="2 results need as many seeds, not 1"):
        omni.image(["a", "b"], size=SMALL, seed=[1])
    with pytest.raises(InputError, match="2 pictures need as many instructions, not 1"):
        omni.edit([pixels(16, 16)] * 2, "blue")


# Messages.


def user(*content: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(content)}


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ("", "empty"),
        (" \n\t", "empty"),
        ([], "no messages"),
        (None, "Message 1"),
        (7, "Message 1"),
        ("x" * 100_001, "100001 characters"),
        ("x y" * 33_333, "tokens"),
        ([user({"type": "text", "text": "x" * 60_000}, {"type": "text", "text": "x" * 60_000})], "120000 characters"),
        ([Message("user", (Text("x" * 100_001),))], "100001 characters"),
        ([Message("user", ())], "empty"),
        ([{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}], "end with a user message"),
        ([{"role": "system", "content": "Be kind."}], "end with a user message"),
        ([{"role": "robot", "content": "hello"}], "robot"),
        ([{"role": "user", "text": "hello"}], "text"),
        ([user({"type": "image", "image": b"not a picture"})], "Message 1, item 1"),
        ([user({"type": "image", "image": "https://example.org/fox.png"})], "allow_urls"),
        ([user({"type": "video", "video": "fox.mp4"})], "the clip does not exist"),
    ],
)
def test_bad_messages_are_refused_in_one_sentence(omni: Omni, messages: Any, said: str) -> None:
    with pytest.raises(InputError) as caught:
        omni.chat(messages)
    assert said in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize(("prompt", "said"), [("", "empty"), (5, "str"), ("x" * 100_001, "characters")])
def test_bad_prompts_are_refused(omni: Omni, prompt: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        omni.image(prompt, size=SMALL)


def test_a_conversation_goes_on_after_a_refusal(omni: Omni) -> None:
    before = omni.chat("hello", seed=1, **FAST)
    with pytest.raises(InputError):
        omni.chat("")
    assert same(before, omni.chat("hello", seed=1, **FAST))


@settings(max_examples=50, deadline=None)
@given(pieces=st.lists(st.sampled_from([*CONTROL_TOKENS[:14], "<|", "|>", "image", "\0", "\ud83d", " "]), max_size=8))
def test_literal_control_tokens_stay_text(omni: Omni, pieces: list[str]) -> None:
    text = "".join(pieces)
    document = to_document([Turn("user", (text,))], tokenizer=omni.tokenizer, template=omni.template)
    assert not any(isinstance(segment, Medium) for segment in document)
    ids = [token for segment in document if isinstance(segment, TextRun) for token in segment.ids]
    control = [token for token in ids if token >= omni.tokenizer.num_text_ids]
    assert control == [omni.template.bos, omni.template.roles["user"], omni.template.end]
    assert omni.tokenizer.decode(ids) == text


def test_literal_control_tokens_in_a_message_are_answered(omni: Omni) -> None:
    assert isinstance(omni.chat("".join(CONTROL_TOKENS[:20]), **FAST), Reply)


def test_describe_names_what_the_model_is(omni: Omni) -> None:
    facts = json.loads(json.dumps(omni.describe()))
    assert facts["parameters"] == sum(p.numel() for p in omni.model.parameters())
    assert facts["modalities"] == ["text", "image"] and facts["defaults"]["steps"] == omni.defaults.steps


def test_quantised_words_are_almost_the_same(small: Omni, tmp_path) -> None:  # type: ignore[no-untyped-def]
    small.save_pretrained(tmp_path)
    eight = Omni.from_pretrained(tmp_path, quantize="int8")
    assert isinstance(eight.chat("hello", seed=0, max_media=0, max_new_tokens=4).text, str)
    with pytest.raises(ConfigError, match="int8"):
        Omni.from_pretrained(tmp_path, quantize="int4")
