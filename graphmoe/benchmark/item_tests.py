"""Paired bootstrap over the test items of a run, from the predictions that its seeds kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from graphmoe.benchmark.resampled import Evaluate
from graphmoe.benchmark.results import Comparison
from graphmoe.benchmark.significance import DRAWS, compare_items
from graphmoe.errors import DataError

#: More numbers than this in a test set, and draws become too long to wait for.
MOST_NUMBERS = 2_000_000

#: What a seed kept: ``test`` and ``test_y``, both ``[n, T]``.
Kept = Mapping[str, Tensor]


def item_comparisons(
    pairs: Iterable[tuple[str, str]],
    kept: Mapping[str, Mapping[int, Kept]],
    evaluate: Evaluate,
    higher_is_better: bool,
    metric: str = "",
    draws: int = DRAWS,
) -> tuple[tuple[Comparison, ...], tuple[str, ...]]:
    """Comparisons of pairs of rows over items, and notes on those that cannot be made.

    Large test sets are left out without a word: their items hardly add to the chance of seeds.

    Args:
        pairs: Names of two rows each.
        kept: By row and seed what the training kept; empty where it was too large.
        evaluate: The official metric, of targets and predictions.
        higher_is_better: Its direction.
        metric: Its name.
        draws: Number of resamples.
    """
    found, notes = [], []
    for a, b in pairs:
        sides = [
            {seed: tensors for seed, tensors in kept.get(name, {}).items() if "test" in tensors}
            for name in (a, b)
        ]
        if not all(sides):
            continue
        y = next(iter(sides[0].values()))["test_y"]
        if y.numel() > MOST_NUMBERS:
            continue
        if not all(_equal(tensors["test_y"], y) for side in sides for tensors in side.values()):
            notes.append(f"{a} and {b} kept predictions of other test items: not resampled")
            continue
        ours, theirs = ({s: tensors["test"] for s, tensors in side.items()} for side in sides)
        try:
            comparison = compare_items(
                (a, b), (ours, theirs), y, evaluate, higher_is_better, metric=metric, draws=draws
            )
        except DataError as error:
            notes.append(f"{a} and {b}: {error}")
        else:
            found.append(comparison)
    return tuple(found), tuple(notes)


def _equal(a: Tensor, b: Tensor) -> bool:
    """Equal where both are numbers, and not there in the same places."""
    return a.shape == b.shape and torch.equal(a.nan_to_num(), b.nan_to_num())
