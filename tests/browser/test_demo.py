"""A person at the demo, in a real Chromium: types, uploads, stops, retries, reloads, clears, and sees what comes back.

The tests share one page and run in order, as a person would go on; each begins from a cleared chat.
"""

import json

import numpy as np
import pytest
from PIL import Image as PILImage
from tests.browser.page import BOX, Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]

PICTURES = "#chat .bot img"
DRAW = "Draw a fox on a red background."
SPEAK = 'Film a happy face on blue saying "here is a fox", with sound.'


@pytest.fixture(scope="module")
def opened(driver, demo_url, screenshots) -> Page:
    page = Page(driver, demo_url, screenshots)
    page.hold(Page.desktop)
    page.open()
    return page


@pytest.fixture
def page(opened) -> Page:
    opened.begin_anew()
    return opened


def test_page_asks_nobody_else(opened):
    urls = set()
    for entry in opened.driver.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            urls.add(message["params"]["request"]["url"])
    foreign = {url for url in urls if url.startswith(("http", "ws")) and not url.startswith(opened.url)}
    assert opened.url + "/" in urls and not foreign
    opened.shoot("desktop-empty")


def test_picture_comes_back_through_its_steps(page):
    page.type(DRAW)
    page.send()
    assert page.typed() == ""
    page.type("Another")
    page.wait(lambda: page.find("#chat .bot img[src*=preview]"), "a preview")
    page.shoot("desktop-preview")
    page.wait_for_answer()
    assert page.typed() == "Another"  # what is typed meanwhile stays
    [picture] = page.find(PICTURES)
    page.wait(lambda: picture.get_property("naturalWidth") >= 16, "the picture")
    assert "seed" in page.status()
    page.shoot("desktop-picture")


def test_example_is_answered_at_one_click(page):
    page.wait(lambda: page.find("#chat .example"), "the examples")[0].click()
    page.wait_for_answer()


def test_film_with_sound_and_tune_can_be_played(page):
    for words, player in ((SPEAK, "video"), ("Play C E G on a piano.", "audio")):
        page.type(words)
        page.send()
        page.wait_for_answer()
        ready = f"const found = document.querySelector('#chat .bot {player}'); return found && found.duration > 0.5"
        page.wait(lambda: page.driver.execute_script(ready), "something to play")  # noqa: B023
    page.driver.execute_script("document.querySelector('#chat .bot video').scrollIntoView()")
    page.shoot("desktop-film")


def test_shipped_world_is_played(opened):
    opened.tab("World")
    for step, button in enumerate(("world-start", "act-right", "act-right", "act-up")):
        opened.press(button)
        said = f"Step {step},"
        opened.wait(lambda: said in opened.find("#world-status")[0].text, said)  # noqa: B023
    assert opened.find("#screen img")[0].get_property("naturalWidth") >= 16
    opened.shoot("desktop-world")
    opened.tab("Chat")


def test_upload_is_shown_and_asked_about(page, tmp_path):
    path = tmp_path / "green.png"
    PILImage.fromarray(np.full((80, 80, 3), (40, 160, 60), np.uint8)).save(path)
    page.upload(path)
    page.wait(lambda: page.find("#box .thumbnail-item"), "the upload")
    page.type("What is the background?")
    page.send()
    page.wait_for_answer()
    assert len(page.find("#chat .user img")) == 1
    page.shoot("desktop-upload")


def test_bad_upload_is_one_sentence_and_nothing_is_lost(page, tmp_path):
    path = tmp_path / "broken.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    page.upload(path)
    page.wait(lambda: page.find("#box .thumbnail-item"), "the upload")
    page.type("What is this?")
    page.send()
    assert "broken.png" in page.said()
    assert page.typed() == "What is this?" and len(page.find("#box .thumbnail-item")) == 1
    page.shoot("desktop-bad-upload")
    page.drop_files()
    page.send()
    page.wait_for_answer()
    assert "broken.png" not in page.said()


def test_stop_ends_a_picture(page):
    page.driver.execute_script("document.querySelector('#steps input[type=number]').focus()")
    steps = page.find("#steps input[type=number]")[0]
    page.driver.execute_script("arguments[0].select()", steps)
    steps.send_keys("100\t")
    page.type(DRAW)
    page.send()
    page.wait(lambda: "step" in page.status(), "the first steps")
    page.wait(lambda: page.find("#box .stop-button"), "the stop button")[0].click()
    page.wait(lambda: page.status().startswith("Stopped"), "the end", timeout_s=20)
    assert not page.find(PICTURES)
    page.shoot("desktop-stopped")
    page.driver.execute_script("arguments[0].select()", steps)
    steps.send_keys("24\t")


def test_retry_with_the_last_seed_draws_the_same_picture(page):
    page.type(DRAW)
    page.send()
    page.wait_for_answer()
    first, source = page.bytes_of(PICTURES), page.find(PICTURES)[-1].get_attribute("src")
    page.press("reuse")
    page.wait(lambda: not page.find("#new-seed input")[0].is_selected(), "the seed to be kept")
    page.press("retry")
    page.wait(lambda: (shown := page.find(PICTURES)) and shown[-1].get_attribute("src") != source, "another picture")
    page.wait_for_answer()
    assert page.bytes_of(PICTURES) == first
    page.find("#new-seed input")[0].click()


def test_picture_dropped_back_restores_its_settings(page, tmp_path):
    page.type(DRAW)
    page.send()
    page.wait_for_answer()
    seed = page.status().split()[1].strip(",")
    path = tmp_path / "mine.png"
    path.write_bytes(page.bytes_of(PICTURES))
    page.find("#made input[type=file]")[0].send_keys(str(path))
    page.wait(lambda: page.typed() == DRAW, "the prompt")
    assert page.find("#seed input")[0].get_property("value") == seed
    assert not page.find("#new-seed input")[0].is_selected()
    page.find("#new-seed input")[0].click()


def test_conversation_survives_a_reload(page):
    page.type("Hello!")
    page.send()
    page.wait_for_answer()
    before = page.said()
    page.open()
    page.wait(lambda: page.said() == before, "the same chat")


def test_browser_has_logged_no_errors(opened):
    severe = [entry["message"] for entry in opened.driver.get_log("browser") if entry["level"] == "SEVERE"]
    assert not severe


def test_reload_in_the_middle_follows_the_answer_to_its_end(page):
    page.type(DRAW)
    page.send()
    page.wait(lambda: "step" in page.status(), "the first steps")
    page.driver.refresh()
    page.wait(lambda: page.find(PICTURES) and page.find("#status span.idle"), "the picture after the reload")
    assert "preview" not in page.find(PICTURES)[-1].get_attribute("src")


def test_phone_shows_chat_and_box_without_scrolling_sideways(page):
    page.hold(Page.phone)
    try:
        page.open()
        page.shoot("phone-empty")
        page.type(DRAW)
        page.send()
        page.wait_for_answer()
        page.shoot("phone-picture")
        assert page.driver.execute_script("return document.documentElement.scrollWidth") <= 390
        bottom = page.driver.execute_script("return arguments[0].getBoundingClientRect().bottom", page.find(BOX)[0])
        assert bottom <= 844
    finally:
        page.hold(Page.desktop)
