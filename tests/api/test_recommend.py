"""A recommendation run: one folder, every figure in it, read back as it was written."""

from __future__ import annotations

import csv
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from graphmoe.api import evaluate_run, load_recommender, recommend, recommend_top
from graphmoe.api.recommend_run import compare_runs
from graphmoe.checkpoint.sealed import load_sealed
from graphmoe.data.interactions import Interactions, Modality, to_hetero
from graphmoe.errors import ConfigError, DataError, MissingDataError, VerificationError
from graphmoe.evaluation.bootstrap import paired_bootstrap
from graphmoe.evaluation.ranking import evaluate_ranking
from graphmoe.training.run import RunError
from graphmoe.transforms.content_knn import ContentKNN

SMALL: dict[str, Any] = {
    "model": {"name": "LightGCN", "hyper": {"embedding_dim": 8}},
    "optim": {"max_epochs": 6, "batch_size": 64, "lr": 0.02},
    "evaluation": {"ks": [5, 20]},
}


def made(name: str = "tastes", seed: int = 0) -> Interactions:
    """Users of two tastes: the first half of the items, or the second; a look of the items."""
    generator = torch.Generator().manual_seed(seed)
    users, items = 40, 60
    own = torch.arange(items)[None] // 30 == (torch.arange(users) % 2)[:, None]
    score = torch.rand(users, items, generator=generator) + own
    item = score.topk(9, dim=1).indices.sort(dim=1).values.flatten()
    user = torch.arange(users).repeat_interleave(9)
    split = torch.tensor([0, 0, 0, 1, 0, 0, 2, 0, 0], dtype=torch.int8).repeat(users)
    look = Modality(torch.randn(items, 6, generator=generator), torch.ones(items) > 0)
    ids = (np.array([f"u{u}" for u in range(users)]), np.arange(items))
    return Interactions(name, user, item, split, *ids, modalities={"look": look})


DATA = made()


def run(out: Path, data: Any = DATA, **arguments: Any) -> Any:
    return recommend(data, **{"config": SMALL, "out": out, "progress": False, **arguments})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "run"
    run(out, seeds=[0, 3])
    return out


