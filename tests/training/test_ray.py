"""Experts made on a Ray cluster of several nodes: to the bit the local ones, whatever dies."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from graphmoe import ExpertBank, pretrain
from graphmoe.checkpoint.import_graph import import_graph
from graphmoe.errors import ConfigError, MissingExtraError
from graphmoe.training import PretrainError, PretrainSettings, PretrainTask, SaveSettings
from graphmoe.training.batches import BatchSettings
from graphmoe.training.executors import LocalExecutor, make_executor
from graphmoe.training.interrupts import StopRequest, TrainingInterruptedError
from graphmoe.training.task import pretrain_task

N = 150

# Ray's processes talk to each other over the loopback device; on a busy machine they start slowly.
pytestmark = [pytest.mark.enable_socket, pytest.mark.timeout(3000)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head, to which the driver is connected, and another node, of one CPU each."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        # Workers find this folder's modules.
        paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
        # On a busy machine workers would wait for ever (Ray makes them nice), or be taken for dead.
        patch.setenv("RAY_worker_niceness", "0")
        patch.setenv("RAY_worker_register_timeout_seconds", "600")
        started = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
        )
        # While there is no other node: of several on one machine a driver joins any, and the one
        # that is lost would be its own.
        ray.init(address=started.address, log_to_driver=False, logging_level="error")
        started.add_node(num_cpus=1)
        yield started
        ray.shutdown()
        started.shutdown()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large")
    random = np.random.default_rng(0)
    np.save(path / "e.npy", random.integers(0, N, (2, 900)))
    np.save(path / "x.npy", random.normal(size=(N, 11)).astype(np.float32))
    import_graph([path / "e.npy"], path / "big", features=path / "x.npy", block_entries=500)
    return path / "big"


def tasks(folder: Path, out: Path, epochs: int = 15) -> list[PretrainTask]:
    settings = PretrainSettings(encoder_args={"hidden_channels": 8}, max_epochs=epochs)
    form = {"channels": 8, "normalize": "l1", "structural": "auto", "num_views": 1}
    form |= {"drop_edge": 0.3}
    karate = PretrainTask(
        "karate", "karate", out, form, settings=settings, save=SaveSettings(epochs=1)
    )
    batches = BatchSettings(64, redraw=20)
    return [karate, replace(karate, name="big", source=str(folder), batches=batches)]


def weights(path: Path, name: str) -> torch.Tensor:
    state = ExpertBank.load(path)[name].state_dict()
    return torch.cat([value.flatten().float() for value in state.values()])


def lose(cluster: Any, marker: Path) -> None:
    """Take away the node that is named in a file, once it is."""
    while not (marker.exists() and marker.read_text()):
        time.sleep(0.1)
    cluster.remove_node(next(n for n in cluster.worker_nodes if n.node_id == marker.read_text()))


def test_workers_and_a_node_die_and_experts_are_the_local_ones(
    cluster: Any, folder: Path, tmp_path: Path
) -> None:
    import ray
    import ray_cases

    assert ray.get_runtime_context().get_node_id() == cluster.head_node.node_id
    here, there = tmp_path / "here", tmp_path / "there"
    local = LocalExecutor().run(pretrain_task, tasks(folder, here), None, StopRequest())
    assert [outcome.error for outcome in local] == [None, None]

    there.mkdir()
    (there / "head").write_text(cluster.head_node.node_id)
    events: list[tuple[int, str, Any]] = []
    thread = threading.Thread(target=lose, args=(cluster, there / "node"), daemon=True)
    thread.start()
    executor = make_executor("ray", address=cluster.address)
    outcomes = executor.run(
        ray_cases.fragile,
        tasks(folder, there),
        lambda index, kind, content: events.append((index, kind, content)),
        StopRequest(),
    )
    thread.join(60)
    assert [outcome.error for outcome in outcomes] == [None, None]
    assert (there / "killed").exists()
    assert (folder.parent / "block").exists()
    assert not thread.is_alive()
    for index, name in enumerate(("karate", "big")):
        assert torch.equal(weights(there, name), weights(here, name))
        assert outcomes[index].value.losses == local[index].value.losses
        kinds = [kind for i, kind, _ in events if i == index]
        assert (kinds[0], kinds[-1]) == ("start", "end")
        assert kinds.count("start") == kinds.count("end") == 1
    # Which task was where when its worker was killed or its node went is for Ray to say.
    notes = [content.get("note") or "" for _, kind, content in events if kind == "progress"]
    assert sum("its worker died, going on elsewhere" in note for note in notes) == 2
    assert sorted(path.name for path in (there / "big").iterdir()) == [
        "manifest.json",
        "model.safetensors",
    ]


def test_a_request_to_stop_reaches_the_workers(cluster: Any, folder: Path, tmp_path: Path) -> None:
    import ray

    ray.shutdown()  # the executor connects by itself
    stop = StopRequest()
    long = tasks(folder, tmp_path, epochs=10**6)[:1]
    long = [replace(long[0], settings=replace(long[0].settings, patience=10**6))]

    def watch(index: int, kind: str, content: Any) -> None:
        if kind == "progress":
            stop.ask()

    outcomes = make_executor("ray", address=cluster.address).run(pretrain_task, long, watch, stop)
    assert isinstance(outcomes[0].error, TrainingInterruptedError)
    assert "stopped after epoch" in str(outcomes[0].error)
    assert (tmp_path / "karate" / "resume" / "state.json").exists()


def test_pretrain_by_its_name_and_what_fails_in_a_worker(cluster: Any, tmp_path: Path) -> None:
    config = {"data": {"channels": 8}, "optim": {"max_epochs": 3}}
    chosen = {"executor": "ray", "address": cluster.address, "progress": False}
    (tmp_path / "bad.yaml").write_text("edges: missing.csv\n")
    graphs = ["karate", str(tmp_path / "bad.yaml")]
    with pytest.raises(PretrainError, match="1 of 2 graphs failed, 1 are finished") as caught:
        pretrain(graphs, config=config, out=tmp_path / "a", **chosen)
    assert list(caught.value.errors) == ["bad"]
    assert "missing.csv" in str(caught.value)
    pretrain(["karate"], config=config, out=tmp_path / "b", progress=False)
    assert torch.equal(weights(tmp_path / "a", "karate"), weights(tmp_path / "b", "karate"))


def test_without_ray_and_with_what_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'graphmoe\[ray\]'"):
        make_executor("ray")
    with pytest.raises(ConfigError, match="expected jobs 1 with executor ray, got 2"):
        make_executor("ray", jobs=2)
