"""What a benchmark's configuration accepts, and what it says of what it does not."""

from __future__ import annotations

from typing import Any

import pytest

from graphmoe.config import BenchmarkConfig, check_rows, load_config
from graphmoe.errors import ConfigError

MATCHED = {
    "moe-gin": {"model": "moe-gin"},
    "gin": {"model": "gin", "match": {"row": "moe-gin"}},
    "gcn": {"model": "gcn"},
}


def config_of(**values: Any) -> BenchmarkConfig:
    config = load_config(BenchmarkConfig, values)
    check_rows(config)
    return config


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("0..3", (0, 1, 2, 3)),
        ("7..7", (7,)),
        ("1,5", (1, 5)),
        (4, (4,)),
        ([2, 0], (2, 0)),
    ],
)
def test_seeds(written: Any, read: tuple[int, ...]) -> None:
    assert config_of(seeds=written).seeds == read


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"seeds": "9..0"}, "seeds: got '9..0', expected the first and the last"),
        ({"seeds": "0..99999"}, "at most 10000 seeds"),
        ({"seeds": [1, 1]}, "seeds: got .1, 1., expected different ones"),
        ({"sedes": [1]}, "did you mean seeds"),
        ({"models": {}}, "models: got {}"),
        ({"models": {"../up": {}}}, "string should match pattern"),
        ({"models": {"a": {"modle": "gin"}}}, "models.a.modle: unknown key; did you mean model"),
        ({"models": {"a": {"optim": {"lrr": 1}}}}, "models.a.optim: lrr: .*did you mean lr"),
        ({"models": {"a": {"balance": {"z": -1}}}}, "models.a.balance: z: got -1"),
        ({"models": MATCHED, "baselines": ["gni"]}, "no row 'gni'; did you mean gin"),
        ({"models": {"a": {"match": {"row": "b"}}}}, "models.a.match.row: there is no row 'b'"),
        ({"models": {"a": {"match": {"row": "a"}}}}, "which is matched itself"),
        ({"optim": {"schedule": "linear"}}, "optim.schedule: got 'linear'"),
    ],
)
def test_faults(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config_of(**values)


def test_a_row_has_its_own_settings() -> None:
    config = config_of(
        models={"a": {"optim": {"lr": 0.5}, "balance": {"switch": 0}}, "b": {}},
        optim={"batch_size": 7},
    )
    assert (config.optim_of("a").lr, config.optim_of("a").batch_size) == (0.5, 7)
    assert (config.optim_of("b").lr, config.balance_of("b").switch) == (1e-3, 0.01)
    assert config.balance_of("a").switch == 0


@pytest.mark.parametrize(
    ("baselines", "compared"),
    [
        ([], [("moe-gin", "gin")]),
        (["gcn"], [("moe-gin", "gcn"), ("gin", "gcn")]),
        (["gcn", "gin"], [("moe-gin", "gcn"), ("moe-gin", "gin")]),
    ],
)
def test_who_is_compared(baselines: list[str], compared: list[tuple[str, str]]) -> None:
    assert config_of(models=MATCHED, baselines=baselines).compared == compared


def test_without_matches_the_first_is_the_baseline() -> None:
    assert config_of(models={"a": {}, "b": {}, "c": {}}).compared == [("b", "a"), ("c", "a")]
