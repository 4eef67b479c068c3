"""The demo's page behind its own server, without a browser: it starts, and its typed endpoint answers."""

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np
import pytest
from PIL import Image as PILImage

from omni import Omni


@pytest.fixture(scope="module")
def client(tmp_path_factory) -> Iterator:
    from gradio_client import Client

    from demo.app import build_page, launch_options
    from demo.host import Host

    folder = tmp_path_factory.mktemp("demo")
    host = Host(Omni.from_pretrained(), folder / "kept")
    page = build_page(host)
    _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, **launch_options())
    yield Client(url, verbose=False, download_files=str(folder / "got"))
    page.close()
    host.close()


@pytest.fixture
def photo(tmp_path) -> Path:
    path = tmp_path / "photo.png"
    PILImage.fromarray(np.full((64, 64, 3), (40, 160, 60), np.uint8)).save(path)
    return path


def test_endpoint_is_typed_and_the_only_one(client):
    endpoints = client.view_api(return_format="dict")["named_endpoints"]
    assert list(endpoints) == ["/chat"]
    names = [parameter["parameter_name"] for parameter in endpoints["/chat"]["parameters"]]
    assert names == ["message", "seed", "pictures", "steps", "guidance_scale"]


def test_endpoint_returns_words_and_picture_files(client):
    words, files = client.predict("Draw a fox on a red background.", seed=3, steps=4, api_name="/chat")
    assert isinstance(words, str)
    assert [PILImage.open(file).format for file in files] == ["PNG"]


def test_endpoint_takes_uploads(client, photo):
    from gradio_client import handle_file

    words, _ = client.predict("What is the background?", pictures=[handle_file(str(photo))], api_name="/chat")
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
