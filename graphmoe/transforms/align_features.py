"""Bring the features of any graph to one width."""

from __future__ import annotations

import copy
import logging
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor
from torch_geometric.data import Data, HeteroData
from torch_geometric.transforms import BaseTransform

from graphmoe.errors import DataError
from graphmoe.transforms.edge_drop_views import undirected_pairs
from graphmoe.transforms.schema import Schema
from graphmoe.transforms.target import count_nodes, find_target

logger = logging.getLogger(__name__)

NORMALIZE = ("l1", "l2", "none")
STRUCTURAL = ("auto", "always", "never")


class AlignFeatures(BaseTransform):
    r"""Features of a common width :math:`D` for the target nodes.

    After section 4.1 of `"Unified Multi-Domain Graph Pre-training for Homogeneous and
    Heterogeneous Graphs via Domain-Specific Expert Encoding" <https://arxiv.org/abs/2602.13075>`_:
    rows are scaled to norm one, then reduced by a truncated singular value decomposition with a
    seed; with fewer than :math:`D` columns the rest is zero, which the specification and the log
    say. Nodes without features get structural ones instead of the paper's identity matrix, whose
    decomposition is an arbitrary subspace: the decomposition of the degree-normalised incidence
    :math:`[B_1 | B_2 | \ldots]` to the neighbouring types, or of the normalised adjacency of a
    homogeneous graph. Every matrix stays as sparse as it came.

    Sets, on a shallow copy:

    - ``x`` of the target nodes, float32, shape :math:`(N, D)`;
    - ``alignment``, a JSON dictionary of what was done: ``source`` (``"features"``,
      ``"structure"`` or ``"both"``), ``columns`` (of the matrix that was decomposed), ``rank``,
      ``padded``, ``explained`` (share of the squared norm that is kept) and the settings;
    - ``projection``, float32, shape :math:`(F, D)`, where the features alone were used:
      scaled new rows times it are new aligned rows (:meth:`project`). Structural features are
      bound to their graph and have none.

    Args:
        channels: The width :math:`D`.
        normalize: Row norm that features are scaled to: ``"l1"``, ``"l2"`` or ``"none"``.
        structural: When to use structure: ``"auto"`` for nodes without features, ``"always"``
            beside their own features, ``"never"``.
        seed: Seed of the randomised decomposition.
        target: The target node type of a heterogeneous graph. (default: see
            :func:`~graphmoe.transforms.target.find_target`)

    Raises:
        DataError: There are neither features nor links, or features are not finite.
    """

    def __init__(
        self,
        channels: int = 128,
        normalize: str = "l1",
        structural: str = "auto",
        seed: int = 0,
        target: str | None = None,
    ) -> None:
        if channels < 1:
            raise ValueError(f"expected channels >= 1, got {channels}")
        if normalize not in NORMALIZE:
            raise ValueError(f"expected normalize in {NORMALIZE}, got {normalize!r}")
        if structural not in STRUCTURAL:
            raise ValueError(f"expected structural in {STRUCTURAL}, got {structural!r}")
        self.channels = channels
        self.normalize = normalize
        self.structural = structural
        self.seed = seed
        self.target = target

    def forward(self, data: Data | HeteroData) -> Data | HeteroData:
        """The graph with aligned features."""
        hetero = isinstance(data, HeteroData)
        kind = find_target(data, self.target) if hetero else None
        raw = data[kind].get("x") if hetero else data.x
        matrix, source = self._matrix(data, kind, raw)
        components, explained = self._decompose(matrix)
        x = torch.zeros(matrix.shape[0], self.channels)
        x[:, : len(components)] = torch.from_numpy(np.asarray(matrix @ components.T, np.float32))
        padded = self.channels - len(components)
        if padded:
            logger.info(
                "%d of %d aligned columns are zero: no more could be had from %s",
                padded,
                self.channels,
                source,
            )

        out = copy.copy(data)
        store = out[kind] if hetero else out
        device = raw.device if isinstance(raw, Tensor) else None
        store.x = x.to(device)
        out.alignment = {
            "channels": self.channels,
            "normalize": self.normalize,
            "structural": self.structural,
            "seed": self.seed,
            "source": source,
            "columns": matrix.shape[1],
            "rank": len(components),
            "padded": padded,
            "explained": explained,
        }
        if source == "features":
            out.projection = torch.zeros(matrix.shape[1], self.channels)
            out.projection[:, : len(components)] = torch.from_numpy(components.T.copy())
        elif "projection" in out:
            del out.projection
        return out

    @staticmethod
    def project(x: Tensor, projection: Tensor, normalize: str = "l1") -> Tensor:
        """Align rows by a projection that was fitted before.

        Args:
            x: Raw features, dense or sparse, shape :math:`(N, F)`.
            projection: What :class:`AlignFeatures` left on the graph, shape :math:`(F, D)`.
            normalize: The row norm it was fitted with.

        Returns:
            Aligned features, float32, shape :math:`(N, D)`.
        """
        rows = scaled_rows(_to_numpy(x), normalize)
        if rows.shape[1] != projection.size(0):
            raise ValueError(
                f"expected features with {projection.size(0)} columns, got {rows.shape[1]}"
            )
        aligned = np.asarray(rows @ projection.cpu().numpy(), dtype=np.float32)
        return torch.from_numpy(aligned).to(projection.device)

    def _matrix(self, data: Any, kind: str | None, raw: Tensor | None) -> tuple[Any, str]:
        """What is decomposed, and what it was made of."""
        parts, named = [], []
        if raw is not None and raw.shape[1] > 0:
            features = _to_numpy(raw)
            finite = features.data if sp.issparse(features) else features
            if not np.isfinite(finite).all():
                raise DataError("features hold NaN or infinite values, expected finite ones")
            parts.append(scaled_rows(features, self.normalize))
            named.append("features")
        if self.structural == "always" or (not parts and self.structural == "auto"):
            incidence = _incidence(data, kind)
            if incidence.nnz:
                parts.append(incidence)
                named.append("structure")
        if not parts:
            where = "the graph" if kind is None else f"target type {kind!r}"
            raise DataError(
                f"{where} has no features"
                + (
                    " and no links to make some from"
                    if self.structural != "never"
                    else "; set structural='auto' to make some from its links"
                )
            )
        if len(parts) == 1:
            return parts[0], named[0]
        # Each part weighs the same in the decomposition, whatever its scale.
        parts = [
            sp.csr_matrix(part) / max(sp.linalg.norm(sp.csr_matrix(part)), 1e-12) for part in parts
        ]
        return sp.hstack(parts, format="csr"), "both"

    def _decompose(self, matrix: Any) -> tuple[np.ndarray, float]:
        """Right singular vectors as rows, and the share of the squared norm they keep."""
        rank = min(self.channels, *matrix.shape)
        values = np.asarray(matrix.data if sp.issparse(matrix) else matrix, dtype=np.float64)
        total = float((values**2).sum())
        if matrix.shape[1] == 1 or total == 0:  # nothing to choose between
            components = np.eye(rank, matrix.shape[1], dtype=np.float32)
        elif matrix.shape[0] == 1:  # the row itself, which has no variance to explain
            row = matrix.toarray() if sp.issparse(matrix) else matrix
            components = (row / np.sqrt(total)).astype(np.float32)
        else:
            from sklearn.decomposition import TruncatedSVD  # a second of loading

            svd = TruncatedSVD(n_components=rank, random_state=self.seed).fit(matrix)
            components = svd.components_.astype(np.float32)
        kept = np.asarray(matrix @ components.T, dtype=np.float64)
        return components, min(float((kept**2).sum() / total), 1.0) if total else 0.0

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.channels}, normalize={self.normalize!r})"


