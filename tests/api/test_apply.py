"""Embeddings and predictions: of the graph that was fused, of copies of it, and of others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

import graphmoe
from graphmoe.checkpoint import ExpertBank
from graphmoe.errors import ConfigError, VerificationError
from graphmoe.transforms import MultiView


@pytest.fixture
def fused(bank: ExpertBank, small: dict[str, Any], tmp_path: Path) -> graphmoe.FuseResult:
    """A fusion on wine, kept in the folder ``run``; its seed is not the default one."""
    return graphmoe.fuse(
        "wine",
        bank=bank,
        config={**small, "floors": False},
        shots=(3,),
        tasks=1,
        seed=11,
        out=tmp_path / "run",
        progress=False,
    )


def test_predicting_the_same_graph_gives_what_fusing_found(
    fused: graphmoe.FuseResult, bank_path: Path, tmp_path: Path
) -> None:
    probs = graphmoe.predict("wine", bank=bank_path, run=tmp_path / "run")
    assert torch.equal(probs, fused.probs())


def test_a_copy_without_labels_is_predicted_alike(
    fused: graphmoe.FuseResult, bank: ExpertBank, tmp_path: Path
) -> None:
    bare = graphmoe.load_graph("wine")
    del bare.y
    probs = graphmoe.predict(bare, bank=bank, run=tmp_path / "run")
    assert torch.equal(probs, fused.probs())


def test_experts_that_joined_since_change_nothing(
    fused: graphmoe.FuseResult, bank: ExpertBank, tmp_path: Path
) -> None:
    larger = ExpertBank()
    larger.add("another", bank["karate"], bank.manifest("karate"))
    for name in bank.names:
        larger.add(name, bank[name], bank.manifest(name))
    assert torch.equal(graphmoe.predict("wine", bank=larger, run=tmp_path / "run"), fused.probs())


def test_a_graph_with_other_views_is_told(
    fused: graphmoe.FuseResult, bank: ExpertBank, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"other views or features: .*base2\(features\)"):
        graphmoe.predict("southern_women", bank=bank, run=tmp_path / "run")


def test_an_expert_that_left_is_named(
    fused: graphmoe.FuseResult, bank: ExpertBank, tmp_path: Path
) -> None:
    fewer = ExpertBank()
    fewer.add("karate", bank["karate"], bank.manifest("karate"))
    for apply in (graphmoe.predict, graphmoe.embed):
        with pytest.raises(ConfigError, match="needs the experts southern_women, wine, the bank"):
            apply("wine", bank=fewer, run=tmp_path / "run")


def test_an_expert_that_was_trained_again_is_noticed(
    fused: graphmoe.FuseResult, bank: ExpertBank, tmp_path: Path
) -> None:
    changed = ExpertBank()
    for name in bank.names:
        changed.add(name, bank[name], bank.manifest(name))
    other = bank["wine"]
    torch.nn.init.zeros_(other.lin.bias[:1])
    other.lin.bias.data[0] += 1
    changed.add("wine", other, bank.manifest("wine"), overwrite=True)
    with pytest.raises(VerificationError, match="'wine' was trained again"):
        graphmoe.predict("wine", bank=changed, run=tmp_path / "run")


def test_each_expert_embeds_at_the_depth_it_was_trained_with(bank: ExpertBank) -> None:
    found = graphmoe.embed("wine", bank=bank)
    assert sorted(found) == ["karate", "southern_women", "wine"]
    expert, data = bank["wine"], MultiView(channels=16, num_views=0)(graphmoe.load_graph("wine"))
    expert.recalibrate(data.x, data.views, expert.K)
    with torch.no_grad():
        assert torch.allclose(found["wine"], expert(data.x, data.views), atol=1e-6)


def test_experts_of_several_widths_embed_one_graph(bank: ExpertBank) -> None:
    mixed = ExpertBank()
    mixed.add("wine", bank["wine"], bank.manifest("wine"))
    mixed.add("wide", graphmoe.nn.MultiViewEncoder(24, 8))
    found = graphmoe.embed("wine", bank=mixed)
    assert {name: tuple(z.shape) for name, z in found.items()} == {
        "wine": (178, 16),
        "wide": (178, 8),
    }


def test_fused_inner_products_are_the_weighted_cosines_of_the_members(
    fused: graphmoe.FuseResult, bank: ExpertBank, tmp_path: Path
) -> None:
    [z] = graphmoe.embed("wine", bank=bank, run=tmp_path / "run").values()
    weight = fused.alpha[3].mean(dim=1)
    rows = [F.normalize(m.z[:20], dim=1) for m in fused.members]
    wanted = sum(w * (r @ r.T) for w, r in zip(weight, rows, strict=True))
    assert torch.allclose(z[:20] @ z[:20].T, wanted, atol=1e-5)


def test_embeddings_as_files(bank: ExpertBank, tmp_path: Path) -> None:
    found = graphmoe.embed("wine", bank=bank, out=tmp_path / "deep" / "z.npz")
    with np.load(tmp_path / "deep" / "z.npz", allow_pickle=False) as stored:
        assert set(stored.files) == set(found)
        assert all(np.array_equal(stored[name], found[name].numpy()) for name in found)
    graphmoe.embed("wine", bank=bank, out=tmp_path / "z.npy")
    together = np.load(tmp_path / "z.npy", allow_pickle=False)
    assert np.array_equal(together, np.concatenate([z.numpy() for z in found.values()], axis=1))
    graphmoe.embed("wine", bank=bank, out=tmp_path / "z.parquet")
    table = pd.read_parquet(tmp_path / "z.parquet")
    assert table.shape == (178, 48)
    assert np.array_equal(table["wine_3"].to_numpy(), found["wine"][:, 3].numpy())


def test_predictions_as_files(fused: graphmoe.FuseResult, bank: ExpertBank, tmp_path: Path) -> None:
    wanted = fused.probs().numpy()
    for ending in ("npy", "npz", "parquet"):
        path = tmp_path / f"p.{ending}"
        graphmoe.predict("wine", bank=bank, run=tmp_path / "run", out=path)
    assert np.array_equal(np.load(tmp_path / "p.npy"), wanted)
    with np.load(tmp_path / "p.npz") as stored:
        assert np.array_equal(stored["probs"], wanted)
        assert np.array_equal(stored["pred"], wanted.argmax(axis=1))
    table = pd.read_parquet(tmp_path / "p.parquet")
    assert list(table.columns) == ["probs_0", "probs_1", "probs_2", "pred", "class"]
    assert np.array_equal(table[["probs_0", "probs_1", "probs_2"]].to_numpy(), wanted)
    assert np.array_equal(table["pred"].to_numpy(), wanted.argmax(axis=1))


def test_tables_name_people_and_clubs_as_the_graph_does(bank: ExpertBank, tmp_path: Path) -> None:
    data = graphmoe.load_graph("karate")
    known = data.clone()
    known.y = torch.where(torch.isin(torch.arange(34), torch.tensor([0, 1, 2, 32, 33])), data.y, -1)
    small = {"channels": 16, "members": {"other_depths": [2]}}
    config = {"config": small, "shots": "all", "progress": False}
    graphmoe.fuse(known, bank=bank, out=tmp_path / "run", **config)
    del known.y  # the names of the classes are those of the graph that was fused
    graphmoe.predict(known, bank=bank, run=tmp_path / "run", out=tmp_path / "p.csv")
    table = pd.read_csv(tmp_path / "p.csv")
    assert list(table.columns) == ["node", "probs_0", "probs_1", "pred", "class"]
    assert list(map(str, table["node"])) == data.node_names
    assert set(table["class"]) == {"Mr. Hi", "Officer"}
    assert (table["pred"].to_numpy() == data.y.numpy()).mean() > 0.9


def test_a_wrong_ending_is_told_before_anything_is_read(tmp_path: Path) -> None:
    for apply in (graphmoe.predict, graphmoe.embed):
        with pytest.raises(ConfigError, match=r"ending in \.npy, .*, \.csv, got 'z\.txt'"):
            apply("nothing", bank="nowhere", run="nowhere", out=tmp_path / "z.txt")
