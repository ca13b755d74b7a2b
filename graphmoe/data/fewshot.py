"""Few-shot splits: a handful of labelled nodes a class to learn from, the rest to be scored on."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphmoe.data.files import read_archive
from graphmoe.errors import DataError, MissingDataError
from graphmoe.typing import PathLike

#: Share of the labelled nodes that the published protocol scores on.
LEGACY_TEST_SHARE = 0.9

_KEY = re.compile(r"(train|val|test)_idx_(\d+)shot_task(\d+)")


@dataclass(frozen=True, eq=False)
class FewShotSplit:
    """Node indices of one few-shot task, each int64 in rising order.

    Attributes:
        train: ``[C * k]`` the labelled nodes, k of each class.
        val: Nodes to choose on; empty when the protocol has none.
        test: Nodes to score on.
        shots: Labelled nodes a class, k.
        task: Which of the draws this is, from 1.
    """

    train: Tensor
    val: Tensor
    test: Tensor
    shots: int
    task: int

    def disjoint(self) -> FewShotSplit:
        """The same split, scored only on nodes that were neither trained nor chosen on."""
        seen = torch.cat([self.train, self.val])
        return replace(self, test=self.test[~torch.isin(self.test, seen)])


def few_shot_splits(
    y: Tensor,
    shots: int,
    num_tasks: int = 10,
    num_val: int | None = None,
    seed: int = 0,
    protocol: str = "strict",
) -> list[FewShotSplit]:
    r"""Draw few-shot splits.

    ``"strict"``: the nodes of each class are permuted; the first ``shots`` train, the next
    ``num_val`` validate, all others test. The three are disjoint and every class is in each. Draw
    ``t`` depends on ``seed`` and ``t`` alone, and the training nodes for 3 shots are among those
    for 5.

    ``"legacy"``: the protocol of the published figures (`arXiv 2602.13075
    <https://arxiv.org/abs/2602.13075>`_), which takes training and test nodes from two
    independent permutations. There is no validation set, the test set is nine tenths of the
    labelled nodes, and about nine in ten training nodes are tested too. For comparison only;
    :meth:`FewShotSplit.disjoint` repairs it.

    Args:
        y: ``[N]`` class of each node, -1 where it is not known (such nodes are in no set).
        shots: Labelled nodes a class, k.
        num_tasks: Number of draws.
        num_val: Validation nodes a class. (default: as many as ``shots``; always 0 for
            ``"legacy"``)
        seed: Seed of the draws.
        protocol: ``"strict"`` or ``"legacy"``.

    Raises:
        DataError: A class has too few nodes; every such class is listed.
        ValueError: An argument is out of range.

    Example:
        >>> from graphmoe import load_graph
        >>> from graphmoe.data.fewshot import few_shot_splits
        >>> first, second = few_shot_splits(load_graph("iris").y, shots=3, num_tasks=2)
        >>> len(first.train), len(first.val), len(first.test)  # of 150 flowers in 3 classes
        (9, 9, 132)
    """
    if protocol not in ("strict", "legacy"):
        raise ValueError(f"protocol is 'strict' or 'legacy', got {protocol!r}")
    legacy = protocol == "legacy"
    num_val = 0 if legacy else shots if num_val is None else num_val
    if shots < 1 or num_tasks < 1 or num_val < 0:
        raise ValueError(
            f"shots and num_tasks are at least 1 and num_val at least 0, "
            f"got {shots}, {num_tasks} and {num_val}"
        )
    labels = _labels(y)
    # One more than is drawn, so that no class goes untested. The published draw needs none over.
    _require(labels, shots + num_val + (not legacy), shots, num_val)
    draw = _legacy_draw if legacy else _strict_draw
    splits = []
    for task in range(1, num_tasks + 1):
        train, val, test = draw(labels, shots, num_val, np.random.default_rng([seed, task]))
        splits.append(FewShotSplit(train, val, test, shots, task))
    return splits


def load_splits(
    path: PathLike,
    shots: int,
    *,
    y: Tensor | None = None,
    num_val: int = 0,
    seed: int = 0,
) -> list[FewShotSplit]:
    """Few-shot splits from a file, made disjoint: test nodes that train as well are not scored.

    Args:
        path: ``.npz`` with ``train_idx_{k}shot_task{t}`` and ``test_idx_{k}shot_task{t}`` (and,
            if there is validation, ``val_idx_…``), and optionally ``labels`` ``[N]``.
        shots: Which k to read.
        y: ``[N]`` labels of the graph the splits are for; compared with the file's own.
        num_val: Validation nodes a class to draw from the nodes in neither set, for a file that
            has none. (default: 0, no validation)
        seed: Seed of that draw.

    Returns:
        One split a task, in the order of their numbers.

    Raises:
        MissingDataError: There is no such file.
        DataError: The file has no such splits, or they do not fit the labels; every fault listed.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingDataError(f"the splits file {path} is not there")
    arrays = read_archive(path)
    stored = {
        (int(k), int(t)) for k, t in (m.group(2, 3) for m in map(_KEY.fullmatch, arrays) if m)
    }
    tasks = sorted(t for k, t in stored if k == shots)
    if not tasks:
        known = ", ".join(map(str, sorted({k for k, _ in stored}))) or "none"
        raise DataError(f"{path} has no splits for {shots} shots; it has {known}")
    own = _labels(arrays["labels"]) if "labels" in arrays else None
    labels = _labels(y) if y is not None else own
    faults = _label_faults(own, labels)
    splits = []
    for task in tasks:
        parts = [
            arrays.get(f"{part}_idx_{shots}shot_task{task}") for part in ("train", "val", "test")
        ]
        wrong = _index_faults(parts, None if labels is None else len(labels), shots, task)
        faults += wrong
        if not wrong:
            sets = [torch.empty(0, dtype=torch.long) if p is None else p.long() for p in parts]
            train, val, test = (part.unique() for part in sets)
            splits.append(FewShotSplit(train, val, test, shots, task).disjoint())
    if faults:
        raise DataError(f"{path}: " + "; ".join(faults))
    if num_val and not any(split.val.numel() for split in splits):
        if labels is None:
            raise DataError(f"{path} has no labels: pass y to draw validation nodes by class")
        splits = [_with_validation(split, labels, num_val, seed) for split in splits]
    return splits


