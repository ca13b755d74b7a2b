r"""Users and items that come after training, scored by a trained recommender as it is.

Nothing is trained, and what is known of others stays as it is: a newcomer gets the vector that the
model's own propagation gives a node which has neighbours and no learnt vector (it is zero), every
other node keeping its layers. Rows of newcomers are put behind those of the others in what
``prepare()`` gave, so that ``score`` and ``explain`` work on them like on anybody.

With :math:`h` the items of a new user, :math:`d_i` the training degree of an item,
:math:`\hat{r}_i = (|h|\, d_i)^{-1/2}` for :math:`i \in h` (0 for an item without training
interactions), and :math:`e^{(l)}_i` the layers of the items:

===============  =========================================  =======================================
model            new users                                  new items
===============  =========================================  =======================================
``popularity``   as anybody                                 their popularity is 0
``item_knn``     by their history                           by their content neighbours
``random_walk``  by their history                           no walk leads there: 0
``bprmf``        no: a user is a learnt vector              no: an item is a learnt vector
``lightgcn``     :math:`\frac{1}{L+1} \sum_{l=0}^{L-1}      no: an item has no content
                 \sum_{i \in h} \hat{r}_i e^{(l)}_i`
``vbpr``         no: a user is a learnt vector              by the content factors alone
``freedom``      as ``lightgcn``                            by their content neighbours alone
``mgcn``         as ``lightgcn``, and of each side view     by their content neighbours alone
                 :math:`\sum_{i \in h} \hat{r}_i H_i`
``magnet``       by their history, see                      by their content, see
                 :mod:`~.magnet_newcomers`                  :mod:`~.magnet_newcomers`
===============  =========================================  =======================================

All of it is ours: the papers of these models do not say how newcomers are met.

A model of another package joins by registering with :data:`add_users` and :data:`add_items`, which
are :func:`functools.singledispatch` functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import singledispatch
from typing import Any

import torch
from torch import Tensor

from graphmoe.errors import ConfigError
from graphmoe.nn.recommend.base import Recommender
from graphmoe.nn.recommend.freedom import FREEDOM
from graphmoe.nn.recommend.item_knn import ItemKNN
from graphmoe.nn.recommend.lightgcn import LightGCN
from graphmoe.nn.recommend.mgcn import MGCN
from graphmoe.nn.recommend.popularity import Popularity
from graphmoe.nn.recommend.random_walk import RandomWalk
from graphmoe.nn.recommend.vbpr import VBPR
from graphmoe.ops import SparseOperator
from graphmoe.ops.light_propagation import light_propagate
from graphmoe.transforms.content_knn import NORM_FLOOR, merge_knn


@singledispatch
def add_users(model: Recommender, prepared: Any, history: SparseOperator) -> Any:
    """``prepared`` with new users behind the others.

    Args:
        model: Trained.
        prepared: What its ``prepare()`` gave.
        history: Ones where a new user has an item, shape :math:`(N, I)`.

    Raises:
        ConfigError: The model cannot do it.
    """
    raise ConfigError(
        f"{type(model).__name__} cannot score new users: it knows a user only by what it learnt "
        f"for them in training"
    )


@singledispatch
def add_items(
    model: Recommender,
    prepared: Any,
    features: Mapping[str, Tensor],
    present: Mapping[str, Tensor],
) -> Any:
    """``prepared`` with new items behind the others.

    Args:
        model: Trained.
        prepared: What its ``prepare()`` gave.
        features: Features as given, not standardised, by modality, shape :math:`(N, F_m)`.
        present: Which of them have the modality, shape :math:`(N)`.

    Raises:
        ConfigError: The model cannot do it.
        DataError: A modality that it was trained with is not there, or of another width.
    """
    raise ConfigError(
        f"{type(model).__name__} cannot score new items: it knows an item only by what it learnt "
        f"for it in training"
    )


@add_users.register
def _(model: Popularity, prepared: Any, history: SparseOperator) -> Any:
    users, items = prepared
    return torch.cat([users, users.new_ones(history.shape[0], 1)]), items


@add_items.register
def _(
    model: Popularity, prepared: Any, features: Mapping[str, Tensor], present: Mapping[str, Tensor]
) -> Any:
    users, items = prepared
    return users, torch.cat([items, items.new_zeros(size_of(features), 1)])


@add_users.register(LightGCN)
@add_users.register(FREEDOM)
def _(model: LightGCN | FREEDOM, prepared: Any, history: SparseOperator) -> Any:
    users, items = prepared
    new = propagated(*_encoder(model), history, model.graph.item_degree)
    return torch.cat([users, new]), items


@add_items.register
def _(
    model: VBPR, prepared: Any, features: Mapping[str, Tensor], present: Mapping[str, Tensor]
) -> Any:
    users, items = prepared
    x = torch.cat(list(standardised(model, features, present).values()), dim=1)
    seen, bias = model.visual(x).split([model.embedding_dim, 1], dim=1)
    return users, torch.cat([items, torch.cat([torch.zeros_like(seen), seen, bias], dim=1)])


@add_items.register
def _(
    model: FREEDOM, prepared: Any, features: Mapping[str, Tensor], present: Mapping[str, Tensor]
) -> Any:
    users, items = prepared
    side: Tensor = model.item
    for _ in range(model.num_item_layers - 1):
        side = model.neighbours @ side
    near = content_neighbours(model, features, present, model.k)
    weights = dict.fromkeys(near, 1.0) if model.weights is None else model.weights
    share = {name: weights[name] * present[name].to(side) for name in near}
    total = torch.stack(list(share.values())).sum(dim=0).clamp_min(torch.finfo().tiny)
    new = side.new_zeros(total.numel(), side.size(1))
    for name, op in near.items():
        count = op.crow.long().diff().clamp_min(1)
        new = new + op.with_value((share[name] / total / count)[op.row()]) @ side
    return users, torch.cat([items, new if model.num_item_layers else torch.zeros_like(new)])


@add_users.register
def _(model: MGCN, prepared: Any, history: SparseOperator) -> Any:
    users, items = prepared
    content = propagated(*_encoder(model), history, model.graph.item_degree)
    _, views = model.views()
    row = normalised(history, model.graph.item_degree).to(views.device)
    has = None
    if model.item_present is not None:
        has = row @ model.item_present.to(views.dtype) > 0
    side = model.fuser(content, (row @ views).unflatten(1, (len(model.neighbours), -1)), has)
    return torch.cat([users, content + side]), items


@add_items.register
def _(
    model: MGCN, prepared: Any, features: Mapping[str, Tensor], present: Mapping[str, Tensor]
) -> Any:
    users, items = prepared
    near = content_neighbours(model, features, present, model.k - 1)
    parts = []
    for m, op in enumerate(near.values()):
        gate = model.gates[m](model.projections[m]()).sigmoid()
        if model.item_present is not None:
            gate = gate * model.item_present[:, m : m + 1]
        part = model.item * gate
        for _ in range(model.num_item_layers - 1):
            part = model.neighbours[m] @ part
        # What the self-loop would bring is zero, but it counts in the degree, as in training.
        old = model.neighbours[m]
        assert isinstance(old, SparseOperator)
        root = old.value[old.row() == old.col].sqrt()  # its diagonal is one over the degrees
        parts.append(op.scaled((1 + op.degree()).rsqrt(), root) @ part)
    views = torch.stack(parts, dim=1)
    has = None
    lacking = not all(bool(there.all()) for there in present.values())
    if lacking or model.item_present is not None:
        has = torch.stack([present[name] for name in near], dim=1).to(views.device)
    content = views.new_zeros(views.size(0), views.size(2))
    return users, torch.cat([items, model.fuser(content, views, has)])


@add_users.register
def _(model: RandomWalk, prepared: SparseOperator, history: SparseOperator) -> SparseOperator:
    return stacked_rows(prepared, history.to(prepared.device, prepared.dtype))


@add_users.register
def _(model: ItemKNN, prepared: Any, history: SparseOperator) -> Any:
    rows, near = prepared
    mean = history.with_value(history.crow.long().diff().float().reciprocal()[history.row()])
    return stacked_rows(rows, mean.to(rows.device, rows.dtype)), near


@add_items.register
def _(
    model: ItemKNN, prepared: Any, features: Mapping[str, Tensor], present: Mapping[str, Tensor]
) -> Any:
    if model.by != "content":
        raise ConfigError("ItemKNN by company cannot score new items: nobody has them yet")
    rows, near = prepared
    found = content_neighbours(model, features, present, model.k)
    has = {name: present[name].to(near.device) for name in found}
    new = merge_knn(found, model.weights, has, model.k)
    # Similarity is read from an item's neighbours: a new one joins the lists of its own.
    size = (near.shape[0] + new.shape[0], near.shape[1] + new.shape[0])
    row = torch.cat([near.row(), new.col.long()])
    col = torch.cat([near.col.long(), near.shape[1] + new.row()])
    joined = SparseOperator.from_edges(row, col, size, torch.cat([near.value, new.value]))
    wide = (rows.shape[0], size[1])
    return SparseOperator(rows.crow, rows.col, rows.value, wide), joined


def propagated(
    op: SparseOperator,
    user: Tensor,
    item: Tensor,
    layers: int,
    history: SparseOperator,
    item_degree: Tensor,
) -> Tensor:
    r"""Vectors of new users by light propagation, :math:`(N, d)`; their own layer 0 is zero.

    Args:
        op: :math:`\hat{R}` of training.
        user: :math:`E^{(0)}` of users.
        item: :math:`E^{(0)}` of items.
        layers: :math:`L`.
        history: Ones where a new user has an item, shape :math:`(N, I)`.
        item_degree: Sums of weights of the items in training, by which ``op`` is normalised.
    """
    if layers == 0:
        return item.new_zeros(history.shape[0], item.size(1))
    _, below = light_propagate(op, user, item, layers - 1)
    return (normalised(history.to(item.device), item_degree) @ below) * (layers / (layers + 1))


def normalised(history: SparseOperator, item_degree: Tensor) -> SparseOperator:
    r"""Rows of :math:`\hat{R}` for new users: their own degree, and the items' in training."""
    own = history.crow.long().diff().double()[history.row()]
    other = item_degree.to(history.device).double()[history.col.long()]
    value = torch.where(other > 0, own.rsqrt() * other.rsqrt(), 0.0)
    return history.with_value(value.to(history.dtype))


