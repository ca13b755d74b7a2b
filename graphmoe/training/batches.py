r"""Pre-training by batches of nodes, on features that were propagated once.

The exact mode drops input entries and permutes features anew in each epoch, and propagates them
through the whole graph. Here :math:`\hat{A}_v^K X` and :math:`\hat{A}_v^K X_\pi` are propagated
once for ``redraw`` epochs, and an epoch is a pass over the nodes in batches. So

- entries are dropped after the propagation, not before it;
- the permutation :math:`\pi` stays for ``redraw`` epochs, and so do the dropped edges;
- the summary, and the statistics of BatchNorm, are those of a batch;
- the loss of an epoch is the mean over its steps, and the weights that count as its own are those
  after the last of them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphmoe.checkpoint.files import discard
from graphmoe.checkpoint.propagated import propagated_file
from graphmoe.errors import ConfigError
from graphmoe.ops import LinearOperator, seeded_dropout
from graphmoe.ops.peers import ALONE, Peers
from graphmoe.training.interrupts import TrainingInterruptedError
from graphmoe.training.loop import Loop, finite
from graphmoe.training.memory import give_back
from graphmoe.training.state import TrainingState


@dataclass(frozen=True)
class BatchSettings:
    """What of this mode decides about the weights.

    Attributes:
        size: Nodes of a step, at least 2.
        redraw: Epochs for which permuted features (and dropped edges that are drawn afresh) stay.
        storage: Type of the propagated features on disk: ``"float32"`` or ``"bfloat16"``.
    """

    size: int = 4096
    redraw: int = 10
    storage: str = "float32"

    def __post_init__(self) -> None:
        for name, least in (("size", 2), ("redraw", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"expected {name} >= {least}, got {getattr(self, name)}")


@dataclass
class BatchLoop(Loop):
    """Epochs of batches over files of propagated features.

    Attributes:
        batches: What decides about the weights.
        views_at: The views from a turn on, counted from 0, and what tells them from those of
            another turn. A turn lasts ``batches.redraw`` epochs.
        seed: Of the permutations.
        identity: What else decides about the propagated features.
        folder: Where they are kept.
        memory: Bytes for strips of columns while they are propagated; no influence on the weights.
        tell: Called with the epochs that are done and a word on the propagation.
        peers: Who else trains this expert. Each batch is divided among them, and the loss and the
            gradients are those of the whole batch: the weights are what they are with one process
            but for the order of sums.
    """

    batches: BatchSettings = field(default_factory=BatchSettings)
    views_at: Callable[[int], tuple[Sequence[LinearOperator], str]] = lambda turn: ((), "")
    seed: int = 0
    identity: str = ""
    folder: Path = Path()
    memory: int = 1 << 30
    tell: Callable[[int, str], None] | None = None
    peers: Peers = ALONE

    def __post_init__(self) -> None:
        if not hasattr(self.objective, "contrast"):
            raise ConfigError("this objective has no loss of batches: pre-train without batches")
        if self.peers.count > 1 and not hasattr(self.objective, "group"):
            raise ConfigError("this objective does not divide its batches: train it in one process")
        self._turn = -1
        self._clean: list[Tensor] = []
        self._permuted: list[Tensor] = []

    def _epoch(self, graph: Any, state: TrainingState) -> None:
        self.objective.train()
        self._open(graph.x, state)
        generator, n = self.generators["objective"], graph.x.size(0)
        p, total = self.objective.encoder.dropout, 0.0
        place, kind = generator.device, next(self.objective.parameters()).dtype
        with self._undone(state):
            for index in _batches(n, self.batches.size, generator):
                self._check_stop(state)
                start, own = self.peers.part(index)
                part = (start, len(index))
                rows = [
                    [seeded_dropout(z[own].to(place, kind), p, generator, *part) for z in files]
                    for files in (self._clean, self._permuted)
                ]
                self.optimizer.zero_grad(set_to_none=True)
                with self.precision():
                    loss = self.objective.contrast(*rows)
                total += finite(loss.item(), state) * len(index) / n
                self.backward(loss)
                self.peers.mean_gradients(self.objective.parameters())
                self.optimizer.step()
        state.note(total, self.objective.state_dict())

    def _check_stop(self, state: TrainingState) -> None:
        if self.stop:
            raise TrainingInterruptedError(f"stopped after epoch {state.epoch}")

    @contextmanager
    def _undone(self, state: TrainingState) -> Iterator[None]:
        """An epoch may take minutes: one that is stopped is undone, and saved as it began."""
        weights = copy.deepcopy(self.objective.state_dict())
        moments = copy.deepcopy(self.optimizer.state_dict())
        random = {name: generator.get_state() for name, generator in self.generators.items()}
        try:
            yield
        except TrainingInterruptedError:
            self.objective.load_state_dict(weights)
            self.optimizer.load_state_dict(moments)
            for name, generator in self.generators.items():
                generator.set_state(random[name])
            self._save(state)
            raise

    def _open(self, x: Tensor, state: TrainingState) -> None:
        """The propagated features of this epoch: open, computed, or left by an earlier run."""
        turn = state.epoch // self.batches.redraw
        if turn == self._turn:
            return
        encoder, place = self.objective.encoder, self.generators["objective"].device
        views, name = self.views_at(turn)
        operators = encoder.operators([view.to(place) for view in views])
        clean = [f"clean{i}.{name}.bin" for i in range(len(operators))]
        permuted = [f"permuted{i}.{turn}.bin" for i in range(len(operators))]
        self._clean, self._permuted = [], []  # what is dropped from the disk must not be mapped
        self._keep_only([*clean, *permuted], state)
        order = torch.randperm(
            x.size(0), generator=torch.Generator().manual_seed(_word(self.seed, turn))
        )
        for files, names, rows in ((self._clean, clean, None), (self._permuted, permuted, order)):
            for i, op in enumerate(operators):
                what = f"{'clean' if rows is None else 'permuted'} features, view {i + 1}"
                draw = name if rows is None else f"{name} {turn}"
                files.append(
                    propagated_file(
                        op,
                        x,
                        encoder.K,
                        self.folder / names[i],
                        storage=self.batches.storage,
                        memory=self.memory,
                        identity=f"{self.identity} {type(encoder).__name__} {place.type} {draw}",
                        order=rows,
                        on_strip=partial(self._between_strips, state, what, x.size(1)),
                        peers=self.peers,
                    )
                )
        self._turn = turn
        give_back()  # the strips' memory; the rows of a batch want to stay in the system's cache

    def _between_strips(self, state: TrainingState, what: str, of: int, columns: int) -> None:
        if self.tell is not None:
            self.tell(state.epoch, f"propagating {what}: {columns} of {of} columns")
        if self.stop:
            self._save(state)
            self._check_stop(state)

    def _keep_only(self, wanted: list[str], state: TrainingState) -> None:
        """Drop what no epoch from here on reads, so that a killed run goes on from here."""
        if not self.peers.first:
            return
        found = [path for kind in ("clean", "permuted") for path in self.folder.glob(f"{kind}*")]
        stale = [path for path in found if path.name.removesuffix(".json") not in wanted]
        if stale:
            self._save(state)
        for path in stale:
            discard(path)


def _batches(n: int, size: int, generator: torch.Generator) -> list[Tensor]:
    """All nodes in a new order, in batches of at least two; rows of a batch in ascending order."""
    order = torch.randperm(n, generator=generator, device=generator.device).cpu()
    parts = list(order.split(size))
    if len(parts) > 1 and len(parts[-1]) < 2:
        parts[-2:] = [torch.cat(parts[-2:])]
    return [part.sort().values for part in parts]


def _word(*words: int) -> int:
    return int(np.random.SeedSequence(words).generate_state(1)[0])


def about_batches(batches: BatchSettings | None) -> dict[str, Any]:
    """What an expert's manifest says of this mode; nothing of the exact one."""
    return {} if batches is None else {"batches": asdict(batches)}