def save_splits(path: PathLike, splits: Iterable[FewShotSplit], y: Tensor) -> None:
    """Write splits to an ``.npz`` that :func:`load_splits` reads back."""
    arrays: dict[str, Any] = {"labels": y.cpu().numpy()}
    for split in splits:
        for part in ("train", "val", "test"):
            index: Tensor = getattr(split, part)
            arrays[f"{part}_idx_{split.shots}shot_task{split.task}"] = index.numpy()
    with Path(path).open("wb") as file:
        np.savez_compressed(file, **arrays)


def splits_fingerprint(splits: Sequence[FewShotSplit]) -> str:
    """SHA-256 over the node indices of ``splits``, for result files: equal splits, equal hash."""
    digest = hashlib.sha256()
    for split in splits:
        for index in (split.train, split.val, split.test):
            values = index.numpy().astype("<i8")
            digest.update(len(values).to_bytes(8, "little") + values.tobytes())
    return digest.hexdigest()


def _labels(y: Tensor) -> np.ndarray:
    if y.dim() != 1 or y.is_floating_point():
        raise DataError(
            f"labels are whole numbers of shape [N], got shape {list(y.shape)} of {y.dtype}"
        )
    return y.cpu().numpy().astype(np.int64)


def _require(labels: np.ndarray, needed: int, shots: int, num_val: int) -> None:
    if not (labels >= 0).any():
        raise DataError("no node has a label: few-shot splits need labelled nodes")
    counts = np.bincount(labels[labels >= 0])
    short = [f"class {c} has {n}" for c, n in enumerate(counts) if n < needed]
    if short:
        parts = f"{shots} shots" + (f", {num_val} for validation" if num_val else "")
        parts += " and at least 1 to test" if needed > shots + num_val else ""
        raise DataError(f"each class needs {needed} labelled nodes ({parts}): {', '.join(short)}")


def _rising(nodes: np.ndarray) -> Tensor:
    return torch.from_numpy(np.sort(nodes))


def _strict_draw(
    labels: np.ndarray, shots: int, num_val: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    order = [rng.permutation(np.flatnonzero(labels == c)) for c in range(labels.max() + 1)]
    cut = shots + num_val
    train, val, test = (
        np.concatenate([nodes[part] for nodes in order])
        for part in (slice(shots), slice(shots, cut), slice(cut, None))
    )
    return _rising(train), _rising(val), _rising(test)


def _legacy_draw(
    labels: np.ndarray, shots: int, _: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    known = np.flatnonzero(labels >= 0)
    first, second = rng.permutation(known), rng.permutation(known)
    train = [first[labels[first] == c][:shots] for c in range(labels.max() + 1)]
    test = second[: int(LEGACY_TEST_SHARE * len(known))]
    return _rising(np.concatenate(train)), _rising(known[:0]), _rising(test)


def _with_validation(
    split: FewShotSplit, labels: np.ndarray, num_val: int, seed: int
) -> FewShotSplit:
    """Validation nodes from those in neither set, so that no scored node is ever chosen on."""
    free = labels.copy()
    free[torch.cat([split.train, split.test]).numpy()] = -1
    rng = np.random.default_rng([seed, split.task])
    chosen, short = [], []
    for c in range(labels.max() + 1):
        nodes = np.flatnonzero(free == c)
        if len(nodes) < num_val:
            short.append(f"class {c} has {len(nodes)}")
        chosen.append(rng.permutation(nodes)[:num_val])
    if short:
        raise DataError(
            f"task {split.task}: {num_val} validation nodes a class were asked for among the nodes "
            f"that neither train nor test: {', '.join(short)}"
        )
    return replace(split, val=_rising(np.concatenate(chosen)))


def _label_faults(own: np.ndarray | None, labels: np.ndarray | None) -> list[str]:
    if own is None or labels is None:
        return []
    if len(own) != len(labels):
        return [f"its labels are for {len(own)} nodes, the graph has {len(labels)}"]
    differing = int((own != labels).sum())
    return [f"its labels differ from the graph's in {differing} nodes"] if differing else []


def _index_faults(
    parts: Sequence[Tensor | None], nodes: int | None, shots: int, task: int
) -> list[str]:
    faults = []
    for name, index in zip(("train", "val", "test"), parts, strict=True):
        where = f"{name}_idx_{shots}shot_task{task}"
        if index is None:
            faults += [f"{where} is missing"] if name != "val" else []
        elif index.is_floating_point() or index.dim() != 1:
            faults.append(f"{where} is not a list of node indices")
        elif index.numel() and (int(index.min()) < 0 or int(index.max()) >= (nodes or 2**62)):
            last = "" if nodes is None else f"..{nodes - 1}"
            faults.append(f"{where} names nodes outside 0{last}")
    return faults
