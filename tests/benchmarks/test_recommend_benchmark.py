"""The benchmark of recommendation: what it trains, compares, times and claims, on small data."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from graphmoe.data.interactions import Interactions, planted_interactions
from graphmoe.evaluation import evaluate_scores
from graphmoe.training import TrainingInterruptedError

FEW = {"optim": {"max_epochs": 2, "batch_size": 64}, "model": {"hyper": {"embedding_dim": 8}}}


@pytest.fixture(scope="module", autouse=True)
def _importable(repository: Path) -> Iterator[None]:
    sys.path.insert(0, str(repository / "benchmarks"))
    yield
    sys.path.pop(0)


@pytest.fixture(scope="module")
def data() -> Interactions:
    return planted_interactions(40, 30, 6, groups=3, cold=0.1).interactions


@pytest.fixture(scope="module")
def work(data: Interactions, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import recommend_runs as runs

    folder = tmp_path_factory.mktemp("work")
    rows = runs.quality_rows(["Popularity"], "planted", 2, {})
    rows += runs.quality_rows(["LightGCN"], "planted", 2, FEW)
    runs.run_rows(rows, data, (0, 1), folder)
    return folder


def test_every_finished_run_is_a_line_and_is_not_made_again(
    data: Interactions, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import recommend_runs as runs

    found = runs.read_runs(work)
    # Nothing is drawn in counting: one seed says it all.
    assert [(run["row"], run["seed"]) for run in found] == [
        ("Popularity", 0), ("LightGCN", 0), ("LightGCN", 1),
    ]  # fmt: skip
    search = json.loads((work / "LightGCN" / "search.json").read_text())
    assert len(search["trials"]) == 2
    assert found[1]["trials"] == 2
    assert found[1]["config"]["model"]["hyper"]["embedding_dim"] == 8
    assert found[1]["config"] == found[2]["config"]  # one search for all seeds
    before = (work / runs.RUNS).read_text()
    monkeypatch.setattr(runs, "recommend", lambda *_, **__: pytest.fail("trained again"))
    runs.run_rows(runs.quality_rows(["LightGCN"], "planted", 2, FEW), data, (0, 1), work)
    assert (work / runs.RUNS).read_text() == before


def test_a_row_that_fails_does_not_stop_the_others(
    data: Interactions, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import recommend_runs as runs

    wrong = runs.quality_rows(["ItemKNN"], "planted", 0, {"model": {"hyper": {"k": 0}}})
    fine = runs.quality_rows(["ItemKNN"], "planted", 0, {})[0]
    [failed] = runs.run_rows([*wrong, dataclasses.replace(fine, name="other")], data, (0,), work)
    assert failed.startswith("ItemKNN: ")
    assert "other, seed 0: recall@20 0." in capsys.readouterr().out
    lines = (work / runs.RUNS).read_text().splitlines()
    (work / runs.RUNS).write_text("\n".join(lines[:-1]) + "\n")


def test_an_interruption_stops_all_rows(
    data: Interactions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import recommend_runs as runs

    asked = []

    def interrupted(*_: object, **keywords: object) -> None:
        asked.append(keywords["out"])
        raise TrainingInterruptedError("stopped after epoch 3")

    monkeypatch.setattr(runs, "recommend", interrupted)
    rows = runs.quality_rows(["LightGCN", "BPRMF"], "planted", 0, FEW)
    with pytest.raises(TrainingInterruptedError, match="after epoch 3"):
        runs.run_rows(rows, data, (0,), tmp_path)
    assert len(asked) == 1


def test_half_a_line_is_no_run(work: Path, tmp_path: Path) -> None:
    import recommend_runs as runs

    whole = (work / runs.RUNS).read_text()
    (tmp_path / runs.RUNS).write_text(whole[: len(whole) - 100])
    assert len(runs.read_runs(tmp_path)) == len(runs.read_runs(work)) - 1


def test_figures_are_those_of_the_runs(data: Interactions, work: Path) -> None:
    import recommend_runs as runs
    from recommend_summary import summarize

    found = runs.read_runs(work)
    result = summarize(found, data)
    assert set(result["rows"]) == {"Popularity", "LightGCN"}
    assert result["best"] in result["rows"]
    assert "claims" not in result  # there is none of ours
    row = result["rows"]["LightGCN"]
    for figure in ("recall@10", "ndcg@20", "recall@100"):
        each = [run["test"][figure] for run in found if run["row"] == "LightGCN"]
        assert row[figure]["mean"] == pytest.approx(sum(each) / 2)
    tail = [run["test"]["items by degree"]["tail"]["hit@10"] for run in found[1:]]
    assert row["tail@10"]["mean"] == pytest.approx(sum(tail) / 2)  # one held-out item a user


def made_runs(data: Interactions) -> dict[str, Any]:
    """Places that are known: ours finds every item, a baseline none on the tail and half else."""
    held = evaluate_scores(lambda u: torch.zeros(len(u), data.num_items), data, "test", (100,))
    degree = held.item_degree[held.item]
    half = torch.where((degree > 5) & (torch.arange(len(degree)) % 2 == 0), 0, 100)
    places = {
        "MAGNET": torch.zeros_like(half),
        "LightGCN": half,
        "Popularity": torch.full_like(half, 100),
        "features=shuffled": half,
        "moe=off": torch.zeros_like(half),
    }
    users = {"users by degree": {}, "coverage@20": 0.5, "popularity@20": 3.0}
    rank = {"MAGNET": 0.9, "LightGCN": 0.4, "Popularity": 0.1}
    config: dict[str, Any] = {"model": {"name": "?", "hyper": {}}, "optim": {}}
    return {
        "runs": [
            {"row": name, "seed": seed, "model": name, "config": config, "trials": 0}
            | {"parameters": 1, "training": {"epochs": 1, "seconds": 1.0}, "test": users}
            | {"valid": {"recall@20": rank.get(name, 0.0), "ndcg@20": 0.0}, "place": place.tolist()}
            for name, place in places.items()
            for seed in (0, 1)
        ],
        "half": float(dataclasses.replace(held, place=half).recall(20).mean()),
    }


def test_claims_follow_from_the_places(data: Interactions) -> None:
    from recommend_summary import summarize

    made = made_runs(data)
    result = summarize(made["runs"], data)
    assert result["best"] == "LightGCN"
    claims = result["claims"]
    assert claims["recall@20"]["ours"] == 1.0
    assert claims["recall@20"]["gain"] == pytest.approx(1 / made["half"] - 1)
    assert claims["recall@20"]["held"]
    assert claims["tail@100"] == {}  # no baseline comes near
    assert claims["cold@100"]["shown"] is (3 * 100 / data.num_items < 1)
    assert claims["shuffled features lose the tail"]["held"]
    assert claims["elements"] == {"moe=off": "not shown", "features=shuffled": "helps"}
    assert result["ours minus"]["moe=off"]["recall@20"]["p"] == 1.0
    turned = {"MAGNET": "LightGCN", "LightGCN": "MAGNET"}
    runs = [{**run, "row": turned.get(run["row"], run["row"])} for run in made["runs"]]
    worse = summarize(runs, data)["claims"]
    assert not worse["recall@20"]["held"]
    assert worse["recall@20"]["high"] < 0
    tail = worse["tail@100"]["LightGCN"]
    assert not tail["held"]
    assert tail["difference"] == pytest.approx(-2.0)


def test_tables_have_a_row_for_each_model(data: Interactions) -> None:
    import recommend_tables as tables
    from recommend_summary import summarize

    result = summarize(made_runs(data)["runs"], data)
    lines = tables.quality(result).splitlines()
    assert len(lines) == 2 + 5
    assert "| MAGNET | 1.0000 ± 0.0000 |" in lines[2]
    assert lines[3].startswith("| **LightGCN** |")
    assert "| moe=off |" in tables.buckets(result)
    result["published"] = {"recall@20": 0.1089}
    assert "| – | 0.1089 |" in tables.quality(result).splitlines()[-1]


def test_shipped_settings_are_taken_and_changed(repository: Path) -> None:
    import recommend_runs as runs

    config = runs.config_of("ItemKNN", "tiktok", {"optim": {"lr": 0.5}})
    assert config["model"]["hyper"]["by"] == "content"
    assert config["optim"]["lr"] == 0.5
    assert config["evaluation"]["ks"] == [10, 20, 100]
    assert runs.config_of("ItemKNN", "unheard-of", {})["model"] == {"name": "ItemKNN"}


def test_shuffled_features_are_the_same_rows_elsewhere(data: Interactions) -> None:
    import recommend_runs as runs

    moved = runs.shuffled(data)
    assert moved.user.equal(data.user)
    for name, modality in data.modalities.items():
        other = moved.modalities[name].features
        assert not other.equal(modality.features)
        assert other.sort(dim=0).values.equal(modality.features.sort(dim=0).values)
        same = (other.view(-1, 1, other.size(1)) == modality.features).all(dim=2).any(dim=1)
        assert same.all()


def test_ablations_need_a_finished_run_of_ours(work: Path) -> None:
    import recommend_runs as runs

    with pytest.raises(SystemExit, match="measure quality first"):
        runs.ablation_rows(work, ["moe=off"], runs.read_runs(work))


def test_an_ablation_that_changes_nothing_is_left_out(tmp_path: Path) -> None:
    import recommend_runs as runs

    full = {"model": {"name": "MAGNET", "hyper": {"k": 3, "side_weight": 0.5}}, "optim": {"lr": 1}}
    names = ["topk=1", "topk=3", "moe=off", "features=shuffled"]
    rows = runs.ablation_rows(tmp_path, names, [{"row": "MAGNET", "config": full}])
    assert [row.name for row in rows] == ["topk=1", "moe=off", "features=shuffled"]
    assert rows[0].config["model"]["hyper"] == {"k": 1, "side_weight": 0.5}
    assert rows[1].config["model"]["hyper"]["moe"] is False
    assert [row.shuffled for row in rows] == [False, False, True]
    assert all(row.config["optim"] == {"lr": 1} for row in rows)


def test_times_and_ratios() -> None:
    import recommend_speed as speed

    job = {"question": "time", "data": "planted_tastes", "data_root": None, "rounds": 1}
    job |= {"models": ["LightGCN"], "hyper": {"LightGCN": {"embedding_dim": 8}}}
    found = speed.run_worker(job | {"batch_size": 512, "threads": 1, "seed": 0})
    assert set(found["ranking"]) == {"LightGCN", "dot product"}
    assert found["epoch"]["LightGCN"]["best_s"] > 0
    times = {"LightGCN": 2.0, "MGCN": 9.0, "MAGNET": 8.5, "dot product": 0.5}
    found = {
        what: {
            name: {"best_s": s, "all_s": [s, 2 * s]}
            for name, s in times.items()
            if (name != "dot product") or what == "ranking"
        }
        for what in ("epoch", "evaluation", "ranking")
    }
    result = speed.summarize(found)
    assert result["ratios"]["epoch / LightGCN"] == {"ratio": 4.25, "quartiles": [4.25, 4.25]}
    assert result["held"] == {
        "epoch / LightGCN": False, "epoch / MGCN": True,
        "ranking": False, "ranking, floor": False,
    }  # fmt: skip


def test_growth_of_generated_data() -> None:
    import recommend_growth as growth

    job = {"model": "LightGCN", "items": 50, "hyper": {"embedding_dim": 8}, "rounds": 1}
    job |= {"batch_size": 256, "steps": 2, "threads": 1, "seed": 0}
    found = [growth.run_worker(job | {"pairs": pairs}) for pairs in (500, 1000)]
    assert [run["users"] for run in found] == [25, 50]
    assert all(run[what] > 0 for run in found for what in ("graph_s", "step_s", "ranking_all_s"))
    lines = [
        {"model": "A", "edges": n} | dict.fromkeys(growth.GROWING, 2e-06 * n)
        for n in (100, 1000, 10_000)
    ]
    lines[2]["step_s"] *= 10.0
    result = growth.summarize(lines)
    rows = result["growth"]["A"]
    assert rows["graph_s"]["slopes"] == pytest.approx([1.0, 1.0])
    assert rows["step_s"]["slopes"] == pytest.approx([1.0, 2.0])
    assert rows["step_s"]["slope"] == pytest.approx(1.5)
    assert result["held"] == {f"A, {what}": what != "step_s" for what in growth.GROWING}
