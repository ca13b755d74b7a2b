"""The bank: pre-trained experts by name, in memory or on disk."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from graphmoe.checkpoint import store
from graphmoe.checkpoint.build import ALIGNMENT, build_expert
from graphmoe.checkpoint.files import real_folder
from graphmoe.checkpoint.manifest import ExpertManifest, check_expert_name
from graphmoe.checkpoint.shared import SharedExperts
from graphmoe.errors import ConfigError, VerificationError, unknown_name
from graphmoe.typing import PathLike


@dataclass
class _Entry:
    """An expert: its manifest, and its module once somebody asked for it."""

    manifest: ExpertManifest
    expert: nn.Module | None = None
    alignment: dict[str, Tensor] | None = None


class ExpertBank(SharedExperts):
    """Pre-trained experts by name.

    A bank lives in memory; once loaded from a folder or saved to one it is bound to it, and
    :meth:`add` and :meth:`remove` write there at once. An expert is frozen: ``bank[name]`` is a
    copy of its own in evaluation mode, so nothing done to it changes the bank, and experts join and
    leave without touching one another.

    Args:
        path: A folder to bind an empty bank to; ``None``: memory only.

    Example:
        >>> from graphmoe import ExpertBank, MultiView, load_graph
        >>> bank = ExpertBank.load("bank")
        >>> bank.names
        ('karate', 'wine')
        >>> data = MultiView()(load_graph("iris"))  # aligned to the width that experts take
        >>> bank["karate"](data.x, data.views).shape
        torch.Size([150, 128])
    """

    def __init__(self, path: PathLike | None = None) -> None:
        self.path = None if path is None else Path(path)
        self._entries: dict[str, _Entry] = {}
        self._verify = True

    @classmethod
    def load(
        cls, path: PathLike, verify: bool = True, names: Sequence[str] | None = None
    ) -> ExpertBank:
        """The bank in folder ``path``. No code in it is run, whoever wrote it.

        Args:
            path: A folder that :meth:`save` or ``graphmoe pretrain`` wrote.
            verify: Read every file now and compare it with its recorded hash; otherwise weights
                are read when they are first asked for, and only their form is checked.
            names: Load only these experts; ``None``: all.

        Raises:
            MissingDataError: There is no folder at ``path``.
            ConfigError: One of ``names`` is not there.
            VerificationError: A file is damaged, missing or foreign; every fault is listed.
        """
        bank = cls(path)
        root = Path(path)
        found = store.expert_names(root)
        store.settle(root)
        found = store.expert_names(root)
        for name in names or ():
            if name not in found:
                raise ConfigError(f"{root}: {unknown_name('expert', name, found)}")
        faults = _faults_of(lambda: store.check_index(root))
        for name in found if names is None else names:
            faults += _faults_of(lambda name=name: bank._open(name, verify))  # type: ignore[misc]
        if faults:
            raise VerificationError("\n".join(faults))
        bank._verify = verify
        return bank

    def save(self, path: PathLike, overwrite: bool = False) -> None:
        """Write every expert to folder ``path`` and bind this bank to it.

        Args:
            path: The folder; created where it is missing. Experts already there stay.
            overwrite: Replace experts of the same names, otherwise an error.
        """
        root = Path(path)
        if self.path is not None and root.resolve() == self.path.resolve():
            return  # a bound bank is written as it changes
        for name in self.names:
            entry = self._entries[name]
            entry.manifest = store.write_expert(root, entry.manifest, self.tensors(name), overwrite)
        self.path = root

    def add(
        self,
        name: str,
        expert: nn.Module,
        manifest: ExpertManifest | None = None,
        *,
        alignment: dict[str, Tensor] | None = None,
        overwrite: bool = False,
    ) -> None:
        """Add ``expert``, a copy of which is kept.

        Args:
            name: Its name: letters, digits, ``_``, ``-``, ``.``.
            expert: An encoder of a registered class.
            manifest: What is known about it; the name, class and arguments are taken from
                ``name`` and ``expert``.
            alignment: Tensors of the fitted feature projection, kept with the weights.
            overwrite: Replace an expert of that name.

        Raises:
            ConfigError: The name cannot be used, or is taken and ``overwrite`` is false.
            GraphMoEError: The bank is on a disk that refuses; nothing of it has changed.
        """
        own = ExpertManifest.of(name, expert)
        if manifest is not None:
            fixed = {key: getattr(own, key) for key in ("name", "model_class", "init")}
            own = manifest.model_copy(update={**fixed, "files": {}})
        if name in self and not overwrite:
            raise ConfigError(f"the bank already has an expert {name!r}: remove or overwrite it")
        expert = copy.deepcopy(expert).cpu().eval()
        alignment = dict(alignment or {})
        if self.path is not None:
            own = store.write_expert(self.path, own, _tensors(expert, alignment), overwrite)
        self._entries[name] = _Entry(own, expert, alignment)

    def adopt(self, folder: PathLike, name: str | None = None, overwrite: bool = False) -> str:
        """Add an expert from its folder in another bank, after verifying it.

        Args:
            folder: Such as ``other_bank/cora``.
            name: Its name here; ``None``: the name it has there.
            overwrite: Replace an expert of that name.

        Returns:
            The name it got.
        """
        source = Path(folder)
        if not real_folder(source):
            raise ConfigError(f"no expert at {source}: expected a folder with {store.MANIFEST}")
        other = ExpertBank(source.parent)
        other._open(source.name, verify=True)
        name = check_expert_name(name or source.name)
        self.add(
            name,
            other[source.name],
            other.manifest(source.name),
            alignment=other.alignment(source.name),
            overwrite=overwrite,
        )
        return name

    def remove(self, name: str) -> None:
        """Take ``name`` out, from the folder too where the bank is bound to one.

        Raises:
            ConfigError: There is no such expert.
        """
        self._entry(name)
        if self.path is not None:
            store.remove_experts(self.path, [name])
        del self._entries[name]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the experts, sorted."""
        return tuple(sorted(self._entries))

    def manifest(self, name: str) -> ExpertManifest:
        """What is known about ``name``."""
        return self._entry(name).manifest

    def alignment(self, name: str) -> dict[str, Tensor]:
        """Tensors of the feature projection fitted on the graph ``name`` was trained on."""
        self._module(name)
        return dict(self._entry(name).alignment or {})

    def tensors(self, name: str) -> dict[str, Tensor]:
        """All that ``name`` has in its file: weights, buffers, and the feature projection."""
        return _tensors(self._module(name), self.alignment(name))

    def embed(self, data: Data, K: int | None = None) -> dict[str, Tensor]:
        """Embed one multi-view graph with every expert.

        Args:
            data: A graph in multi-view form, with ``x`` [N, D] and ``views``.
            K: Propagation steps; ``None``: those each expert was trained with.

        Returns:
            For each name the embedding, [N, D].
        """
        with torch.no_grad():
            return {
                name: self[name].to(data.x.device)(data.x, data.views, K=K) for name in self.names
            }

    def verify(self) -> None:
        """Read every file of the bank's folder again and compare it with its recorded hash.

        Raises:
            ConfigError: The bank is in memory only.
            VerificationError: Every fault, one a line, each naming its file.
        """
        if self.path is None:
            raise ConfigError("only a bank that was saved can be verified")
        ExpertBank.load(self.path, verify=True)

    def summary(self) -> list[dict[str, Any]]:
        """One row an expert: ``name``, ``class``, ``task``, ``views``, ``nodes``, ``metrics`` …"""
        rows = []
        for name in self.names:
            manifest = self.manifest(name)
            rows.append(
                {
                    "name": name,
                    "class": manifest.model_class,
                    "task": manifest.task,
                    "nodes": manifest.graph.get("num_nodes"),
                    "views": list(manifest.views),
                    "seed": manifest.seed,
                    **manifest.metrics,
                }
            )
        return rows

    def __getitem__(self, name: str) -> Any:
        return copy.deepcopy(self._module(name))

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        place = "memory" if self.path is None else str(self.path)
        return f"{type(self).__name__}({len(self)} experts, {place})"

    def _entry(self, name: str) -> _Entry:
        if name not in self._entries:
            raise ConfigError(unknown_name("expert", name, self.names))
        return self._entries[name]

    def _module(self, name: str) -> nn.Module:
        entry = self._entry(name)
        if entry.expert is None:
            self._open(name, self._verify, weights=True)
            entry = self._entries[name]
        assert entry.expert is not None
        return entry.expert

    def _open(self, name: str, verify: bool, weights: bool = False) -> None:
        """Read ``name`` from the folder: its manifest, and its weights where asked."""
        assert self.path is not None
        if not (verify or weights):
            self._entries[name] = _Entry(store.read_manifest(self.path, name))
            return
        manifest, tensors = store.read_expert(self.path, name, verify)
        expert = build_expert(manifest, tensors, self.path / name / store.WEIGHTS)
        alignment = {
            key.removeprefix(ALIGNMENT): value
            for key, value in tensors.items()
            if key.startswith(ALIGNMENT)
        }
        self._entries[name] = _Entry(manifest, expert, alignment)


def _tensors(expert: nn.Module, alignment: dict[str, Tensor]) -> dict[str, Tensor]:
    fitted = {f"{ALIGNMENT}{key}": value for key, value in alignment.items()}
    return {**expert.state_dict(), **fitted}


def _faults_of(check: Any) -> list[str]:
    try:
        check()
    except VerificationError as error:
        return [str(error)]
    return []
