"""A headless Chromium, and one report opened in it."""

from __future__ import annotations

import base64
import json
import shutil
import time
from pathlib import Path
from typing import Any

#: Width and height of the window: a desk, and a phone held upright.
DESK, PHONE = (1280, 900), (390, 844)
#: The second half keeps it from asking its makers for anything.
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage",
    "--no-first-run", "--hide-scrollbars", "--force-color-profile=srgb",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-default-apps", "--no-default-browser-check", "--disable-extensions",
)  # fmt: skip


def missing() -> str:
    """What there is not of the browser, its driver and its client; empty: all are there."""
    lacking = []
    if shutil.which("chromium") is None:
        lacking.append("the program chromium (Debian: apt-get install chromium)")
    if shutil.which("chromedriver") is None:
        lacking.append("the program chromedriver (Debian: apt-get install chromium-driver)")
    try:
        import selenium  # noqa: F401
    except ImportError:
        lacking.append("selenium (pip install 'graphmoe[browser]')")
    return ", ".join(lacking)


def start(profile: Path) -> Any:
    """A browser with a new, empty profile."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, Service(str(shutil.which("chromedriver"))))
    driver.set_script_timeout(100)
    driver.command_executor.client_config.timeout = 200  # a page that hangs ends the test
    return driver


class Page:
    """One report in the browser.

    Attributes:
        driver: Of the browser.
    """

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(
        self,
        path: Path,
        size: tuple[int, int] = DESK,
        dark: bool = False,
        tab: str = "",
        touch: bool | None = None,
    ) -> Page:
        """Load a file, wait until the figures of its first part are drawn, forget older logs."""
        touch = size == PHONE if touch is None else touch
        width, height = size
        self.cdp(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=touch,
        )  # fmt: skip
        self.cdp("Emulation.setTouchEmulationEnabled", enabled=touch)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.cdp("Emulation.setEmulatedMedia", features=[scheme])
        self.driver.get("about:blank")  # else a second look with another #part would not load
        self.logs()
        self.driver.get(path.as_uri() + (f"#{tab}" if tab else ""))
        self.wait("return document.documentElement.dataset.ready === 'true'")
        return self

    def cdp(self, command: str, **arguments: Any) -> Any:
        """A command of the DevTools protocol."""
        return self.driver.execute_cdp_cmd(command, arguments)

    def run(self, script: str, *arguments: Any) -> Any:
        """What a script in the page returns."""
        return self.driver.execute_script(script, *arguments)

    def wait(self, script: str, *arguments: Any, seconds: float = 100.0) -> None:
        """Until a script returns what is true."""
        end = time.monotonic() + seconds
        while not self.run(script, *arguments):
            if time.monotonic() > end:
                raise AssertionError(f"not within {seconds:.0f} s: {script}; {self.logs()[0]}")
            time.sleep(0.05)

    def find(self, selector: str) -> list[Any]:
        """Elements by a CSS selector."""
        found: list[Any] = self.driver.find_elements("css selector", selector)
        return found

    def tabs(self) -> list[str]:
        """Names of the parts."""
        return [str(tab.get_attribute("data-tab")) for tab in self.find('[role="tab"]')]

    def show(self, tab: str) -> None:
        """Open a part as a person does, and wait for its figures."""
        [button] = self.find(f'[role="tab"][data-tab="{tab}"]')
        button.click()
        self.wait(
            "return !document.querySelector(`#panel-${arguments[0]} .plot:not([data-drawn])`)", tab
        )

    def names(self) -> dict[str, list[str]]:
        """What is told to who does not see: the names, by role, in order."""
        named: dict[str, list[str]] = {}
        for node in self.cdp("Accessibility.getFullAXTree")["nodes"]:
            if not node.get("ignored"):
                name = str(node.get("name", {}).get("value", ""))
                named.setdefault(str(node["role"]["value"]), []).append(name)
        return named

    def logs(self) -> tuple[list[str], list[str]]:
        """Since the last call: complaints of the console, and addresses that were asked for."""
        said = [
            str(entry["message"])
            for entry in self.driver.get_log("browser")
            if entry["level"] in ("SEVERE", "WARNING")
        ]
        asked = []
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                asked.append(str(message["params"]["request"]["url"]))
        return said, [url for url in asked if not url.startswith(("about:", "data:"))]

    def picture(self, path: Path) -> Path:
        """The whole page, as long as it is."""
        shot = self.cdp("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))
        return path
