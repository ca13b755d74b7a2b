"""Which items look or sound alike: sparse graphs of nearest neighbours by content."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, Protocol

import torch
from torch import Tensor

from graphmoe.errors import ConfigError, DataError
from graphmoe.ops import SparseOperator
from graphmoe.ops.prune_rows import prune_rows
from graphmoe.transforms.nearest_rows import exact_neighbours, faiss_neighbours

if TYPE_CHECKING:
    from graphmoe.nn.recommend.graph import InteractionGraph

#: Goes up whenever the neighbours of the same features may come out otherwise.
CODE_VERSION = 1
#: A shorter row is as good as zero: it has no direction and so no neighbours.
NORM_FLOOR = 1e-8


class TensorStore(Protocol):
    """Where tensors are kept between runs, such as
    :class:`~graphmoe.checkpoint.tensor_cache.TensorCache`.
    """

    def get(self, key: str) -> dict[str, Tensor] | None:
        """What was kept, or ``None`` where nothing, or nothing whole, is there."""

    def put(self, key: str, tensors: dict[str, Tensor]) -> None:
        """Keep ``tensors``."""


class ContentKNN:
    r"""The ``k`` nearest other items of each item by one modality, weighted by similarity.

    .. math::
        S_{ij} = \max\left(0, \frac{\langle x_i, x_j \rangle}{\|x_i\| \|x_j\|}\right)
        \quad \text{for the } k \text{ largest } j \neq i

    Item graphs by content as in `"Mining Latent Structures for Multimedia Recommendation"
    <https://arxiv.org/abs/2104.09036>`_ (MM 2021), frozen; ours are the exclusion of the item
    itself and of missing rows, the dropped negatives and the norm floor. Equal similarities go by
    number. A matrix of all pairs is never made: rows are compared in tiles.

    Args:
        k: Neighbours of an item; fewer where fewer items have the modality or look alike.
        metric: ``"cosine"``.
        backend: ``"exact"``, or ``"faiss"`` for large catalogues (extra ``ann``).
        block: Rows compared at once.
        cache: Where neighbours are kept, by the SHA-256 of features, settings and code version.

    **Shapes:** features ``[I, F]`` and present ``[I]`` to an operator of shape :math:`(I, I)`.

    Raises:
        ConfigError: A setting is wrong.
        MissingExtraError: ``backend="faiss"`` without faiss.
    """

    def __init__(
        self,
        k: int = 10,
        metric: Literal["cosine"] = "cosine",
        backend: Literal["exact", "faiss"] = "exact",
        block: int = 1024,
        cache: TensorStore | None = None,
    ) -> None:
        if k < 1 or block < 1:
            raise ConfigError(f"expected k >= 1 and block >= 1, got k={k} and block={block}")
        if metric != "cosine":
            raise ConfigError(f"expected metric 'cosine', got {metric!r}")
        if backend not in ("exact", "faiss"):
            raise ConfigError(f"expected backend 'exact' or 'faiss', got {backend!r}")
        self.k, self.metric, self.backend, self.block = k, metric, backend, block
        self.cache = cache

    def __call__(self, features: Tensor, present: Tensor | None = None) -> SparseOperator:
        """The neighbours of all items that are present.

        Args:
            features: Standardised features, ``[I, F]``.
            present: Which items have them; the others are nobody's neighbours. (default: all)

        Raises:
            DataError: The features are not finite, or no mask of their rows.
        """
        if present is None:
            present = torch.ones(features.size(0), dtype=torch.bool, device=features.device)
        _check(features, present)
        if self.cache is None:
            return self._search(features, present)
        key = self.key(features, present)
        kept = self.cache.get(key)
        if kept is not None:
            if _whole(kept, features.size(0)):
                shape = (features.size(0), features.size(0))
                op = SparseOperator(kept["crow"], kept["col"], kept["value"], shape)
                return op.to(features.device)
            warnings.warn(f"content neighbours {key} are damaged: computed anew", stacklevel=2)
        op = self._search(features, present)
        self.cache.put(key, {"crow": op.crow, "col": op.col, "value": op.value})
        return op

    def key(self, features: Tensor, present: Tensor) -> str:
        """64 hexadecimal digits that change with whatever may change the neighbours.

        The size of a block changes none, and how modalities are weighted comes after.
        """
        said = f"content_knn {CODE_VERSION} {self.k} {self.metric} {self.backend} {NORM_FLOOR}"
        digest = hashlib.sha256(f"{said} {list(features.shape)} {features.dtype}".encode())
        # Zero added, because -0.0 equals 0.0 and has other bytes.
        for rows in features.detach().split(4096):
            digest.update((rows + 0).cpu().contiguous().numpy().tobytes())
        digest.update(present.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def _search(self, features: Tensor, present: Tensor) -> SparseOperator:
        shape = (features.size(0), features.size(0))
        x = features.detach().float()
        # The largest entry first: squares of large features overflow.
        x = x / x.abs().amax(dim=1, keepdim=True).clamp_min(NORM_FLOOR) if x.size(1) else x
        norm = x.norm(dim=1)
        # Rows without a direction take part in no comparison, and so cost none.
        item = (present & (features.norm(dim=1) > NORM_FLOOR)).nonzero().squeeze(1)
        k = min(self.k, item.numel() - 1)
        if k < 1:
            none = item.new_empty(0)
            return SparseOperator.from_edges(none, none, shape, x.new_empty(0))
        unit = x[item] / norm[item, None]
        if self.backend == "exact":
            value, number = exact_neighbours(unit, k, self.block)
        else:
            value, number = faiss_neighbours(unit, k)
        near = value > 0
        row = item[:, None].expand_as(number)[near]
        return SparseOperator.from_edges(row, item[number[near]], shape, value[near])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.k}, metric={self.metric!r}, backend={self.backend!r})"


def merge_knn(
    graphs: Mapping[str, SparseOperator],
    weights: Mapping[str, float] | None,
    present: Mapping[str, Tensor],
    k: int,
) -> SparseOperator:
    r"""One graph of all modalities, :math:`S = \sum_m \omega_{im} S^m`, its rows pruned to ``k``.

    An item shares out the weights among the modalities that it has, so that one of few modalities
    has neighbours as near as another's.

    Args:
        graphs: Neighbours by modality, each of shape :math:`(I, I)`.
        weights: Share of each modality, >= 0, in any proportion. (default: equal)
        present: Which items have each modality, ``[I]``.
        k: Neighbours kept of an item.

    Raises:
        ConfigError: Weights are negative, all zero or not of these modalities.
        DataError: There is no modality.
    """
    if not graphs:
        raise DataError("no modality: expected neighbours by at least one")
    weights = dict.fromkeys(graphs, 1.0) if weights is None else weights
    fine = set(weights) == set(graphs) and min(weights.values()) >= 0 < sum(weights.values())
    if not fine:
        raise ConfigError(
            f"expected weights >= 0, not all 0, of {', '.join(graphs)}; got {dict(weights)}"
        )
    share = {name: weights[name] * present[name].double() for name in graphs}
    total = torch.stack(list(share.values())).sum(dim=0)
    row, col, value = [], [], []
    for name, op in graphs.items():
        source = op.row()
        part = torch.where(total > 0, share[name] / total, 0.0)
        row.append(source)
        col.append(op.col.long())
        value.append((part[source] * op.value.double()).to(op.dtype))
    shape = next(iter(graphs.values())).shape
    summed = SparseOperator.from_edges(torch.cat(row), torch.cat(col), shape, torch.cat(value))
    return prune_rows(summed, k)


def content_graphs(
    graph: InteractionGraph, knn: ContentKNN, weights: Mapping[str, float] | None = None
) -> tuple[dict[str, SparseOperator], SparseOperator]:
    """The neighbours by each modality of ``graph``, and those by all of them together."""
    near = {name: knn(x, graph.present[name]) for name, x in graph.modalities.items()}
    return near, merge_knn(near, weights, graph.present, knn.k)


def _check(features: Tensor, present: Tensor) -> None:
    if features.dim() != 2 or present.shape != features.shape[:1] or present.dtype != torch.bool:
        raise DataError(
            "expected features of shape (I, F) and a mask of shape (I,), got "
            f"{tuple(features.shape)} and {present.dtype} of shape {tuple(present.shape)}"
        )
    if not bool(torch.isfinite(features[present]).all()):
        raise DataError("features of items that have the modality are not finite")


def _whole(kept: dict[str, Tensor], size: int) -> bool:
    """Whether these are the parts of an operator; products with anything else may crash."""
    if set(kept) != {"crow", "col", "value"} or any(part.dim() != 1 for part in kept.values()):
        return False
    crow, col, value = kept["crow"], kept["col"], kept["value"]
    if crow.numel() != size + 1 or col.numel() != value.numel() or not value.is_floating_point():
        return False
    if crow.is_floating_point() or col.is_floating_point():
        return False
    rises = int(crow[0]) == 0 and int(crow[-1]) == col.numel() and bool((crow.diff() >= 0).all())
    return rises and (not col.numel() or 0 <= int(col.min()) <= int(col.max()) < size)
