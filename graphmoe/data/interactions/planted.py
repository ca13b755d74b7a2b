"""Generated interactions of users whose reasons are known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from graphmoe.data.interactions.assemble import ItemFeatures, assemble
from graphmoe.data.interactions.interactions import Interactions
from graphmoe.data.interactions.log import InteractionLog
from graphmoe.errors import ConfigError

#: What can drive a user, by the number that stands for it in ``user_type``.
DRIVES = ("behaviour", "visual", "textual")

#: Users drawn at once; bounds the memory to this many rows of items.
_BLOCK = 1024

_NEW_YEAR_2020, _YEAR = 1_577_836_800, 366 * 86_400


@dataclass(frozen=True, eq=False)
class PlantedPreferences:
    """Interactions, and why each user had them.

    Attributes:
        interactions: What a model may see, with modalities ``visual`` and ``textual``.
        user_type: ``[U]`` int64, what drives each user, an index into :data:`DRIVES`.
        item_group: ``[I, 3]`` int64, the group of each item in what others take together, in its
            looks and in its words.
    """

    interactions: Interactions
    user_type: Tensor
    item_group: Tensor


def planted_interactions(
    num_users: int = 300,
    num_items: int = 240,
    per_user: int = 12,
    *,
    groups: int = 6,
    noise: float = 0.1,
    spread: float = 0.5,
    vary: float = 0.5,
    missing: float = 0.0,
    cold: float = 0.0,
    seed: int = 0,
) -> PlantedPreferences:
    r"""Users driven by behaviour, by looks or by words, a third each.

    Every item has three groups, drawn independently: one in looks, one in words, and one that no
    feature shows and only the choices of others reveal. A user cares for one group of one kind.
    Each of a user's distinct items comes from that group with probability
    :math:`1 - \text{noise}` (as long as it has items left) and from the others otherwise, popular
    items more often (log-normal weights). Features are the group's centre plus normal noise of
    deviation ``spread``.

    The last interaction of each user (at random times in 2020) is tested, the one before
    validated; items chosen to be cold are tested wherever they occur.

    Args:
        num_users: Users, U.
        num_items: Items, I.
        per_user: Interactions a user on average.
        groups: Groups of each kind.
        noise: Share of interactions without a reason.
        spread: Noise of the features; the centres have unit variance.
        vary: Users have from ``(1 - vary) per_user`` to ``(1 + vary) per_user`` interactions, at
            least 3 and at most I.
        missing: Share of the items without a row, drawn for each modality.
        cold: Share of the items that are never trained on.
        seed: Same seed, same data on every machine.

    Raises:
        ConfigError: The numbers do not fit together.
    """
    if num_users < 1 or groups < 2 or not 3 <= per_user <= num_items:
        raise ConfigError(
            "planted interactions need a user, two groups and 3 to num_items interactions a user; "
            f"got {num_users} users, {groups} groups, {per_user} of {num_items} items a user"
        )
    for name, share in (("noise", noise), ("vary", vary), ("missing", missing), ("cold", cold)):
        if not 0 <= share < 1:
            raise ConfigError(f"{name} is a share from 0 to below 1, got {share}")
    rng = np.random.default_rng(seed)
    group = rng.integers(groups, size=(num_items, 3))
    popularity = rng.normal(0.0, 0.5, size=num_items)
    drive = rng.permutation(np.arange(num_users) % len(DRIVES))
    taste = rng.integers(groups, size=num_users)
    # Odds of the favourite group so that it gets its share of the draws.
    odds = np.log((1 - noise) / max(noise, 1e-6)) + np.log(groups - 1)
    least = max(round(per_user * (1 - vary)), 3)
    most = min(round(per_user * (1 + vary)), num_items)
    length = rng.integers(least, most + 1, size=num_users)
    chosen = np.empty((num_users, most), dtype=np.int64)
    for start in range(0, num_users, _BLOCK):
        rows = slice(start, min(start + _BLOCK, num_users))
        liked = taste[rows, None] == group[:, drive[rows]].T
        logits = popularity + odds * liked + rng.gumbel(size=liked.shape)
        # Perturbed logits in falling order are draws without replacement.
        top = np.argpartition(-logits, most - 1, axis=1)[:, :most]
        falling = np.argsort(-np.take_along_axis(logits, top, axis=1), axis=1)
        chosen[rows] = np.take_along_axis(top, falling, axis=1)
    place = np.arange(most) - length[:, None]
    used = place < 0
    # What was drawn first is most liked; a test on the last must not be a test on the least liked.
    shuffled = np.argsort(np.where(used, rng.random(chosen.shape), 1.0), axis=1)
    chosen = np.take_along_axis(chosen, shuffled, axis=1)
    time = np.sort(rng.integers(_YEAR, size=chosen.shape), axis=1) + float(_NEW_YEAR_2020)
    part = np.where(place == -1, 2, np.where(place == -2, 1, 0)).astype(np.int8)
    part[np.isin(chosen, rng.permutation(num_items)[: round(cold * num_items)])] = 2
    log = InteractionLog(
        name="planted",
        where="planted interactions",
        user=np.nonzero(used)[0],
        item=chosen[used],
        time=time[used],
        split=part[used],
    )
    features = {}
    for kind, (name, width) in enumerate((("visual", 16), ("textual", 12)), start=1):
        centres = rng.normal(size=(groups, width))
        rows_of = centres[group[:, kind]] + spread * rng.normal(size=(num_items, width))
        rows_of[rng.permutation(num_items)[: round(missing * num_items)]] = np.nan
        features[name] = ItemFeatures(rows_of.astype(np.float32), None, name)
    return PlantedPreferences(
        interactions=assemble(log, features),
        user_type=torch.from_numpy(drive.astype(np.int64)),
        item_group=torch.from_numpy(group),
    )


def planted_tastes() -> Interactions:
    """300 generated users, a third each driven by behaviour, looks and words, and 240 items."""
    return planted_interactions(missing=0.05, cold=0.05).interactions
