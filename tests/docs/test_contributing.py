"""What CONTRIBUTING.md tells a newcomer to write works, in a copy, exactly as it stands there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "CONTRIBUTING.md"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the package and of the tests of routers, with the page's files in it."""
    for folder in ("graphmoe", "tests/nn/routers"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignored)
    for file in ("tests/conftest.py", "pyproject.toml"):
        shutil.copy(ROOT / file, tmp_path / file)
    source, line, test = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    paths = re.findall(r"`((?:graphmoe|tests)/\S+cosine_router\.py)`:$", PAGE.read_text(), re.M)
    assert len(paths) == 2
    for path, text in zip(paths, (source, test), strict=True):
        (tmp_path / path).write_text(text)
    package = tmp_path / "graphmoe/nn/routers/__init__.py"
    package.write_text(
        package.read_text()
        .replace("from graphmoe.nn.routers.dynamic", f"{line}from graphmoe.nn.routers.dynamic", 1)
        .replace('    "DynamicRouter",', '    "CosineRouter",\n    "DynamicRouter",', 1)
    )
    return tmp_path


def test_the_router_of_the_page_passes_its_test_and_those_of_every_router(copy: Path) -> None:
    routers = "tests/nn/routers"
    files = [f"{routers}/test_cosine_router.py", f"{routers}/test_every_router.py"]
    environment = os.environ | {"PYTHONPATH": str(copy)}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *files, "-q", "-k", "cosine or Cosine", "-p", "no:xdist"],
        cwd=copy, env=environment, capture_output=True, text=True, timeout=250,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) > 6  # more than those of the page: every router's found it


def test_the_files_of_the_page_are_formatted_as_all_others(copy: Path) -> None:
    ruff = shutil.which("ruff", path=str(Path(sys.executable).parent)) or shutil.which("ruff")
    if ruff is None:
        pytest.skip("ruff is not installed")
    for words in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [ruff, *words, "graphmoe/nn/routers", "tests/nn/routers"],
            cwd=copy, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
