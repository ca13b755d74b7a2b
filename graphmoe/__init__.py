"""Mixture-of-experts for graph learning on PyTorch Geometric.

Public names are resolved on first use (PEP 562), so ``import graphmoe`` costs milliseconds and
pulls in no library that the caller does not use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_LAZY = {
    "ExpertBank": "graphmoe.checkpoint",
    "MultiViewEncoder": "graphmoe.nn",
    "TaskExpertFusion": "graphmoe.nn",
    "MultiView": "graphmoe.transforms",
    "available_graphs": "graphmoe.data",
    "load_graph": "graphmoe.data",
    "load_interactions": "graphmoe.data.interactions",
    "load_recommender": "graphmoe.api",
    "recommend": "graphmoe.api",
    "pretrain": "graphmoe.api",
    "fuse": "graphmoe.api",
    "embed": "graphmoe.api",
    "predict": "graphmoe.api",
}
_SUBPACKAGES = (
    "api",
    "checkpoint",
    "config",
    "data",
    "errors",
    "evaluation",
    "nn",
    "ops",
    "registry",
    "testing",
    "training",
    "transforms",
    "typing",
)

__all__ = [
    "ExpertBank",
    "MultiView",
    "MultiViewEncoder",
    "TaskExpertFusion",
    "__version__",
    "available_graphs",
    "embed",
    "fuse",
    "load_graph",
    "load_interactions",
    "load_recommender",
    "predict",
    "pretrain",
    "recommend",
]

if TYPE_CHECKING:
    from graphmoe.api.apply import embed, predict
    from graphmoe.api.fuse import fuse
    from graphmoe.api.pretrain import pretrain
    from graphmoe.api.recommend import recommend
    from graphmoe.api.recommend_run import load_recommender
    from graphmoe.checkpoint import ExpertBank
    from graphmoe.data import available_graphs, load_graph
    from graphmoe.data.interactions import load_interactions
    from graphmoe.nn import MultiViewEncoder, TaskExpertFusion
    from graphmoe.transforms import MultiView


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        value = getattr(import_module(_LAZY[name]), name)
        globals()[name] = value
        return value
    if name in _SUBPACKAGES:
        return import_module(f"graphmoe.{name}")
    raise AttributeError(f"module 'graphmoe' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_SUBPACKAGES})
