"""What importing costs, checked in a fresh interpreter, and that layers hold."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("lightning_fabric", "jsonargparse", "dgl", "ogb", "ray", "tensorboard", "matplotlib")


def loaded_after(statement: str, names: tuple[str, ...]) -> list[str]:
    """Which of ``names`` are loaded once ``statement`` has run in a new interpreter."""
    code = f"{statement}\nimport sys\nprint(*[n for n in {names!r} if n in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    return done.stdout.split()


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded_after("import graphmoe", (*HEAVY, "torch", "torch_geometric", "pydantic")) == []


def test_using_layers_and_views_loads_no_optional_library() -> None:
    statement = "import graphmoe; graphmoe.MultiViewEncoder, graphmoe.MultiView"
    assert loaded_after(statement, HEAVY) == []


def test_using_the_sparse_core_loads_no_optional_library() -> None:
    statement = (
        "import graphmoe.nn; from graphmoe.nn.diagnostics import RoutingRecorder, debug; "
        "graphmoe.nn.RoutingRecorder(graphmoe.nn.MoEConv(4, 4)); graphmoe.nn.SimilarityRouter(4, 2)"
    )
    optional = ("torch_scatter", "torch_sparse", "mixture_of_experts")
    assert loaded_after(statement, (*HEAVY, *optional)) == []


def test_the_conformance_kit_needs_no_test_framework() -> None:
    statement = "from graphmoe.testing import assert_router, assert_moe_layer"
    assert loaded_after(statement, (*HEAVY, "pytest", "_pytest", "hypothesis")) == []


def test_using_the_bank_and_the_catalogue_loads_no_optional_library() -> None:
    statement = "import graphmoe; graphmoe.ExpertBank, graphmoe.load_graph"
    assert loaded_after(statement, HEAVY) == []


def test_building_the_command_line_does_not_load_torch() -> None:
    statement = "from graphmoe.cli.arguments import build_parser; build_parser()"
    assert loaded_after(statement, ("torch", "torch_geometric", "numpy", "pandas")) == []


def test_every_public_name_resolves_and_an_unknown_one_does_not() -> None:
    import graphmoe

    for name in graphmoe.__all__:
        assert getattr(graphmoe, name) is not None
    assert set(graphmoe.__all__) <= set(dir(graphmoe))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        graphmoe.nonsense  # noqa: B018


def test_layers_hold(repository: Path) -> None:
    pytest.importorskip("importlinter", reason="import-linter is not installed")
    # In a process of its own: it sets up logging for good and so silences every other logger.
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout


def test_operators_write_their_schema_out(repository: Path) -> None:
    """Torch 2.6, the oldest that is supported, reads no names of ours in annotations."""
    made = []
    for path in (repository / "graphmoe").rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and getattr(call.func, "attr", "") == "custom_op":
                made.append((path.name, call.lineno, [word.arg for word in call.keywords]))
    assert len(made) >= 8
    assert not [(name, line) for name, line, words in made if "schema" not in words]
