"""A report as a person meets it: opened from the disk in a real browser, and used."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest
from chromium import DESK, PHONE, Page

PARTS = [
    "summary", "curves", "fusion", "routing", "embeddings", "degrees", "comparison", "environment",
]  # fmt: skip
#: Everything drawn: where, how large, how many marks of data, and whether a word of it is cut.
DRAWN = """
const panel = document.getElementById(`panel-${arguments[0]}`);
return [...panel.querySelectorAll('.plot')].map((plot) => {
  const svg = plot.querySelector('svg.main-svg'), box = plot.getBoundingClientRect();
  const seen = svg ? svg.getBoundingClientRect() : {width: 0, height: 0};
  const marks = '.scatterlayer .trace path, .barlayer .point path, .heatmaplayer image, ' +
    '.heatmaplayer canvas';
  const words = [...plot.querySelectorAll('svg text')].filter((text) => text.textContent.trim());
  const cut = words.filter((text) => {
    const at = text.getBoundingClientRect();
    return at.width && (at.left < box.left - 1 || at.right > box.right + 1 ||
      at.top < box.top - 1 || at.bottom > box.bottom + 1);
  });
  return {
    kind: plot.closest('figure').dataset.figure,
    width: seen.width, height: seen.height, marks: plot.querySelectorAll(marks).length,
    cut: cut.map((text) => text.textContent), words: words.length,
  };
});
"""
#: Pairs of names at one axis that lie over each other, titles of the axes among them.
OVERLAPS = """
const found = [];
for (const plot of document.querySelectorAll(`#panel-${arguments[0]} .plot`)) {
  for (const side of ['x', 'y']) {
    const texts = [...plot.querySelectorAll(`.${side}axislayer-above text, .g-${side}title text`)]
      .filter((text) => text.getBoundingClientRect().width);
    const upright = texts.every((text) => !/rotate\\((?!0|-90)/.test(
      text.getAttribute('transform') || ''));
    if (!upright) continue;
    const boxes = texts.map((text) => text.getBoundingClientRect());
    boxes.forEach((a, i) => boxes.slice(i + 1).forEach((b, j) => {
      const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (wide > 2 && high > 2)
        found.push([plot.closest('figure').dataset.figure, texts[i].textContent,
          texts[i + 1 + j].textContent]);
    }));
  }
}
return found;
"""
#: A spot on a mark of data, from the middle of what listens to the mouse: by the first point of a
#: line, in the first cell of a heat map, in the middle of a bar.
PLACE = """
const [mark, drag] = arguments, inside = mark.getBoundingClientRect();
const box = drag.getBoundingClientRect();
let [x, y] = [inside.left + inside.width / 2, inside.top + inside.height / 2];
if (mark.matches('image')) [x, y] = [inside.left + 9, inside.top + 9];
if (mark.matches('.js-line')) {
  const point = mark.getPointAtLength(0).matrixTransform(mark.getScreenCTM());
  [x, y] = [point.x + 3, point.y];
}
return [x - box.left - box.width / 2, y - box.top - box.height / 2];
"""
WIDTHS = "return [document.documentElement.scrollWidth, window.innerWidth]"
#: Contrast of every line, point and bar with the paper, after WCAG.
CONTRASTS = """
const light = (colour) => {
  const parts = colour.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255)
    .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
};
const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
const paper = light(getComputedStyle(document.body).backgroundColor), found = {};
const note = (kind, colour) => {
  if (!colour.startsWith('rgb') || /, 0\\)$/.test(colour)) return;
  found[`${kind} ${colour}`] = ratio(light(colour), paper);
};
for (const path of document.querySelectorAll('.scatterlayer .js-line'))
  note('line', getComputedStyle(path).stroke);
for (const path of document.querySelectorAll('.scatterlayer .point'))
  note('point', getComputedStyle(path).fill);
for (const path of document.querySelectorAll('.xtick text, .ytick text, .legendtext'))
  note('text', getComputedStyle(path).fill);
for (const { data } of [...document.querySelectorAll('.plot[data-drawn]')])
  for (const trace of data) if (trace.type === 'bar') {
    const probe = document.createElement('i');
    probe.style.color = trace.marker.color;
    document.body.append(probe);
    note('bar', getComputedStyle(probe).color);
    probe.remove();
  }
