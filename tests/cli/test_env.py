"""``graphmoe env`` tells what is installed, whatever is broken."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch

import graphmoe
from graphmoe.cli import installation, main
from graphmoe.cli.import_check import try_imports


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of modules that are broken in several ways."""
    folder = tmp_path_factory.mktemp("broken")
    written = {
        "sound_one": "print('hello', end='')",
        "raises_one": "raise OSError('libnothing.so: undefined symbol\\nmore')",
        "leaves_one": "import sys; sys.exit(3)",
        "dies_one": "import os; os.abort()",
        "vanishes_one": "import os; os._exit(0)",
        "hangs_one": "import time; time.sleep(600)",
    }
    for name, text in written.items():
        (folder / f"{name}.py").write_text(text)
    return folder


def test_a_library_that_breaks_its_process_does_not_hide_the_others(
    broken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(broken))
    modules = ["sound_one", "raises_one", "leaves_one", "dies_one", "vanishes_one", "no_such_one"]
    found, said = try_imports([*modules, "json"], seconds=120)
    assert found["sound_one"] == found["json"] == {"imports": True, "error": None}
    assert found["raises_one"]["error"] == "OSError: libnothing.so: undefined symbol"
    assert found["leaves_one"]["error"] == "SystemExit: 3"
    assert found["dies_one"] == {"imports": False, "error": "the process died (signal 6)"}
    assert found["vanishes_one"] == {"imports": False, "error": "it left with code 0"}
    assert found["no_such_one"]["error"].startswith("ModuleNotFoundError: No module named")
    assert said is None


def test_what_takes_too_long_is_not_called_broken(
    broken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(broken))
    found, _ = try_imports(["hangs_one", "json"], seconds=1)
    assert found["hangs_one"] == {"imports": None, "error": "took over 1 s"}
    assert found["json"] == {"imports": None, "error": "not tried: no time left"}


def test_torch_says_what_it_computes_with() -> None:
    found, said = try_imports(["torch"], seconds=240)
    assert found == {"torch": {"imports": True, "error": None}}
    assert said["built_for_cuda"] == torch.version.cuda
    assert len(said["cuda_devices"]) == torch.cuda.device_count()
    assert said["threads"] >= 1


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Requirements and versions as in another environment; every import but one succeeds."""
    lines = [
        "torch>=2.6",
        'plotly>=6.0; extra == "report"',
        'plotly>=6.0; extra == "all"',
        'optuna>=3.6; extra == "hpo"',
        'torch-scatter>=2.1; extra == "scatter"',
        'ray>=2.30; extra == "ray"',
        'ruff>=0.6; extra == "test"',
    ]
    versions = {"torch": "2.13.0+cpu", "plotly": "5.24", "torch-scatter": "2.1.2", "ray": "2.60"}

    def version(name: str) -> str:
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    def imports(modules: list[str], seconds: float) -> tuple[dict[str, Any], Any]:
        assert modules[0] == "torch"
        found = {module: {"imports": True, "error": None} for module in modules}
        found["torch_scatter"] = {"imports": False, "error": "OSError: undefined symbol [x]"}
        return found, {"threads": 3, "built_for_cuda": "12.6", "cuda_devices": ["H100"]}

    monkeypatch.setattr(installation, "requires", lambda name: lines)
    monkeypatch.setattr(installation, "version", version)
    monkeypatch.setattr(installation, "try_imports", imports)
    return versions


def test_extras_say_what_is_wrong_and_what_brings_them(pretended: dict[str, str]) -> None:
    found = installation.describe_installation()
    assert {name: extra["state"] for name, extra in found["extras"].items()} == {
        "report": "too old: plotly",
        "hpo": "missing: optuna",
        "scatter": "does not import: torch-scatter",
        "ray": "installed",
    }
    assert found["extras"]["hpo"]["install"] == "pip install 'graphmoe[hpo]'"
    assert [name for name, extra in found["extras"].items() if extra["usable"]] == ["ray"]
    assert found["libraries"]["torch"]["fits"] is True  # a local version counts
    assert "ruff" not in found["libraries"]


def test_the_text_has_it_all(
    pretended: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["env"]) == 0
    said = capsys.readouterr().out
    assert f"graphmoe:  {graphmoe.__version__}\n" in said
    assert f"python:    {platform.python_version()}\n" in said
    assert "cuda:      12.6: H100\n" in said
    assert "threads:   3 in torch\n" in said
    assert "OMP_NUM_THREADS: 3\n" in said
    assert "no: OSError: undefined symbol [x]" in said
    assert "pip install 'graphmoe[scatter]'" in said


def test_json_without_imports_is_what_is_installed_here(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("nothing may be imported")

    monkeypatch.setattr(installation, "try_imports", never)
    assert main(["env", "--json", "--no-imports"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["python"] == platform.python_version()
    assert found["libraries"]["torch"]["version"] == metadata.version("torch")
    assert "imports" not in found["libraries"]["torch"]
    assert found["torch"] is None
    assert {"dgl", "hub", "ogb", "report", "scatter"} <= set(found["extras"])


def test_a_folder_of_sources_without_installation_is_no_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def absent(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(installation, "requires", absent)
    found = installation.describe_installation(imports=False)
    assert set(found["libraries"]) == {"torch", "torch-geometric"}
    assert found["extras"] == {}


def test_the_parent_does_not_load_torch() -> None:
    code = (
        "from graphmoe.cli.installation import describe_installation as d; d(imports=False); "
        "import sys; print([n for n in ('torch', 'numpy', 'torch_geometric') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
