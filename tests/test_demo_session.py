"""The demo's chat state on the shipped model: what is said, stopped, taken back, kept and given back."""

import threading
import time

import numpy as np
import pytest
from PIL import Image as PILImage

from demo.host import Host
from demo.session import MAX_PREVIEWS, MAX_VIEWS_PER_S, Conversation
from demo.settings import Settings, settings_of_file
from omni import InputError, Omni
from omni.parts import Image

DRAW = "Draw a fox on a red background."
QUICK = Settings(seed=3, steps=8)


@pytest.fixture(scope="module")
def omni() -> Omni:
    return Omni.from_pretrained()


def pictures(conversation: Conversation, role: str = "assistant") -> list[str]:
    said = [m for m in conversation.messages if m["role"] == role]
    return [item["image"] for m in said for item in m["content"] if item["type"] == "image"]


def test_answer_follows_a_message(omni, conversation):
    conversation.say("Hello!", [], QUICK)
    assert conversation.is_running
    conversation.answer(omni)
    assert not conversation.is_running
    assert [m["role"] for m in conversation.messages] == ["user", "assistant"]
    assert "seed 3" in conversation.view().status


def test_picture_is_kept_with_its_settings(omni, conversation):
    conversation.say(DRAW, [], Settings(seed=5, steps=4, guidance_scale=2.0, size=(64, 96)))
    conversation.answer(omni)
    [path] = pictures(conversation)
    assert PILImage.open(path).size == (96, 64)
    assert settings_of_file(path) == (DRAW, Settings(seed=5, steps=4, guidance_scale=2.0, size=(64, 96)))


def test_same_seed_draws_the_same_picture_again(omni, conversation):
    conversation.say(DRAW, [], QUICK)
    conversation.answer(omni)
    first = Image.load(pictures(conversation)[0]).pixels
    conversation.retry(QUICK)
    assert [m["role"] for m in conversation.messages] == ["user"]
    conversation.answer(omni)
    [path] = pictures(conversation)
    assert np.array_equal(first, Image.load(path).pixels)


def test_no_seed_draws_a_new_one(conversation):
    conversation.say("Hello!", [], Settings())
    seed = conversation.last_seed
    conversation.clear()
    conversation.say("Hello!", [], Settings())
    assert None is not seed != conversation.last_seed


def test_views_are_few_and_previews_leave_no_files(omni, conversation):
    conversation.say(DRAW, [], Settings(seed=3, steps=40))
    worker = threading.Thread(target=conversation.answer, args=(omni,))
    started_s = time.monotonic()
    worker.start()
    views = list(conversation.follow())
    worker.join()
    assert len(views) <= MAX_VIEWS_PER_S * (time.monotonic() - started_s) + 2
    assert not views[-1].is_running and views[-1].messages == conversation.messages
    seen = {item["image"] for view in views for m in view.messages for item in m["content"] if item["type"] == "image"}
    assert len([path for path in seen if "preview" in path]) <= MAX_PREVIEWS
    conversation.clear()  # until then a page may still be asking for the last ones
    assert not list(conversation.folder.glob("preview*"))


def test_stop_ends_a_picture_between_steps(omni, conversation):
    conversation.say(DRAW, [], Settings(seed=3, steps=100))
    worker = threading.Thread(target=conversation.answer, args=(omni,))
    worker.start()
    for view in conversation.follow():
        if "step" in view.status and view.is_running:
            conversation.stop()
    worker.join()
    assert conversation.view().status.startswith("Stopped")
    assert not pictures(conversation)
    conversation.say("Hello!", [], QUICK)
    assert not list(conversation.folder.glob("*.png"))
    conversation.answer(omni)
    assert conversation.messages[-1]["role"] == "assistant"


def test_clear_drops_the_answer_in_the_making(omni, conversation):
    conversation.say("Hello!", [], QUICK)
    conversation.clear()
    conversation.answer(omni)
    assert conversation.messages == [] and not conversation.is_running


def test_upload_is_seen_and_kept(omni, conversation, photo):
    conversation.say("What is in this picture?", [photo], QUICK)
    photo.unlink()
    conversation.answer(omni)
    assert len(pictures(conversation, "user")) == 1
    assert conversation.messages[-1]["role"] == "assistant"


