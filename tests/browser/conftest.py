"""Small real runs and the reports about them, made once; a browser that is there, or a reason."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "report"))  # the hostile runs

import chromium

from graphmoe.cli import main

ON_CI = os.environ.get("CI", "").lower() in {"true", "1"}

RECOMMENDER = """\
data: {source: planted_tastes}
model:
  name: MAGNET
  hyper: {schedule_kwargs: {min_epochs: 4, max_epochs: 6, ramp_epochs: 4, window: 2}}
optim: {max_epochs: 12, patience: 12, lr: 0.01}
seeds: [0, 1]
"""
FEW = "--shots 1,3 --tasks 3 --members.depths [2] --members.other_depths [2]"
PLANTED = "planted?num_nodes=300&num_edges=900&num_features=20&num_classes=4"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The driver is spoken to over the loopback interface; nobody else is."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.allow_hosts(["127.0.0.1", "::1"]))


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Chromium; without it a skip that says what to install, which on CI is a failure."""
    if lacking := chromium.missing():
        reason = f"no browser to look at reports with; missing: {lacking}"
        if ON_CI:
            pytest.fail(reason)
        pytest.skip(reason)
    found = chromium.start(tmp_path_factory.mktemp("profile"))
    yield found
    found.quit()


@pytest.fixture
def page(driver: Any) -> chromium.Page:
    """The one window, not yet at a report."""
    return chromium.Page(driver)


@pytest.fixture(scope="session")
def runs(driver: Any, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A bank, a fusion of its experts, a recommender of two seeds, a benchmark of three seeds."""
    root = tmp_path_factory.mktemp("runs")
    bank, fused, rec, bench = (root / name for name in ("bank", "fused", "rec", "bench"))
    (root / "rec.yaml").write_text(RECOMMENDER)
    for line in (
        f"pretrain iris southern_women --out {bank} --quiet --optim.max_epochs 20",
        f"fuse iris --bank {bank} --out {fused} --quiet {FEW}",
        f"embed iris --bank {bank} --run {fused} --out {fused / 'embeddings.npz'}",
        f"predict iris --bank {bank} --run {fused} --out {fused / 'predictions.npz'}",
        f"recommend train --config {root / 'rec.yaml'} --out {rec} --quiet",
        f"benchmark ogb --dataset {PLANTED} --optim.max_epochs 6 --seeds 0,1,2 --out {bench} "
        "--model moe-gcn,gcn --quiet",
    ):
        assert main(line.split()) == 0, line
    return [bank, fused, rec, bench]


@pytest.fixture(scope="session")
def report_page(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report about all of them."""
    out = tmp_path_factory.mktemp("report") / "report.html"
    assert main(["report", *map(str, runs), "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="session")
def hostile_page(driver: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report in which everything that can have a name has one that would act."""
    from sample_runs import HOSTILE, hostile_runs

    from graphmoe.report import report

    root = tmp_path_factory.mktemp("hostile")
    return report(hostile_runs(root), root / "report.html", title=HOSTILE)
