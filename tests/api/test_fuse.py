"""Fusing on small real graphs: what comes out, what it stands beside, and that it repeats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch_geometric.data import Data, HeteroData

import graphmoe
from graphmoe.checkpoint import ExpertBank
from graphmoe.data import few_shot_splits, save_splits, splits_fingerprint
from graphmoe.errors import ConfigError, DataError
from graphmoe.evaluation import f1, logistic_probs

GPH2 = "configs/fuse/gph2.yaml"
FLOORS = {f"logistic K={K}" for K in (0, 2, 3, 5)} | {"same, random experts", "same, no experts"}


def fuse(target: Any, bank: Any, config: Any, **options: Any) -> graphmoe.FuseResult:
    given = {"shots": (1, 3), "tasks": 2, "progress": False, **options}
    return graphmoe.fuse(target, bank=bank, config=config, **given)


def scores(result: graphmoe.FuseResult) -> dict[str, Any]:
    return {name: found.scores for name, found in result.results.items()}


def test_scores_are_those_of_the_kept_fusion_on_the_test_nodes_alone(
    bank: ExpertBank, small: dict[str, Any]
) -> None:
    y = graphmoe.load_graph("wine").y
    splits = few_shot_splits(y, 5, 2, seed=4)
    result = fuse("wine", bank, small, shots=(5,), splits=splits)
    mine = f1(result.probs().argmax(dim=1)[splits[0].test], y[splits[0].test], 3)
    assert result.results["fusion"].scores[5][0] == mine
    assert (result.shots, result.splits) == (5, splits_fingerprint(splits))
    # Three cultivars that features nearly separate; a guess gets a third.
    assert all(score.micro > 75 for score in result.results["fusion"].scores[5])


def test_each_member_alone_is_scored_on_the_same_test_nodes(
    bank: ExpertBank, small: dict[str, Any]
) -> None:
    y = graphmoe.load_graph("wine").y
    split = few_shot_splits(y, 3, 1)[0]
    result = fuse("wine", bank, small, shots=(3,), splits=[split])
    alone = result.fitted.expert_probs([m.z for m in result.members])
    wanted = [f1(p.argmax(dim=1)[split.test], y[split.test], 3).micro for p in alone]
    assert result.member_scores[3] == wanted


def test_floors_stand_beside_the_fusion(bank: ExpertBank, small: dict[str, Any]) -> None:
    result = fuse("wine", bank, small)
    assert set(result.results) == FLOORS | {"fusion", "logistic wine@K2", "logistic wine@K5"}
    y, x = result.target.labels, result.target.forms["features"].x
    split = few_shot_splits(y, 3, 2)[1]
    probs = logistic_probs(x, split.train, y[split.train], 3)
    floor = f1(probs.argmax(dim=1)[split.test], y[split.test], 3)
    assert result.results["logistic K=0"].scores[3][1] == floor
    assert scores(fuse("wine", bank, {**small, "floors": False})).keys() == {"fusion"}


def test_members_are_experts_at_their_depths_and_operators(
    bank: ExpertBank, small: dict[str, Any]
) -> None:
    members = fuse("wine", bank, small, shots=(1,), tasks=1).members
    kinds = {m.name: m.kind for m in members}
    assert [name for name in kinds if kinds[name] == "target"] == ["wine@K2", "wine@K5"]
    assert [n for n in kinds if kinds[n] == "other"] == ["karate@K2", "southern_women@K2"]
    assert {n for n in kinds if kinds[n] == "operator"} == {
        f"{walk}({source})"
        for walk in ("lazy4", "base2", "ppr0.05")
        for source in ("features", "both")
    }


def test_weights_before_any_label_can_be_held_out_are_the_prior(
    bank: ExpertBank, small: dict[str, Any]
) -> None:
    config = {**small, "prior": {"target": 2.0, "other": 0.5, "operator": 1.0}}
    result = fuse("wine", bank, config, shots=(1,))
    mass = {"target": 0.0, "other": 0.0, "operator": 0.0}
    for member, weight in zip(result.members, result.alpha[1][:, 0].tolist(), strict=True):
        mass[member.kind] += weight
    assert mass == pytest.approx({"target": 2 / 3.5, "other": 0.5 / 3.5, "operator": 1 / 3.5})


@pytest.mark.parametrize("method", ["prototype", "task_expert"])
def test_the_same_seed_gives_the_same_numbers(
    method: str, bank: ExpertBank, small: dict[str, Any]
) -> None:
    config = {**small, "method": method, "floors": False, "task_expert": {"max_epochs": 15}}
    one, two = (fuse("wine", bank, config, seed=7) for _ in range(2))
    assert scores(one) == scores(two)
    assert all(torch.equal(one.alpha[k], two.alpha[k]) for k in (1, 3))
    assert torch.equal(one.probs(), two.probs())
    assert one.splits == two.splits
    assert fuse("wine", bank, config, seed=8).splits != one.splits


def test_the_random_state_of_the_caller_is_left_alone(
    bank: ExpertBank, small: dict[str, Any]
) -> None:
    before = torch.random.get_rng_state()
    fuse("karate", bank, {**small, "method": "task_expert"}, shots=(1,), tasks=1)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_bank_may_be_a_folder(bank: ExpertBank, bank_path: Path, small: dict[str, Any]) -> None:
    assert scores(fuse("karate", bank_path, small)) == scores(fuse("karate", bank, small))


def test_a_heterogeneous_graph_is_fused_alike(
    bank: ExpertBank, small: dict[str, Any], women: HeteroData
) -> None:
    result = fuse(women, bank, small, shots=(3,))
    assert "WEW2(features)" in [m.name for m in result.members]
    # The cliques go to different events: of six test women at most one is in the wrong clique.
    assert min(result.results["fusion"].micro(3)) > 80


def test_hold_out_leaves_an_expert_out_in_any_case(bank: ExpertBank, small: dict[str, Any]) -> None:
    result = fuse("wine", bank, small, hold_out=["WINE"])
    assert {m.source for m in result.members} == {"karate", "southern_women", "operators"}
    assert not any(name.startswith("logistic wine") for name in result.results)


def test_an_unknown_expert_cannot_be_held_out(bank: ExpertBank, small: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="unknown expert 'karte'.*did you mean 'karate'"):
        fuse("wine", bank, small, hold_out=["karte"])


def test_a_bank_of_one_expert(bank: ExpertBank, small: dict[str, Any]) -> None:
    one = ExpertBank()
    one.add("karate", bank["karate"], bank.manifest("karate"))
    small["members"] |= {"operators": False, "other_depths": [2]}
    result = fuse("wine", one, small, shots=(3,))
    assert [m.name for m in result.members] == ["karate@K2"]
    assert torch.equal(result.alpha[3], torch.ones(1, 3))
    assert result.alpha_entropy[3] == 0


def test_operators_off_and_everyone_held_out_is_nobody(
    bank: ExpertBank, small: dict[str, Any]
) -> None:
    small["members"]["operators"] = False
    result = fuse("wine", bank, small, shots=(3,))
    assert "operator" not in {m.kind for m in result.members}
    assert "same, no experts" not in result.results
    with pytest.raises(ConfigError, match="nobody takes part"):
        fuse("wine", bank, small, hold_out=bank.names)


def test_without_experts_operators_remain(bank: ExpertBank, small: dict[str, Any]) -> None:
    result = fuse("wine", bank, small, hold_out=bank.names)
    assert {m.kind for m in result.members} == {"operator"}
    assert "same, random experts" not in result.results
    assert scores(result)["fusion"] == scores(result)["same, no experts"]


def test_the_published_fusion_from_its_configuration(bank: ExpertBank, repository: Path) -> None:
    config = graphmoe.config.load_config(
        graphmoe.config.FuseConfig, repository / GPH2, {"channels": 16, "floors": False}
    )
    result = fuse("karate", bank, config, shots=(5,), tasks=2)
    assert [m.name for m in result.members] == ["karate@K5", "southern_women@K5", "wine@K5"]
    assert type(result.fitted).__name__ == "TaskExpertFusion"
    assert result.alpha[5].sum(dim=0) == pytest.approx(torch.ones(2))
    # As published: the weights hardly choose.
    assert result.alpha_entropy[5] > 0.9
    assert result.member_scores == {5: []}


def test_published_splits_from_a_file(
    bank: ExpertBank, small: dict[str, Any], tmp_path: Path
) -> None:
    y = graphmoe.load_graph("wine").y
    splits = [split for k in (1, 3) for split in few_shot_splits(y, k, 4, num_val=0, seed=9)]
    save_splits(tmp_path / "wine.npz", splits, y)
    bare = {**small, "floors": False}
    result = fuse("wine", bank, bare, splits=tmp_path / "wine.npz", tasks=3)
    ready = fuse("wine", bank, bare, splits=[*splits[:3], *splits[4:7]])
    assert scores(result) == scores(ready)
    assert result.splits == ready.splits
    assert len(result.results["fusion"].scores[1]) == 3
    with pytest.raises(DataError, match="no splits for 5 shots; it has 1, 3"):
        fuse("wine", bank, small, splits=tmp_path / "wine.npz", shots=(5,))


def test_strict_splits_are_disjoint_and_legacy_ones_are_not(
    bank: ExpertBank, small: dict[str, Any]
) -> None:
    y = graphmoe.load_graph("wine").y
    for protocol, shared in (("strict", False), ("legacy", True)):
        bare = {**small, "floors": False}
        result = fuse("wine", bank, bare, protocol=protocol, shots=(3,), tasks=3)
        splits = few_shot_splits(y, 3, 3, protocol=protocol)
        assert result.splits == splits_fingerprint(splits)
        overlap = [bool(torch.isin(s.train, s.test).any()) for s in splits]
        assert any(overlap) is shared


@pytest.mark.parametrize("shots", [(), (0,), (3, -1), "some"])
def test_wrong_shots(shots: Any, bank: ExpertBank, small: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="shots"):
        fuse("wine", bank, small, shots=shots)


def test_alpha_finds_the_expert_of_the_graph_among_random_ones(
    bank: ExpertBank, small: dict[str, Any]
) -> None:
    """No kind is preferred: what is held out alone decides between one good and six noisy."""
    crowd = ExpertBank()
    crowd.add("wine", bank["wine"], bank.manifest("wine"))
    for seed in range(6):
        noise = bank["karate"]
        torch.manual_seed(seed)
        noise.reset_parameters()
        with torch.no_grad():
            noise.lin.weight[:, 1:] = 0  # one direction of the features: next to nothing is left
        crowd.add(f"noise{seed}", noise, bank.manifest("karate"))
    small["members"] = {"depths": [2], "other_depths": [2], "operators": False}
    # A kind's mass is shared by its members: six to one is the same weight for each.
    config = {**small, "prior": {"target": 1.0, "other": 6.0, "operator": 1.0}}
    result = fuse("wine", crowd, {**config, "floors": False}, shots=(1, 5), tasks=5)
    place = [m.name for m in result.members].index("wine@K2")
    assert result.alpha[1][place] == pytest.approx(torch.full((3,), 1 / 7))
    assert bool((result.alpha[5][place] > 0.4).all())
    assert result.alpha[5].argmax(dim=0).tolist() == [place] * 3
    assert result.member_scores[5][place] == max(result.member_scores[5])


def test_the_record_is_plain_json_with_every_score(bank: ExpertBank, small: dict[str, Any]) -> None:
    result = fuse("karate", bank, small)
    record = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert record["scored"] is True
    assert record["num_classes"] == 2
    micro = record["results"]["fusion"]["3"]["micro"]
    assert micro == result.results["fusion"].micro(3)
    assert record["results"]["fusion"]["3"]["micro_mean"] == pytest.approx(sum(micro) / 2)
    assert torch.tensor(record["alpha"]["3"]) == pytest.approx(result.alpha[3])


def test_scores_by_degree_of_a_graph_with_lonely_nodes(
    bank: ExpertBank, small: dict[str, Any]
) -> None:
    data = graphmoe.load_graph("karate")
    lonely = (data.edge_index[0] % 7 == 3) | (data.edge_index[1] % 7 == 3)
    data = Data(x=data.x, y=data.y, edge_index=data.edge_index[:, ~lonely])
    splits = few_shot_splits(data.y, 3, 2, seed=1)
    result = fuse(data, bank, {**small, "floors": False}, shots=(3,), splits=splits)
    pred = result.probs().argmax(dim=1)
    wanted: dict[str, list[bool]] = {}
    for node in splits[0].test.tolist():
        around = {b for a, b in data.edge_index.t().tolist() if a == node}
        around |= {a for a, b in data.edge_index.t().tolist() if b == node}
        degree = len(around - {node})
        bucket = next(b for b, high in (("isolated", 0), ("one", 1), ("few", 5), ("some", 20))
                      if degree <= high)  # fmt: skip
        wanted.setdefault(bucket, []).append(bool(pred[node] == data.y[node]))
    assert "isolated" in wanted
    table = result.to_dict()["degrees"]["fusion"]["3"]
    for bucket, row in table.items():
        right = wanted.get(bucket, [])
        assert (row["count"][0], len(row["micro"])) == (len(right), 2)
        assert row["micro"][0] == (pytest.approx(100 * sum(right) / len(right)) if right else None)


def test_what_is_printed_is_what_was_found(
    bank: ExpertBank, small: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    result = fuse("karate", bank, small, progress=True)
    told = capsys.readouterr().out
    for name, found in result.results.items():
        [line] = [text for text in told.splitlines() if text.strip().startswith(f"{name}  ")]
        for k in (1, 3):
            micro = found.micro(k)
            assert f"{sum(micro) / len(micro):.1f} ± " in line
    assert "1 shot, micro" in told
    assert f"entropy {result.alpha_entropy[3]:.2f} of the maximum" in " ".join(told.split())
    assert repr(result).startswith("FuseResult(karate, ")
    assert f"3 shots {sum(result.results['fusion'].micro(3)) / 2:.1f})" in repr(result)
