"""Kept tensors: whole or absent, whatever happened to the file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from graphmoe.checkpoint.tensor_cache import TensorCache
from graphmoe.errors import GraphMoEError

TENSORS = {"a": torch.arange(40.0), "b": torch.tensor([3, 1], dtype=torch.int32)}


def test_what_was_put_comes_back(tmp_path: Path) -> None:
    cache = TensorCache(tmp_path / "new" / "folder")
    assert cache.get("k1") is None
    cache.put("k1", TENSORS)
    found = cache.get("k1")
    assert found is not None
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert torch.equal(found[name], tensor)
        assert found[name].dtype == tensor.dtype
    assert cache.get("k2") is None
    assert [path.name for path in cache.folder.iterdir()] == ["k1.safetensors"]


@pytest.mark.parametrize("fault", ["flipped", "cut", "empty", "other"])
def test_a_damaged_file_is_absent_with_a_warning(tmp_path: Path, fault: str) -> None:
    cache = TensorCache(tmp_path)
    cache.put("k", TENSORS)
    path = tmp_path / "k.safetensors"
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    cut = path.read_bytes()[:-7]
    path.write_bytes({"flipped": bytes(data), "cut": cut, "empty": b"", "other": b"x" * 99}[fault])
    with pytest.warns(UserWarning, match=r"k\.safetensors: .*computed anew"):
        assert cache.get("k") is None
    cache.put("k", TENSORS)
    assert cache.get("k") is not None


def test_a_file_of_another_key_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="letters and digits"):
        TensorCache(tmp_path).get("../k")


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(GraphMoEError, match="taken"):
        TensorCache(tmp_path / "taken").put("k", TENSORS)
