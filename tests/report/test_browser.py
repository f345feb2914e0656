"""report.html as Chromium shows it: on a phone and on a desk, in light and in dark.

Driven through chromedriver's own HTTP, which needs no library.
"""

import base64
import io
import json
import pathlib
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sumrnn.config import TaskConfig
from sumrnn.report.page import render
from sumrnn.runs.folder import REPORT_HTML
from tests.report import test_page

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("chromedriver"), reason="needs Chromium and its driver"),
]
SCALE = 2
"""Pixels of a screenshot per pixel of the page: thin strokes get their whole colour."""
ENOUGH = 4.5
"""Contrast of text (WCAG 2.2, 1.4.3)."""
PAGES = {
    "run": lambda: test_page.texts("run"),
    "even": lambda: test_page.write_run(task=TaskConfig(threshold=135)),
    "experiment": lambda: test_page.texts("experiment"),
}
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--hide-scrollbars"),
)
BOXES = """
const found = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const node = walker.currentNode, range = document.createRange();
  if (!node.data.trim() || node.parentElement.closest("script, style, caption")) continue;
  const clip = node.parentElement.closest(".scroll")?.getBoundingClientRect();
  range.selectNodeContents(node);
  for (const box of range.getClientRects()) {
    if (clip && (box.left < clip.left || box.right > clip.right)) continue;
    found.push([node.data, box.left, box.top + scrollY, box.right, box.bottom + scrollY]);
  }
}
return found;
"""
AREAS = """
return [...document.querySelectorAll(".scroll")].map(area => {
  const { left, right, bottom } = area.getBoundingClientRect();
  const scrolls = area.scrollWidth > area.clientWidth;
  return { left, right, bottom: bottom + scrollY, scrolls, tab: area.tabIndex };
});
"""
HIDE = """
const style = document.createElement("style");
style.textContent = `* { color: transparent !important }
  svg text, svg tspan { fill: transparent !important; stroke: none !important }`;
document.head.append(style);
"""


class Browser:
    """A session of chromedriver at an address."""

    def __init__(self, address: str, profile: pathlib.Path) -> None:
        self.address = address
        options = {"args": [*OPTIONS, f"--user-data-dir={profile}"]}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        made = self.post("/session", capabilities={"alwaysMatch": wanted})
        self.address += f"/session/{made['sessionId']}"

    def post(self, path: str, **content: Any) -> Any:
        data, header = json.dumps(content).encode(), {"Content-Type": "application/json"}
        request = urllib.request.Request(self.address + path, data, header)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def run(self, script: str) -> Any:
        return self.post("/execute/sync", script=script, args=[])

    def command(self, name: str, **params: Any) -> Any:
        return self.post("/goog/cdp/execute", cmd=name, params=params)

    def show(self, page: pathlib.Path, width: int, scheme: str) -> None:
        size = {"width": width, "height": 844, "deviceScaleFactor": SCALE}
        self.command("Emulation.setDeviceMetricsOverride", **size, mobile=width < 500)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.command("Emulation.setEmulatedMedia", features=[feature])
        self.post("/url", url=page.as_uri())

    def luminances(self) -> np.ndarray:
        """Relative luminances of the whole page, float [height, width]."""
        shot = self.command("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        image = Image.open(io.BytesIO(base64.b64decode(shot))).convert("RGB")
        each = np.asarray(image) / 255
        linear = np.where(each <= 0.04045, each / 12.92, ((each + 0.055) / 1.055) ** 2.4)
        return np.asarray(linear @ (0.2126, 0.7152, 0.0722))


def contrast(shown: np.ndarray, behind: np.ndarray) -> float:
    """Of a text with what is behind it or, where it has some, with its outline."""
    lower, upper = np.sort((shown, behind), axis=0) + 0.05
    inked = upper / lower > 1.02
    dark, bright = np.quantile(shown[inked], (0.05, 0.95)) + 0.05
    return float(max(np.quantile((upper / lower)[inked], 0.9), bright / dark))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    driver = subprocess.Popen(
        ["chromedriver", "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert driver.stdout is not None
    try:
        line = next(line for line in driver.stdout if "started successfully on port" in line)
        port = line.split()[-1].rstrip(".")
        found = Browser(f"http://127.0.0.1:{port}", tmp_path_factory.mktemp("profile"))
        yield found
        urllib.request.urlopen(urllib.request.Request(found.address, method="DELETE"))
    finally:
        driver.terminate()
        driver.communicate()


@pytest.fixture(scope="module", params=PAGES)
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("page") / REPORT_HTML
    path.write_text(PAGES[request.param]()[REPORT_HTML], encoding="utf-8")
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1_280])
def test_every_text_is_readable_and_nothing_sticks_out(
    browser: Browser, page: pathlib.Path, width: int, scheme: str
) -> None:
    browser.show(page, width, scheme)
    assert browser.run("return document.documentElement.scrollWidth") == width
    assert browser.run("return document.documentElement.clientWidth") == width
    boxes, shown = browser.run(BOXES), browser.luminances()
    assert (shown[0, 0] > 0.5) == (scheme == "light")
    browser.run(HIDE)
    behind = browser.luminances()
    assert len(boxes) > 150
    found = {}
    for text, *ends in boxes:
        left, top, right, bottom = (round(SCALE * x) for x in ends)
        place = np.s_[top:bottom, left:right]
        found[text] = contrast(shown[place], behind[place])
    assert {text: ratio for text, ratio in found.items() if not ratio >= ENOUGH} == {}
    assert browser.post("/se/log", type="browser") == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1_280])
