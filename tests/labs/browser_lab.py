"""A headless Chromium, and what npm holds to look at pages with (tests/npm): axe-core and igv."""

from __future__ import annotations

import atexit
import io
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

PACKAGES = Path(__file__).parents[1] / "npm"
NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
# What a page is looked at with: options of a browser's context.
LOOKS: Mapping[str, Mapping[str, Any]] = {
    "light": {"viewport": DESKTOP, "color_scheme": "light"},
    "dark": {"viewport": DESKTOP, "color_scheme": "dark"},
    "phone": {"viewport": PHONE, "color_scheme": "light", "has_touch": True},
}


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser of this machine; skip with the reason where there is none."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    sandbox = [] if os.geteuid() else ["--no-sandbox"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=sandbox)
        try:
            yield browser
        finally:
            browser.close()


def pictures(browser: Browser, report: Path, folder: Path) -> list[Path]:
    """Take a picture of every tab of ``report`` in each of LOOKS."""
    taken = []
    for look, options in LOOKS.items():
        context = browser.new_context(**options)
        page = context.new_page()
        page.goto(report.as_uri())
        for tab in page.get_by_role("tab").all():
            tab.click()
            name = tab.get_attribute("aria-controls") or ""
            page.wait_for_function(
                "(name) => [...document.querySelectorAll(`#${name} [data-figure]`)]"
                ".every((figure) => figure.classList.contains('is-live'))",
                arg=name,
            )
            taken.append(folder / f"report-{name}-{look}.webp")
            _save(page.screenshot(full_page=True, animations="disabled"), taken[-1])
        context.close()
    return taken


def _save(picture: bytes, path: Path) -> None:
    """Write a picture as lossless WebP: a quarter of what it is as PNG."""
    Image.open(io.BytesIO(picture)).convert("RGB").save(path, lossless=True, method=6)


@cache
def npm_package(name: str) -> Path:
    """The folder of a package that tests/npm pins; skip with the reason where there is no npm."""
    if shutil.which("npm") is None:
        pytest.skip("no npm on this machine: apt-get install npm")
    folder = _installed()
    return folder / "node_modules" / name


def serious_faults(page: Page) -> list[dict[str, Any]]:
    """What axe-core finds on ``page`` that is serious or critical."""
    page.evaluate((npm_package("axe-core") / "axe.min.js").read_text(encoding="utf-8"))
    found = page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")
    assert found["passes"], "axe-core looked at nothing"
    return [
        {"rule": fault["id"], "help": fault["help"], "at": [node["html"] for node in fault["nodes"]]}
        for fault in found["violations"]
        if fault["impact"] in ("serious", "critical")
    ]


@cache
def _installed() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="npm"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for file in PACKAGES.glob("package*.json"):
        shutil.copy(file, folder)
    subprocess.run(
        ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"], cwd=folder, check=True
    )
    return folder
