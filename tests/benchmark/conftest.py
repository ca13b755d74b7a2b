"""What tests of the benchmark suites share: a cache of their own, and whether ogb is there."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def ogb() -> None:
    """Skips the test without ogb; finding it runs nothing of it, importing it would."""
    if importlib.util.find_spec("ogb") is None:
        pytest.skip("ogb is not installed")


@pytest.fixture
def ogb_root(data_root: Path, ogb: None) -> Path:
    """The folder of real OGB datasets, read-only."""
    return data_root / "ogb"