def standardised(
    model: Recommender, features: Mapping[str, Tensor], present: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Features of new items by the statistics of training, in the order of the model's modalities.

    Raises:
        DataError: A modality is unknown or of another width.
        ConfigError: Nothing is given for a modality that the model was trained with.
    """
    graph = model.graph
    lacking = [name for name in graph.modalities if name not in features]
    if lacking:
        raise ConfigError(
            f"new items need features of every modality the model was trained with: "
            f"{', '.join(lacking)} not given (a row of NaN says that an item has none)"
        )
    device = next(iter(graph.modalities.values())).device
    scaled = {
        name: graph.standardise(name, x.to(device), present[name].to(device))
        for name, x in features.items()
    }
    return {name: scaled[name] for name in graph.modalities}


def content_neighbours(
    model: Recommender,
    features: Mapping[str, Tensor],
    present: Mapping[str, Tensor],
    k: int,
    block: int = 1024,
) -> dict[str, SparseOperator]:
    r"""The ``k`` items of training nearest to each new one, by modality, each :math:`(N, I)`.

    As :class:`~graphmoe.transforms.content_knn.ContentKNN` finds them among the items of training:
    cosines of standardised features, none that is not positive.
    """
    found = {}
    for name, x in standardised(model, features, present).items():
        old = model.graph.modalities[name]
        usable = model.graph.present[name] & (old.norm(dim=1) > NORM_FLOOR)
        there = usable.nonzero().squeeze(1)
        unit = torch.nn.functional.normalize(old[there], dim=1)
        new = torch.nn.functional.normalize(x, dim=1, eps=NORM_FLOOR)
        row, col, value = [], [], []
        for begin in range(0, x.size(0), block):
            cosine = new[begin : begin + block] @ unit.t()
            # Equal similarities go by number, which a stable sort keeps.
            best, place = cosine.sort(dim=1, descending=True, stable=True)
            best, place = best[:, :k], place[:, :k]
            near = best > 0
            row.append(near.nonzero()[:, 0] + begin)
            col.append(there[place[near]])
            value.append(best[near])
        shape = (x.size(0), model.num_items)
        found[name] = SparseOperator.from_edges(
            torch.cat(row), torch.cat(col), shape, torch.cat(value)
        )
    return found


def _encoder(
    model: LightGCN | FREEDOM | MGCN,
) -> tuple[SparseOperator, Tensor, Tensor, int]:
    return model.operator, model.user, model.item, model.num_layers


def size_of(features: Mapping[str, Tensor]) -> int:
    """How many items these are features of."""
    return next(iter(features.values())).size(0)


def stacked_rows(above: SparseOperator, below: SparseOperator) -> SparseOperator:
    """The rows of both."""
    crow = torch.cat([above.crow.long(), above.crow.long()[-1] + below.crow.long()[1:]])
    col = torch.cat([above.col.long(), below.col.long()])
    shape = (above.shape[0] + below.shape[0], above.shape[1])
    return SparseOperator(crow, col, torch.cat([above.value, below.value]), shape)
