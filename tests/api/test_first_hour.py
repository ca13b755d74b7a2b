"""What a person writes in the first hour is understood, and what comes back can be read."""

from __future__ import annotations

from pathlib import Path

import pytest

import graphmoe
from graphmoe.checkpoint import ExpertBank


def test_shots_may_be_one_number(bank: ExpertBank) -> None:
    config = {"channels": 16, "floors": False, "members": {"other_depths": [2]}}
    result = graphmoe.fuse("iris", bank=bank, config=config, shots=3, tasks=1, progress=False)
    assert result.shots == 3
    assert set(result.alpha) == {3}


def test_a_recommendation_prints_in_one_line(tmp_path: Path) -> None:
    config = {"model": {"name": "Popularity"}, "evaluation": {"ks": [5]}}
    result = graphmoe.recommend(config=config, out=tmp_path / "run", progress=False)
    recall, ndcg = result.mean()["recall@5"], result.mean()["ndcg@5"]
    said = f"1 seeds, test: recall@5 {recall:.4f}, ndcg@5 {ndcg:.4f})"
    assert repr(result) == f"RecommendResult(Popularity, {tmp_path / 'run'}, {said}"


def test_a_graph_without_a_name_is_told_how_to_get_one(tmp_path: Path) -> None:
    data = graphmoe.load_graph("karate")
    for graphs in (data, [data]):
        with pytest.raises(TypeError, match=r"pretrain\({'mine': graph}, …\): got a bare Data"):
            graphmoe.pretrain(graphs, out=tmp_path / "bank", progress=False)
    assert not (tmp_path / "bank").exists()
