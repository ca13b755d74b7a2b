"""Simple baselines that every fusion stands beside: nothing in them is pre-trained."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from graphmoe.evaluation.members import Member
from graphmoe.ops import propagate


def logistic_probs(z: Tensor, index: Tensor, y: Tensor, num_classes: int, C: float = 1.0) -> Tensor:
    """Class probabilities of all nodes by logistic regression on L2-normalised rows.

    Args:
        z: Features, shape (N, F).
        index: Labelled nodes, shape (L).
        y: Their classes, shape (L).
        num_classes: C.
        C: Inverse strength of the penalty, as in scikit-learn.
    """
    from sklearn.linear_model import LogisticRegression

    rows = torch.nn.functional.normalize(z, dim=1).cpu().numpy()
    model = LogisticRegression(C=C, max_iter=1000).fit(rows[index.cpu().numpy()], y.cpu().numpy())
    probs = np.zeros((len(rows), num_classes), np.float32)
    probs[:, model.classes_] = model.predict_proba(rows)
    return torch.from_numpy(probs)


def propagated_features(data: Data, K: int) -> Tensor:
    """The views' propagated features side by side, shape (N, V·D); K = 0: the features alone."""
    if K == 0:
        return data.x
    return torch.cat([propagate(view, data.x, K) for view in data.views], dim=1)


def operator_pool_probs(
    members: Sequence[Member],
    index: Tensor,
    y: Tensor,
    num_classes: int,
    sharpness: float = 6.0,
    C: float = 100.0,
) -> Tensor:
    r"""Logistic regressions on propagated features, averaged with weights
    :math:`\exp(6 \cdot \text{leave-one-out accuracy on the labelled nodes})`.

    Args:
        members: Embeddings of the target graph.
        index: Labelled nodes, shape (L).
        y: Their classes, shape (L).
        num_classes: C.
        sharpness: How much a better accuracy counts.
        C: Inverse strength of the penalty.
    """
    scores, probs = [], []
    everyone = torch.arange(len(index))
    for member in members:
        rows, hits = member.z[index], 0
        for i in range(len(index)):
            rest = everyone != i
            if y[rest].unique().numel() < 2:
                continue
            p = logistic_probs(rows, everyone[rest], y[rest], num_classes, C)
            hits += int(p[i].argmax() == y[i])
        scores.append(hits / len(index))
        probs.append(logistic_probs(member.z, index, y, num_classes, C))
    weight = (sharpness * torch.tensor(scores)).softmax(dim=0)
    return torch.einsum("m,mnc->nc", weight, torch.stack(probs))