return found;
"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_every_part_is_drawn_whole_and_quietly(
    page: Page, report_page: Path, size: tuple[int, int], dark: bool
) -> None:
    page.open(report_page, size, dark)
    assert page.tabs() == PARTS
    kinds: list[str] = []
    for tab in page.tabs():
        page.show(tab)
        for figure in page.run(DRAWN, tab):
            assert figure["width"] > 250, figure
            assert figure["height"] > 100, figure
            assert figure["marks"] > 0, figure
            assert figure["words"] > 0 or figure["kind"] in ("pca", "tsne"), figure
            assert not figure["cut"], figure
            kinds.append(figure["kind"])
        assert not page.run(OVERLAPS, tab)
        wide, window = page.run(WIDTHS)
        assert wide <= window == size[0], tab
    assert {"loss", "alpha", "members", "entropy", "load", "load-now", "templates", "pca"} <= set(
        kinds
    )
    assert {
        "tsne",
        "items-by-degree",
        "users-by-degree",
        "nodes-by-degree",
        "scores",
        "differences",
    } <= set(kinds)
    said, asked = page.logs()
    assert said == []
    assert asked == [report_page.as_uri()]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_marks_and_words_stand_out_from_the_paper(
    page: Page, report_page: Path, dark: bool
) -> None:
    page.open(report_page, dark=dark)
    for tab in ("curves", "routing", "embeddings", "degrees"):
        page.show(tab)
    found = page.run(CONTRASTS)
    assert len([name for name in found if not name.startswith("text")]) > 8
    # 3:1 is asked of what is drawn, 4.5:1 of what is read (WCAG 2.2, 1.4.11 and 1.4.3).
    faint = {k: v for k, v in found.items() if v < (4.5 if k.startswith("text") else 3.0)}
    assert not faint


def test_the_theme_follows_the_system_and_then_the_button(page: Page, report_page: Path) -> None:
    def looks() -> tuple[str, str]:
        script = """
        const body = getComputedStyle(document.body);
        const text = document.querySelector('#panel-curves .xtick text');
        return [body.backgroundColor, getComputedStyle(text).fill];
        """
        found: list[str] = page.run(script)
        return found[0], found[1]

    light, dark = (
        ("rgb(255, 255, 255)", "rgb(27, 31, 36)"),
        ("rgb(20, 23, 27)", "rgb(232, 234, 237)"),
    )
    page.open(report_page, tab="curves")
    assert looks() == light
    page.cdp("Emulation.setEmulatedMedia",
             features=[{"name": "prefers-color-scheme", "value": "dark"}])  # fmt: skip
    page.wait("return getComputedStyle(document.querySelector('.xtick text')).fill"
              " === 'rgb(232, 234, 237)'")  # fmt: skip
    assert looks() == dark
    [button] = page.find("#theme")
    button.click()
    page.wait("return getComputedStyle(document.querySelector('.xtick text')).fill"
              " === 'rgb(27, 31, 36)'")  # fmt: skip
    assert looks() == light


def test_a_figure_answers_the_mouse(page: Page, report_page: Path) -> None:
    from selenium.webdriver import ActionChains

    page.open(report_page, tab="curves")
    for tab, figure, mark, expected in (
        ("curves", "loss", ".scatterlayer .js-line", r"\w+.*\d: \d\.\d+"),
        ("fusion", "alpha", ".heatmaplayer image", r"iris@K2, class 0: 0\.\d+"),
        ("degrees", "items-by-degree", ".barlayer .point path", r"hit@\d+, .*tested\): "),
        ("embeddings", "pca", ".scatterlayer .point", r"row \d+: class \d"),
    ):
        page.show(tab)
        [place, *_] = page.find(f'#panel-{tab} figure[data-figure="{figure}"]')
        [*_, target] = place.find_elements("css selector", mark)
        [drag, *_] = place.find_elements("css selector", ".nsewdrag")
        page.run("arguments[0].scrollIntoView({block: 'center'})", target)
        across, down = (round(value) for value in page.run(PLACE, target, drag))
        labels: list[Any] = []
        for attempt in range(100):  # a mouse that stands still while the page scrolls says nothing
            move = ActionChains(page.driver)
            move.move_to_element_with_offset(drag, across + attempt % 2, down).perform()
            if labels := place.find_elements("css selector", ".hovertext"):
                break
            time.sleep(0.1)
        assert labels, (figure, across, down)
        said = labels[0].get_attribute("textContent")
        assert re.search(expected, said, re.S), (figure, said)
    assert page.logs()[0] == []


