from __future__ import annotations

import pytest
import torch

from graphmoe.benchmark.models import cost_of, make_model, resolve_row
from graphmoe.benchmark.planted import planted_nodes
from graphmoe.benchmark.runner import run_benchmark
from graphmoe.benchmark.task_data import TaskData
from graphmoe.checkpoint import ExpertBank
from graphmoe.config import BenchmarkConfig, load_config
from graphmoe.errors import ConfigError, MissingDataError
from graphmoe.nn.models import MultiViewEncoder, PretrainedExperts


@pytest.fixture
def bank(tmp_path):
    experts = ExpertBank()
    for name, depth in (("here", 1), ("there", 2)):
        experts.add(name, MultiViewEncoder(16, 8, K=depth))
    experts.save(tmp_path / "bank")
    return str(tmp_path / "bank")


@pytest.fixture
def task():
    return planted_nodes(200, 600, 20, 4)


def test_experts_of_a_bank_are_the_model(task, bank):
    model = make_model("pretrained", {"bank": bank, "k": 1, "hidden_channels": 4}, task)
    assert isinstance(model, PretrainedExperts)
    assert model(task.graphs).shape == (task.graphs.num_nodes, task.num_outputs)
    again = make_model("pretrained", {"bank": bank, "k": 1, "hidden_channels": 4}, task)
    for own, other in zip(model.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(own, other, rtol=0, atol=0)
    costs = cost_of("pretrained", {"bank": bank, "k": 1}, task, flops=True)
    assert costs.active < costs.total
    assert costs.flops_of == "node"
    one = make_model("pretrained", {"bank": bank, "names": ["there"], "tuning": "fine"}, task)
    assert [expert.encoder.K for expert in one.experts] == [2]
    stored = ExpertBank.load(bank)["there"].state_dict()
    kept = one.experts[0].encoder.state_dict()
    torch.testing.assert_close(kept["lin.weight"], stored["lin.weight"], rtol=0, atol=0)


def test_messages(task, bank, tmp_path):
    with pytest.raises(ConfigError, match="unknown setting of model 'pretrained' 'tunin'.*tuning"):
        make_model("pretrained", {"bank": bank, "tunin": "fine"}, task)
    with pytest.raises(ConfigError, match="tuning is one of frozen, fine"):
        make_model("pretrained", {"bank": bank, "tuning": "half"}, task)
    with pytest.raises(ConfigError, match="unknown expert 'her'.*'here'"):
        make_model("pretrained", {"bank": bank, "names": ["her"]}, task)
    with pytest.raises(ConfigError, match="unknown setting of model 'pretrained' 'task'"):
        make_model("pretrained", {"bank": bank, "task": 1}, task)
    with pytest.raises(ConfigError, match="'pretrained' needs a bank.*--bank"):
        make_model("pretrained", {"k": 1}, task)
    with pytest.raises(MissingDataError):
        make_model("pretrained", {"bank": str(tmp_path / "nowhere")}, task)
    molecules = TaskData(**{**vars(task), "level": "graph", "name": "ogbg-molbace"})
    with pytest.raises(ConfigError, match="tasks on nodes, 'ogbg-molbace' is one on graphs"):
        make_model("pretrained", {"bank": bank}, molecules)


def test_it_is_matched_to_nothing_and_others_to_it(task, bank):
    rows = {
        "ours": {"model": "pretrained", "hyper": {"bank": bank, "hidden_channels": 4}},
        "dense": {"model": "gcn", "match": {"row": "ours"}},
        "wrong": {"model": "pretrained", "match": {"row": "dense"}},
    }
    config = load_config(BenchmarkConfig, {"models": rows})
    dense = resolve_row(config, "dense", task)
    wanted = cost_of("pretrained", rows["ours"]["hyper"], task).active
    gap = cost_of("gcn", dense, task).total - wanted
    assert abs(gap) <= 5 * (20 + 2 * dense["hidden_channels"])  # a step of the width
    with pytest.raises(ConfigError, match="models.wrong: .*cannot be matched to a row"):
        resolve_row(config, "wrong", task)


def test_a_run_does_not_go_on_with_other_experts(task, bank, tmp_path):
    config = {
        "models": {"ours": {"model": "pretrained", "hyper": {"bank": bank, "hidden_channels": 4}}},
        "optim": {"max_epochs": 2},
        "seeds": [0],
    }

    def run():
        return run_benchmark(config, out=tmp_path / "run", task=task, resume=True, progress=False)

    first = run()
    shares = first.rows[0].seeds[0].load["layer0"]
    assert len(shares) == 2
    assert sum(shares) == pytest.approx(1)
    assert run().rows == first.rows
    others = ExpertBank()
    others.add("here", MultiViewEncoder(16, 8, K=1))
    others.save(tmp_path / "others")
    ExpertBank.load(bank).adopt(tmp_path / "others" / "here", overwrite=True)
    with pytest.raises(ConfigError, match="other settings: experts.here"):
        run()
