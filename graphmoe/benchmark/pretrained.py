"""Experts of a bank as the model of a task on nodes."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from torch_geometric.data import Data

from graphmoe.api.run_folder import weights_hash
from graphmoe.benchmark.task_data import TaskData
from graphmoe.checkpoint import ExpertBank
from graphmoe.errors import ConfigError, unknown_name
from graphmoe.nn.models.pretrained_experts import PretrainedExperts
from graphmoe.transforms import MultiView
from graphmoe.typing import PathLike

#: The name of these models among those of ``graphmoe.nn.models.build_model``.
PRETRAINED = "pretrained"
_OF_THE_GRAPH = {"self", "encoders", "x", "views", "num_outputs"}


def pretrained_model(
    task: TaskData,
    /,
    *,
    bank: ExpertBank | PathLike | None = None,
    names: Sequence[str] | None = None,
    seed: int = 0,
    **hyper: Any,
) -> PretrainedExperts:
    """Pre-trained experts, frozen or fine-tuned, for a task on nodes.

    Args:
        task: The task, of one graph.
        bank: What ``graphmoe pretrain`` wrote, or its folder.
        names: Which of its experts take part. (default: all)
        seed: Of aligning the graph's features.
        **hyper: Further arguments of :class:`~graphmoe.nn.models.PretrainedExperts`.

    Raises:
        ConfigError: The task is not one on nodes, no bank is named, or a name or setting is
            unknown.
        MissingDataError: There is no bank.
        VerificationError: The bank is damaged.
    """
    if task.level != "node" or not isinstance(task.graphs, Data):
        raise ConfigError(
            f"model {PRETRAINED!r} is for tasks on nodes, {task.name!r} is one on {task.level}s"
        )
    known = set(inspect.signature(PretrainedExperts).parameters) - _OF_THE_GRAPH
    for key in hyper:
        if key not in known:
            settings = known | {"bank", "names", "seed"}
            raise ConfigError(unknown_name(f"setting of model {PRETRAINED!r}", key, settings))
    if bank is None:
        raise ConfigError(
            f"model {PRETRAINED!r} needs a bank of experts, as `graphmoe pretrain` writes: name "
            "its folder (--bank, or hyper: {bank: …} in a configuration)"
        )
    opened = bank if isinstance(bank, ExpertBank) else ExpertBank.load(bank, names=names)
    chosen = tuple(names or opened.names)
    if not chosen:
        raise ConfigError(f"model {PRETRAINED!r}: the bank has no expert")
    encoders = [opened[name] for name in chosen]
    graph = copy.copy(task.graphs)
    if task.features in ("none", "index"):
        graph.x = None
    form = MultiView(channels=encoders[0].in_channels, num_views=0, seed=seed)(graph)
    try:
        return PretrainedExperts(encoders, form.x, form.views, task.num_outputs, **hyper)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"model {PRETRAINED!r}: {error}") from error


def expert_hashes(hyper: Mapping[str, Any]) -> dict[str, str]:
    """What a model's experts are: a folder's name says which bank it is, not which training."""
    opened = ExpertBank.load(hyper["bank"], names=hyper.get("names"))
    return {name: weights_hash(opened[name]) for name in opened.names}
