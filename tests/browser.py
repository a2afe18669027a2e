"""A real browser without a screen, for the tests of the page."""

import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars", "--force-color-profile=srgb",
)  # fmt: skip


@contextmanager
def chromium(width: int, height: int, downloads: Path, dark: bool = False) -> Iterator[Chrome]:
    """Open a browser of that size; skip, aloud, where none is installed."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("not checked here: chromium and chromedriver aren't installed")
    with tempfile.TemporaryDirectory() as profile:
        options = ChromeOptions()
        options.binary_location = browser
        for flag in (*FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        page = Chrome(options, Service(driver))
        try:
            size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
            page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            shade = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
            page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [shade]})
            where = {"behavior": "allow", "downloadPath": str(downloads)}
            page.execute_cdp_cmd("Browser.setDownloadBehavior", where)
            yield page
        finally:
            page.quit()


def wait_for(page: Chrome, condition: str, seconds: float = 30) -> None:
    """Wait until a JavaScript expression is true."""
    WebDriverWait(page, seconds, 0.02).until(
        lambda _: page.execute_script(f"return Boolean({condition})"), condition
    )


def complaints(page: Chrome) -> list[str]:
    """What the page logged as warnings and errors."""
    return [entry["message"] for entry in page.get_log("browser")]


def hosts(page: Chrome) -> set[str]:
    """Every host that the page asked for anything."""
    asked: set[str] = set()
    for entry in page.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            url = message["params"]["request"]["url"]
            if not message["params"].get("documentURL", "").startswith("chrome://"):
                asked |= set(re.findall(r"^(?:blob:)?https?://([^/]+)", url))
    return asked
