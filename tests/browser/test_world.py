"""A person at a demo of a model with films and sound: uploads a clip and a recording, and plays in a world.

The model has learnt nothing; what it answers does not matter here. The tests share one page and run in order.
"""

from pathlib import Path

import numpy as np
import pytest
from tests.browser.page import BOX, Page

from omni.parts import Audio, Video

pytestmark = [pytest.mark.browser, pytest.mark.slow]

PLAYERS = "return [...document.querySelectorAll('#chat .user video, #chat .user audio')]"
FRAMES = "#screen img"


@pytest.fixture(scope="module")
def opened(driver, every_url, screenshots) -> Page:
    page = Page(driver, every_url, screenshots)
    page.hold(Page.desktop)
    page.open()
    return page


@pytest.fixture
def page(opened) -> Page:
    opened.tab("Chat")
    opened.begin_anew()
    return opened


@pytest.fixture
def world(opened) -> Page:
    opened.tab("World")
    opened.press("world-start")
    opened.wait(lambda: steps(opened) == 0, "the first picture")
    return opened


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[Path]:
    """A clip with its sound, and a recording."""
    folder = tmp_path_factory.mktemp("files")
    wave = 0.2 * np.sin(np.arange(16_000, dtype=np.float32) * 0.2)[None]
    frames = np.stack([np.full((64, 64, 3), (30 * n, 90, 200 - 20 * n), np.uint8) for n in range(8)])
    Video(frames, 8.0, Audio(wave, 16_000)).save(folder / "clip.mp4")
    Audio(wave, 16_000).save(folder / "tone.flac")
    return [folder / "clip.mp4", folder / "tone.flac"]


def steps(page: Page) -> int | None:
    """The steps that the world has done, once it is at rest."""
    said = page.find("#world-status .idle")
    return int(said[0].text.split()[1].strip(",")) if said and said[0].text.startswith("Step") else None


def size(page: Page, name: str) -> None:
    """Choose the size of pictures and films."""
    page.find("#size input")[0].click()
    found = page.wait(lambda: [one for one in page.find("[role=option]") if name in one.text], "the sizes")
    found[0].click()


def keys(page: Page, *names: str) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    for name in names:
        ActionChains(page.driver).send_keys(getattr(Keys, name, name)).perform()


def test_page_offers_an_example_of_every_ability(opened):
    opened.wait(lambda: opened.find("#chat .example"), "the examples")
    offered = opened.said()
    for words in ("Draw", "Describe", "film", "Go on", "Say", "piano", "sound of", "with sound", "story"):
        assert words in offered
    opened.shoot("every-desktop-empty")


def test_clip_and_recording_are_shown_and_can_be_played(page, files):
    for number, file in enumerate(files, start=1):
        page.upload(file)
        page.wait(lambda: len(page.find("#box .thumbnail-item")) == number, "the upload")  # noqa: B023
    page.type("What is this?")
    page.send()
    page.wait_for_answer()
    page.wait(lambda: page.find("#chat .user video") and page.find("#chat .user audio"), "the players")
    ready = f"{PLAYERS}.every(player => player.readyState > 1 && player.duration > 0.9)"
    page.wait(lambda: page.driver.execute_script(ready), "something to play")
    film = page.find("#chat .user video")[0]
    assert film.get_property("controls") and film.get_property("loop") and film.size["width"] == 256
    page.shoot("every-desktop-clip")
    page.open()
    page.wait(lambda: page.driver.execute_script(ready), "the same after a reload")


def test_one_player_silences_the_others(page, files):
    for number, file in enumerate(files, start=1):
        page.upload(file)
        page.wait(lambda: len(page.find("#box .thumbnail-item")) == number, "the upload")  # noqa: B023
    page.send()
    page.wait_for_answer()
    page.driver.execute_script("document.querySelectorAll('#chat video, #chat audio').forEach(p => p.loop = true)")
    for name in ("video", "audio"):
        page.driver.execute_script(f"document.querySelector('#chat .user {name}').play()")
        playing = f"{PLAYERS}.filter(player => !player.paused).map(player => player.localName)"
        page.wait(lambda: page.driver.execute_script(playing) == [name], f"the {name} alone")  # noqa: B023


def test_example_brings_its_film(page):
    examples = page.wait(lambda: page.find("#chat .example"), "the examples")
    next(example for example in examples if example.text == "Go on with this film.").click()
    page.wait_for_answer()
    assert len(page.find("#chat .user video")) == 1


