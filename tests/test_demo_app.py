"""The demo's page behind its own server, without a browser: it starts, and its typed endpoint answers."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np
import pytest
from PIL import Image as PILImage

from omni import Omni
from omni.events import MediaFinished
from omni.parts import Audio, Video


@contextmanager
def served(omni: Omni, folder: Path) -> Iterator:
    """A client of the page, on a model."""
    from gradio_client import Client

    from demo.app import build_page, launch_options
    from demo.host import Host

    host = Host(omni, folder / "kept")
    page = build_page(host)
    _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, **launch_options())
    try:
        yield Client(url, verbose=False, download_files=str(folder / "got"))
    finally:
        page.close()
        host.close()


@pytest.fixture(scope="module")
def client(tmp_path_factory) -> Iterator:
    with served(Omni.from_pretrained(), tmp_path_factory.mktemp("demo")) as client:
        yield client


@pytest.fixture
def photo(tmp_path) -> Path:
    path = tmp_path / "photo.png"
    PILImage.fromarray(np.full((64, 64, 3), (40, 160, 60), np.uint8)).save(path)
    return path


def test_endpoint_is_typed_and_the_only_one(client):
    endpoints = client.view_api(return_format="dict")["named_endpoints"]
    assert list(endpoints) == ["/chat"]
    names = [parameter["parameter_name"] for parameter in endpoints["/chat"]["parameters"]]
    assert names == ["message", "seed", "files", "steps", "guidance_scale"]


def test_endpoint_returns_words_and_picture_files(client):
    words, files = client.predict("Draw a fox on a red background.", seed=3, steps=4, api_name="/chat")
    assert isinstance(words, str)
    assert [PILImage.open(file).format for file in files] == ["PNG"]


def test_endpoint_takes_uploads(client, photo):
    from gradio_client import handle_file

    words, _ = client.predict("What is the background?", files=[handle_file(str(photo))], api_name="/chat")
    assert words


def test_endpoint_refuses_files_that_were_not_uploaded(client, photo):
    file = {"path": str(photo)}  # without the mark by which gradio itself would look at it
    body = json.dumps({"data": ["What is this?", 0, [file], 4, 3.0]}).encode()
    call = f"{client.src.rstrip('/')}/gradio_api/call/chat"
    with urlopen(Request(call, body, {"Content-Type": "application/json"}), timeout=60) as response:
        event = json.load(response)["event_id"]
    with urlopen(f"{call}/{event}", timeout=60) as response:
        answer = response.read().decode()
    assert "event: error" in answer and "photo.png" in answer


def test_endpoint_says_what_is_wrong(client):
    with pytest.raises(Exception, match="empty"):
        client.predict("", api_name="/chat")


def test_endpoint_takes_and_returns_films_and_recordings(every, tmp_path, monkeypatch):
    from gradio_client import handle_file

    clip, recording = tmp_path / "clip.mp4", tmp_path / "tone.wav"
    sound = Audio(np.full((1, 8_000), 0.1, np.float32), 16_000)
    Video(np.full((5, 32, 32, 3), 80, np.uint8), 8.0, sound).save(clip)
    sound.save(recording)
    echo = []

    def stream(messages, **settings):
        items = [item for item in messages[-1]["content"] if item["type"] != "text"]
        echo.extend(item["type"] for item in items)
        load = {"video": Video.load, "audio": Audio.load}
        yield from (MediaFinished(load[item["type"]](item[item["type"]])) for item in items)

    monkeypatch.setattr(every, "stream", stream)
    with served(every, tmp_path) as client:
        given = [handle_file(str(clip)), handle_file(str(recording))]
        words, files = client.predict("Say it again.", files=given, api_name="/chat")
    assert echo == ["video", "audio"] and words == ""
    assert [Path(file).suffix for file in files] == [".mp4", ".wav"]
    assert Video.load(files[0]).num_frames == 5 and Audio.load(files[1]).duration_s == 0.5


def labels(page) -> set[str]:
    return {block.label for block in page.blocks.values() if type(block).__name__ == "Tab"}


def test_page_offers_what_the_model_can(omni, every, tmp_path):
    from demo.app import build_page
    from demo.host import Host

    for model, tabs, kinds in ((omni, set(), ["image"]), (every, {"Chat", "World"}, ["image", "video", "audio"])):
        host = Host(model, tmp_path)
        page = build_page(host)
        [box] = [block for block in page.blocks.values() if type(block).__name__ == "MultimodalTextbox"]
        assert labels(page) == tabs and box.file_types == kinds
        host.close()


def test_examples_are_those_of_the_modalities():
    from demo.examples import EXAMPLES, examples_for

    assert examples_for(("image", "video", "audio")) == list(EXAMPLES)
    assert all(not example.needs for example in examples_for(()))
    assert not any("film" in example.text for example in examples_for(("image", "audio")))
    assert len({example.text for example in EXAMPLES}) == len(EXAMPLES)


def test_files_of_examples_are_what_the_examples_need():
    from demo.examples import EXAMPLES
    from demo.media import load_media

    for example in EXAMPLES:
        assert all(load_media(file, modalities=example.needs) for file in example.files)
