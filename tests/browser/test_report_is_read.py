"""What is written in a report can be read: it stands out, and numbers stand in line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from chromium import DESK, PHONE, Page

#: Contrast of every word outside of figures with what is behind it, after WCAG; the faintest first.
WORDS = """
const light = (colour) => {
  const parts = colour.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255)
    .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
};
const behind = (element) => {
  const colour = getComputedStyle(element).backgroundColor;
  const clear = colour === 'transparent' || /, 0\\)$/.test(colour);
  return clear && element.parentElement ? behind(element.parentElement) : colour;
};
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
for (let node = walker.nextNode(); node; node = walker.nextNode()) {
  const element = node.parentElement;
  if (!node.textContent.trim() || element.closest('script, style, noscript, svg')) continue;
  const [a, b] = [light(getComputedStyle(element).color), light(behind(element))];
  found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), node.textContent.trim()]);
}
return found.sort((x, y) => x[0] - y[0]);
"""
#: What is written in the cells of heat maps: its colour, its value, and that of the lightest cell.
CELLS = """
return [...document.querySelectorAll('.plot[data-drawn]')].flatMap((plot) =>
  [...plot.querySelectorAll('.heatmap-label text')].map((text) =>
    [getComputedStyle(text).fill, Number(text.textContent.replace('−', '-')),
      plot.data[0].zmin, plot.data[0].zmax]));
"""
#: Of every column of every table, how its cells are set; and cells of numbers that do not
#: stand in one line.
COLUMNS = """
const mixed = [], broken = [];
for (const panel of document.querySelectorAll('[role="tabpanel"]')) panel.hidden = false;
for (const details of document.querySelectorAll('details')) details.open = true;
for (const table of document.querySelectorAll('table')) {
  const rows = [...table.rows];
  for (let i = 1; i < rows[0].cells.length; i += 1) {
    const set = new Set(rows.map((row) => getComputedStyle(row.cells[i]).textAlign));
    if (set.size > 1) mixed.push([table.caption.textContent, rows[0].cells[i].textContent]);
  }
  for (const cell of table.querySelectorAll('td')) {
    const range = document.createRange();
    range.selectNodeContents(cell);
    const lines = new Set([...range.getClientRects()].map((box) => Math.round(box.top)));
    if (lines.size > 1 && /^[-\\d]/.test(cell.textContent) && !/[a-z]/.test(cell.textContent))
      broken.push(cell.textContent);
  }
}
return [mixed, broken];
"""


def ratio(a: float, b: float) -> float:
    return (max(a, b) + 0.05) / (min(a, b) + 0.05)


def light(rgb: list[float]) -> float:
    parts = [v / 12.92 if v <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4 for v in rgb]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_word_stands_out(page: Page, report_page: Path, dark: bool) -> None:
    page.open(report_page, dark=dark)
    found = page.run(WORDS)
    assert len(found) > 300
    assert found[0][0] >= 4.5, found[:5]


def test_what_is_written_in_a_heat_map_stands_out_from_its_cell(
    page: Page, report_page: Path
) -> None:
    from plotly.colors import sample_colorscale, unlabel_rgb

    from graphmoe.report.looks import SCALE

    def check() -> int:
        found: list[list[Any]] = page.run(CELLS)
        for fill, z, low, high in found:
            share = min(1.0, max(0.0, (z - low) / (high - low)))
            [cell] = sample_colorscale(SCALE, [share], colortype="rgb")
            paper = light([v / 255 for v in unlabel_rgb(cell)])
            # A little less than 4.5: what is written is rounded.
            assert ratio(light([v / 255 for v in unlabel_rgb(fill)]), paper) > 4.3, (fill, z, high)
        return len(found)

    page.open(report_page, tab="fusion")
    told = check()
    assert told > 60
    page.run("""
    const plot = document.querySelector('.plot[data-drawn]'), z = plot.data[0].z;
    const last = z.length * z[0].length - 1;
    const ramp = z.map((row, i) => row.map((_, j) => (i * row.length + j) / last));
    return Plotly.restyle(plot, { z: [ramp], zmin: 0, zmax: 1 }).then(() => true);
    """)
    assert check() == told  # of every colour there is, and of a figure that was drawn anew


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_numbers_stand_in_one_line_and_columns_in_one_way(
    page: Page, report_page: Path, size: tuple[int, int]
) -> None:
    page.open(report_page, size)
    mixed, broken = page.run(COLUMNS)
    assert not mixed
    assert not broken
    assert page.run("return document.documentElement.scrollWidth") == size[0]


def test_a_table_that_goes_on_beyond_the_screen_says_so(page: Page, report_page: Path) -> None:
    page.open(report_page, PHONE)
    shadows = page.run("""
    return [...document.querySelectorAll('#panel-summary .scroll')].map((box) =>
      [box.scrollWidth > box.clientWidth, getComputedStyle(box).backgroundAttachment]);
    """)
    assert any(wide for wide, _ in shadows)
    assert {how for _, how in shadows} == {"local, local, scroll, scroll"}