def test_a_tap_shows_what_a_mouse_would(page: Page, report_page: Path) -> None:
    page.open(report_page, PHONE, tab="degrees")
    [bar] = page.find('figure[data-figure="items-by-degree"] .barlayer .point path')[-1:]
    page.run("arguments[0].scrollIntoView({block: 'center'})", bar)
    at = page.run("const b = arguments[0].getBoundingClientRect();"
                  "return [b.left + b.width / 2, b.top + b.height / 2]", bar)  # fmt: skip
    point = {"x": at[0], "y": at[1]}
    page.cdp("Input.dispatchTouchEvent", type="touchStart", touchPoints=[point])
    page.cdp("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    page.wait("return document.querySelector('.hoverlayer .hovertext')")


def test_parts_are_reached_by_keyboard_alone(page: Page, report_page: Path) -> None:
    from selenium.webdriver import ActionChains, Keys

    def press(key: str) -> Any:
        ActionChains(page.driver).send_keys(key).perform()
        return page.driver.switch_to.active_element

    page.open(report_page)
    assert press(Keys.TAB).get_attribute("id") == "theme"
    assert press(Keys.TAB).get_attribute("id") == "tab-summary"
    ring = page.run("return getComputedStyle(document.activeElement).outlineStyle")
    assert ring == "solid"
    reached = [press(Keys.ARROW_RIGHT).get_attribute("data-tab") for _ in PARTS]
    assert reached == [*PARTS[1:], PARTS[0]]
    assert press(Keys.END).get_attribute("data-tab") == PARTS[-1]
    assert press(Keys.ARROW_LEFT).get_attribute("data-tab") == PARTS[-2]
    assert press(Keys.HOME).get_attribute("data-tab") == PARTS[0]
    shown = [panel for panel in page.find('[role="tabpanel"]') if panel.is_displayed()]
    assert [panel.get_attribute("id") for panel in shown] == ["panel-summary"]
    press(Keys.ARROW_RIGHT)  # the curves
    assert press(Keys.TAB).get_attribute("id") == "panel-curves"
    page.wait("return document.querySelector('#panel-curves .plot[data-drawn]')")
    for _ in range(20):  # through what can be focused inside, to the numbers under a figure
        if press(Keys.TAB).tag_name == "summary":
            break
    assert press(Keys.ENTER).tag_name == "summary"
    [*opened] = page.find("#panel-curves details[open] table")
    assert len(opened) == 1
    assert opened[0].is_displayed()


def test_figures_tabs_and_tables_have_names(page: Page, report_page: Path) -> None:
    page.open(report_page, tab="routing")
    named = page.names()
    assert named["tab"] == [part.capitalize() for part in PARTS]
    assert len(named["image"]) == len(page.find("#panel-routing .plot"))
    assert all(len(name) > 30 for name in named["image"])
    assert any("The trigger: epoch" in name for name in named["image"])
    # Words of axes would be read out one by one, without what they belong to.
    assert not {"0.2", "0.4"} & set(named["StaticText"])
    page.show("summary")
    for role in ("table", "region", "tabpanel", "button"):
        assert all(page.names()[role]), role


def test_another_part_begins_at_its_beginning(page: Page, report_page: Path) -> None:
    page.open(report_page, PHONE, tab="routing")
    box = "return document.querySelector(arguments[0]).getBoundingClientRect()"
    page.run("window.scrollTo(0, 5000)")
    assert page.run(box, "#panel-routing h2")["bottom"] < 0
    for part in ("comparison", "curves"):
        page.show(part)
        bar = page.run(box, '[role="tablist"]')
        assert abs(bar["top"]) <= 1
        assert bar["bottom"] <= page.run(box, f"#panel-{part} h2")["top"] < 200
        tab = page.run(box, '[aria-selected="true"]')
        assert bar["left"] <= tab["left"] < tab["right"] <= bar["right"]
        page.run("window.scrollTo(0, 2000)")


def test_no_button_sends_a_figure_anywhere(page: Page, report_page: Path) -> None:
    page.open(report_page, tab="curves")
    script = """
    const plot = document.querySelector('.plot[data-drawn]'), given = plot._context;
    return [given.modeBarButtons.flat(), given.plotlyServerURL, given.showSendToCloud];
    """
    buttons, server, cloud = page.run(script)
    assert buttons == ["toImage", "zoomIn2d", "zoomOut2d", "resetScale2d"]
    assert (server, cloud) == ("", False)
    assert page.find("a[href]") == []


def test_without_scripts_the_numbers_are_there(page: Page, report_page: Path) -> None:
    page.driver.get("about:blank")
    page.cdp("Emulation.setScriptExecutionDisabled", value=True)
    try:
        page.cdp("Page.navigate", url=report_page.as_uri())
        for _ in range(100):
            told = page.names()
            if "Environment" in told.get("heading", []):
                break
            time.sleep(0.1)
        assert len(told["tabpanel"]) == len(PARTS)
        assert any("Figures need JavaScript" in text for text in told["StaticText"])
        assert len([name for name in told["image"] if len(name) > 30]) > 20
    finally:
        page.cdp("Emulation.setScriptExecutionDisabled", value=False)


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_hostile_names_are_read_and_do_nothing(
    page: Page, hostile_page: Path, size: tuple[int, int]
) -> None:
    from sample_runs import HOSTILE

    from graphmoe.report.text import visible

    page.open(hostile_page, size)
    for tab in page.tabs():
        page.show(tab)
        wide, window = page.run(WIDTHS)
        assert wide <= window == size[0], tab
    # An alert would have stopped every command since.
    assert (
        page.run("return document.querySelectorAll('main img, main script, main b, main a').length")
        == 0
    )
    assert page.run("return Object.keys(window).filter((key) => key.startsWith('hacked'))") == []
    assert page.find("h1")[0].text == visible(HOSTILE)
    for tab, kind in (("fusion", "alpha"), ("comparison", "scores")):
        page.show(tab)
        [*texts] = page.find(f'figure[data-figure="{kind}"] .ytick text')
        shown = "".join(text.text for text in texts)
        assert "</script><img" in shown.replace("\n", ""), shown
    said, asked = page.logs()
    assert said == []
    assert asked == [hostile_page.as_uri()]
