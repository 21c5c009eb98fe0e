"""A real Chromium, and in it a page of `spectra report` as a reader has it: pointer, keyboard and what is seen."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.actions.action_builder import ActionBuilder
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

WIDE = (1200, 800)
"""Pixels: enough for a detail beside the heat maps, and few to paint, as there is no graphics card."""

FLAGS = (
    "--headless=new",
    "--no-sandbox",  # tests run as root in containers
    "--disable-dev-shm-usage",  # whose shared memory is small
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--hide-scrollbars",
)


AS_IT_WAS = """(() => {
  for (const select of document.querySelectorAll("select")) {
    if (select.selectedIndex <= 0) continue;
    select.selectedIndex = 0;
    select.dispatchEvent(new Event("change"));
  }
  for (const box of document.querySelectorAll(".log input")) {
    const first = box.closest("figure").querySelector(".canvas").chart.chart.yScale === "log";
    if (box.checked !== first) box.click();
  }
  const left = () => document.querySelector('.legend button[aria-pressed="false"]');
  while (left()) left().click();
  for (const folded of document.querySelectorAll("details")) folded.open = false;
  document.activeElement.blur();
  scrollTo(0, 0);
})()"""
"""Undoes what a reader chose, folds tables, and takes the focus away; a detail that was opened stays."""


def required(name: str) -> str:
    """The path of a program, without which the test is skipped, or fails where the environment says CI=true."""
    path = shutil.which(name)
    if path is None and os.environ.get("CI") == "true":
        pytest.fail(f"there is no {name}, and CI=true: install it, as .ci/run does")
    if path is None:
        pytest.skip(f"there is no {name} (Debian: chromium and chromium-driver)")
    return path


@contextmanager
def chromium(profile: Path) -> Iterator[webdriver.Chrome]:
    """A browser that reaches no network, with the console and the requests of its pages recorded.

    Args:
        profile: an empty directory.
    """
    binary, driver = required("chromium"), required("chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (*FLAGS, f"--user-data-dir={profile}", "--window-size={},{}".format(*WIDE)):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SE_OFFLINE", "true")  # selenium downloads nothing
        browser = webdriver.Chrome(options=options, service=Service(executable_path=driver))
    emulate(browser)
    try:
        yield browser
    finally:
        browser.quit()


def emulate(
    browser: webdriver.Chrome, *, dark: bool = False, width: int = WIDE[0], medium: str = "", script: bool = True
) -> None:
    """See :meth:`Opened.emulate`."""
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": medium, "features": scheme})
    size = {"width": width, "height": WIDE[1], "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not script})
    if script:  # which hears of the change before the second frame from now on
        browser.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")


class Opened:
    """One page that is open, as a reader sees and handles it.

    Args:
        browser: as of :func:`chromium`.
        path: of the page.
        load: whether it is loaded; if not, it is what the browser shows already.
        kept: whether it is to serve another test, which finds it as this one did.
    """

    def __init__(self, browser: webdriver.Chrome, path: Path, *, load: bool = True, kept: bool = False) -> None:
        self.browser = browser
        self.kept = kept
        self.url = path.as_uri()
        self.emulated = False
        self.console()
        self.requests()
        if load:
            browser.get(self.url)
            self.wait("document.readyState === 'complete'")

    # What the browser is told.

    def emulate(self, *, dark: bool = False, width: int = WIDE[0], medium: str = "", script: bool = True) -> None:
        """What the system prefers, how wide the window is, screen or ``print``, whether scripts run (when loaded)."""
        emulate(self.browser, dark=dark, width=width, medium=medium, script=script)
        self.emulated = True

    def reload(self) -> None:
        self.browser.get(self.url)

    def leave(self) -> None:
        """Leaves nothing behind for the next test."""
        if self.kept:
            self.point_nowhere()
            self.js(AS_IT_WAS)
        elif self.emulated:
            self.browser.get("about:blank")
        if self.emulated:
            emulate(self.browser)

    # What the browser says.

    def console(self) -> list[str]:
        """What has been written to the console since the last call."""
        return [entry["message"] for entry in self.browser.get_log("browser")]

    def requests(self) -> list[str]:
        """Addresses asked for since the last call."""
        messages = [json.loads(entry["message"])["message"] for entry in self.browser.get_log("performance")]
        return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]

    def js(self, script: str, *arguments: Any) -> Any:
        """The value of an expression; the arguments are `arguments[0]` and so on."""
        return self.browser.execute_script(f"return {script}", *arguments)

    # What is on the page.

    def one(self, selector: str, within: WebElement | None = None) -> WebElement:
        return (within or self.browser).find_element("css selector", selector)

    def all(self, selector: str, within: WebElement | None = None) -> list[WebElement]:
        return (within or self.browser).find_elements("css selector", selector)

    def texts(self, selector: str, within: WebElement | None = None) -> list[str]:
        """The texts of elements, scrolled into view or not."""
        found = self.js(
            "[...(arguments[1] ?? document).querySelectorAll(arguments[0])].map((each) => each.textContent)",
            selector,
            within,
        )
        assert isinstance(found, list)
        return found

    def chart(self, key: str, *, run: int | None = None) -> WebElement:
        """A figure, scrolled into view and drawn; of one run, or of the detail that is open, or of no run."""
        place = f'[data-run="{run}"]' if run is not None else ":not([data-run])"
        figure = self.one(f'figure{place}[data-key="{key}"]')
        self.js("arguments[0].querySelector('.canvas').scrollIntoView({block: 'center'})", figure)
        self.wait("echarts.getInstanceByDom(arguments[0].querySelector('.canvas')) !== undefined", figure)
        return figure

    def wait(self, condition: str, *arguments: Any) -> Any:
        waiting = WebDriverWait(self.browser, 120, poll_frequency=0.02)
        return waiting.until(lambda _: self.js(condition, *arguments), message=condition)

    # What the chart library drew, asked of the library itself.

    def drawn(self, figure: WebElement, expression: str, *arguments: Any) -> Any:
        """An expression of `chart`, the library's object, and of `given`, the arguments."""
        script = "((figure, ...given) => { const chart = echarts.getInstanceByDom(figure.querySelector('.canvas')); "
        return self.js(f"{script} return {expression}; }})(...arguments)", figure, *arguments)

    def pixel(self, figure: WebElement, point: Sequence[float], series: int = 0) -> tuple[float, float]:
        """Where a point of a chart is, in pixels of its canvas."""
        x, y = self.drawn(figure, "chart.convertToPixel({seriesIndex: given[1]}, given[0])", list(point), series)
        return x, y

    def colour(self, figure: WebElement, point: Sequence[float]) -> tuple[int, int, int]:
        """What is painted there, red, green and blue up to 255."""
        script = (
            "(() => { const pen = document.createElement('canvas').getContext('2d'); chart.getZr().flush(); "
            "for (const layer of chart.getDom().querySelectorAll('canvas')) "
            "pen.drawImage(layer, -given[0] * layer.width / layer.clientWidth, "
            "-given[1] * layer.height / layer.clientHeight); "
            "return [...pen.getImageData(0, 0, 1, 1).data]; })()"
        )
        red, green, blue, _ = self.drawn(figure, script, *self.pixel(figure, point))
        return red, green, blue

    # The hands.

    def point_at(self, figure: WebElement, point: Sequence[float]) -> None:
        """Moves the pointer to a point of a chart, which is scrolled to the middle of the window if it is outside."""
        x, y = self.pixel(figure, point)
        left, top = self.drawn(
            figure,
            "(() => { const height = chart.getDom().getBoundingClientRect().top + given[0]; "
            "if (height < 100 || height > innerHeight - 20) scrollBy(0, height - innerHeight / 2); "
            "const box = chart.getDom().getBoundingClientRect(); return [box.left, box.top]; })()",
            y,
        )
        actions = ActionBuilder(self.browser, duration=0)
        actions.pointer_action.move_to_location(round(left + x), round(top + y))
        actions.perform()

    def point_nowhere(self) -> None:
        """Moves the pointer into a corner, where there is no chart."""
        actions = ActionBuilder(self.browser, duration=0)
        actions.pointer_action.move_to_location(0, 0)
        actions.perform()

    def click(self) -> None:
        """Presses the pointer where it is."""
        ActionChains(self.browser, duration=0).click().perform()

    def press(self, *keys: str) -> None:
        """Presses keys, one after the other, wherever the focus is."""
        ActionChains(self.browser, duration=0).send_keys(*keys).perform()

    @property
    def focus(self) -> WebElement:
        return self.browser.switch_to.active_element

    def visible_text(self, selector: str) -> str:
        """The text of the one element of this kind that is seen and has any."""
        seen = "it.checkVisibility({opacityProperty: true, visibilityProperty: true})"
        script = f"[...document.querySelectorAll(arguments[0])].filter((it) => {seen}).map((it) => it.innerText)"
        (text,) = filter(None, self.js(script, selector))
        return str(text)

    def table(self, within: WebElement) -> list[list[str]]:
        """The cells of the table in an element, headings first; the numbers of a chart are unfolded for it."""
        self.js("arguments[0].querySelectorAll('details').forEach((each) => { each.open = true; })", within)
        self.wait("arguments[0].querySelector('table') !== null", within)
        rows = "[...arguments[0].querySelector('table').rows].map((row) => [...row.cells].map((it) => it.textContent))"
        found = self.js(rows, within)
        assert isinstance(found, list)
        return found