def test_what_scrolls_sideways_shows_it_and_takes_the_keyboard(
    browser: Browser, page: pathlib.Path, width: int, scheme: str
) -> None:
    browser.show(page, width, scheme)
    areas = browser.run(AREAS)
    assert len(areas) > 3
    scrolling = [area for area in areas if area["scrolls"]]
    assert bool(scrolling) == (width == 375)
    assert all((area["tab"] == 0) == area["scrolls"] for area in areas)
    plain, edges = browser.luminances(), {}
    for moved in (0, 10_000):
        browser.run(f"document.querySelectorAll('.scroll').forEach(a => a.scrollLeft = {moved})")
        shown = browser.luminances()
        for area in areas:  # Where the margin of a table, or of a figure, is its background.
            row = shown[round(SCALE * (area["bottom"] - 3))]
            for side in ("left", "right"):
                at = round(SCALE * (area[side] + (1 if side == "left" else -2)))
                ratio = np.divide(*np.sort((row[at], plain[1, 1]))[::-1] + 0.05)
                edges.setdefault((side, moved > 0, area["scrolls"]), []).append(ratio)
    for (side, at_the_end, scrolls), ratios in edges.items():
        if scrolls and (side == "right") != at_the_end:
            assert min(ratios) > 1.5
        else:
            assert max(ratios) < 1.05


def test_a_name_in_a_table_is_on_one_line(browser: Browser, tmp_path: pathlib.Path) -> None:
    row = "| solved-without-schedule − cells-4 | inter-quartile mean |\n"
    path = tmp_path / "names.html"
    path.write_text(render(f"# A\n\n| a | b |\n| --- | --- |\n{row}", {}, {}), encoding="utf-8")
    browser.show(path, 200, "light")
    names = "[...document.querySelectorAll('td .name, th .name')]"
    lines = browser.run(f"return {names}.map(of => of.offsetHeight)")
    assert len(lines) == 3
    assert len(set(lines)) == 1
    assert browser.run("return document.querySelector('tbody th').offsetHeight") > 2 * lines[0] - 2


@pytest.mark.parametrize("page", ["experiment"], indirect=True)
def test_a_click_sorts_and_another_turns_the_order(browser: Browser, page: pathlib.Path) -> None:
    browser.show(page, 1_280, "light")
    click = "document.querySelectorAll('.sorted th button')[{}].click()"
    rows = "[...document.querySelectorAll('.sorted tbody tr')]"

    def sort(column: int) -> list[str]:
        browser.run(click.format(column))
        found = browser.run(f"return {rows}.map(row => row.cells[{column}].innerText)")
        assert isinstance(found, list)
        return found

    *values, missing, diverged = sort(3)
    assert missing == diverged == ""
    assert values == sorted(values, key=float)
    assert sort(3) == [*reversed(values), "", ""]
    assert sort(0) == ["fast"] * 3 + ["slow"] * 3
    assert browser.run("return document.querySelectorAll('[aria-sort]').length") == 1
    assert sort(0) == ["slow"] * 3 + ["fast"] * 3
    assert browser.post("/se/log", type="browser") == []
