"""The graph that experts are fused on, and everything that takes part in fusing them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data, HeteroData

from graphmoe.checkpoint import ExpertBank
from graphmoe.checkpoint.large_graph import is_large_graph
from graphmoe.checkpoint.large_hetero import open_imported
from graphmoe.config import FuseConfig
from graphmoe.data import graph_fingerprint, load_graph, node_degrees, validate_graph
from graphmoe.data.counting import NODE
from graphmoe.errors import ConfigError, DataError, unknown_name
from graphmoe.evaluation import Member, expert_members, operator_members
from graphmoe.transforms import MultiView
from graphmoe.transforms.target import find_target
from graphmoe.typing import Graph, PathLike


@dataclass(frozen=True)
class Target:
    """A graph in multi-view form.

    Attributes:
        name: Of the graph.
        forms: The multi-view graph by feature source: ``"features"``, and ``"both"`` where
            structure is offered beside the graph's own features.
        y: ``[N]`` classes, -1 where unknown; ``None`` for a graph without labels.
        fingerprint: Of the graph as it came.
        node_names: What its (target) nodes are called, where it says.
        class_names: What its classes are called, where it says.
        degree: ``[N]`` different neighbours of each (target) node.
    """

    name: str
    forms: dict[str, Data]
    y: Tensor | None
    fingerprint: str
    node_names: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    degree: Tensor | None = None

    @property
    def num_classes(self) -> int:
        """Number of classes, C."""
        return int(self.labels.max()) + 1

    @property
    def labels(self) -> Tensor:
        """The classes.

        Raises:
            DataError: The graph has none.
        """
        if self.y is None or not bool((self.y >= 0).any()):
            raise DataError(f"graph {self.name!r} has no labels: fusing needs a few of each class")
        return self.y


def prepare_target(
    source: PathLike | Graph,
    config: FuseConfig,
    seed: int = 0,
    data_root: PathLike | None = None,
    device: torch.device | str = "cpu",
) -> Target:
    """Load, validate and align one graph, with every feature source that ``config`` asks for."""
    if isinstance(source, (str, Path)) and is_large_graph(source):
        graph, _ = validate_graph(open_imported(source).to_data())  # all of it in memory
        name = Path(source).resolve().name
    elif isinstance(source, (str, Path)):
        graph = load_graph(source, None if data_root is None else Path(data_root))
        name = str(graph.get("name") or source) if "name" in graph else str(source)
    else:
        graph, _ = validate_graph(source)
        name = str(graph.name) if "name" in graph else "graph"
    settings: dict[str, Any] = {
        "channels": config.channels,
        "metapaths": config.metapaths,
        "max_length": config.max_length,
        # Dropped edges serve pre-training; a graph is embedded as it is.
        "num_views": 0,
        "seed": seed,
    }
    forms = {"features": MultiView(**settings)(graph)}
    if config.members.structural and forms["features"].alignment["source"] == "features":
        forms["both"] = MultiView(structural="always", **settings)(graph)
    for form in forms.values():
        form.x = form.x.to(device)
        form.views = tuple(view.to(device) for view in form.views)
    y = forms["features"].y if "y" in forms["features"] else None
    kind = find_target(graph) if isinstance(graph, HeteroData) else NODE
    nodes = graph[kind] if isinstance(graph, HeteroData) else graph
    classes = 0 if y is None or not y.numel() else int(y.max()) + 1
    return Target(
        name,
        forms,
        y,
        graph_fingerprint(graph),
        _names(nodes, "node_names", forms["features"].x.size(0)),
        _names(nodes, "class_names", classes),
        node_degrees(graph)[kind],
    )


def _names(nodes: Any, key: str, count: int) -> tuple[str, ...]:
    """The names under ``key``; none where they are not as many as what they name."""
    found = getattr(nodes, key, ())
    return tuple(map(str, found)) if len(found) == count else ()


def open_bank(bank: ExpertBank | PathLike, hold_out: Sequence[str] = ()) -> dict[str, ExpertBank]:
    """The bank, and the names in it that are not held out, each with the bank it is in.

    Raises:
        ConfigError: A name is unknown, or nothing is left.
    """
    if not isinstance(bank, ExpertBank):
        bank = ExpertBank.load(bank)
    held = {name.lower() for name in hold_out}
    known = {name.lower() for name in bank.names}
    for name in sorted(held - known):
        raise ConfigError(f"hold_out: {unknown_name('expert', name, bank.names)}")
    return {name: bank for name in bank.names if name.lower() not in held}


def build_members(
    target: Target, experts: dict[str, ExpertBank], config: FuseConfig
) -> list[Member]:
    """Embeddings of ``target`` by each expert at each depth, and by untrained operators.

    Raises:
        ConfigError: Nobody takes part, or an expert has another width.
        DataError: An embedding is not finite.
    """
    chosen = config.members
    kinds, features = {}, {}
    for name, bank in experts.items():
        manifest = bank.manifest(name)
        same = manifest.graph.get("fingerprint") == target.fingerprint
        kinds[name] = "target" if same else "other"
        both = manifest.alignment.get("structural") == "always" and "both" in target.forms
        features[name] = "both" if both else "features"
    form = target.forms["features"]
    for name, bank in experts.items():
        width = bank[name].in_channels
        if width != form.x.size(1):
            raise ConfigError(
                f"expert {name!r} takes {width} features and the graph was aligned to "
                f"{form.x.size(1)}: set channels to {width}, or hold it out"
            )
    members = expert_members(
        {name: bank[name].to(form.x.device) for name, bank in experts.items()},
        target.forms,
        kinds=kinds,
        features=features,
        depths=chosen.depths,
        mean_depths=chosen.mean_depths,
        other_depths=chosen.other_depths,
        recalibrate=chosen.recalibrate,
    )
    if chosen.operators:
        members += operator_members(
            target.forms,
            lazy_steps=chosen.lazy_steps,
            view_steps=chosen.view_steps,
            restart=chosen.restart,
        )
    if not members:
        raise ConfigError("nobody takes part: every expert is held out and operators are off")
    for m in members:
        if not bool(torch.isfinite(m.z).all()):
            raise DataError(f"{m.name} gives embeddings that are not finite: hold {m.source} out")
    return members