def test_bad_clip_is_one_sentence_and_nothing_is_lost(page, tmp_path):
    path = tmp_path / "broken.mp4"
    path.write_bytes(b"\0\0\0\x18ftypmp42 and no more")
    page.upload(path)
    page.wait(lambda: page.find("#box .thumbnail-item"), "the upload")
    page.type("What is this?")
    page.send()
    assert "broken.mp4" in page.said()
    assert page.typed() == "What is this?" and len(page.find("#box .thumbnail-item")) == 1


def test_message_that_cannot_be_answered_goes_back_with_its_clip(page, files):
    size(page, "Square, 64 x 64")  # more than this model makes
    page.upload(files[0])
    page.wait(lambda: page.find("#box .thumbnail-item"), "the upload")
    page.type("What is this?")
    page.send()
    page.wait(lambda: page.typed() == "What is this?" and page.find("#box .thumbnail-item"), "the message in the box")
    assert "choose a smaller one" in page.said()
    size(page, "The model chooses")
    page.send()
    page.wait_for_answer()
    assert len(page.find("#chat .user video")) == 1


def test_world_is_played_with_keys_and_buttons(world):
    first = world.find(FRAMES)[0].get_property("src")
    keys(world, "ARROW_LEFT")
    world.wait(lambda: steps(world) == 1, "the answer to a key")
    second = world.find(FRAMES)[0].get_property("src")
    world.press("act-jump")
    world.wait(lambda: steps(world) == 2, "the answer to a button")
    third = world.find(FRAMES)[0].get_property("src")
    assert len({first, second, third}) == 3
    assert world.find(FRAMES)[0].get_property("naturalWidth") >= 16
    keys(world, "ARROW_UP", "ARROW_RIGHT", " ", ".")  # the space is the world's, whichever button was pressed last
    world.wait(lambda: steps(world) == 6, "four answers more")
    world.shoot("every-desktop-world")


def test_same_seed_and_keys_give_the_same_frames(world):
    shown = []
    for _ in range(2):
        keys(world, "ARROW_LEFT")
        world.wait(lambda: steps(world) == 1, "the answer")
        shown.append(world.find(FRAMES)[0].get_property("src"))
        if world.find("#world-new-seed input")[0].is_selected():
            seed = world.find("#world-status")[0].text.split("seed ")[1]
            world.find("#world-new-seed input")[0].click()
            field = world.find("#world-seed input")[0]
            world.driver.execute_script("arguments[0].select()", field)
            field.send_keys(f"{seed}\t")
        world.press("world-start")
        world.wait(lambda: steps(world) == 0, "the first picture")
    assert shown[0] == shown[1]


def test_keys_belong_to_a_field_that_is_written_in(world):
    field = world.find("#world-prompt textarea, #world-prompt input")[0]
    field.send_keys(" .")
    assert field.get_property("value").endswith(" .") and steps(world) == 0


def test_browser_has_logged_no_errors(opened):
    severe = [entry["message"] for entry in opened.driver.get_log("browser") if entry["level"] == "SEVERE"]
    # A page that is loaded anew drops the stream that it followed, and gradio logs that, in one of Chromium's wordings.
    left = ("AbortError: signal is aborted", "AbortError: BodyStreamBuffer was aborted", "Connection errored out")
    assert not [message for message in severe if not any(words in message for words in left)]


def test_world_is_found_again_after_a_reload(world):
    keys(world, "ARROW_DOWN")
    world.wait(lambda: steps(world) == 1, "the answer")
    world.driver.refresh()
    world.wait(lambda: world.find(BOX), "the page")
    world.tab("World")
    world.wait(lambda: steps(world) == 1 and world.find(FRAMES), "the same world")


def test_phone_shows_the_world_and_its_buttons_without_scrolling(page, files):
    page.hold(Page.phone)
    try:
        page.open()
        page.shoot("every-phone-empty")
        page.upload(files[0])
        page.wait(lambda: page.find("#box .thumbnail-item"), "the upload")
        page.send()
        page.wait_for_answer()
        page.shoot("every-phone-clip")
        page.tab("World")
        page.press("world-start")
        page.wait(lambda: steps(page) == 0, "the first picture")
        page.press("act-right")
        page.wait(lambda: steps(page) == 1, "the answer")
        page.shoot("every-phone-world")
        assert page.driver.execute_script("return document.documentElement.scrollWidth") <= 390
        bottom = page.driver.execute_script("return document.querySelector('#pad').getBoundingClientRect().bottom")
        assert bottom <= 844
    finally:
        page.hold(Page.desktop)
