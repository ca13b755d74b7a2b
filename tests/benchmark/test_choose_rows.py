"""Rows from names: twins of mixtures, rows of a configuration with those matched to them."""

from __future__ import annotations

import pytest

from graphmoe.benchmark.choose_rows import choose_rows, with_bank
from graphmoe.config import BenchmarkConfig, check_rows, load_config
from graphmoe.errors import ConfigError

OWN = {
    "models": {
        "hop": {"model": "moe-gin", "hyper": {"k": 2}},
        "hop-dense": {"model": "gin", "match": {"row": "hop"}},
        "other": {"model": "gcn"},
    },
    "baselines": ["other"],
}


def test_a_mixture_brings_its_dense_twins() -> None:
    found = choose_rows(BenchmarkConfig(), ["moe-sage", "gcn"], given=False)
    assert list(found.models) == ["moe-sage", "sage-active", "sage-total", "gcn"]
    matches = [row.match and (row.match.row, row.match.parameters) for row in found.models.values()]
    assert matches == [None, ("moe-sage", "active"), ("moe-sage", "total"), None]
    assert [row.model for row in found.models.values()] == ["moe-sage", "sage", "sage", "gcn"]
    assert found.compared == [("moe-sage", "sage-active"), ("moe-sage", "sage-total")]
    check_rows(found)


def test_a_row_of_the_configuration_comes_with_its_matches() -> None:
    config = load_config(BenchmarkConfig, OWN)
    for name in ("hop", "hop-dense"):
        found = choose_rows(config, [name], given=True)
        assert list(found.models) == ["hop", "hop-dense"]
        assert found.models["hop"].hyper == {"k": 2}
        assert found.baselines == ()
    assert choose_rows(config, ["other"], given=True).baselines == ("other",)


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown model 'moe-gni'.*did you mean 'moe-gin'"):
        choose_rows(BenchmarkConfig(), ["moe-gni"], given=False)
    with pytest.raises(ConfigError, match="did you mean 'hop-dense'"):
        choose_rows(load_config(BenchmarkConfig, OWN), ["hop-dens"], given=True)


def test_experts_of_a_bank_are_a_model_by_name() -> None:
    config = choose_rows(BenchmarkConfig(), ["gcn", "pretrained"], given=False)
    assert list(config.models) == ["gcn", "pretrained"]
    assert config.compared == [("pretrained", "gcn")]
    found = with_bank(config, "B")
    assert found.models["pretrained"].hyper == {"bank": "B"}
    assert found.models["gcn"] == config.models["gcn"]
    assert config.models["pretrained"].hyper == {}  # the given one is as it was
    with pytest.raises(ConfigError, match="did you mean 'pretrained'"):
        choose_rows(BenchmarkConfig(), ["pretraind"], given=False)


def test_a_bank_is_for_rows_of_pretrained_experts() -> None:
    with pytest.raises(ConfigError, match="--bank: got 'B'.*rows are of moe-gin, gin, gcn"):
        with_bank(load_config(BenchmarkConfig, OWN), "B")
