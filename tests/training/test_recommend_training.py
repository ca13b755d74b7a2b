"""Training a recommender: the best validation epoch wins, and a resume changes no bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from graphmoe.data.interactions import Interactions
from graphmoe.errors import ConfigError, DataError
from graphmoe.evaluation.ranking import evaluate_ranking
from graphmoe.nn.recommend import BPRMF, InteractionGraph, LightGCN, Popularity, Recommender
from graphmoe.nn.recommend.freedom import FREEDOM
from graphmoe.nn.recommend.magnet import MAGNET
from graphmoe.training import SaveSettings, TrainingInterruptedError
from graphmoe.training.interrupts import StopRequest
from graphmoe.training.recommend import RecommendSettings, epoch_pairs, train_recommender
from graphmoe.training.sampling import NegativeSampler
from graphmoe.training.state import Checkpointer, TrainingState

SETTINGS = RecommendSettings(lr=0.05, batch_size=64, max_epochs=7, metric="ndcg@5")


def interactions(seed: int = 0) -> Interactions:
    """Users of two tastes: the first half of the items, or the second."""
    generator = torch.Generator().manual_seed(seed)
    U, items = 40, 60
    taste = torch.arange(U) % 2
    own = torch.arange(items)[None] // 30 == taste[:, None]
    score = torch.rand(U, items, generator=generator) + own
    item = score.topk(9, dim=1).indices.sort(dim=1).values.flatten()
    user = torch.arange(U).repeat_interleave(9)
    split = torch.tensor([0, 0, 0, 1, 0, 0, 2, 0, 0], dtype=torch.int8).repeat(U)
    features = torch.randn(items, 6, generator=generator)
    from graphmoe.data.interactions import Modality

    look = Modality(features, torch.ones(items, dtype=torch.bool))
    ids = (np.arange(U), np.arange(items))
    return Interactions("tastes", user, item, split, *ids, modalities={"look": look})


DATA = interactions()
GRAPH = InteractionGraph.from_interactions(DATA)


def made(kind: type[Recommender] = LightGCN, seed: int = 0) -> Recommender:
    torch.manual_seed(seed)
    arguments: dict[str, Any] = {} if kind is Popularity else {"embedding_dim": 8}
    return kind(GRAPH, **arguments)


def same(left: Recommender, right: Recommender) -> bool:
    ours, theirs = left.state_dict(), right.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_it_is_the_plain_loop() -> None:
    """The same numbers as twenty lines of torch give."""
    model = made(BPRMF)
    settings = RecommendSettings(lr=0.05, batch_size=64, max_epochs=4, lr_decay=0.5)
    state = train_recommender(model, DATA, settings, seed=3)
    plain = made(BPRMF)
    sampler = NegativeSampler(GRAPH.user, GRAPH.item, GRAPH.num_items)
    optimizer = torch.optim.Adam(plain.parameters(), lr=0.05, fused=True)
    generator, scores, weights, losses = torch.Generator().manual_seed(3), [], [], []
    for epoch in range(4):
        optimizer.param_groups[0]["lr"] = 0.05 * 0.5 ** (epoch / 50)
        values = []
        for batch in sampler.epoch(64, generator):
            loss = torch.stack(list(plain.loss(*batch).values())).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            values.append(loss.item())
        losses.append(sum(values) / len(values))
        scores.append(evaluate_ranking(plain, DATA, "valid", (20,)).mean()["recall@20"])
        weights.append({k: v.clone() for k, v in plain.state_dict().items()})
    assert state.scores == scores
    assert state.losses == pytest.approx(losses, rel=1e-6)
    best = max(range(4), key=lambda e: (scores[e], -e))
    assert state.best_epoch == best
    assert all(torch.equal(model.state_dict()[k], v) for k, v in weights[best].items())


@pytest.mark.parametrize("kind", [MAGNET, LightGCN])
def test_the_harder_negative_is_what_learnt_vectors_rank_higher(kind: type[Recommender]) -> None:
    """Against the same draws, scored one by one with the vectors from before the epoch."""
    model = made(kind).train()
    model.negative_candidates = 3
    sampler = NegativeSampler(GRAPH.user, GRAPH.item, GRAPH.num_items)
    found = list(epoch_pairs(model, sampler, 50, torch.Generator().manual_seed(4)))
    assert model.training
    users, items = model.eval().negative_vectors()
    assert (len(users), len(items)) == (GRAPH.num_users, GRAPH.num_items)
    generator = torch.Generator().manual_seed(4)
    order = torch.randperm(len(sampler), generator=generator)
    drawn = torch.stack([sampler.sample(sampler.user[order], generator) for _ in range(3)], dim=1)
    changed = 0
    for n, (user, candidates) in enumerate(zip(sampler.user[order], drawn, strict=True)):
        best = max(candidates, key=lambda i: float(users[user] @ items[i]))
        assert int(found[n // 50][2][n % 50]) == int(best)
        changed += int(best) != int(candidates[0])
    assert changed > len(sampler) // 3


def test_it_learns_the_tastes() -> None:
    model = made()
    before = evaluate_ranking(model, DATA, "test", (30,)).mean()["recall@30"]
    settings = RecommendSettings(lr=0.02, batch_size=64, max_epochs=30, metric="recall@30")
    state = train_recommender(model, DATA, settings)
    after = evaluate_ranking(model, DATA, "test", (30,)).mean()["recall@30"]
    assert before < 0.7  # 30 of 53 items
    assert after == 1.0  # every item of one's own taste is among the first half
    assert state.losses[-1] < 0.5 * state.losses[0]
    assert not model.training


def test_equal_seeds_equal_weights_and_the_callers_state_is_left() -> None:
    runs = []
    for seed in (1, 1, 2):
        model = made(FREEDOM)
        before, threads = torch.get_rng_state(), torch.get_num_threads()
        train_recommender(model, DATA, SETTINGS, seed=seed)
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.get_num_threads() == threads
        runs.append(model)
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


def test_validation_and_test_change_nothing_but_the_choice_of_the_epoch() -> None:
    """Held-out pairs exchanged for others: the same losses, to the bit."""
    other = DATA.split.clone()
    held = other > 0
    shuffled = (DATA.item + 1) % DATA.num_items
    item = torch.where(held, shuffled, DATA.item)
    taken = set(zip(*(x.tolist() for x in DATA.part("train")), strict=True))
    keep = torch.tensor(
        [s == 0 or (u, i) not in taken for u, i, s in zip(DATA.user.tolist(), item.tolist(),
                                                          other.tolist(), strict=True)]
    )  # fmt: skip
    changed = Interactions("x", DATA.user[keep], item[keep], other[keep], DATA.user_ids,
                           DATA.item_ids, modalities=DATA.modalities)  # fmt: skip
    states = []
    for data in (DATA, changed):
        torch.manual_seed(0)
        model = FREEDOM(InteractionGraph.from_interactions(data), embedding_dim=8)
        states.append(train_recommender(model, data, SETTINGS))
    assert states[0].losses == states[1].losses
    assert states[0].scores != states[1].scores


class Scripted(Recommender):
    """One whose validation scores are given, and whose weight counts the epochs."""

    def __init__(self, scores: list[float], ready: int = 0) -> None:
        super().__init__(GRAPH)
        self.weight = nn.Parameter(torch.zeros(()))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.scores, self.ready = scores, ready

    @property
    def may_stop(self) -> bool:
        return int(self.seen) >= self.ready

    def begin_epoch(self, epoch: int, generator: torch.Generator) -> None:
        assert epoch == int(self.seen)

    def end_epoch(self) -> dict[str, Any]:
        self.seen += 1
        return {"stage": "coverage", "load_hard": torch.tensor([0.5, 0.5])}

    def loss(self, user: Tensor, positive: Tensor, negative: Tensor) -> dict[str, Tensor]:
        return {"bpr": self.weight * 0 + 1, "l2": self.weight * 0 + 0.5}

    def figures(self) -> dict[str, float]:
        return {"recall@20": self.scores[int(self.seen) - 1], "ndcg@20": 0.0}


def scripted(scores: list[float], ready: int = 0, patience: int = 2) -> TrainingState:
    model = Scripted(scores, ready)
    settings = RecommendSettings(patience=patience, max_epochs=len(scores))
    return train_recommender(model, settings=settings, validate=model.figures)


@pytest.mark.parametrize(
    ("scores", "ready", "epochs", "best"),
    [
        ([0.1, 0.1, 0.1, 0.9], 0, 3, 0),  # equal is not higher
        ([0.1, 0.2, 0.1, 0.3, 0.1, 0.1, 0.9], 0, 6, 3),  # an improvement starts the count anew
        ([0.1, 0.1 + 1e-12, 0.1, 0.1, 0.1], 0, 4, 1),  # nothing is rounded
        ([0.1, 0.2, 0.3, 0.4], 0, 4, 3),  # the epochs run out first
        ([0.9, *[0.1] * 9], 5, 6, 0),  # patience is counted from when it may stop
        ([0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.9, *[0.1] * 5], 6, 9, 6),
        ([0.9, *[0.1] * 5], 99, 6, 0),  # never ready: to the end
    ],
)
def test_early_stopping(scores: list[float], ready: int, epochs: int, best: int) -> None:
    state = scripted(scores, ready)
    assert (state.epoch, state.best_epoch) == (epochs, best)
    assert state.best["seen"] == best + 1  # buffers are those of the best epoch, and a copy
    assert state.best_score == scores[best]


def test_a_record_an_epoch() -> None:
    state = scripted([0.25, 0.5])
    assert [record["epoch"] for record in state.records] == [1, 2]
    record = state.records[1]
    assert (record["loss"], record["loss/bpr"], record["loss/l2"]) == (1.5, 1.0, 0.5)
    assert record["valid/recall@20"] == 0.5
    assert record["stage"] == "coverage"
    assert record["load_hard"] == [0.5, 0.5]
    assert record["gradient_norm"] == 0.0
    assert record["may_stop"] is True


def test_a_loss_that_is_no_number() -> None:
    model = made(BPRMF)
    with torch.no_grad():
        model.user[3] = float("nan")
    with pytest.raises(DataError, match="the loss became nan in epoch 1"):
        train_recommender(model, DATA, SETTINGS)


def test_nothing_to_train_is_no_training() -> None:
    state = train_recommender(made(Popularity), DATA, SETTINGS)
    assert state.epoch == 0


@pytest.mark.parametrize("metric", ["auc", "recall", "recall@x", "recall@0"])
def test_an_unknown_metric(metric: str) -> None:
    with pytest.raises(ConfigError, match="expected recall@K or ndcg@K"):
        train_recommender(made(), DATA, RecommendSettings(metric=metric))


def checkpointer(tmp_path: Path) -> Checkpointer:
    return Checkpointer(tmp_path / "seed-0", {"seed": 0})


@pytest.mark.parametrize("kind", [LightGCN, FREEDOM, MAGNET])
@pytest.mark.parametrize("epoch", [1, 4, 7])
def test_stopped_and_resumed_at_any_epoch(
    tmp_path: Path, kind: type[Recommender], epoch: int
) -> None:
    wanted = made(kind)
    whole = train_recommender(wanted, DATA, SETTINGS)
    stop = StopRequest()

    def watch(state: TrainingState) -> None:
        if state.epoch == epoch:
            stop.ask()

    place = checkpointer(tmp_path)
    with pytest.raises(TrainingInterruptedError, match=f"stopped after epoch {epoch}"):
        train_recommender(made(kind), DATA, SETTINGS, checkpointer=place, on_epoch=watch, stop=stop)
    seen: list[int] = []
    found = made(kind, seed=9)  # whatever its fresh weights are
    state = train_recommender(
        found, DATA, SETTINGS, checkpointer=place, on_epoch=lambda s: seen.append(s.epoch)
    )
    assert same(found, wanted)
    assert (state.losses, state.scores) == (whole.losses, whole.scores)
    assert seen == list(range(epoch + 1, 8))  # nothing was done twice
    clocks = {"train_seconds", "valid_seconds", "peak_mb"}
    for left, right in zip(state.records, whole.records, strict=True):
        assert {k: v for k, v in left.items() if k not in clocks} == {
            k: v for k, v in right.items() if k not in clocks
        }


def test_the_patience_of_a_schedule_survives_a_resume(tmp_path: Path) -> None:
    scores = [0.9, *[0.1] * 12]
    settings = RecommendSettings(patience=3, max_epochs=13)
    wanted = scripted(scores, ready=5, patience=3)
    stop = StopRequest()
    first = Scripted(scores, 5)
    with pytest.raises(TrainingInterruptedError):
        train_recommender(
            first, settings=settings, validate=first.figures, checkpointer=checkpointer(tmp_path),
            on_epoch=lambda s: stop.ask() if s.epoch == 6 else None, stop=stop,
        )  # fmt: skip
    again = Scripted(scores, 5)
    state = train_recommender(
        again, settings=settings, validate=again.figures, checkpointer=checkpointer(tmp_path),
        save=SaveSettings(epochs=1),
    )  # fmt: skip
    assert (state.epoch, state.best_epoch) == (wanted.epoch, wanted.best_epoch) == (7, 0)
