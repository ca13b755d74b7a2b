"""Configurations: the shipped ones parse, and a wrong one says what is wrong, where."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import yaml

from graphmoe.config import FuseConfig, PretrainConfig, RecommendConfig, load_config
from graphmoe.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2] / "configs"
MODELS = {"pretrain": PretrainConfig, "fuse": FuseConfig, "rec": RecommendConfig}
SHIPPED = sorted(p for kind in MODELS for p in (ROOT / kind).rglob("*.yaml"))


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return path


def test_something_is_shipped_for_each_command() -> None:
    assert {p.parent.name for p in SHIPPED} == set(MODELS)


def written_values(
    values: Any, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every value of a YAML file with the keys that lead to it."""
    if isinstance(values, dict) and values:
        for key, value in values.items():
            yield from written_values(value, (*path, key))
    else:
        yield path, values


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_shipped_config_parses_and_every_written_value_is_kept(path: Path) -> None:
    parsed = load_config(MODELS[path.parent.name], path).model_dump(mode="json")
    for keys, value in written_values(yaml.safe_load(path.read_text())):
        found = reduce(lambda values, key: values[key], keys, parsed)
        assert found == value, ".".join(keys)


@pytest.mark.parametrize("kind", ["pretrain", "fuse"])
def test_the_papers_config_has_its_figures_beside_it(kind: str) -> None:
    paper = load_config(MODELS[kind], ROOT / kind / "gph2.yaml")
    assert paper.reference["three_shot"]["mean"] == 61.8


def test_the_papers_pretraining_is_the_default() -> None:
    paper = load_config(PretrainConfig, ROOT / "pretrain" / "gph2.yaml")
    assert (paper.model, paper.optim) == (PretrainConfig().model, PretrainConfig().optim)


def test_the_papers_fusion_is_its_own_and_takes_no_floor_in() -> None:
    paper = load_config(FuseConfig, ROOT / "fuse" / "gph2.yaml")
    assert paper.method == "task_expert"
    assert paper.members.depths == paper.members.other_depths == (5,)
    assert not (paper.members.operators)
    assert not (paper.members.structural)
    assert not (paper.members.recalibrate)
    own = paper.task_expert
    assert (own.lr, own.weight_decay, own.dropout) == (0.01, 5e-4, 0.2)
    assert (own.max_epochs, own.patience) == (200, 20)


def test_spec_defaults() -> None:
    config = PretrainConfig()
    assert (config.model.K, config.model.dropout, config.model.hidden_channels) == (2, 0.3, 128)
    assert (config.optim.lr, config.optim.weight_decay) == (1e-3, 5e-4)
    assert (config.optim.max_epochs, config.optim.patience) == (1000, 50)
    assert (config.views.num_views, config.views.drop_edge) == (2, 0.3)


def test_overrides_win_over_the_file_and_leave_the_rest(tmp_path: Path) -> None:
    path = write(tmp_path, "optim: {lr: 0.5, patience: 7}\n")
    config = load_config(PretrainConfig, path, {"optim.lr": "1e-2", "model.K": 5})
    assert (config.optim.lr, config.optim.patience, config.model.K) == (0.01, 7, 5)


def test_overriding_does_not_change_the_callers_mapping() -> None:
    mine = {"optim": {"lr": 0.5}}
    assert load_config(PretrainConfig, mine, {"optim.lr": 0.1}).optim.lr == 0.1
    assert mine == {"optim": {"lr": 0.5}}


def test_a_ready_model_passes_through_and_the_wrong_one_does_not() -> None:
    config = PretrainConfig(optim={"lr": 0.25})
    assert load_config(PretrainConfig, config) == config
    with pytest.raises(ConfigError, match="got a FuseConfig, expected a PretrainConfig"):
        load_config(PretrainConfig, FuseConfig())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("optim: {patiens: 3}", "optim.patiens: unknown key; did you mean patience?"),
        ("optims: {lr: 3}", "optims: unknown key; did you mean optim?"),
        ("optim: {lr: -1}", "optim.lr: got -1, expected greater than 0"),
        ("optim: {lr: fast}", "optim.lr: got 'fast', expected number"),
        ("views: {resample: often}", "views.resample: got 'often', expected 'once' or 'epoch'"),
        ("views: {drop_edge: 1.0}", "views.drop_edge: got 1.0, expected less than 1"),
        ("model: 3", "model: got 3, expected"),
        ("- a\n- b", "got a list, expected keys and values"),
        ("optim: {lr: [", "not valid YAML"),
        ("optim: !!python/object/apply:os.getcwd []", "not valid YAML"),
    ],
)
def test_one_fault_is_one_line_with_file_key_and_expectation(
    tmp_path: Path, text: str, says: str
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_config(PretrainConfig, path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert says in message
    assert "\n" not in message
    assert caught.value.exit_code == 2


def test_an_unknown_key_without_a_near_name_lists_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected lr, weight_decay, max_epochs, patience"):
        load_config(PretrainConfig, write(tmp_path, "optim: {zzz: 3}"))


def test_all_faults_of_a_file_come_at_once(tmp_path: Path) -> None:
    path = write(tmp_path, "optim: {lr: -1, patiens: 2}\nmodel: {K: two}\n")
    with pytest.raises(ConfigError, match="3 faults") as caught:
        load_config(PretrainConfig, path)
    for key in ("optim.lr", "optim.patiens", "model.K"):
        assert key in str(caught.value)


def test_missing_file() -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: no such configuration file"):
        load_config(PretrainConfig, "nowhere.yaml")


def test_an_empty_file_means_defaults(tmp_path: Path) -> None:
    assert load_config(FuseConfig, write(tmp_path, "")) == FuseConfig()


def test_a_config_cannot_be_changed_in_passing() -> None:
    with pytest.raises(ValueError, match="frozen"):
        PretrainConfig().optim.lr = 3  # type: ignore[misc]
