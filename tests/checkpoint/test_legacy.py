"""Published weights become experts that give the published embeddings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from graphmoe.checkpoint import ExpertBank, import_legacy
from graphmoe.data import load_graph
from graphmoe.errors import VerificationError
from graphmoe.transforms import MultiView


def published(hidden: int = 8, width: int = 6) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {
        "backbone.conv.lin.weight": torch.randn(hidden, width),
        "backbone.conv.lin.bias": torch.randn(hidden),
        "backbone.batch_norm.weight": torch.rand(hidden),
        "backbone.batch_norm.bias": torch.randn(hidden),
        "backbone.batch_norm.running_mean": torch.randn(hidden),
        "backbone.batch_norm.running_var": torch.rand(hidden) + 0.5,
        "backbone.batch_norm.num_batches_tracked": torch.tensor(7),
        "semantic_attn.project.0.weight": torch.randn(hidden // 2, hidden),
        "semantic_attn.project.0.bias": torch.randn(hidden // 2),
        "semantic_attn.project.2.weight": torch.randn(1, hidden // 2),
        "disc.f_k.weight": torch.randn(1, hidden, hidden),
        "disc.f_k.bias": torch.randn(1),
    }


def test_each_weight_finds_its_place(tmp_path: Path) -> None:
    tensors = published()
    save_file(tensors, tmp_path / "w.safetensors")
    expert, manifest = import_legacy(tmp_path / "w.safetensors", "mine")
    x = torch.randn(5, 6)
    # The published forward pass on one view without edges, written out.
    h = x @ tensors["backbone.conv.lin.weight"].T + tensors["backbone.conv.lin.bias"]
    h = (h - tensors["backbone.batch_norm.running_mean"]) / (
        tensors["backbone.batch_norm.running_var"] + 1e-5
    ).sqrt()
    h = h * tensors["backbone.batch_norm.weight"] + tensors["backbone.batch_norm.bias"]
    h = h.relu()
    assert torch.allclose(expert.encode_propagated([x]), h, atol=1e-5)
    other = h.flip(0)
    score = [
        torch.tanh(
            part @ tensors["semantic_attn.project.0.weight"].T
            + tensors["semantic_attn.project.0.bias"]
        )
        @ tensors["semantic_attn.project.2.weight"].T
        for part in (h, other)
    ]
    beta = torch.cat(score, 1).softmax(1)
    wanted = beta[:, :1] * h + beta[:, 1:] * other
    assert torch.allclose(expert.encode_propagated([x, x.flip(0)]), wanted, atol=1e-5)
    assert manifest.task == "imported"
    assert manifest.init == {"in_channels": 6, "hidden_channels": 8, "K": 2, "dropout": 0.3}


@pytest.mark.parametrize("name", ["cora", "citeseer", "ACM", "DBLP", "Aminer"])
def test_published_files_survive_the_bank(anchors_root: Path, tmp_path: Path, name: str) -> None:
    file = anchors_root / f"{name}.safetensors"
    bank = ExpertBank(tmp_path / "bank")
    bank.add(name, *import_legacy(file, name))
    loaded = ExpertBank.load(bank.path)[name]
    assert torch.equal(loaded.lin.weight, load_file(file)["backbone.conv.lin.weight"])


@pytest.mark.parametrize("expert", ["ACM", "citeseer"])
@pytest.mark.parametrize("K", [2, 5])
def test_published_embeddings_come_out_of_a_bank(
    anchors_root: Path, data_root: Path, expert: str, K: int
) -> None:
    fixtures = np.load(anchors_root / "fixtures.npz")
    graph = MultiView(num_views=0)(load_graph("cora", data_root))
    graph.x = torch.from_numpy(fixtures["x_cora"])
    bank = ExpertBank()
    bank.add(expert, *import_legacy(anchors_root / f"{expert}.safetensors", expert))
    wanted = torch.from_numpy(fixtures[f"cora__by_{expert}__K{K}"])
    assert torch.allclose(bank.embed(graph, K=K)[expert][:200], wanted, atol=1e-4)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("backbone.conv.lin.bias", None, "lacks lin.bias"),
        ("backbone.conv.lin.bias", torch.zeros(3), r"lin\.bias has shape \(3,\)"),
        ("something.else", torch.zeros(3), "something.else"),
        ("backbone.conv.lin.extra", torch.zeros(3), "lin.extra"),
        ("backbone.conv.lin.weight", torch.zeros(8), "no matrix"),
        ("backbone.conv.lin.weight", torch.zeros(10**9, 0), "no matrix"),
        ("semantic_attn.project.0.weight", torch.zeros(4, 9), r"expected \(4, 8\)"),
    ],
)
def test_other_weights_are_refused(
    tmp_path: Path, key: str, value: torch.Tensor | None, said: str
) -> None:
    tensors = published()
    if value is None:
        del tensors[key]
    else:
        tensors[key] = value
    save_file(tensors, tmp_path / "w.safetensors")
    with pytest.raises(VerificationError, match=rf"w\.safetensors: .*{said}"):
        import_legacy(tmp_path / "w.safetensors", "mine")
