"""What `pip install` brings: every source, its data, types, the command, and named extras."""

from __future__ import annotations

import re
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "graphmoe").rglob("*")
    if path.is_file() and "__pycache__" not in path.parts
]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A wheel and a source distribution of the working tree, built without the network."""
    wheel = pytest.importorskip("hatchling.builders.wheel")
    source = pytest.importorskip("hatchling.builders.sdist")
    folder = tmp_path_factory.mktemp("dist")
    return {
        kind: Path(next(builder(str(ROOT)).build(directory=str(folder), versions=["standard"])))
        for kind, builder in (("wheel", wheel.WheelBuilder), ("sdist", source.SdistBuilder))
    }


def test_the_wheel_has_every_source_and_nothing_else(built: dict[str, Path]) -> None:
    with zipfile.ZipFile(built["wheel"]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert names == set(SOURCES)
    assert {"graphmoe/py.typed", "graphmoe/report/page.js"} <= names


def test_the_wheel_says_what_it_needs_and_brings_the_command(built: dict[str, Path]) -> None:
    with zipfile.ZipFile(built["wheel"]) as wheel:
        inside = {name.split(".dist-info/")[-1]: name for name in wheel.namelist()}
        meta = Parser().parsestr(wheel.read(inside["METADATA"]).decode())
        commands = wheel.read(inside["entry_points.txt"]).decode()
    assert "graphmoe = graphmoe.cli:main" in commands
    assert meta["Requires-Python"] == ">=3.10"
    needed = meta.get_all("Requires-Dist")
    assert any(re.match(r"torch>=", line) for line in needed)
    assert meta.get_payload().startswith("# graphmoe")


def test_the_source_distribution_can_be_built_from_and_tested(built: dict[str, Path]) -> None:
    with tarfile.open(built["sdist"]) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames()}
    assert set(SOURCES) <= names
    for file in ("pyproject.toml", "README.md", "CONTRIBUTING.md", "LICENSE", "constraints.txt"):
        assert file in names
    assert "tests/dist/test_package.py" in names
    assert "docs/results.svg" in names
    assert not [name for name in names if "_build/" in name or "__pycache__" in name]


def test_what_is_missing_is_installed_by_an_extra_that_exists() -> None:
    declared = (ROOT / "pyproject.toml").read_text().split("[project.optional-dependencies]")[1]
    extras = dict(re.findall(r"^(\w+) = \[([^\]]*)\]", declared.split("\n[")[0], re.M))
    named = [
        (path.name, library, extra)
        for path in (ROOT / "graphmoe").rglob("*.py")
        for library, extra in re.findall(r'for_extra\(\s*"([^"]+)",\s*"(\w+)"', path.read_text())
    ]
    assert len({extra for _, _, extra in named}) >= 5
    for file, library, extra in named:
        assert extra in extras, f"{file} names the extra {extra}"
        brings = extras[extra].lower().replace("_", "-")
        assert library.lower().replace("_", "-") in brings, f"{file}: {extra} lacks {library}"
