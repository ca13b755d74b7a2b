"""Models by name, for a task."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch_geometric.nn import GATConv

from graphmoe.errors import ConfigError, unknown_name
from graphmoe.nn.conv.expert_convs import Expert
from graphmoe.nn.conv.gin import gin_conv, gine_conv
from graphmoe.nn.models.graph_experts import GraphExperts
from graphmoe.nn.models.graph_predictor import GraphPredictor

#: The convolution of each family; ``None`` where it depends on what edges have.
FAMILIES: dict[str, Expert | None] = {
    "gcn": "GCNConv",
    "gin": None,
    "gine": gine_conv,
    "sage": "SAGEConv",
    "gat": "GATConv",
}
#: Every name that :func:`build_model` knows.
MODELS = tuple(prefix + family for prefix in ("", "moe-") for family in FAMILIES)

#: What a mixture has unless told otherwise.
MIXTURE = {"num_experts": 4, "k": 1}
#: What the experts of a mixture are: convolutions of each layer, or networks from end to end.
EXPERTS = ("convs", "networks")
#: Heads of ``gat``.
HEADS = 4
#: Settings that a dense model does not have.
MIXTURE_SETTINGS = (
    "num_experts",
    "k",
    "router",
    "router_kwargs",
    "shared_expert",
    "compute",
    "moe_layers",
    "hops",
    "experts",
    "shared_experts",
    "router_channels",
)
#: Those of mixtures of networks alone, and those of mixtures of convolutions alone.
_OF_NETWORKS = {"shared_experts", "router_channels"}
_OF_CONVS = {"shared_expert", "compute", "moe_layers", "hops"}


@dataclass(frozen=True)
class TaskShape:
    """What a model has to know of a task.

    Attributes:
        level: ``"graph"``, ``"node"`` or ``"link"``.
        num_outputs: Width of the predictions.
        features: ``"atom"``, ``"float"``, ``"index"`` or ``"none"``.
        edge_features: ``"bond"``, ``"float"`` or ``"none"``.
        in_channels: Columns of the nodes' features; for ``"index"`` the number of nodes.
        edge_channels: Columns of the edges' features.
    """

    level: str
    num_outputs: int
    features: str
    edge_features: str = "none"
    in_channels: int = 0
    edge_channels: int = 0

    @classmethod
    def of(cls, task: Any) -> TaskShape:
        """Read off a task such as ``graphmoe.benchmark.TaskData``, or the shape itself."""
        if isinstance(task, cls):
            return task
        graphs = task.graphs
        x: Tensor | None = getattr(graphs, "x", None)
        attr: Tensor | None = getattr(graphs, "edge_attr", None)
        if task.features == "index":
            channels = int(graphs.num_nodes if x is None else x.max() + 1)
        else:
            channels = 0 if x is None else x.size(1)
        return cls(
            task.level,
            task.num_outputs,
            task.features,
            task.edge_features,
            channels,
            0 if attr is None else (attr.size(1) if attr.dim() > 1 else 1),
        )


def build_model(name: str, task: Any, **hyper: Any) -> GraphPredictor | GraphExperts:
    """A model for a task.

    Args:
        name: ``gcn``, ``gin``, ``gine``, ``sage`` or ``gat``, or one of these as a mixture of
            experts, such as ``moe-gin``. ``gin`` adds edge features to its messages where a task
            has them, as the examples of the Open Graph Benchmark do; ``gine`` refuses a task
            without.
        task: A task with ``level``, ``num_outputs``, ``features``, ``edge_features`` and
            ``graphs``, or a :class:`TaskShape`.
        **hyper: Further arguments of :class:`~graphmoe.nn.models.GraphPredictor`. Of ``gin`` and
            ``gine``, ``expansion`` and ``expert_norm`` are those of
            :func:`~graphmoe.nn.conv.gin.gin_conv`; ``heads`` is that of ``gat``. Of a mixture,
            ``experts="networks"`` makes it a :class:`~graphmoe.nn.models.GraphExperts`.

    Raises:
        ConfigError: The name or an argument is unknown, does not suit the task, or has a value
            that it cannot have; says what was expected.
    """
    if name not in MODELS:
        raise ConfigError(unknown_name("model", name, MODELS))
    shape = TaskShape.of(task)
    settings = arguments(name, shape, hyper)
    make = GraphExperts if settings.pop("experts", "convs") == "networks" else GraphPredictor
    try:
        return make(shape.in_channels, shape.num_outputs, **settings)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"model {name!r}: {error}") from error


def arguments(name: str, shape: TaskShape, hyper: dict[str, Any]) -> dict[str, Any]:
    """The arguments of :class:`~graphmoe.nn.models.GraphPredictor` that ``hyper`` stands for."""
    family = name.removeprefix("moe-")
    kind = hyper.get("experts", "convs")
    if kind not in EXPERTS:
        raise ConfigError(unknown_name("kind of experts", str(kind), EXPERTS))
    known = set(inspect.signature(GraphPredictor).parameters) - {
        "in_channels",
        "num_outputs",
        "level",
        "features",
        "edge_channels",
    }
    own = {"gin": {"expansion", "expert_norm"}, "gat": {"heads"}}
    known |= own.get(family.removesuffix("e"), set()) | _OF_NETWORKS | {"experts"}
    misplaced = set(hyper) & (_OF_CONVS if kind == "networks" else _OF_NETWORKS)
    for key in hyper:
        if key not in known:
            raise ConfigError(unknown_name(f"setting of model {name!r}", key, known))
        if key in MIXTURE_SETTINGS and family == name:
            raise ConfigError(
                f"{key} is a setting of mixtures, and {name!r} is dense: expected the model "
                f"'moe-{name}'"
            )
        if key in misplaced:
            other = EXPERTS[kind == "convs"]
            raise ConfigError(f"{key} is a setting of experts={other!r}, got experts={kind!r}")
    settings: dict[str, Any] = {
        "level": shape.level,
        "features": shape.features,
        "edge_features": shape.edge_features,
        "edge_channels": shape.edge_channels,
        **({} if family == name else MIXTURE),
        **hyper,
    }
    kwargs = dict(settings.pop("expert_kwargs", None) or {})
    if family in ("gin", "gine"):
        if family == "gine" and settings["edge_features"] == "none":
            raise ConfigError(
                f"{name!r} is for tasks whose edges have features, this one has none: expected "
                f"{name.replace('gine', 'gin')!r}"
            )
        kwargs.setdefault("expansion", settings.pop("expansion", 2))
        kwargs.setdefault("norm", settings.pop("expert_norm", True))
    conv = FAMILIES[family]
    if conv is None:
        conv = gin_conv if settings["edge_features"] == "none" else gine_conv
    if family == "gat":
        heads = settings.pop("heads", HEADS)
        conv = _attention
        kwargs.setdefault("heads", heads)
        if settings["edge_features"] != "none":
            kwargs.setdefault("edge_dim", settings.get("hidden_channels", 300))
    settings.setdefault("expert", conv)
    return settings | {"expert_kwargs": kwargs}


def _attention(in_channels: int, out_channels: int, *, heads: int, **kwargs: Any) -> Any:
    """A ``GATConv`` as wide as asked for: heads side by side, or their mean where that is odd."""
    if out_channels % heads:
        return GATConv(in_channels, out_channels, heads, concat=False, **kwargs)
    return GATConv(in_channels, out_channels // heads, heads, **kwargs)
