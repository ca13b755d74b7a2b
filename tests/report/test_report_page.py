"""The page is whole, asks nobody for anything, is told to who cannot see it, and runs no name."""

from __future__ import annotations

import base64
import hashlib
import html

import pytest
from page_reader import PageReader
from sample_runs import HOSTILE, hostile_runs

from graphmoe.report import report
from graphmoe.report.blocks import Table
from graphmoe.report.page import _table
from graphmoe.report.text import chance, figure_text, script_json, settled, side_text, visible

pytest.importorskip("plotly")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> PageReader:
    """Of two runs in which everything that can have a name has a hostile one."""
    root = tmp_path_factory.mktemp("runs")
    out = report(hostile_runs(root), root / "page.html", title=HOSTILE)
    return PageReader(out.read_text("utf-8"))


def test_hostile_names_are_shown_as_text(page: PageReader) -> None:
    shown = visible(HOSTILE)
    assert {"img", "b"}.isdisjoint(tag for tag, _ in page.elements)
    assert not [name for _, attrs in page.elements for name in attrs if name.startswith("on")]
    assert page.texts.count(shown) >= 4  # title, graph, note, row, environment
    assert "\\u202e" in shown
    assert "\u202e" not in "".join(page.texts)


def test_hostile_names_are_text_in_figures_too(page: PageReader) -> None:
    def texts(content: object, key: str = "") -> list[tuple[str, str]]:
        if isinstance(content, dict):
            return [found for k, v in content.items() for found in texts(v, k)]
        if isinstance(content, list):
            return [found for value in content for found in texts(value, key)]
        return [(key, content)] if isinstance(content, str) else []

    found = texts(page.figures)
    templates = {value for key, value in found if key == "hovertemplate"}
    assert templates <= {"%{text}<extra></extra>", "%{hovertext}<extra></extra>",
                         "%{fullData.name}<br>%{x}: %{y:.4g}<extra></extra>"}  # fmt: skip
    names = [value for key, value in found if key != "hovertemplate"]
    assert not [value for value in names if "<" in value.replace("<br>", "")]  # our own breaks
    assert any(html.unescape(value).startswith("</script><img") for value in names)


def test_no_text_can_end_the_element_it_stands_in() -> None:
    said = script_json({"a": "</script>\u2028&<!--", "b": [float("nan"), 1.5]})
    assert said == ('{"a":"\\u003c/script\\u003e\\u2028\\u0026\\u003c!--","b":[null,1.5]}')
    assert figure_text("<b>") == "&lt;b&gt;"
    assert figure_text("&lt;") == "&amp;lt;"
    assert len(figure_text("x" * 99)) == 48
    assert (
        side_text("<br> & a name as long as two lines")
        == "&lt;br&gt; &amp; a name as long<br>as two lines"
    )
    assert len(side_text("x" * 999).replace("<br>", "")) == 45
    assert visible(b"\xff".decode("utf-8", "surrogateescape")) == "\\udcff"


def test_only_the_two_scripts_of_the_page_may_run(page: PageReader) -> None:
    [meta] = page.all("meta", http_equiv="Content-Security-Policy")
    run = [content for attrs, content in page.scripts if attrs.get("type") != "application/json"]
    assert len(run) == 2
    hashes = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in run]
    policy = dict(part.split(" ", 1) for part in (meta["content"] or "").split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == " ".join(f"'sha256-{found}'" for found in hashes)
    assert "plotly.js" in run[0][:200]


def test_the_page_asks_no_network(page: PageReader) -> None:
    places = [
        value
        for _, attrs in page.elements
        for name, value in attrs.items()
        if name in ("src", "href", "action", "srcset", "data", "poster")
    ]
    assert places == ["data:,"]


def test_who_does_not_see_is_told(page: PageReader) -> None:
    plots = [attrs for tag, attrs in page.elements if "data-plot" in attrs]
    assert [int(attrs["data-plot"] or -1) for attrs in plots] == list(range(len(page.figures)))
    assert all(a["role"] == "img" and len(a["aria-label"] or "") > 30 for a in plots)
    assert len(page.all("figure")) == len(page.all("figcaption")) == len(plots)
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    for tab in page.all("button", role="tab"):
        assert page.all("section", id=str(tab["aria-controls"]), role="tabpanel")
    assert len(page.all("table")) == len(page.all("caption"))
    assert page.all("html", lang="en")
    assert page.all("meta", name="viewport")


def test_plotly_knows_every_word_of_the_figures(page: PageReader) -> None:
    from plotly.graph_objects import Figure

    kinds = {t["type"] for figure in page.figures for t in Figure(figure).to_dict()["data"]}
    assert kinds == {"heatmap", "bar", "scatter"}


def test_what_a_number_says_and_what_rounding_says() -> None:
    assert [chance(p) for p in (0.5, 0.0331234, 1e-4, 5e-30)] == [
        "=\u00a00.5", "=\u00a00.0331", "=\u00a00.0001", "<\u00a00.0001",
    ]  # fmt: skip
    assert settled(7e-15, 95.0) == 0.0
    assert settled(1e-6, 95.0) == 1e-6
    assert settled(None, 95.0) is None
    assert settled(0.5, None) == 0.5


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (["83.8 ± 1.1", "90.0"], "number"),
        ([1, None, chance(0.0)], "number"),
        (["0.1.0", "3.11.7"], None),
        (["AMD", None], None),
        (["2026-11-22\u00a018:23"], "whole"),
    ],
)
def test_a_column_is_set_in_one_way(column: list[str | int | None], kind: str | None) -> None:
    table = Table("t", ("", "x"), [("row", value) for value in column])
    page = PageReader(_table(table))
    heads, cells = page.all("th", scope="col"), page.all("td")
    assert {cell.get("class") for cell in [heads[1], *cells]} == {kind}
