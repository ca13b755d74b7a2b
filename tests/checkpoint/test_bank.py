"""The bank gives back what was put in, and keeps what it does not understand out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from graphmoe.checkpoint import ExpertBank, ExpertManifest, rebuild_index, remove_experts
from graphmoe.data import load_graph
from graphmoe.errors import ConfigError, MissingDataError, VerificationError
from graphmoe.nn import MultiViewEncoder
from graphmoe.transforms import MultiView


def encoder(seed: int = 0, **arguments: object) -> MultiViewEncoder:
    torch.manual_seed(seed)
    made = MultiViewEncoder(16, 8, **arguments)
    made.norm.running_mean.normal_()
    made.norm.running_var.uniform_(0.5, 2)
    return made.eval()


@pytest.fixture
def bank(tmp_path: Path) -> ExpertBank:
    made = ExpertBank()
    made.add("karate", encoder(0, K=3, dropout=0.1))
    made.add("wine", encoder(1))
    made.save(tmp_path / "bank")
    return made


def test_experts_come_back_bit_for_bit(bank: ExpertBank) -> None:
    graph = MultiView(16)(load_graph("karate"))
    loaded = ExpertBank.load(bank.path)
    assert loaded.names == ("karate", "wine")
    for name in bank.names:
        before, after = bank[name].state_dict(), loaded[name].state_dict()
        assert before.keys() == after.keys()
        assert all(torch.equal(before[key], after[key]) for key in before)
        assert not loaded[name].training
    assert loaded["karate"].K == 3
    assert loaded["karate"].dropout == 0.1
    for name, embedding in loaded.embed(graph).items():
        assert torch.equal(embedding, bank[name](graph.x, graph.views))


def test_embed_takes_the_steps_it_is_given(bank: ExpertBank) -> None:
    graph = MultiView(16)(load_graph("karate"))
    embedding = bank.embed(graph, K=0)["wine"]
    assert torch.equal(embedding, bank["wine"](graph.x, graph.views, K=0))
    assert not torch.allclose(embedding, bank.embed(graph)["wine"])
    assert not embedding.requires_grad


def test_what_is_done_to_an_expert_does_not_reach_the_bank(bank: ExpertBank) -> None:
    mine = bank["wine"]
    with torch.no_grad():
        mine.lin.weight.zero_()
    mine.train()
    assert bank["wine"].lin.weight.abs().sum() > 0
    assert not bank["wine"].training


def test_what_is_done_to_an_added_expert_does_not_reach_the_bank() -> None:
    mine, bank = encoder(), ExpertBank()
    bank.add("mine", mine)
    with torch.no_grad():
        mine.lin.weight.zero_()
    assert bank["mine"].lin.weight.abs().sum() > 0


def test_manifest_says_what_the_expert_is(bank: ExpertBank) -> None:
    manifest = ExpertBank.load(bank.path).manifest("karate")
    assert manifest.model_class == "MultiViewEncoder"
    assert manifest.init == {"in_channels": 16, "hidden_channels": 8, "K": 3, "dropout": 0.1}
    assert manifest.versions["torch"] == str(torch.__version__)
    text = (bank.path / "karate" / "manifest.json").read_text()
    assert json.loads(text)["class"] == "MultiViewEncoder"
    assert "graphmoe.nn" not in text  # a class by its name, never by an import path


def test_the_fitted_projection_is_kept_with_the_weights(tmp_path: Path) -> None:
    bank, fitted = ExpertBank(tmp_path / "bank"), torch.randn(40, 16)
    bank.add("mine", encoder(), alignment={"projection": fitted})
    assert torch.equal(ExpertBank.load(bank.path).alignment("mine")["projection"], fitted)
    bank.save(tmp_path / "copy")
    assert ExpertBank(tmp_path / "copy").adopt(bank.path / "mine", "other") == "other"
    copy = ExpertBank.load(tmp_path / "copy")
    assert copy.names == ("mine", "other")
    assert torch.equal(copy.alignment("other")["projection"], fitted)


def test_a_bound_bank_is_written_as_it_changes(bank: ExpertBank) -> None:
    bank.add("third", encoder(2))
    bank.remove("wine")
    assert ExpertBank.load(bank.path).names == ("karate", "third")
    index = json.loads((bank.path / "index.json").read_text())
    assert sorted(index["experts"]) == ["karate", "third"]


def test_an_expert_leaves_the_others_untouched(bank: ExpertBank) -> None:
    before = (bank.path / "karate" / "model.safetensors").read_bytes()
    bank.remove("wine")
    assert (bank.path / "karate" / "model.safetensors").read_bytes() == before


def test_equal_weights_give_equal_files(bank: ExpertBank, tmp_path: Path) -> None:
    ExpertBank.load(bank.path).save(tmp_path / "again")
    for name in bank.names:
        parts = [path / name / "model.safetensors" for path in (bank.path, tmp_path / "again")]
        assert parts[0].read_bytes() == parts[1].read_bytes()


def test_a_name_is_taken_once(bank: ExpertBank) -> None:
    with pytest.raises(ConfigError, match="already has an expert 'wine'"):
        bank.add("wine", encoder(5))
    bank.add("wine", encoder(5), overwrite=True)
    assert torch.equal(ExpertBank.load(bank.path)["wine"].lin.weight, encoder(5).lin.weight)


def test_saving_over_another_bank_keeps_its_experts(bank: ExpertBank, tmp_path: Path) -> None:
    other = ExpertBank(tmp_path / "other")
    other.add("digits", encoder(7))
    bank.save(other.path)
    assert ExpertBank.load(other.path).names == ("digits", "karate", "wine")
    another = ExpertBank()
    another.add("wine", encoder(8))
    with pytest.raises(ConfigError, match="already has"):
        another.save(other.path)


@pytest.mark.parametrize(
    "name", ["../../x", "", ".", "..", "/etc/x", "a/b", "a\\b", ".hidden", "-x", "logs", "x" * 101]
)
def test_names_that_leave_the_bank_are_refused(bank: ExpertBank, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot name an expert"):
        bank.add(name, encoder())
    with pytest.raises(ConfigError):
        remove_experts(bank.path, [name])
    assert ExpertBank.load(bank.path).names == ("karate", "wine")


def test_unknown_experts_are_named_with_what_there_is(bank: ExpertBank) -> None:
    with pytest.raises(ConfigError, match=r"'karat'.*karate"):
        bank["karat"]
    with pytest.raises(ConfigError, match="'nobody'"):
        ExpertBank.load(bank.path, names=["nobody"])
    with pytest.raises(ConfigError, match="'nobody'"):
        remove_experts(bank.path, ["wine", "nobody"])
    assert "wine" in ExpertBank.load(bank.path)


def test_only_the_experts_asked_for_are_read(bank: ExpertBank) -> None:
    (bank.path / "wine" / "model.safetensors").write_bytes(b"damaged")
    assert ExpertBank.load(bank.path, names=["karate"]).names == ("karate",)


def test_damaged_experts_can_be_removed(bank: ExpertBank) -> None:
    (bank.path / "wine" / "manifest.json").write_bytes(b"damaged")
    with pytest.raises(VerificationError, match=r"wine/manifest\.json"):
        ExpertBank.load(bank.path, verify=False)
    remove_experts(bank.path, ["wine"])
    assert ExpertBank.load(bank.path).names == ("karate",)


def test_the_index_is_rebuilt_from_the_folders(bank: ExpertBank) -> None:
    index = bank.path / "index.json"
    before = index.read_bytes()
    index.unlink()
    assert ExpertBank.load(bank.path).names == ("karate", "wine")
    rebuild_index(bank.path)
    assert index.read_bytes() == before


def test_an_unfinished_folder_is_no_expert(bank: ExpertBank) -> None:
    (bank.path / "half" / "resume").mkdir(parents=True)
    assert ExpertBank.load(bank.path).names == ("karate", "wine")


def test_no_bank_there(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="no bank at"):
        ExpertBank.load(tmp_path / "nowhere")


def test_a_class_outside_the_registry_cannot_be_loaded(tmp_path: Path) -> None:
    class Foreign(nn.Linear):
        def __init__(self, in_features: int = 2, out_features: int = 2) -> None:
            super().__init__(in_features, out_features)

    bank = ExpertBank(tmp_path / "bank")
    bank.add("foreign", Foreign())
    with pytest.raises(VerificationError, match=r"foreign/manifest\.json.*'Foreign'"):
        ExpertBank.load(bank.path)


def test_a_class_whose_arguments_are_lost_cannot_be_stored() -> None:
    class Forgetful(nn.Module):
        def __init__(self, width: int = 2) -> None:
            super().__init__()

    with pytest.raises(TypeError, match=r"Forgetful\.width is not kept"):
        ExpertBank().add("x", Forgetful())


def test_manifest_fields_are_checked() -> None:
    with pytest.raises(ValueError, match="seed"):
        ExpertManifest(name="x", model_class="MultiViewEncoder", seed="zero")  # type: ignore[arg-type]


def test_summary_has_a_row_an_expert(bank: ExpertBank) -> None:
    manifest = ExpertManifest.of("third", encoder(), metrics={"loss": 0.5}, views=("base", "drop1"))
    bank.add("third", encoder(), manifest)
    row = ExpertBank.load(bank.path, verify=False).summary()[1]
    assert (row["name"], row["loss"], row["views"]) == ("third", 0.5, ["base", "drop1"])
