"""Fixtures that every test shares: real data, fixed seeds, one thread."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch
import torch_geometric  # noqa: F401 (its first import probes for IPv6, before sockets are shut off)
from hypothesis import settings

REPOSITORY = Path(__file__).resolve().parents[1]
ON_CI = os.environ.get("CI", "").lower() in {"true", "1"}

settings.register_profile("default", deadline=None, max_examples=30, derandomize=True)
settings.load_profile("default")
torch.set_num_threads(1)


#: Compiling and exporting are tested from here on; torch 2.6 cannot trace named tuples, say.
NEW_TORCH = (2, 13)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave out what an older torch cannot do."""
    found = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if found < NEW_TORCH and item.get_closest_marker("new_torch"):
        pytest.skip(f"needs torch 2.13, got {torch.__version__}")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 (libraries under test may read the global state)
    torch.manual_seed(0)


def _shared(name: str, path: Path) -> Path:
    """``path`` when it is there; otherwise a skip that says why, which on CI is a failure."""
    if path.is_dir():
        return path
    reason = f"{name} not found at {path}: set GRAPHMOE_DATA or put it there"
    if ON_CI:
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real graphs (read-only: copy what a library writes beside)."""
    default = REPOSITORY.parent / "shared" / "data"
    return _shared("real data", Path(os.environ.get("GRAPHMOE_DATA", default)))


@pytest.fixture(scope="session")
def anchors_root(data_root: Path) -> Path:
    """The folder of published weights and of the embeddings they must give."""
    return _shared("published weights", data_root.parent / "anchors" / "gph2")


@pytest.fixture(scope="session")
def splits_root(data_root: Path) -> Path:
    """The folder of published few-shot splits."""
    return _shared("few-shot splits", data_root.parent / "splits")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository, for tests that read configs or documentation."""
    return REPOSITORY
