"""The list of licences has everything that is asked for, and says something of each."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def licences() -> ModuleType:
    spec = importlib.util.spec_from_file_location("licences", ROOT / "docs" / "licences.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_everything_that_is_asked_for_is_listed(licences: ModuleType) -> None:
    asked = licences.direct()
    assert asked["torch"] == "core"
    assert asked["optuna"] == "hpo"
    assert "ruff" not in asked
    rows = licences.listed(licences.PAGE.read_text())
    assert set(asked) <= set(rows), "run python docs/licences.py"


def test_every_line_states_a_licence(licences: ModuleType) -> None:
    for row in licences.listed(licences.PAGE.read_text()).values():
        name, version, stated, asked = (cell.strip() for cell in row.strip("| ").split(" | "))
        assert name
        assert version
        assert asked
        if name != "distribution":
            assert stated not in ("", "UNKNOWN", "not stated", "see the distribution")


def test_what_is_installed_says_its_licence(licences: ModuleType) -> None:
    found = licences.closure()
    assert found["torch-geometric"][1:] == ("MIT", "core")
    assert found["sympy"][2] == "torch"  # asked for by another
