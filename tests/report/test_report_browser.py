"""The report in a real browser: tabs, keyboard, phone, dark, print, no scripts, and axe-core's verdict."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from browser_lab import LOOKS, PHONE, chromium, pictures, serious_faults
from report_lab import (
    LEDGER,
    STRATA,
    TRACE,
    VERSIONS,
    callset,
    certificate,
    evaluation,
    federation,
    write,
)  # fmt: skip

TABS = ("summary", "privacy", "variants", "federation", "run")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both reports of a run that has everything."""
    folder = tmp_path_factory.mktemp("report")
    record = federation()
    record["plan"]["mechanism"] = "Poisson-sampled Gaussian"
    result, _ = write(
        folder, federation=record, evaluation={**evaluation(), "strata": STRATA}, callset=callset(),
        trace=TRACE, versions=VERSIONS, ledger=LEDGER, certificate=certificate(),
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture(params=["report.html", "shareable.html"])
def report(request: pytest.FixtureRequest, folder: Path) -> Path:
    return folder / str(request.param)


def opened(context: BrowserContext, path: Path, tab: str = "") -> Page:
    """The page at ``tab``, its figures drawn, with what its scripts complain of in ``page.complaints``."""
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"{path.as_uri()}{f'#{tab}' if tab else ''}")
    page.wait_for_function(
        "() => [...document.querySelectorAll('main > section:not([hidden]) [data-figure]')]"
        ".every((figure) => figure.classList.contains('is-live'))"
    )
    assert complaints == []
    return page


def shown(page: Page) -> list[str]:
    return [
        part.get_attribute("id") or ""
        for part in page.query_selector_all("main > section")
        if part.is_visible()
    ]


@pytest.mark.stress
@pytest.mark.parametrize("look", LOOKS)
def test_each_tab_shows_its_part_with_every_figure_drawn_and_fits_the_screen(browser, report, look):
    context = browser.new_context(**LOOKS[look])
    figures = 0
    for tab in TABS:
        page = opened(context, report, tab)
        assert shown(page) == [tab]
        assert page.get_by_role("tab", selected=True).inner_text().lower() == tab
        wide = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert wide[0] <= wide[1], tab
        figures += page.locator(".plot.is-live svg.marks:visible").count()
    assert figures == (12 if report.name == "report.html" else 5)
    context.close()


@pytest.mark.stress
@pytest.mark.parametrize("look", LOOKS)
def test_axe_finds_no_serious_fault_on_any_tab(browser, report, look):
    context = browser.new_context(**LOOKS[look], bypass_csp=True)
    for tab in TABS:
        assert serious_faults(opened(context, report, tab)) == [], tab
    context.close()


def test_axe_would_find_a_fault(browser, tmp_path):
    broken = tmp_path / "broken.html"
    broken.write_text("<title>x</title><p style='color:#eee;background:#fff'>pale</p><img src='data:,'>")
    page = browser.new_page(bypass_csp=True)
    page.goto(broken.as_uri())
    assert {fault["rule"] for fault in serious_faults(page)} >= {"color-contrast", "image-alt"}


@pytest.mark.stress
def test_the_keyboard_reaches_every_tab_and_what_scrolls(browser, report):
    page = opened(browser.new_context(viewport=PHONE), report)
    page.keyboard.press("Tab")
    assert page.locator(":focus").inner_text() == "Skip to the content"
    page.keyboard.press("Tab")
    for tab in (*TABS[1:], TABS[0]):
        page.keyboard.press("ArrowRight")
        assert shown(page) == [tab]
        assert page.locator(":focus").get_attribute("id") == f"tab-{tab}"
    page.keyboard.press("End")
    assert shown(page) == ["run"]
    page.keyboard.press("Tab")
    assert page.locator(":focus").get_attribute("role") == "region"


@pytest.mark.stress
def test_an_address_opens_the_part_that_holds_it_and_back_returns(browser, folder):
    page = opened(browser.new_context(), folder / "report.html", "audit")
    assert shown(page) == ["privacy"]
    page.goto((folder / "report.html").as_uri())
    page.get_by_role("link", name="The decisions").click()
    assert shown(page) == ["federation"]
    page.go_back()
    assert shown(page) == ["summary"]


@pytest.mark.parametrize("way", ["without scripts", "in print"])
def test_all_parts_and_static_figures_are_there(browser, report, way):
    context = browser.new_context(java_script_enabled=way != "without scripts")
    page = context.new_page()
    page.goto(report.as_uri())
    if way == "in print":
        page.get_by_role("tab", name="Federation").click()
        page.emulate_media(media="print")
    assert shown(page) == list(TABS)
    plots = page.locator("[data-figure]").count()
    assert page.locator(".still svg:visible").count() == plots > 3
    assert page.locator(".live svg:visible").count() == 0
    context.close()


@pytest.mark.stress
def test_pictures_of_every_tab_show_something(browser, folder, tmp_path):
    taken = pictures(browser, folder / "report.html", tmp_path)
    assert [path.name for path in taken] == [f"report-{tab}-{look}.webp" for look in LOOKS for tab in TABS]
    for path in taken:
        assert path.read_bytes()[8:16] == b"WEBPVP8L"
        assert path.stat().st_size > 8_000, path.name
    by_look = {look: (tmp_path / f"report-summary-{look}.webp").read_bytes() for look in LOOKS}
    assert len(set(by_look.values())) == 3
