"""Settings of recommenders: checked against the class that gets them, and drawn on validation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from graphmoe.config import RecommendConfig, check_recommender, load_config
from graphmoe.config.search import SPACES, draw, space_of
from graphmoe.errors import ConfigError
from graphmoe.registry import recommenders

ROOT = Path(__file__).resolve().parents[2] / "configs" / "rec"
SHIPPED = sorted(ROOT.glob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_the_hyper_parameters_of_shipped_configs_are_those_of_the_class(path: Path) -> None:
    config = load_config(RecommendConfig, path)
    found = check_recommender(config.model.name, config.model.hyper)
    assert found.__name__ == config.model.name


@pytest.mark.parametrize("path", [p for p in SHIPPED if p.stem != "embedded"], ids=lambda p: p.stem)
def test_the_published_figure_stands_beside_the_settings(path: Path) -> None:
    config = load_config(RecommendConfig, path)
    assert config.data.source == "tiktok"
    assert "what" in config.reference
    assert "recall@20" in config.reference
    assert config.optim.metric == "recall@20"
    assert config.optim.patience == 20


@pytest.mark.parametrize(
    ("name", "hyper", "says"),
    [
        ("LightGNC", {}, "did you mean 'LightGCN'"),
        ("LightGCN", {"num_layer": 2}, r"model.hyper.num_layer: unknown.*did you mean num_layers"),
        ("LightGCN", {"zzz": 2}, "expected embedding_dim, num_layers, reg_weight"),
        ("LightGCN", {"num_layers": "two"}, r"model.hyper.num_layers: got 'two', expected"),
        ("ItemKNN", {"by": "colour"}, r"model.hyper.by: got 'colour', expected 'content'"),
        ("LightGCN", {"graph": 1}, "model.hyper.graph: unknown"),
    ],
)
def test_a_hyper_parameter_that_does_not_fit(name: str, hyper: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        check_recommender(name, hyper)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"seeds": []}, "seeds: got"),
        ({"seeds": [-1]}, "seeds.0: got -1"),
        ({"evaluation": {"ks": [0]}}, "evaluation.ks.0: got 0"),
        ({"optim": {"metric": "auc"}}, "optim.metric: got 'auc'"),
        ({"optim": {"lr_decay": 1.5}}, "optim.lr_decay: got 1.5"),
        ({"data": {"split": "last"}}, "data.split: got 'last'"),
        ({"model": {"hyperr": {}}}, "did you mean hyper"),
    ],
)
def test_a_wrong_setting_is_named(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_config(RecommendConfig, values)


def test_lists_may_be_written_as_on_the_command_line() -> None:
    config = load_config(RecommendConfig, None, {"seeds": "0,1,2", "evaluation.ks": 5})
    assert (config.seeds, config.evaluation.ks) == ((0, 1, 2), (5,))


def test_every_recommender_has_a_search_space_that_its_class_takes() -> None:
    check_recommender("Popularity", {})  # loads them all
    for found in recommenders.lookup_dict.values():
        if not found.__module__.startswith("graphmoe."):
            continue  # a test's own
        for trial in range(6):
            settings = draw(space_of(found.__name__), 0, trial)
            config = load_config(RecommendConfig, {"model": {"name": found.__name__}}, settings)
            check_recommender(config.model.name, config.model.hyper)


def test_a_longer_search_begins_with_the_shorter_one_and_the_first_trial_changes_nothing() -> None:
    space = SPACES["LightGCN"]
    drawn = [draw(space, 7, trial) for trial in range(20)]
    assert drawn[0] == {}
    assert drawn[3] == draw(space, 7, 3)
    assert draw(space, 8, 3) != drawn[3]
    rates = [one["optim.lr"] for one in drawn[1:]]
    assert len(set(rates)) == 19
    assert all(2e-4 <= rate <= 5e-3 for rate in rates)
    assert {one["model.hyper.num_layers"] for one in drawn[1:]} == {1, 2, 3, 4}


@pytest.mark.parametrize(
    ("space", "says"),
    [
        ({"optim.lr": {"log": [0, 1]}}, r"trials.space.optim.lr.log: got \[0, 1\]"),
        ({"optim.lr": {"uniform": [2, 1]}}, "the lower first"),
        ({"optim.lr": {"choice": []}}, "at least one"),
        ({"optim.lr": {"normal": [0, 1]}}, "expected one of choice, uniform, log"),
        ({"optim.lr": {"choice": [1], "log": [1, 2]}}, "expected one of choice"),
    ],
)
def test_a_space_that_is_none(space: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        space_of("LightGCN", space)


def test_a_model_of_ones_own_needs_a_space() -> None:
    with pytest.raises(ConfigError, match="there is no search space for Mine"):
        space_of("Mine")
