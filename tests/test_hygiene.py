"""Rules of the code base that a reader would otherwise have to take on trust."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "graphmoe"
SOURCES = sorted(PACKAGE.rglob("*.py"))
TESTS = "\n".join(p.read_text() for p in PACKAGE.parent.joinpath("tests").rglob("test_*.py"))


@pytest.mark.parametrize(
    "unsafe",
    [
        r"weights_only\s*=\s*False",
        r"allow_pickle\s*=\s*True",
        r"\byaml\.(unsafe_)?load\(",
        r"(?<!safetensors\.)\btorch\.load\((?!.*weights_only=True)",
        r"\beval\(['\"]",
        r"\bexec\(",
    ],
)
def test_no_source_reads_a_file_in_a_way_that_can_run_it(unsafe: str) -> None:
    found = [str(p.relative_to(PACKAGE)) for p in SOURCES if re.search(unsafe, p.read_text())]
    assert found == []


def test_no_source_forms_a_dense_adjacency() -> None:
    dense = re.compile(r"to_dense_adj|views?\w*\.to_dense\(|\.to_sparse\(\)\.to_dense\(")
    assert [p.name for p in SOURCES if dense.search(p.read_text())] == []


def test_every_source_is_typed_the_same_way() -> None:
    first = "from __future__ import annotations"
    late = [
        str(p.relative_to(PACKAGE))
        for p in SOURCES
        if p.stat().st_size
        and re.search(r"^(def|class) ", p.read_text(), re.MULTILINE)
        and first not in p.read_text()
    ]
    assert late == []


def test_no_file_has_grown_past_reading() -> None:
    assert {p.name: n for p in SOURCES if (n := len(p.read_text().splitlines())) > 400} == {}


def test_every_registered_class_has_a_test() -> None:
    import graphmoe.nn
    import graphmoe.transforms  # noqa: F401 (importing registers)
    from graphmoe import registry
    from graphmoe.registry import Registry

    families = [family for family in vars(registry).values() if isinstance(family, Registry)]
    registered = [
        cls.__name__
        for family in families
        for cls in family
        if cls.__module__.startswith("graphmoe.")
    ]
    assert {"MultiViewEncoder", "EdgeDropViews", "MetaPathViews"} <= set(registered)
    assert [name for name in registered if name not in TESTS] == []
