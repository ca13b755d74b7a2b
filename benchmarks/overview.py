"""The README's table of results, and its picture: ours beside floors, baselines, published figures.

Whatever is best in a row is set in bold type, whoever it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

from markdown_table import table

from graphmoe.api.pictures import COLOURS

#: The files that the table is made of, in its order.
FILES = (
    "fewshot.json",
    "recommend.json",
    "ogb_molesol.json",
    "ogb_molbace.json",
    "molecules.json",
    "similarity_routing.json",
)
#: Name of the picture below ``docs/``.
PICTURE = "results.svg"
LOGISTIC = {
    "logistic K=2": "logistic regression",
    "logistic K=5": "logistic regression",
    "operator pool, logistic": "pooled logistic regressions",
}


class Cell(NamedTuple):
    """One figure: its value, its deviation over draws or seeds if known, and whose it is."""

    value: float
    std: float | None = None
    by: str = ""


class Line(NamedTuple):
    """One task: ours, what needs no training, a simple baseline, and what was published."""

    task: str
    metric: str
    digits: int
    ours: Cell
    untrained: Cell
    simple: Cell
    published: Cell | None
    lower_is_better: bool = False

    @property
    def best(self) -> float:
        """The best figure of the line, as it is printed."""
        shown = [round(cell.value, self.digits) for cell in self[3:7] if cell is not None]
        return min(shown) if self.lower_is_better else max(shown)


def lines(results: Mapping[str, Any]) -> list[Line]:
    """Every line of the table, from the content of :data:`FILES` by their names."""
    made = list(fewshot(results["fewshot.json"]))
    made += recommend(results["recommend.json"])
    for name in ("molesol", "molbace"):
        made.append(molecules(name, results[f"ogb_{name}.json"], results["molecules.json"]))
    return made + list(similarity(results["similarity_routing.json"]))


def fewshot(result: Mapping[str, Any], shots: str = "3") -> Iterator[Line]:
    """A line a graph: strict leave-one-out, so that no expert has seen the graph."""
    summary = result["summary"]
    for name, published in summary["published"][shots].items():
        simple = [
            _f1(summary["others"][key][name][shots], by)
            for key, by in LOGISTIC.items()
            if key in summary["others"]
        ]
        yield Line(
            f"{name}, {shots} labels a class",
            "micro F1, %",
            1,
            _f1(summary["chosen"]["strict"][name][shots], "fused experts"),
            _f1(summary["chosen"]["no experts"][name][shots], "fused operators"),
            max(simple, key=lambda cell: cell.value),
            Cell(published, by="GPH²"),
        )


def recommend(result: Mapping[str, Any]) -> Iterator[Line]:
    """A line a metric: the best row without training, and LightGCN."""
    rows = result["rows"]
    untrained = [name for name in ("Popularity", "ItemKNN", "RandomWalk") if name in rows]
    for metric in ("recall@20", "ndcg@20"):
        floor = max(untrained, key=lambda name: rows[name][metric]["mean"])
        yield Line(
            "TikTok, recommendation",
            metric,
            4,
            _spread(rows["MAGNET"][metric], "MAGNET"),
            _spread(rows[floor][metric], floor),
            _spread(rows["LightGCN"][metric], "LightGCN"),
            Cell(result["published"][metric], by="MGCN in MMRec"),
        )


def molecules(name: str, result: Mapping[str, Any], floors: Mapping[str, Any]) -> Line:
    """A line a dataset: an untrained network, and the better of two models of counts."""
    found = floors["datasets"][f"ogbg-{name}"]
    rows, sign = found["rows"], 1 if found["higher_is_better"] else -1
    counts = [row for row in rows if row.startswith("counts")]
    better = max(counts, key=lambda row: sign * rows[row]["mean"])
    ours = next(row for row in result["rows"] if row["name"] == "moe-gin")
    said = f"published: test_{found['metric']}: "
    published = next(note for note in result["notes"] if note.startswith(said))
    return Line(
        f"ogbg-{name}, whole graphs",
        {"rmse": "RMSE", "rocauc": "ROC-AUC"}[found["metric"]],
        3,
        _spread(ours, "GIN networks as experts"),
        _spread(rows["untrained GIN"], "untrained GIN"),
        _spread(rows[better], better),
        Cell(float(published.removeprefix(said)), by="GIN of OGB's examples"),
        lower_is_better=sign < 0,
    )


def similarity(result: Mapping[str, Any]) -> Iterator[Line]:
    """A line a task: similarity-aware routing, a router that is not trained, the better usual."""
    for name, task in result["tasks"].items():
        rows = task["compare"]
        lower = task["metric"].startswith("bits")
        usual = {"vanilla": "top-k router", "dense": "dense layer"}
        better = (min if lower else max)(usual, key=lambda key: rows[key]["test"]["mean"])
        yield Line(
            f"{name}, routing",
            task["metric"],
            2,
            _spread(rows["similarity"]["test"], "similarity-aware router"),
            _spread(rows["frozen"]["test"], "frozen router"),
            _spread(rows[better]["test"], usual[better]),
            None,
            lower,
        )


def results(files: Mapping[str, Any]) -> str:
    """The table."""
    head = ["", "metric", "ours", "untrained floor", "simple baseline", "published"]
    rows = []
    for line in lines(files):
        cells = [_shown(cell, line) for cell in line[3:7]]
        metric = f"{line.metric} (lower is better)" if line.lower_is_better else line.metric
        rows.append([line.task, metric, *cells])
    return table(head, rows)


def picture(files: Mapping[str, Any]) -> str:
    """The few-shot lines as dots, one row a graph, as SVG that follows light and dark themes."""
    found = list(fewshot(files["fewshot.json"]))
    kinds = [
        ("published: GPH², its authors' code", [line.published for line in found]),
        ("logistic regression", [line.simple for line in found]),
        ("fused operators, nothing trained before", [line.untrained for line in found]),
        ("graphmoe: fused experts of other graphs", [line.ours for line in found]),
    ]
    values = [cell.value for _, cells in kinds for cell in cells if cell is not None]
    low, high = 10 * int(min(values) // 10), 10 * int(max(values) // 10 + 1)
    left, right, top, step = 90, 690, 84, 34
    bottom = top + step * len(found)

    def across(value: float) -> float:
        return round(left + (right - left) * (value - low) / (high - low), 1)

    parts = []
    for value in range(low, high + 1, 10):
        x = across(value)
        parts.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{top - 14}" y2="{bottom - 14}"/>')
        parts.append(f'<text x="{x}" y="{bottom + 6}" text-anchor="middle">{value}</text>')
    for i, line in enumerate(found):
        y = top + step * i + 5
        parts.append(f'<text x="{left - 14}" y="{y}" text-anchor="end">{_graph(line)}</text>')
    for place, (name, cells) in enumerate(kinds):
        x, y = 24 + 360 * (place % 2), 18 + 24 * (place // 2)
        parts.append(_mark(place, x, y, name))
        parts.append(f'<text x="{x + 14}" y="{y + 5}">{escape(name)}</text>')
        for i, cell in enumerate(cells):
            if cell is not None:
                told = f"{_graph(found[i])}, {name}: {cell.value:.1f}"
                parts.append(_mark(place, across(cell.value), top + step * i, told))
    says = "; ".join(f"{_graph(line)}: ours {line.ours.value:.1f}" for line in found)
    caption = "micro F1 in percent, 3 labels a class, mean of ten published draws"
    middle = (left + right) / 2
    parts.append(f'<text x="{middle}" y="{bottom + 28}" text-anchor="middle">{caption}</text>')
    return _page(720, bottom + 40, f"{caption}. {says}", parts)


def _mark(kind: int, x: float, y: float, says: str) -> str:
    """A shape and a colour for each kind, so that neither has to be told alone."""
    shape = (
        f'path d="M{x} {y - 8}l8 8l-8 8l-8 -8z"',
        f'path d="M{x} {y - 8}l8 14h-16z"',
        f'rect x="{x - 6}" y="{y - 6}" width="12" height="12"',
        f'circle cx="{x}" cy="{y}" r="7"',
    )[kind]
    colour = (COLOURS[5], COLOURS[1], COLOURS[4], COLOURS[0])[kind]
    return f'<{shape} fill="{colour}"><title>{escape(says)}</title></{shape.split()[0]}>'


def _page(width: int, height: int, says: str, parts: Sequence[str]) -> str:
    style = (
        "text{font:14px sans-serif;fill:#222}.grid{stroke:#ccc}"
        "@media(prefers-color-scheme:dark){text{fill:#ddd}.grid{stroke:#444}}"
    )
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'width="{width}" height="{height}">'
    )
    return "\n".join([head, f"<title>{escape(says)}</title>", f"<style>{style}</style>", *parts,
                      "</svg>\n"])  # fmt: skip


def _graph(line: Line) -> str:
    return escape(line.task.split(",")[0])


def _f1(found: Mapping[str, float], by: str) -> Cell:
    return Cell(found["micro"], found["micro_std"], by)


def _spread(found: Mapping[str, float], by: str) -> Cell:
    return Cell(found["mean"], found["std"], by)


def _shown(cell: Cell | None, line: Line) -> str:
    if cell is None:
        return "–"
    text = f"{cell.value:.{line.digits}f}"
    if round(cell.value, line.digits) == line.best:
        text = f"**{text}**"
    if cell.std:
        text += f" ± {cell.std:.{line.digits}f}"
    return f"{text} ({cell.by})"