def _to_numpy(x: Tensor) -> Any:
    """A dense array, or a scipy CSR matrix for a sparse tensor."""
    if x.layout == torch.strided:
        return x.detach().cpu().numpy().astype(np.float32, copy=False)
    coo = x.detach().cpu().to_sparse_coo().coalesce()
    row, col = coo.indices().numpy()
    value = coo.values().numpy().astype(np.float32)
    return sp.csr_matrix((value, (row, col)), shape=tuple(x.shape))


def scaled_rows(matrix: Any, normalize: str) -> Any:
    """Rows of norm one; zero rows stay zero."""
    if normalize == "none":
        return matrix
    power = abs(matrix) if normalize == "l1" else matrix * matrix
    if sp.issparse(matrix) and normalize == "l2":
        power = matrix.multiply(matrix)
    norm = np.asarray(power.sum(axis=1), dtype=np.float64).ravel()
    norm = np.sqrt(norm) if normalize == "l2" else norm
    factor = np.divide(1.0, norm, out=np.zeros_like(norm), where=norm > 0).astype(np.float32)
    return sp.diags_array(factor) @ matrix if sp.issparse(matrix) else factor[:, None] * matrix


def _incidence(data: Any, kind: str | None) -> sp.csr_matrix:
    """Links of the nodes, each divided by the square roots of its ends' degrees."""
    if kind is None:
        n = count_nodes(data)
        low, high = undirected_pairs(data.edge_index, n)
        ends = torch.cat([low, high]).cpu().numpy(), torch.cat([high, low]).cpu().numpy()
        return _degree_normalized(sp.csr_matrix((np.ones(len(ends[0]), np.float32), ends), (n, n)))
    blocks = [sp.csr_matrix((count_nodes(data, kind), 0), dtype=np.float32)]
    for relation in Schema(data).relations:
        end = relation.leaving(kind)
        if end is not None:
            step = end[1].to("cpu")
            parts = (step.value.numpy(), step.col.numpy(), step.crow.numpy())
            blocks.append(_degree_normalized(sp.csr_matrix(parts, step.shape)))
    return sp.hstack(blocks, format="csr")


def _degree_normalized(matrix: sp.csr_matrix) -> sp.csr_matrix:
    left, right = (np.asarray(matrix.sum(axis=axis)).ravel() for axis in (1, 0))
    scale = [np.divide(1, np.sqrt(d), out=np.zeros_like(d), where=d > 0) for d in (left, right)]
    return sp.csr_matrix(sp.diags_array(scale[0]) @ matrix @ sp.diags_array(scale[1]))
