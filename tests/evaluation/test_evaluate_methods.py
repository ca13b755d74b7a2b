"""Every method on the same tasks, seeing the labels of the training nodes only."""

from __future__ import annotations

import statistics

import pytest
import torch
from torch import Tensor

from graphmoe.data.fewshot import FewShotSplit, few_shot_splits
from graphmoe.evaluation import FewShotResult, Score, evaluate_methods

Y = torch.arange(60) % 3


def splits() -> list[FewShotSplit]:
    return [s for shots in (3, 1) for s in few_shot_splits(Y, shots, num_tasks=4)]


def oracle(index: Tensor, y: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(Y, 3).float()


def always_zero(index: Tensor, y: Tensor) -> Tensor:
    return torch.tensor([1.0, 0.0, 0.0]).expand(60, -1)


def test_scores_by_hand() -> None:
    results = evaluate_methods({"oracle": oracle, "zero": always_zero}, Y, splits(), 3)
    for shots in (1, 3):
        assert results["oracle"].micro(shots) == [100.0] * 4
        # A third of the test nodes, and F1 of one class alone: 2·(1/3)/(1/3 + 1).
        assert results["zero"].micro(shots) == pytest.approx([100 / 3] * 4)
        assert [s.macro for s in results["zero"].scores[shots]] == pytest.approx([50 / 3] * 4)


def test_only_test_nodes_count_and_only_training_labels_are_seen() -> None:
    seen = []

    def wrong_off_test(index: Tensor, y: Tensor) -> Tensor:
        seen.append((index.clone(), y.clone()))
        truth = torch.nn.functional.one_hot(Y, 3).float()
        split = todo[len(seen) - 1]
        outside = torch.cat([split.train, split.val])
        truth[outside] = 1 - truth[outside]
        return truth

    todo = splits()
    result = evaluate_methods({"m": wrong_off_test}, Y, todo, 3)["m"]
    assert [s.micro for scores in result.scores.values() for s in scores] == [100.0] * 8
    for (index, y), split in zip(seen, todo, strict=True):
        assert torch.equal(index, split.train)
        assert torch.equal(y, Y[split.train])


def test_by_degree_as_a_loop_over_nodes_counts() -> None:
    generator = torch.Generator().manual_seed(0)
    degree = torch.tensor([0, 1, 3, 7, 30])[torch.randint(5, (60,), generator=generator)]
    spans = {"isolated": (0, 0), "one": (1, 1), "few": (2, 5), "some": (6, 20),
             "many": (21, 100), "hub": (101, 10**9)}  # fmt: skip
    said = torch.randn(60, 3, generator=generator)
    todo = splits()
    found = evaluate_methods({"m": lambda index, y: said}, Y, todo, 3, degree=degree)["m"]
    assert set(found.degrees) == {1, 3}
    for shots, table in found.degrees.items():
        tasks = [split for split in todo if split.shots == shots]
        assert set(table) == set(spans)
        for bucket, (low, high) in spans.items():
            for task, split in enumerate(tasks):
                right = [
                    int(said[i].argmax()) == int(Y[i])
                    for i in split.test.tolist()
                    if low <= int(degree[i]) <= high
                ]
                assert table[bucket]["count"][task] == len(right)
                micro = table[bucket]["micro"][task]
                assert micro == (pytest.approx(100 * sum(right) / len(right)) if right else None)
        assert table["hub"] == {"count": [0] * 4, "micro": [None] * 4}
        for task, score in enumerate(found.scores[shots]):  # the whole is the sum of its parts
            parts = [(r["count"][task], r["micro"][task] or 0.0) for r in table.values()]
            whole = sum(n * micro for n, micro in parts) / sum(n for n, _ in parts)
            assert whole == pytest.approx(score.micro)
    assert evaluate_methods({"m": oracle}, Y, todo, 3)["m"].degrees == {}


def test_tells_each_score_as_it_is_made() -> None:
    told: list[tuple[str, int, int, float]] = []
    todo = splits()
    evaluate_methods(
        {"a": oracle, "b": always_zero},
        Y,
        todo,
        3,
        on_task=lambda name, split, score: told.append(
            (name, split.shots, split.task, round(score.micro, 2))
        ),
    )
    expected = [
        (name, split.shots, split.task, micro)
        for split in todo
        for name, micro in (("a", 100.0), ("b", 33.33))
    ]
    assert told == expected


def test_the_table_holds_means_deviations_and_single_scores() -> None:
    micro, macro = [50.0, 70.0, 90.0], [40.0, 60.0, 65.0]
    result = FewShotResult({3: [Score(a, b) for a, b in zip(micro, macro, strict=True)]})
    result.scores[1] = [Score(10.0, 20.0)]
    table = result.to_dict()
    assert list(table) == ["1", "3"]
    assert table["3"] == {
        "micro_mean": pytest.approx(70.0),
        "micro_std": pytest.approx(statistics.stdev(micro)),
        "macro_mean": pytest.approx(55.0),
        "macro_std": pytest.approx(statistics.stdev(macro)),
        "micro": micro,
        "macro": macro,
    }
    assert table["1"]["micro_std"] == 0.0
