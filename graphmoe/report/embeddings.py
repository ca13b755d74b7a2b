"""Maps of embeddings: many dimensions in two, by PCA and by t-SNE."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np

from graphmoe.checkpoint.files import read_bytes
from graphmoe.errors import VerificationError
from graphmoe.report.blocks import Block, Note
from graphmoe.report.figures import points

#: What `graphmoe embed --out` and `graphmoe predict --out` may leave in the folder of a run.
EMBEDDINGS, PREDICTIONS = "embeddings.npz", "predictions.npz"
MAX_BYTES = 2 << 30
#: Points of a map: t-SNE takes seconds for these, and a screen shows no more.
MOST_POINTS = 800
#: Labels of a map; the rarer ones are drawn together.
MOST_LABELS = 20
SEED = 0


def saved_maps(folder: Path) -> list[Block]:
    """Maps of the arrays in ``embeddings.npz``, coloured by the ``pred`` of ``predictions.npz``."""
    path = folder / EMBEDDINGS
    if not path.is_file():
        return []
    arrays, labels = _arrays(path), None
    if (folder / PREDICTIONS).is_file():
        labels = _arrays(folder / PREDICTIONS).get("pred")
    blocks: list[Block] = []
    for name, z in arrays.items():
        if z.ndim != 2 or not np.issubdtype(z.dtype, np.number):
            raise VerificationError(f"{path}: expected tables of numbers, {name} is {z.shape}")
        fits = labels is not None and len(labels) == len(z)
        said = [f"class {c}" for c in labels.tolist()] if fits and labels is not None else None
        blocks += maps(z, f"Embedding {name!r}", said, "predicted class" if fits else "")
    return blocks


def maps(
    z: np.ndarray,
    title: str,
    labels: Sequence[str] | None,
    by: str = "",
    names: Sequence[str] | None = None,
) -> list[Block]:
    """Two figures of the rows of ``z``.

    Args:
        z: Embeddings, shape (N, D).
        title: Of the figures.
        labels: One a row; ``None``: all alike.
        by: What the labels are.
        names: Of the rows; ``None``: their numbers.
    """
    if len(z) < 3 or z.shape[1] < 2 or not np.isfinite(z).all():
        return [Note(f"{title}: a map needs three rows of two finite numbers or more.")]
    said = list(labels) if labels is not None else ["node"] * len(z)
    rows = np.arange(len(z))
    if len(z) > MOST_POINTS:
        rows = np.sort(np.random.default_rng(SEED).choice(len(z), MOST_POINTS, replace=False))
    kept = _common([said[i] for i in rows])
    who = [names[i] if names is not None else f"row {i}" for i in rows.tolist()]
    x = np.asarray(z[rows], dtype=np.float64)
    about = f"{len(rows)} of {len(z)} points" + (f", coloured by {by}" if by else "")
    return [
        points("pca", f"{title}: PCA", _pca(x), kept, who, f"Map of {about}", equal=True),
        points("tsne", f"{title}: t-SNE", _tsne(x), kept, who, f"Map of {about}"),
        Note(f"{title}: {about}; t-SNE shows who is near, its distances and sizes mean nothing."),
    ]


def _pca(x: np.ndarray) -> list[list[float]]:
    from sklearn.decomposition import PCA

    return _rounded(PCA(2, svd_solver="full").fit_transform(x))


def _tsne(x: np.ndarray) -> list[list[float]]:
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    if min(x.shape) > 30:
        x = PCA(30, svd_solver="full").fit_transform(x)
    perplexity = min(30.0, (len(x) - 1) / 3)
    found = TSNE(2, perplexity=perplexity, init="pca", random_state=SEED, max_iter=500)
    return _rounded(found.fit_transform(x))


def _rounded(xy: np.ndarray) -> list[list[float]]:
    return [[float(f"{value:.4g}") for value in row] for row in xy.tolist()]


def _common(labels: list[str]) -> list[str]:
    """The labels, with rare ones as one."""
    counts: dict[str, int] = {}
    for label in labels:
        counts[label] = counts.get(label, 0) + 1
    often = sorted(counts, key=lambda label: -counts[label])[:MOST_LABELS]
    return [label if label in often else "other" for label in labels]


def _arrays(path: Path) -> dict[str, np.ndarray]:
    data = read_bytes(path, MAX_BYTES)
    try:
        with np.load(BytesIO(data), allow_pickle=False) as found:
            return {name: found[name] for name in found.files}
    except Exception as error:  # zip, zlib and numpy each have their own
        raise VerificationError(f"{path}: not whole arrays: {error}") from None
