"""Tensors kept between runs under the hash of what they were computed from."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path

import torch
from torch import Tensor

from graphmoe.checkpoint.files import make_folder, write_bytes
from graphmoe.checkpoint.tensors import dump_tensors, read_tensors
from graphmoe.errors import VerificationError

_DIGEST = "sha256"


class TensorCache:
    """A folder of safetensors files, each named by its key and holding its own SHA-256.

    Files are written beside and moved, so that readers, and writers of the same key, never see
    half of one. A damaged file counts as absent, with a warning.

    Args:
        folder: Made when something is put there.
        write: Whether :meth:`put` writes; without, what is there is only read.
    """

    def __init__(self, folder: Path | str, write: bool = True) -> None:
        self.folder, self.write = Path(folder), write

    def get(self, key: str) -> dict[str, Tensor] | None:
        """What was kept under ``key``, or ``None`` where nothing, or nothing whole, is there."""
        path = self._path(key)
        if not path.exists():
            return None
        try:
            tensors = read_tensors(path)
            digest = tensors.pop(_DIGEST, None)
            # A flipped bit among the numbers leaves a file that can be read.
            if digest is None or not torch.equal(digest, _digest(tensors)):
                raise VerificationError(f"{path}: its content is not what was written")
        except VerificationError as error:
            warnings.warn(f"{error}; computed anew", stacklevel=3)
            return None
        return tensors

    def put(self, key: str, tensors: dict[str, Tensor]) -> None:
        """Keep ``tensors`` under ``key``.

        Raises:
            GraphMoEError: The folder cannot be written.
        """
        path = self._path(key)
        if not self.write:
            return
        make_folder(self.folder)
        write_bytes(path, dump_tensors({**tensors, _DIGEST: _digest(tensors)}))

    def _path(self, key: str) -> Path:
        if not key.isalnum():
            raise ValueError(f"expected a key of letters and digits, got {key!r}")
        return self.folder / f"{key}.safetensors"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.folder)!r})"


def _digest(tensors: dict[str, Tensor]) -> Tensor:
    """The SHA-256 of the tensors as they are written."""
    return torch.tensor(list(hashlib.sha256(dump_tensors(tensors)).digest()), dtype=torch.uint8)
