"""Errors carry the exit code, are the built-in a caller expects, and name near misses."""

from __future__ import annotations

import pytest

from graphmoe import errors


@pytest.mark.parametrize(
    ("error", "builtin", "code"),
    [
        (errors.ConfigError, ValueError, 2),
        (errors.DataError, ValueError, 2),
        (errors.MissingDataError, FileNotFoundError, 3),
        (errors.MissingExtraError, ImportError, 3),
        (errors.VerificationError, ValueError, 4),
    ],
)
def test_each_error_is_also_a_builtin_with_an_exit_code(
    error: type[errors.GraphMoEError], builtin: type[Exception], code: int
) -> None:
    raised = error("what was got")
    assert isinstance(raised, builtin)
    assert isinstance(raised, errors.GraphMoEError)
    assert (raised.exit_code, str(raised)) == (code, "what was got")


def test_nearest_ignores_case_and_keeps_the_choices_spelling() -> None:
    assert errors.nearest("CORAA", ["Cora", "CiteSeer", "ACM"]) == ["Cora"]
    assert errors.nearest("zzz", ["Cora", "CiteSeer"]) == []


def test_unknown_name_lists_few_choices_and_only_near_ones_of_many() -> None:
    few = errors.unknown_name("graph", "coraa", ["cora", "acm"])
    assert few == "unknown graph 'coraa': expected one of acm, cora; did you mean 'cora'?"
    many = errors.unknown_name("graph", "coraa", ["cora", *(f"g{i}" for i in range(20))])
    assert many == "unknown graph 'coraa'; did you mean 'cora'?"
    assert "expected one of g0, g1" in errors.unknown_name(
        "graph", "xyz", [f"g{i}" for i in range(2)]
    )


def test_a_missing_extra_says_what_to_install() -> None:
    message = str(errors.MissingExtraError.for_extra("dgl", "dgl"))
    assert message == "dgl is not installed; install it with: pip install 'graphmoe[dgl]'"