def test_everything_is_in_the_folder(finished: Path) -> None:
    seed = finished / "seed-3"
    there = {path.name for path in seed.iterdir()}
    wanted = {"model.json", "model.safetensors", "metrics.json", "epochs.jsonl"}
    assert there == wanted | {"users.safetensors", "degrees.png"}
    model = load_sealed(seed / "model.json")
    assert (model["class"], model["hyper"]) == ("LightGCN", {"embedding_dim": 8})
    assert model["identity"]["data"] == DATA.fingerprint()
    records = [json.loads(line) for line in (seed / "epochs.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records] == [1, 2, 3, 4, 5, 6]
    rows = list(csv.DictReader((finished / "logs" / "seed-3" / "metrics.csv").open()))
    assert [float(row["valid/recall@20"]) for row in rows] == [
        record["valid/recall@20"] for record in records
    ]
    metrics = load_sealed(seed / "metrics.json")
    best = max(records, key=lambda r: (r["valid/recall@20"], -r["epoch"]))
    assert metrics["training"]["best_epoch"] == best["epoch"]
    assert metrics["valid"]["recall@20"] == best["valid/recall@20"]  # the best weights are kept
    assert load_sealed(finished / "config.json")["config"]["seeds"] == [0, 3]


def test_a_model_read_back_scores_as_it_did(finished: Path) -> None:
    found = load_recommender(finished, seed=3, source=DATA)
    assert (found.seed, found.config.model.name) == (3, "LightGCN")
    assert not found.model.training
    metrics = load_sealed(finished / "seed-3" / "metrics.json")
    result = evaluate_ranking(found.model, found.interactions, "test", (5, 20)).mean()
    assert {name: metrics["test"][name] for name in result} == result


def test_mean_and_deviation_are_those_of_the_seeds(finished: Path) -> None:
    metrics = load_sealed(finished / "metrics.json")
    each = [metrics["seeds"][seed]["test"]["recall@5"] for seed in ("0", "3")]
    assert each[0] != each[1]
    told = metrics["mean"]["test"]["recall@5"]
    assert told["mean"] == pytest.approx(statistics.mean(each), abs=1e-12)
    assert told["std"] == pytest.approx(statistics.stdev(each), abs=1e-12)


def test_evaluating_again_gives_the_same_figures(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    found = evaluate_run(finished, source=DATA, out=out)
    metrics = load_sealed(finished / "metrics.json")
    assert found["mean"]["test"] == metrics["mean"]["test"]
    assert json.loads(out.read_text())["mean"]["test"] == metrics["mean"]["test"]
    other = evaluate_run(finished, source=DATA, part="valid", ks=(3,))
    assert set(other["mean"]) == {"valid"}
    assert "recall@3" in other["mean"]["valid"]


def test_jobs_do_not_change_a_bit(finished: Path, tmp_path: Path) -> None:
    run(tmp_path, seeds=[0, 3], jobs=2)
    for seed in (0, 3):
        files = [folder / f"seed-{seed}" / "model.safetensors" for folder in (finished, tmp_path)]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_comparison_with_another_run(finished: Path, tmp_path: Path) -> None:
    floor = {**SMALL, "model": {"name": "Popularity"}}
    run(tmp_path / "floor", config=floor)
    result = run(tmp_path / "run", seeds=[0, 3], against=tmp_path / "floor")
    told = result.metrics["against"]
    assert told["model"] == "Popularity"
    ours = torch.stack(
        [
            evaluate_ranking(
                load_recommender(finished, seed=s, source=DATA).model, DATA, "test", (20,)
            ).recall(20)
            for s in (0, 3)
        ]
    )
    theirs = load_recommender(tmp_path / "floor", source=DATA).model
    test = paired_bootstrap(ours, evaluate_ranking(theirs, DATA, "test", (20,)).recall(20))
    assert told["recall@20"] == test.to_dict()
    run(tmp_path / "other", made(seed=1))
    with pytest.raises(DataError, match="different data"):
        compare_runs(tmp_path / "run", tmp_path / "other")
    with pytest.raises(MissingDataError, match="no run at"):
        run(tmp_path / "late", against=tmp_path / "nowhere")
    assert not (tmp_path / "late").exists()  # said before hours of training


def test_what_is_not_trained_is_evaluated(tmp_path: Path) -> None:
    result = run(tmp_path, config={**SMALL, "model": {"name": "ItemKNN", "hyper": {"k": 5}}})
    assert result.metrics["seeds"]["0"]["training"]["epochs"] == 0
    assert 0 < result.mean("test")["recall@20"] < 1
    assert load_recommender(tmp_path, source=DATA).model.k == 5


def test_the_best_trial_on_validation_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = {"optim.lr": {"log": [1e-5, 0.1]}, "model.hyper.num_layers": {"choice": [1, 2]}}
    config = {**SMALL, "trials": {"space": space, "max_epochs": 3}}
    result = run(tmp_path, config=config, search=5, progress=True)
    printed = capsys.readouterr().out
    told = load_sealed(tmp_path / "search.json")
    scores = [trial["score"] for trial in told["trials"]]
    best = told["trials"][max(range(5), key=lambda t: (scores[t], -t))]
    assert told["best"] == best["trial"]
    assert told["trials"][0]["settings"] == {}
    assert len({json.dumps(trial["settings"]) for trial in told["trials"]}) == 5
    rows = [line.split() for line in printed.splitlines() if line.strip().startswith("trial-")]
    assert rows[0][:2] == [best["trial"], f"{best['score']:.4f}"]
    settings = best["settings"] or {"optim.lr": 0.02}
    assert result.config.optim.lr == settings["optim.lr"]
    assert result.config.optim.max_epochs == 6  # a trial's epochs are the trial's alone
    for folder in (tmp_path / "search").glob("trial-*"):
        assert "test" not in load_sealed(folder / "metrics.json")
        assert len((folder / "epochs.jsonl").read_text().splitlines()) == 3
    assert "test" in result.metrics["mean"]


def test_a_trial_that_diverges_loses(tmp_path: Path) -> None:
    space = {"optim.lr": {"choice": [1e30]}}
    config = {**SMALL, "trials": {"space": space}}
    result = run(tmp_path, config=config, search=2)
    first, second = load_sealed(tmp_path / "search.json")["trials"]
    assert second["score"] is None
    assert "the loss became" in second["error"]
    assert first["score"] is not None
    assert result.config.optim.lr == 0.02


def test_predictions_name_original_ids_and_leave_out_what_is_known(
    finished: Path, tmp_path: Path
) -> None:
    out = tmp_path / "best.csv"
    best = recommend_top(finished, out=out, users=["u3", "u5"], top=4, source=DATA)
    rows = list(csv.DictReader(out.open()))
    assert [(row["user"], row["rank"]) for row in rows] == [
        (user, str(place)) for user in ("u3", "u5") for place in (1, 2, 3, 4)
    ]
    known = set(DATA.item[DATA.user == 3].tolist())
    assert not known & {int(row["item"]) for row in rows if row["user"] == "u3"}
    gave = sum(best.gave.values())
    assert np.allclose(gave, best.score, rtol=1e-5, atol=1e-6)


def test_a_finished_run_is_kept_or_refused(finished: Path) -> None:
    before = (finished / "seed-0" / "model.safetensors").stat().st_mtime_ns
    with pytest.raises(ConfigError, match=r"there is a run in .*--resume"):
        run(finished, seeds=[0, 3])
    run(finished, seeds=[0, 3], resume=True)
    assert (finished / "seed-0" / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(ConfigError, match=r"other settings: optim\.lr: 0\.02 → 0\.5;"):
        run(finished, config={**SMALL, "optim": {**SMALL["optim"], "lr": 0.5}}, resume=True)
    assert load_recommender(finished, source=DATA).config.optim.lr == 0.02


def test_a_run_can_be_given_more_seeds(tmp_path: Path) -> None:
    run(tmp_path)
    first = (tmp_path / "seed-0" / "model.safetensors").stat().st_mtime_ns
    result = run(tmp_path, seeds=[1], resume=True)
    assert set(result.metrics["seeds"]) == {"0", "1"}
    assert (tmp_path / "seed-0" / "model.safetensors").stat().st_mtime_ns == first


def test_a_graph_of_ones_own(finished: Path, tmp_path: Path) -> None:
    result = run(tmp_path, to_hetero(DATA))
    assert result.config.data.source == "tastes"  # nobody is told a wrong origin
    assert 0 < result.mean("test")["recall@20"] <= 1
    assert load_recommender(finished, source=DATA).config.data.source == "tastes"
    with pytest.raises(ConfigError, match="'tastes'"):
        load_recommender(finished)  # in memory then, nowhere now


def test_other_data_is_not_taken_for_that_of_the_training(finished: Path) -> None:
    with pytest.raises(VerificationError, match="trained on other data"):
        load_recommender(finished, source=made(seed=1))
    with pytest.raises(MissingDataError, match=r"no seed 7; finished are \[0, 3\]"):
        load_recommender(finished, seed=7, source=DATA)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"config": {"model": {"name": "LightGCM"}}}, "LightGCN"),
        ({"config": {"model": {"name": "LightGCN", "hyper": {"dim": 3}}}}, "hyper.dim"),
        ({"config": {"model": {"name": "LightGCN", "hyper": {"embedding_dim": "x"}}}}, "got 'x'"),
        ({"seeds": [1, 1]}, "expected different ones"),
        ({"seeds": []}, "seeds"),
        ({"device": "tpu"}, "unknown device 'tpu'"),
        ({"config": {**SMALL, "trials": {"space": {"optim.lrr": {"choice": [1]}}}}, "search": 2},
         "optim.lrr"),
    ],
)  # fmt: skip
def test_mistakes_show_before_anything_is_trained(
    tmp_path: Path, arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        run(tmp_path / "run", **arguments)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_nothing_to_validate_on(tmp_path: Path) -> None:
    split = DATA.split.clone()
    split[split == 1] = 0
    data = Interactions("x", DATA.user, DATA.item, split, DATA.user_ids, DATA.item_ids)
    with pytest.raises(DataError, match="valid"):
        run(tmp_path, data)


def test_one_seed_that_fails_does_not_lose_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from graphmoe.training import recommend_task as module

    real = module.build_recommender

    def build(name: str, hyper: Any, graph: Any, seed: int = 0) -> Any:
        if seed == 1:
            raise DataError("no luck")
        return real(name, hyper, graph, seed)

    monkeypatch.setattr(module, "build_recommender", build)
    with pytest.raises(RunError, match=r"1 of 3 trainings failed, 2 are finished .*\n.*no luck"):
        run(tmp_path, seeds=[0, 1, 2])
    assert load_recommender(tmp_path, seed=2, source=DATA).seed == 2


def test_content_neighbours_are_searched_once_for_all_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched = []
    search = ContentKNN._search

    def counted(self: ContentKNN, *arguments: Any) -> Any:
        searched.append(self.k)
        return search(self, *arguments)

    monkeypatch.setattr(ContentKNN, "_search", counted)
    config = {**SMALL, "model": {"name": "FREEDOM", "hyper": {"embedding_dim": 8}}}
    run(tmp_path / "run", config=config, seeds=[0, 1])
    assert len(searched) == 1
    loaded = load_recommender(tmp_path / "run", seed=1, source=DATA)
    assert len(searched) == 1
    [kept] = (tmp_path / "run" / "neighbours").iterdir()
    kept.unlink()
    again = load_recommender(tmp_path / "run", seed=1, source=DATA)
    assert len(searched) == 2
    assert not kept.exists()  # what is read only is not written
    users = torch.arange(DATA.num_users)
    scores = [x.model.score(x.model.prepare(), users) for x in (loaded, again)]
    assert torch.equal(*scores)
