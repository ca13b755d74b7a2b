"""Scores: the official evaluator's numbers, and one sentence where it would crash."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch
from torch import Tensor
from torch_geometric.data import Data

from graphmoe.benchmark.ogb_evaluate import OgbEvaluator
from graphmoe.benchmark.ogb_package import official_tasks, ogb_script
from graphmoe.benchmark.plain_metrics import PlainEvaluator, choose_metric
from graphmoe.benchmark.task_data import Evaluate, TaskData
from graphmoe.errors import ConfigError, DataError


def task_of(name: str, evaluator: Evaluate | None = None) -> TaskData:
    """A task of that official kind without data."""
    info = official_tasks()[name]
    return TaskData(
        name=name,
        level=info.level,
        kind=info.kind,
        num_outputs=info.num_classes if info.kind == "multiclass" else max(info.num_tasks, 1),
        metric=info.metric,
        higher_is_better=info.metric != "rmse",
        graphs=Data(),
        split={},
        features="none",
        edge_features="none",
        evaluator=evaluator or OgbEvaluator(info),
    )


def random(rows: int, columns: int, seed: int = 0) -> Tensor:
    return torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed))


@pytest.mark.usefixtures("ogb")
def test_what_the_table_says_of_each_task() -> None:
    tasks = official_tasks()
    assert len(tasks) == 27
    told = {
        name: (tasks[name].level, tasks[name].kind, tasks[name].metric)
        for name in ("ogbn-arxiv", "ogbn-proteins", "ogbg-molpcba", "ogbg-molesol", "ogbl-ddi")
    }
    assert told == {
        "ogbn-arxiv": ("node", "multiclass", "acc"),
        "ogbn-proteins": ("node", "binary", "rocauc"),
        "ogbg-molpcba": ("graph", "binary", "ap"),
        "ogbg-molesol": ("graph", "regression", "rmse"),
        "ogbl-ddi": ("link", "binary", "hits@20"),
    }
    assert tasks["ogbg-molbace"].molecules
    assert tasks["ogbg-molbace"].add_inverse_edge
    assert not tasks["ogbn-arxiv"].add_inverse_edge


@pytest.mark.usefixtures("ogb")
def test_many_answers_with_some_unknown() -> None:
    task = task_of("ogbg-moltox21")
    true = (random(40, 12) > 0.5).float()
    true[random(40, 12, 1) > 0.8] = math.nan
    pred = random(40, 12, 2)
    official = ogb_script("graphproppred/evaluate").Evaluator("ogbg-moltox21")
    wanted = official.eval({"y_true": true, "y_pred": pred})["rocauc"]
    assert task.evaluate(true, pred) == pytest.approx(wanted, abs=1e-12)
    # The sum over pairs of one target, by hand.
    column, scores = true[:, 0], pred[:, 0]
    pairs = (scores[column == 1][:, None] > scores[column == 0]).float().mean()
    one = task_of("ogbg-molbace").evaluate(
        column[~column.isnan()].view(-1, 1), scores[~column.isnan()].view(-1, 1)
    )
    assert one == pytest.approx(float(pairs), abs=1e-6)


@pytest.mark.usefixtures("ogb")
def test_classes_from_scores_or_as_they_are() -> None:
    task = task_of("ogbn-arxiv")
    true = torch.tensor([3, 39, 0, 7])
    logits = torch.zeros(4, 40)
    logits[torch.arange(4), torch.tensor([3, 39, 1, 7])] = 2.0
    assert task.evaluate(true, logits) == 0.75
    assert task.evaluate(true.view(-1, 1), logits.argmax(1)) == 0.75


@pytest.mark.usefixtures("ogb")
def test_an_error_of_regression_by_hand() -> None:
    task = task_of("ogbg-molesol")
    assert not task.higher_is_better
    true, pred = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([[1.0], [0.0], [3.0]])
    assert task.evaluate(true, pred) == pytest.approx(math.sqrt(5 / 3))
    assert task.evaluate(true, pred[:, 0]) == pytest.approx(math.sqrt(5 / 3))


@pytest.mark.usefixtures("ogb")
def test_links_among_their_rivals() -> None:
    ranked = task_of("ogbl-citation2")
    true = torch.tensor([[1, 0, 0], [0, 0, 1]])
    # First of three, then second of three with one tie: ranks 1 and 2.5.
    pred = torch.tensor([[0.9, 0.1, 0.2], [0.9, 0.5, 0.5]])
    assert ranked.evaluate(true, pred) == pytest.approx((1 + 1 / 2.5) / 2)
    with pytest.raises(DataError, match="a single 1 a row"):
        ranked.evaluate(torch.ones(2, 3), pred)

    hits = task_of("ogbl-ddi")  # hits@20
    scores = torch.cat([torch.tensor([25.5, 3.5]), torch.arange(30.0)])
    links = torch.cat([torch.ones(2), torch.zeros(30)])
    # The twentieth best of 0..29 is 10: one of the two links is above it.
    assert hits.evaluate(links, scores) == 0.5
    with pytest.raises(DataError, match="links and of pairs without one"):
        hits.evaluate(torch.ones(32), scores)
    with pytest.raises(DataError, match="shape"):
        hits.evaluate(links, scores[:-1])


@pytest.mark.usefixtures("ogb")
@pytest.mark.parametrize(
    ("name", "true", "pred", "message"),
    [
        ("ogbg-molbace", (5, 1), (5, 2), r"expected .*'ogbg-molbace' of shape \[5, 1\], got"),
        ("ogbg-molbace", (5, 1), (4, 1), r"of shape \[5, 1\], got \[4, 1\]"),
        ("ogbg-molbace", (5, 1), (5, 1, 1), r"got \[5, 1, 1\]"),
        ("ogbg-moltox21", (5, 12), (5, 1), r"of shape \[5, 12\], got \[5, 1\]"),
        ("ogbn-arxiv", (5,), (5, 39), r"of shape \[5, 40\], got \[5, 39\]"),
        ("ogbg-molesol", (0, 1), (0, 1), "shape of the targets"),
    ],
)
def test_a_wrong_shape_is_one_sentence(
    name: str, true: tuple[int, ...], pred: tuple[int, ...], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        task_of(name).evaluate(torch.zeros(true), torch.zeros(pred))


@pytest.mark.usefixtures("ogb")
@pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:invalid value")
def test_predictions_and_targets_that_cannot_be_scored() -> None:
    task = task_of("ogbg-molbace")
    true, pred = torch.tensor([[0.0], [1], [0], [1]]), random(4, 1)
    with pytest.raises(DataError, match="1 of 4 predictions of 'ogbg-molbace' are not finite"):
        task.evaluate(true, pred.index_fill(0, torch.tensor(2), math.nan))
    with pytest.raises(DataError, match="'ogbg-molbace' refuses .*No positively labeled data"):
        task.evaluate(torch.zeros(4, 1), pred)
    with pytest.raises(DataError, match="rmse of 'ogbg-molesol' is not defined"):
        task_of("ogbg-molesol").evaluate(torch.full((4, 1), math.nan), pred)


@pytest.mark.usefixtures("ogb")
def test_an_evaluator_travels_to_another_process() -> None:
    evaluator = pickle.loads(pickle.dumps(OgbEvaluator(official_tasks()["ogbg-molesol"])))
    assert evaluator(np.array([[1.0]]), np.array([[3.0]])) == 2.0


@pytest.mark.usefixtures("ogb")
@pytest.mark.parametrize("metric", ["rocauc", "ap", "rmse"])
def test_plain_metrics_are_those_of_ogb(metric: str) -> None:
    name = {"rocauc": "ogbg-moltox21", "ap": "ogbg-molpcba", "rmse": "ogbg-moltox21"}[metric]
    official = ogb_script("graphproppred/evaluate").Evaluator(name)
    official.eval_metric = metric
    width = official.num_tasks
    true = (random(60, width) > 0.6).float().numpy()
    true[random(60, width, 1).numpy() > 0.7] = math.nan
    true[:, 0] = 0  # with one kind of answer only it counts nowhere but in the error
    pred = random(60, width, 2).numpy()
    wanted = official.eval({"y_true": true, "y_pred": pred})[metric]
    assert PlainEvaluator(metric)(true, pred) == pytest.approx(wanted, rel=1e-6)


def test_plain_metrics_by_hand() -> None:
    true, pred = np.array([[1.0, 2.0], [3.0, math.nan]]), np.array([[0.0, 2.5], [3.0, 9.0]])
    assert PlainEvaluator("mae")(true, pred) == pytest.approx((0.5 + 0.5) / 2)
    assert PlainEvaluator("acc")(np.array([[1], [2], [3]]), np.array([[1], [2], [0]])) == 2 / 3
    with pytest.raises(DataError, match="rocauc is not defined here: no target has labels of both"):
        PlainEvaluator("rocauc")(np.ones((3, 1)), np.ones((3, 1)))
    with pytest.raises(DataError, match="mae is not defined here: no target has labels"):
        PlainEvaluator("mae")(np.full((3, 1), math.nan), np.ones((3, 1)))


def test_a_metric_that_does_not_fit_is_refused() -> None:
    assert choose_metric("regression") == "mae"
    assert choose_metric("binary", "ap") == "ap"
    with pytest.raises(ConfigError, match="unknown metric of a multiclass task 'rmse'"):
        choose_metric("multiclass", "rmse")
