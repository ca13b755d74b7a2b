"""The state of a training between two epochs: everything that decides about the rest of it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn, optim

from graphmoe.checkpoint.files import (
    create_bytes,
    make_folder,
    new_folder,
    read_bytes,
    recover,
    remove_folder,
    sha256,
)
from graphmoe.checkpoint.sealed import dump_sealed, load_sealed
from graphmoe.checkpoint.tensors import MAX_TENSOR_BYTES, dump_tensors, load_tensors
from graphmoe.errors import ConfigError, GraphMoEError, VerificationError

RESUME = "resume"
STATE = "state.json"
OPTIMIZER = "optimizer.safetensors"
RNG = "rng.safetensors"
RECORDS = "epochs.jsonl"
FORMAT = "graphmoe-training"
VERSION = 1


@dataclass
class TrainingState:
    """Where a training stands after some number of whole epochs.

    Without scores the best epoch is the one of the lowest loss, with scores that of the highest.

    Attributes:
        losses: The loss of each epoch so far.
        best_epoch: Index of the best epoch; -1 before the first.
        best_loss: Its loss.
        best: The objective's weights and buffers in that epoch; a copy.
        seconds: Time spent in the epochs, over all the runs that led here.
        scores: The validation score of each epoch; empty where the loss decides.
        held_epoch: Index of the last epoch in which the objective was not ready to be stopped;
            -1: it always was.
        records: What is known of each epoch, as plain values; empty where only the loss is.
    """

    losses: list[float] = field(default_factory=list)
    best_epoch: int = -1
    best_loss: float = float("inf")
    best: dict[str, Tensor] = field(default_factory=dict)
    seconds: float = 0.0
    scores: list[float] = field(default_factory=list)
    held_epoch: int = -1
    records: list[dict[str, Any]] = field(default_factory=list)

    @property
    def epoch(self) -> int:
        """How many epochs are done."""
        return len(self.losses)

    @property
    def best_score(self) -> float:
        """The highest score; minus infinity before the first."""
        return self.scores[self.best_epoch] if self.scores else float("-inf")

    @property
    def waited(self) -> int:
        """Epochs since the best one, or since stopping became possible where that is later."""
        return self.epoch - 1 - max(self.best_epoch, self.held_epoch)

    def note(
        self,
        loss: float,
        weights: dict[str, Tensor],
        score: float | None = None,
        record: dict[str, Any] | None = None,
        may_stop: bool = True,
    ) -> bool:
        """Add an epoch, and a copy of its ``weights`` if it is the best.

        Args:
            loss: Of this epoch.
            weights: That are kept if it is the best.
            score: On validation, higher is better; ``None``: the loss decides.
            record: What else is known of it.
            may_stop: Whether the objective is ready to be stopped.

        Returns:
            Whether it is the best so far.
        """
        better = loss < self.best_loss if score is None else score > self.best_score
        self.losses.append(loss)
        if score is not None:
            self.scores.append(score)
        if record is not None:
            self.records.append(record)
        if not may_stop:
            self.held_epoch = self.epoch - 1
        if not better:
            return False
        self.best_epoch, self.best_loss = self.epoch - 1, loss
        # state_dict() is a live view: without a copy the last step would be kept, not the best.
        self.best = {key: value.detach().clone() for key, value in weights.items()}
        return True


@dataclass
class Checkpointer:
    """Writes and reads the state of one training in its ``resume/`` folder.

    Attributes:
        folder: The expert's folder in the bank.
        identity: What must be the same for a training to go on: settings, seed, graph.
    """

    folder: Path
    identity: dict[str, Any]

    @property
    def resume_folder(self) -> Path:
        """Where the state is kept."""
        return self.folder / RESUME

    def save(
        self,
        state: TrainingState,
        objective: nn.Module,
        optimizer: optim.Optimizer,
        generators: dict[str, torch.Generator],
    ) -> None:
        """Write everything, so that a reader sees this state or the one before, whole."""
        current = {f"current.{key}": value for key, value in objective.state_dict().items()}
        best = {f"best.{key}": value for key, value in state.best.items()}
        moments, groups = _pack(optimizer)
        random = {name: generator.get_state() for name, generator in generators.items()}
        files = {
            OPTIMIZER: dump_tensors({**current, **best, **moments}),
            RNG: dump_tensors(random),
        }
        if state.records:
            files[RECORDS] = dump_records(state.records)
        content = {
            "format": FORMAT,
            "version": VERSION,
            "identity": self.identity,
            "losses": state.losses,
            "best_epoch": state.best_epoch,
            "seconds": state.seconds,
            "param_groups": groups,
            "files": {name: sha256(data) for name, data in files.items()},
        }
        if state.scores:
            content |= {"scores": state.scores, "held_epoch": state.held_epoch}
        make_folder(self.folder)
        with new_folder(self.resume_folder) as temporary:
            for name, data in files.items():
                create_bytes(temporary / name, data)
            create_bytes(temporary / STATE, dump_sealed(content))

    def load(
        self,
        objective: nn.Module,
        optimizer: optim.Optimizer,
        generators: dict[str, torch.Generator],
    ) -> TrainingState | None:
        """Put objective, optimiser and generators into the saved state; ``None``: there is none.

        Raises:
            ConfigError: It was saved by a training with other settings or of another graph.
            VerificationError: A file of it is damaged.
        """
        content = self._content()
        if content is None:
            return None
        try:
            return self._restored(content, objective, optimizer, generators)
        except GraphMoEError:
            raise
        # A state that somebody else has written may hold anything anywhere.
        except (KeyError, IndexError, RuntimeError, ValueError, TypeError, AttributeError) as error:
            raise VerificationError(
                f"{self.resume_folder}: its state does not fit: {error}"
            ) from None

    def _restored(
        self,
        content: dict[str, Any],
        objective: nn.Module,
        optimizer: optim.Optimizer,
        generators: dict[str, torch.Generator],
    ) -> TrainingState:
        changed = differences(content["identity"], self.identity)
        if changed:
            raise ConfigError(
                f"{self.resume_folder}: cannot go on with a training of other settings: "
                f"{'; '.join(changed)}; ask to overwrite, or choose another bank"
            )
        tensors = self._read(OPTIMIZER, content)
        random = self._read(RNG, content)
        objective.load_state_dict(_under("current.", tensors))
        _unpack(optimizer, tensors, content["param_groups"])
        for name, generator in generators.items():
            generator.set_state(random[name])
        losses, best_epoch = content["losses"], content["best_epoch"]
        best_loss = losses[best_epoch] if best_epoch >= 0 else float("inf")
        best = _under("best.", tensors)
        device = next(objective.parameters()).device
        best = {key: value.to(device) for key, value in best.items()}
        return TrainingState(
            losses,
            best_epoch,
            best_loss,
            best,
            content["seconds"],
            content.get("scores", []),
            content.get("held_epoch", -1),
            self._records(content),
        )

    def fits(self) -> bool:
        """Whether there is a saved state of the same training."""
        content = self._content()
        return content is not None and not differences(content.get("identity"), self.identity)

    def clear(self) -> None:
        """Forget the saved state, if there is one."""
        recover(self.resume_folder)
        if self.resume_folder.exists():
            remove_folder(self.resume_folder)

    def _content(self) -> dict[str, Any] | None:
        recover(self.resume_folder)
        if not self.resume_folder.exists():
            return None
        path = self.resume_folder / STATE
        content = load_sealed(path)
        if (content.get("format"), content.get("version")) != (FORMAT, VERSION):
            raise VerificationError(f"{path}: expected format {FORMAT!r} version {VERSION}")
        return content

    def _read(self, name: str, content: dict[str, Any]) -> dict[str, Tensor]:
        return load_tensors(self._bytes(name, content), self.resume_folder / name)

    def _records(self, content: dict[str, Any]) -> list[dict[str, Any]]:
        if RECORDS not in content["files"]:
            return []
        return [json.loads(line) for line in self._bytes(RECORDS, content).splitlines()]

    def _bytes(self, name: str, content: dict[str, Any]) -> bytes:
        path = self.resume_folder / name
        data = read_bytes(path, MAX_TENSOR_BYTES)
        if sha256(data) != content["files"][name]:
            raise VerificationError(f"{path}: its content does not match the hash in {STATE}")
        return data


def dump_records(records: list[dict[str, Any]]) -> bytes:
    """Plain values as JSON lines: one record a line."""
    return "".join(json.dumps(record, allow_nan=False) + "\n" for record in records).encode()


def differences(saved: Any, wanted: Any, path: str = "") -> list[str]:
    """What differs between two trees of plain values: one text a leaf, ``path: saved → wanted``."""
    if isinstance(saved, dict) and isinstance(wanted, dict):
        keys = sorted({*saved, *wanted})
        inner = [
            differences(saved.get(key), wanted.get(key), f"{path}.{key}".lstrip("."))
            for key in keys
        ]
        return [text for texts in inner for text in texts]
    if isinstance(saved, (list, tuple)) and isinstance(wanted, (list, tuple)):
        saved, wanted = list(saved), list(wanted)
    return [] if saved == wanted else [f"{path}: {_short(saved)} → {_short(wanted)}"]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:12]}…{text[-4:]}"


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}


def _pack(optimizer: optim.Optimizer) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """An optimiser's state as flat tensors, and its parameter groups as plain values."""
    content = optimizer.state_dict()
    tensors = {
        f"optimizer.{index}.{name}": torch.as_tensor(value)
        for index, moments in content["state"].items()
        for name, value in moments.items()
    }
    return tensors, content["param_groups"]


def _unpack(
    optimizer: optim.Optimizer, tensors: dict[str, Tensor], groups: list[dict[str, Any]]
) -> None:
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in _under("optimizer.", tensors).items():
        index, name = key.split(".", 1)
        moments.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": moments, "param_groups": groups})
