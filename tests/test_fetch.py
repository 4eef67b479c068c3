import threading
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from omni.errors import InputError
from omni.fetch import fetch
from omni.parts import Image

PNG = Image(np.full((4, 4, 3), 50, np.uint8)).to_png()
get = partial(fetch, max_bytes=10_000, timeout_s=2, allow_private=True)


class Server(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path.startswith("/to?"):
            self.send_response(302)
            self.send_header("Location", self.path[4:])
            self.end_headers()
            return
        if self.path == "/missing.png":
            self.send_error(404)
            return
        self.send_response(200)
        self.end_headers()
        try:
            while self.path == "/endless":
                self.wfile.write(bytes(4_096))
            while self.path == "/slow":
                self.wfile.write(b"x")
                time.sleep(0.05)
        except OSError:
            return
        self.wfile.write(PNG)

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def address():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_fetch_reads_and_follows(address):
    assert get(f"{address}/a.png") == PNG
    assert get(f"{address}/to?/a.png") == PNG


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/missing.png", "404"),
        ("/endless", "more than 10000 bytes"),
        ("/to?file:///etc/hostname", "file"),
        ("/to?ftp://127.0.0.1/x", "ftp"),
        ("/to?data:text/plain,x", "data"),
    ],
)
def test_fetch_refuses(address, path, words):
    with pytest.raises(InputError, match=words):
        get(address + path)


def test_fetch_stops_in_time(address):
    start = time.monotonic()
    with pytest.raises(InputError, match="0.3 s"):
        get(f"{address}/slow", timeout_s=0.3)
    assert time.monotonic() - start < 2


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/a.png",
        "http://localhost:1/a.png",
        "http://[::1]:1/a.png",
        "http://[::ffff:127.0.0.1]:1/a.png",
        "http://0.0.0.0:1/a.png",
        "http://10.0.0.1/a.png",
        "http://169.254.169.254/latest/meta-data",
        "http://192.168.0.1/a.png",
        "http://2130706433/a.png",
        "https://127.0.0.1:1/a.png",
    ],
)
def test_fetch_refuses_private_addresses(url):
    with pytest.raises(InputError, match="not a public address"):
        fetch(url, max_bytes=100, timeout_s=2)


def test_load_of_urls_refuses_private_addresses(address):
    with pytest.raises(InputError, match="not a public address"):
        Image.load(f"{address}/a.png", allow_urls=True)


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://example.org/a", "http://", "http://[", "https://a b/"])
def test_fetch_refuses_other_addresses(url):
    with pytest.raises(InputError):
        get(url)


def test_nothing_answers_is_one_sentence():
    with pytest.raises(InputError, match="Cannot fetch") as caught:
        get("http://127.0.0.1:1/a.png")
    assert "\n" not in str(caught.value)
