"""A running demo and a real Chromium. Without a browser these tests are left out, and say so.

OMNI_REQUIRE_BROWSER=1 makes a missing browser a failure. OMNI_SCREENSHOTS names a folder for screenshots.
"""

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
START_TIMEOUT_S = 180
CHROMIUM_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


def _find(*names: str) -> str | None:
    return next((found for found in map(shutil.which, names) if found), None)


@pytest.fixture(scope="session")
def chromium() -> tuple[str, str]:
    """The paths of Chromium and its driver."""
    browser = _find("chromium", "chromium-browser", "google-chrome")
    driver = _find("chromedriver")
    if browser and driver:
        return browser, driver
    message = "no Chromium with chromedriver on this machine: the browser tests are left out"
    if os.environ.get("OMNI_REQUIRE_BROWSER") == "1":
        pytest.fail(message.replace("are left out", "cannot run"))
    pytest.skip(message)


@pytest.fixture(scope="session")
def driver(chromium, tmp_path_factory) -> Iterator:
    """A Chromium that logs every request it makes."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium[0]
    for flag in (*CHROMIUM_FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(chromium[1]))
    yield browser
    browser.quit()


@pytest.fixture(scope="session")
def start_demo(chromium, tmp_path_factory) -> Callable[..., AbstractContextManager[str]]:
    """Start `python -m demo` with arguments, as a person would start it; gives its address."""

    @contextmanager
    def start(*arguments: str) -> Iterator[str]:
        folder = tmp_path_factory.mktemp("demo")
        command = [sys.executable, "-m", "demo", "--port", str(_free_port()), "--folder", str(folder / "kept")]
        environment = os.environ | {"GRADIO_TEMP_DIR": str(folder / "uploads"), "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(
            [*command, *arguments],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        lines: list[str] = []
        reader = threading.Thread(target=lambda: lines.extend(iter(process.stdout.readline, "")), daemon=True)
        reader.start()
        try:
            yield _wait_for_url(process, lines)
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
            print("".join(lines))

    return start


@pytest.fixture(scope="module")
def demo_url(start_demo) -> Iterator[str]:
    """The address of a demo of the shipped model."""
    with start_demo() as url:
        yield url


@pytest.fixture(scope="module")
def every_url(start_demo, every, tmp_path_factory) -> Iterator[str]:
    """The address of a demo of a tiny model with films and sound, which has learnt nothing."""
    folder = tmp_path_factory.mktemp("every") / "model"
    every.save_pretrained(folder)
    with start_demo("--model", str(folder)) as url:
        yield url


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_for_url(process: subprocess.Popen, lines: list[str]) -> str:
    end_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < end_s and process.poll() is None:
        found = re.search(r"http://127\.0\.0\.1:\d+", "".join([*lines]))
        if found:
            return found[0]
        time.sleep(0.2)
    raise AssertionError("the demo did not start:\n" + "".join(lines))


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory) -> Path:
    """Where screenshots go."""
    named = os.environ.get("OMNI_SCREENSHOTS")
    folder = Path(named) if named else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
