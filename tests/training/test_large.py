"""Experts pre-trained by batches of nodes: ordinary, repeatable, resumed, and as good."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from impatience import Impatient
from sklearn.linear_model import LogisticRegression
from torch_geometric.data import Data

from graphmoe import ExpertBank, pretrain
from graphmoe.api import embed
from graphmoe.checkpoint.import_graph import import_graph
from graphmoe.checkpoint.large_graph import LargeGraph
from graphmoe.data import load_graph
from graphmoe.errors import ConfigError, DataError, MissingDataError
from graphmoe.nn.models import GraphInfomax, MultiViewEncoder
from graphmoe.training import PretrainSettings, PretrainTask, TrainingInterruptedError
from graphmoe.training.batches import BatchLoop, BatchSettings
from graphmoe.training.large_align import align_blocks
from graphmoe.training.task import pretrain_task
from graphmoe.transforms import AlignFeatures, MultiView

N, F = 240, 12
CONFIG: dict[str, Any] = {
    "data": {"channels": 8},
    "views": {"num_views": 1},
    "model": {"hidden_channels": 16},
    "optim": {"lr": 0.01, "max_epochs": 7},
    "batches": {"size": 64, "redraw": 3},
    "run": {"save_epochs": 1},
}


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def planted() -> tuple[Data, torch.Tensor]:
    """Three communities whose features say little and whose links say much."""
    random = np.random.default_rng(0)
    y = np.arange(N) % 3
    ends = random.integers(0, N, (2, 6000))
    same = y[ends[0]] == y[ends[1]]
    ends = ends[:, same | (random.random(6000) < 0.05)]
    x = random.normal(size=(N, F)) + 0.7 * np.eye(3, F)[y]
    x = torch.from_numpy(x.astype(np.float32))
    return Data(x=x, edge_index=torch.from_numpy(ends), num_nodes=N), torch.from_numpy(y)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("large")
    data, _ = planted()
    np.save(path / "e.npy", data.edge_index.numpy())
    np.save(path / "x.npy", data.x.numpy())
    import_graph([path / "e.npy"], path / "big", features=path / "x.npy", block_entries=900)
    return str(path / "big")


def changed(**sections: dict[str, Any]) -> dict[str, Any]:
    return {**CONFIG, **{key: {**CONFIG.get(key, {}), **value} for key, value in sections.items()}}


def trained(source: Any, out: Path, config: dict[str, Any] = CONFIG, **more: Any) -> ExpertBank:
    return pretrain([source] if isinstance(source, str) else source, config=config, out=out,
                    progress=False, **more)  # fmt: skip


def weights(bank: ExpertBank) -> torch.Tensor:
    state = bank[bank.names[0]].state_dict()
    return torch.cat([value.flatten().float() for value in state.values()])


def test_aligned_blocks_are_those_of_the_transform(folder: str, tmp_path: Path) -> None:
    graph = LargeGraph(folder)
    x, about, projection = align_blocks(graph, 8, "l1", tmp_path)
    data = AlignFeatures(8)(planted()[0])
    torch.testing.assert_close(x @ x.t(), data.x @ data.x.t(), atol=1e-4, rtol=0)
    torch.testing.assert_close(projection, data.projection, atol=1e-3, rtol=0)
    assert about["explained"] == pytest.approx(data.alignment["explained"], abs=1e-4)
    assert projection.shape == data.projection.shape
    wide, about, _ = align_blocks(graph, 20, "none", tmp_path)
    assert (about["rank"], about["padded"], about["explained"]) == (F, 8, pytest.approx(1))
    torch.testing.assert_close(wide @ wide.t(), planted()[0].x @ planted()[0].x.t())


def test_one_batch_without_dropout_is_the_exact_loss() -> None:
    multi = MultiView(channels=8, num_views=1)(planted()[0])
    objective = GraphInfomax(MultiViewEncoder(8, 16, dropout=0.0))
    drawn = objective.draw(multi.x, multi.views, torch.Generator().manual_seed(3))
    exact = objective.loss(multi.x, multi.views, torch.Generator().manual_seed(3))
    assert torch.equal(objective.contrast(*drawn), exact)
    order = torch.randperm(N)
    rows = [[z[order] for z in views] for views in drawn]
    torch.testing.assert_close(objective.contrast(*rows), exact)


def test_an_imported_graph_gives_an_ordinary_expert_that_learned(
    folder: str, tmp_path: Path
) -> None:
    bank = trained(folder, tmp_path / "bank", changed(optim={"max_epochs": 30}))
    manifest = bank.manifest("big")
    assert manifest.metrics["loss"] < 0.55
    assert manifest.views == ("base", "drop1")
    assert manifest.settings["batches"] == {"size": 64, "redraw": 3, "storage": "float32"}
    assert manifest.graph["num_nodes"] == N
    data, y = planted()
    data.x = AlignFeatures.project(data.x, bank.alignment("big")["projection"])
    with torch.no_grad():
        h = bank["big"](data.x, MultiView(channels=8, num_views=0)(data).views)
    centres = torch.stack([h[:120][y[:120] == c].mean(dim=0) for c in range(3)])
    found = torch.cdist(h[120:], centres).argmin(dim=1)
    assert (found == y[120:]).float().mean() > 0.8
    # Block by block or in memory: the same embeddings.
    written = embed(folder, bank=bank, out=tmp_path / "z.npy")["big"]
    torch.testing.assert_close(written, embed(folder, bank=bank)["big"], atol=1e-4, rtol=1e-4)
    assert np.load(tmp_path / "z.npy").shape == (N, 16)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bank", "z.npy"]
    # Propagated features and the saved state went when the expert was finished.
    assert sorted(path.name for path in (tmp_path / "bank" / "big").iterdir()) == [
        "manifest.json",
        "model.safetensors",
    ]


def test_an_imported_graph_that_fits_goes_through_the_exact_mode(
    folder: str, tmp_path: Path
) -> None:
    never = changed(batches={"mode": "never"})
    exact = trained(folder, tmp_path / "a", never)
    plain = trained({"big": planted()[0]}, tmp_path / "b", never)
    assert "batches" not in exact.manifest("big").settings
    torch.testing.assert_close(weights(exact), weights(plain), atol=1e-5, rtol=0)


@pytest.mark.parametrize("resample", ["once", "epoch"])
def test_equal_arguments_give_equal_weights_also_when_stopped(
    resample: str, folder: str, tmp_path: Path
) -> None:
    config = changed(views={"resample": resample})
    whole = trained(folder, tmp_path / "whole", config)
    known = whole.manifest("big").settings
    settings = PretrainSettings(**{key: known[key] for key in PretrainSettings().to_json()})
    task = PretrainTask(
        "big",
        folder,
        tmp_path / "bank",
        multi_view=known["multi_view"],
        resample=resample == "epoch",
        settings=settings,
        resume=True,
        batches=BatchSettings(64, 3),
        memory=12 * N * 3,  # three columns a strip
    )
    # Between strips and in the middle of epochs: a strip is kept, an epoch is undone.
    stops = 0
    while stops < 20:
        try:
            result = pretrain_task(task, lambda content: None, Impatient(14))
            break
        except TrainingInterruptedError:
            stops += 1
    assert 2 < stops < 20
    assert torch.equal(weights(ExpertBank.load(tmp_path / "bank")), weights(whole))
    assert len(result.losses) == 7


def test_another_seed_gives_other_weights(folder: str, tmp_path: Path) -> None:
    banks = [trained(folder, tmp_path / str(seed), seed=seed) for seed in (0, 1)]
    assert not torch.equal(*map(weights, banks))


def test_on_cora_it_is_as_good_as_the_exact_mode(data_root: Path, tmp_path: Path) -> None:
    graph = load_graph("cora", data_root)
    form = MultiView(num_views=0)(graph)
    y, train, test = graph.y.numpy(), graph.train_mask.numpy(), graph.test_mask.numpy()

    def accuracy(name: str, epochs: int, **batches: Any) -> float:
        config = {"optim": {"max_epochs": epochs}, "batches": batches}
        bank = pretrain({name: graph}, config=config, out=tmp_path, progress=False)
        with torch.no_grad():
            h = bank[name](form.x, form.views)
        h = ((h - h.mean(dim=0)) / (h.std(dim=0) + 1e-9)).numpy()
        fitted = LogisticRegression(C=0.01, max_iter=2000).fit(h[train], y[train])
        return float(fitted.score(h[test], y[test]))

    # About as many steps: one an epoch, and six.
    exact = accuracy("exact", 60)
    batches = accuracy("batches", 10, mode="always", size=512, redraw=5)
    assert exact > 0.75
    assert batches == pytest.approx(exact, abs=0.03)


def test_old_turns_leave_the_disk(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[set[str]] = []
    real = BatchLoop._save

    def look(self: BatchLoop, state: Any) -> None:
        seen.append({path.name for path in self.folder.glob("[cp]*.bin")})
        real(self, state)

    monkeypatch.setattr(BatchLoop, "_save", look)
    trained(folder, tmp_path / "bank")
    assert seen[0] == {"clean0.0.bin", "clean1.0.bin", "permuted0.0.bin", "permuted1.0.bin"}
    assert seen[-1] == {"clean0.0.bin", "clean1.0.bin", "permuted0.2.bin", "permuted1.2.bin"}
    assert max(map(len, seen)) == 4


def test_bfloat16_storage_trains_nearly_the_same(folder: str, tmp_path: Path) -> None:
    exact = trained(folder, tmp_path / "a")
    half = trained(folder, tmp_path / "b", changed(batches={"storage": "bfloat16"}))
    losses = [bank.manifest("big").metrics["loss"] for bank in (exact, half)]
    assert losses[0] == pytest.approx(losses[1], abs=0.02)
    assert losses[0] != losses[1]


def test_a_heterogeneous_graph_in_memory_goes_by_batches_as_well(tmp_path: Path) -> None:
    config = changed(batches={"mode": "always", "folder": str(tmp_path / "work")})
    bank = trained("southern_women", tmp_path / "bank", config)
    assert len(bank.manifest("southern_women").views) >= 1
    assert bank.manifest("southern_women").settings["batches"]["size"] == 64
    assert list((tmp_path / "work").iterdir()) == []  # what was kept there is dropped at the end


def test_what_cannot_be_trained_is_refused(folder: str, tmp_path: Path) -> None:
    np.save(tmp_path / "e.npy", np.array([[0, 1], [1, 2]]))
    import_graph([tmp_path / "e.npy"], tmp_path / "plain")
    with pytest.raises(DataError, match=r"no features: import it with some \(--features\)"):
        trained(str(tmp_path / "plain"), tmp_path / "bank", changed(data={"structural": "never"}))
    (tmp_path / "half" / "import").mkdir(parents=True)
    with pytest.raises(MissingDataError, match="its import is not finished"):
        trained(str(tmp_path / "half"), tmp_path / "bank")
    with pytest.raises(ConfigError, match="expected size >= 2, got 1"):
        BatchSettings(size=1)
    with pytest.raises(ConfigError, match="no loss of batches"):
        BatchLoop(object(), None, None, {})  # type: ignore[arg-type]
