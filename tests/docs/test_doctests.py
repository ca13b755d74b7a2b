"""The examples in docstrings and on pages run, and give what stands below them."""

from __future__ import annotations

import doctest
import importlib
import re
from pathlib import Path

import pytest
import torch

import graphmoe

ROOT = Path(__file__).resolve().parents[2]
#: Only modules with an example are imported: others may need a library that is not installed.
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "graphmoe").rglob("*.py")
    if re.search(r"^\s*>>> ", path.read_text(), re.MULTILINE)
)
PAGES = [
    page
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"))
    if re.search(r"^>>> ", page.read_text(), re.MULTILINE)
]
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where examples run: ``bank`` has experts of two graphs, ``films`` is a recommender's run."""
    place = tmp_path_factory.mktemp("examples")
    config = {"optim": {"max_epochs": 3}}
    graphmoe.pretrain(["karate", "wine"], out=place / "bank", config=config, progress=False)
    simple = {"model": {"name": "Popularity"}, "evaluation": {"ks": [5]}}
    graphmoe.recommend("planted_tastes", config=simple, out=place / "films", progress=False)
    return place


def failures(tests: list[doctest.DocTest]) -> str:
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    for test in tests:
        torch.manual_seed(0)
        runner.run(test, out=said.append)
    return "".join(said)


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    module = importlib.import_module(name)
    # Without the module's names: an example imports what it uses, as its reader has to.
    tests = [t for t in doctest.DocTestFinder().find(module, name, globs={}) if t.examples]
    assert tests, "there is an example, but not in a docstring"
    assert failures(tests) == ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    blocks = re.findall(r"^```pycon\n(>>> .*?)^```", page.read_text(), re.M | re.S)
    parser = doctest.DocTestParser()
    tests = [parser.get_doctest(block, {}, page.name, str(page), 0) for block in blocks]
    assert tests, "there is an example, but not in a block of pycon"
    assert failures(tests) == ""


def test_the_main_names_have_examples() -> None:
    from graphmoe import api
    from graphmoe.data.interop import from_networkx
    from graphmoe.nn import MoEGNN, RoutingRecorder, upcycle

    public = [getattr(graphmoe, name) for name in graphmoe.__all__ if name != "__version__"]
    public += [getattr(api, name) for name in api.__all__ if not name[0].isupper()]  # functions
    main = (*public, from_networkx, MoEGNN, RoutingRecorder, upcycle)
    assert [each.__name__ for each in main if ">>>" not in (each.__doc__ or "")] == []


def test_a_wrong_example_is_found() -> None:
    wrong = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, 0)
    assert "Expected:\n    3\nGot:\n    2" in failures([wrong])
