"""Everything public has a docstring: all of it, without exceptions written beside the code."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
#: Modules, classes, methods, functions, packages, nested classes. Not `__init__` and its kind: by
#: the habit of PyG, arguments are documented on the class.
RULES = "D100,D101,D102,D103,D104,D106,D419"


def check(folder: Path) -> subprocess.CompletedProcess[str]:
    ruff = shutil.which("ruff", path=str(Path(sys.executable).parent)) or shutil.which("ruff")
    if ruff is None:
        pytest.skip("ruff is not installed")
    return subprocess.run(
        [ruff, "check", "--isolated", "--no-cache", "--ignore-noqa", "--select", RULES, folder],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def test_everything_public_is_documented() -> None:
    done = check(ROOT / "graphmoe")
    assert done.returncode == 0, done.stdout


def test_the_check_finds_what_is_not(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text('"""A."""\n\n\nclass A:\n    """A."""\n\n    def b(self): ...\n')
    done = check(tmp_path)
    assert re.findall(r"\bD\d+\b", done.stdout) == ["D102"]
