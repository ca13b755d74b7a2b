"""What decides about the weights of an expert, in one place."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import JsonValue


@dataclass(frozen=True)
class PretrainSettings:
    """Settings of one pre-training; the defaults are those of GPH² (arXiv 2602.13075).

    Attributes:
        encoder: Class name in :data:`graphmoe.registry.encoders`.
        encoder_args: Its arguments but ``in_channels``, which the graph decides.
        objective: Name in :data:`graphmoe.training.objective.OBJECTIVES`.
        objective_args: Further arguments of the objective.
        lr: Learning rate of Adam.
        weight_decay: L2 penalty inside Adam.
        max_epochs: Most epochs; one epoch is one step on the whole graph.
        patience: Epochs without a lower training loss before it stops.
        precision: As Fabric names it: ``"32-true"``, ``"bf16-mixed"`` …
        threads: Threads of each training. Another number may change the last bits of the
            weights, so it never follows from the machine or from how many trainings run at once.
    """

    encoder: str = "MultiViewEncoder"
    encoder_args: dict[str, JsonValue] = field(default_factory=dict)
    objective: str = "graph_infomax"
    objective_args: dict[str, JsonValue] = field(default_factory=dict)
    lr: float = 1e-3
    weight_decay: float = 5e-4
    max_epochs: int = 1000
    patience: int = 50
    precision: str = "32-true"
    threads: int = 1

    def to_json(self) -> dict[str, Any]:
        """The settings as plain values."""
        return asdict(self)


@dataclass(frozen=True)
class SaveSettings:
    """How often a training in progress is saved; no influence on the weights.

    Attributes:
        epochs: Save every so many epochs; 0: never for this reason.
        seconds: Save when so many seconds have passed since the last time.
    """

    epochs: int = 0
    seconds: float = 30.0
