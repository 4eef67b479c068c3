"""The demo's page as a person sees it, in a browser that is driven."""

import time
from pathlib import Path

WAIT_S = 120  # a busy machine with two cores
BOX = "#box textarea"


class Page:
    """The demo as a person sees it."""

    desktop = {"width": 1280, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    phone = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}

    def __init__(self, driver, url: str, screenshots: Path) -> None:
        self.driver = driver
        self.url = url
        self.screenshots = screenshots

    def open(self) -> None:
        self.driver.get(self.url)
        self.wait(lambda: self.find(BOX) and self.find("#status span.idle"), "the page")

    def begin_anew(self) -> None:
        """Empty the chat and its box."""
        self.clear()
        self.drop_files()
        self.find(BOX)[0].clear()

    def hold(self, metrics: dict) -> None:
        """Look at the page on a screen of this size."""
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def find(self, css: str) -> list:
        return self.driver.find_elements("css selector", css)

    def wait(self, condition, what: str, timeout_s: float = WAIT_S):
        """Return the condition's value as soon as it is true."""
        from selenium.common.exceptions import StaleElementReferenceException

        end_s = time.monotonic() + timeout_s
        while time.monotonic() < end_s:
            try:
                if value := condition():
                    return value
            except StaleElementReferenceException:  # drawn anew meanwhile
                pass
            time.sleep(0.05)
        self.shoot("failed")
        raise AssertionError(f"waited {timeout_s} s for {what}; status: {self.status()!r}; chat: {self.said()!r}")

    def type(self, text: str) -> None:
        self.find(BOX)[0].send_keys(text)

    def typed(self) -> str:
        return self.find(BOX)[0].get_property("value")

    def send(self) -> None:
        """Press the button, and wait for the answer to begin or the message to be refused."""
        before = self.said()
        self.find("#box [data-testid=submit-button]")[0].click()
        self.wait(lambda: self.said() != before, "the message in the chat")

    def wait_for_answer(self) -> None:
        self.wait(lambda: self.find("#status span.idle") and self.find("#chat .bot"), "the answer's end")

    def upload(self, path: Path) -> None:
        field = self.find("#box input[type=file]")[0]
        self.driver.execute_script("arguments[0].value = ''", field)  # the driver adds to what was chosen before
        field.send_keys(str(path))

    def drop_files(self) -> None:
        self.wait(lambda: not [button.click() for button in self.find("#box .delete-button")], "an empty text box")

    def said(self) -> str:
        return self.find("#chat")[0].text

    def status(self) -> str:
        return self.find("#status")[0].text

    def press(self, button: str) -> None:
        self.find(f"#{button}")[0].click()

    def tab(self, name: str) -> None:
        """Turn to a tab."""
        found = [tab for tab in self.find("#tabs button[role=tab]") if tab.text == name]
        found[0].click()

    def clear(self) -> None:
        self.press("clear")
        self.wait(lambda: not self.find("#chat .message"), "an empty chat")

    def bytes_of(self, css: str) -> bytes:
        """What the last of these elements shows, fetched as the browser fetches it."""
        from urllib.request import urlopen

        with urlopen(self.find(css)[-1].get_property("src"), timeout=30) as response:
            return response.read()

    def shoot(self, name: str) -> None:
        self.driver.save_screenshot(str(self.screenshots / f"{name}.png"))
