"""What the documentation shows still holds: command lines, YAML and imports."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from pathlib import Path

import pytest
import yaml

from graphmoe.cli.arguments import build_parser
from graphmoe.config import PretrainConfig, load_config
from graphmoe.config.benchmark import BenchmarkConfig
from graphmoe.data import GraphDescription

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(language: str) -> list[tuple[str, str]]:
    """Every code block of ``language``: page and text."""
    pattern = re.compile(rf"^```{language}\n(.*?)^```", re.MULTILINE | re.DOTALL)
    return [(page.name, text) for page in PAGES for text in pattern.findall(page.read_text())]


def command_lines() -> list[tuple[str, str]]:
    """Every shown call of the program, continuation lines joined, comments dropped."""
    found = []
    for page, text in blocks("console"):
        for line in text.replace("\\\n", " ").splitlines():
            command = line.removeprefix("$ ").split("  #")[0].split(" > ")[0].strip()
            if command.startswith("graphmoe ") and "COMMAND" not in command:
                found.append((page, command))
    return found


@pytest.mark.parametrize(("page", "line"), command_lines())
def test_every_shown_command_line_is_accepted(page: str, line: str) -> None:
    words = shlex.split(line)[1:]
    if "--help" in words:
        return
    build_parser().parse_args(words)
    for path in re.findall(r"configs/\S+\.yaml", line):
        assert (ROOT / path).is_file(), f"{page} names {path}"


@pytest.mark.parametrize(("page", "text"), blocks("yaml"))
def test_every_shown_yaml_is_understood(page: str, text: str) -> None:
    content = yaml.safe_load(text)
    if "edges" in content or "relations" in content:
        GraphDescription.model_validate(content)
    elif "models" in content:
        load_config(BenchmarkConfig, content)
    else:
        load_config(PretrainConfig, content)


@pytest.mark.parametrize(("page", "text"), blocks("python"))
def test_every_shown_import_works(page: str, text: str) -> None:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module:
            module = importlib.import_module(node.module)
            for name in node.names:
                assert hasattr(module, name.name), f"{page}: {node.module}.{name.name}"


def test_make_targets_that_are_named_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {t for p in PAGES for t in re.findall(r"(?:^\$ |`)make ([a-z]+)", p.read_text(), re.M)}
    assert {"pretrain", "test"} <= named <= targets