@pytest.mark.parametrize(
    ("content", "word"),
    [(b"", "empty"), (b"hello", "picture"), (b"\x89PNG\r\n\x1a\n" + b"\0" * 20, "picture")],
)
def test_bad_file_is_refused_and_the_talk_goes_on(conversation, tmp_path, content, word):
    bad = tmp_path / "bad.png"
    bad.write_bytes(content)
    with pytest.raises(InputError, match="bad.png") as caught:
        conversation.say("What is this?", [bad], QUICK)
    assert "\n" not in str(caught.value) and word in str(caught.value)
    assert conversation.messages == [] and not conversation.is_running
    conversation.say("Hello!", [], QUICK)


@pytest.mark.parametrize("text", ["", "  \n", "x" * 100_001])
def test_unusable_text_is_refused(conversation, text):
    with pytest.raises(InputError):
        conversation.say(text, [], QUICK)
    assert conversation.messages == []


def test_failed_message_goes_back_to_its_writer(omni, conversation, photo):
    conversation.say("Hello!", [], QUICK)
    conversation.answer(omni)
    conversation.say(DRAW, [photo], Settings(seed=1, size=(10, 10)))
    conversation.answer(omni)
    shown = conversation.view().messages
    assert len(shown) == 4 and "10x10" in shown[-1]["content"][0]["text"]
    text, files = conversation.take_draft()
    assert text == DRAW and Image.load(files[0]).pixels.shape == (64, 64, 3)
    assert len(conversation.messages) == 2 and conversation.take_draft() is None


def test_second_message_waits_for_the_first(conversation):
    conversation.say("Hello!", [], QUICK)
    for again in (lambda: conversation.say("And?", [], QUICK), lambda: conversation.retry(QUICK)):
        with pytest.raises(InputError, match="wait"):
            again()
    assert len(conversation.messages) == 1


def test_retry_needs_a_message(conversation):
    with pytest.raises(InputError, match="write a message"):
        conversation.retry(QUICK)


def test_refusal_is_shown_until_something_is_said(conversation):
    conversation.refuse(InputError("No."))
    assert conversation.view().messages[-1]["content"][0]["text"] == "No."
    conversation.say("Hello!", [], QUICK)
    assert len(conversation.view().messages) == 1


def test_conversation_survives_a_restart(omni, conversation, photo):
    text = "What is this? \ud800 \0 <|image|>"
    conversation.say(text, [photo], Settings(seed=9, steps=4, size=(64, 64)))
    conversation.answer(omni)
    again = Conversation(conversation.folder)
    assert again.messages == conversation.messages
    assert again.messages[0]["content"][1]["text"] == text
    assert again.settings == conversation.settings and again.last_seed == 9


def test_settings_need_a_picture_of_ours(photo, tmp_path):
    with pytest.raises(InputError, match="no settings"):
        settings_of_file(photo)
    Image.load(photo).save(tmp_path / "odd.png", metadata={"prompt": "x", "seed": "many"})
    with pytest.raises(InputError, match="no settings"):
        settings_of_file(tmp_path / "odd.png")


def test_host_answers_conversations_one_after_another(omni, tmp_path):
    host = Host(omni, tmp_path)
    talks = [host.conversation(host.new_id()) for _ in range(3)]
    for talk in talks:
        talk.say("Hello!", [], QUICK)
        host.start(talk.answer)
    for talk in talks:
        list(talk.follow())
    answers = [talk.messages[-1] for talk in talks]
    assert answers[0]["role"] == "assistant" and answers[0] == answers[1] == answers[2]
    host.close()


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "short", "a" * 65, "a/b" * 8])
def test_host_takes_its_own_names_only(omni, tmp_path, name):
    host = Host(omni, tmp_path)
    with pytest.raises(InputError, match="load it again"):
        host.conversation(name)


def test_host_forgets_idle_conversations_from_memory_alone(omni, tmp_path, monkeypatch):
    monkeypatch.setattr("demo.host.MAX_IN_MEMORY", 2)
    host = Host(omni, tmp_path)
    names = [host.new_id() for _ in range(4)]
    host.conversation(names[0]).say("Hello!", [], QUICK)
    host.conversation(names[0]).clear()
    host.conversation(names[1]).say("Hello!", [], QUICK)
    kept = host.conversation(names[1])
    for name in names[2:]:
        host.conversation(name)
    assert host.conversation(names[1]) is kept  # an answer is being made
    assert host.conversation(names[0]).last_seed == 3  # from disk


def test_host_says_when_too_many_wait(omni, tmp_path, monkeypatch):
    monkeypatch.setattr("demo.host.MAX_WAITING", 0)
    with pytest.raises(InputError, match="try again"):
        Host(omni, tmp_path).check_room()
