"""Which interactions are learned from, chosen on and tested on: four ways, none of which leaks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphmoe.errors import ConfigError, DataError, unknown_name

#: The ways to split, see :func:`split_interactions`.
SPLITS = ("given", "leave-last-out", "random", "time")

#: Shares of training, validation and test of the random split and of the split by time.
RATIOS = (0.8, 0.1, 0.1)


def check_split(how: str, ratios: Sequence[float] = RATIOS) -> None:
    """Whether this is a way to split, and whether the shares are shares."""
    if how not in SPLITS:
        raise ConfigError(unknown_name("split", how, SPLITS))
    fine = len(ratios) == 3 and all(0 <= ratio <= 1 for ratio in ratios)
    if not fine or abs(sum(ratios) - 1) > 1e-6 or ratios[0] <= 0:
        raise ConfigError(
            "ratios are three shares (train, valid, test) that sum to 1, the first above 0; got "
            f"{list(ratios)}"
        )


def split_interactions(
    how: str,
    user: np.ndarray,
    item: np.ndarray,
    time: np.ndarray | None = None,
    given: np.ndarray | None = None,
    *,
    ratios: Sequence[float] = RATIOS,
    seed: int = 0,
    where: str = "interactions",
) -> np.ndarray:
    """The part of each interaction: 0 train, 1 validation, 2 test.

    Every interaction is in one part, and (repeated pairs being merged beforehand) no pair of user
    and item is in two.

    ``"given"``: as the source says.

    ``"leave-last-out"``: the last interaction of each user is tested, the one before is validated
    on, the others train. A user with two gives one to training and one to test; a user with one
    only trains. Last means latest; at equal times, or without any times, further down in the
    file. A user's training is older than the same user's test, but may be younger than another's.

    ``"random"``: a share of each user's interactions, drawn without regard to time: ``n`` of them
    give ``⌊n · share + ½⌋`` to test and to validation, and at least one to training, test giving
    way last. The draw depends on the seed and the ids, not on the order of the file.

    ``"time"``: one moment for everybody: the first 80 % (by ``ratios``) train, the next 10 %
    validate, the rest test. Interactions of the same moment stay in the same (earlier) part, so
    the shares are met as far as times differ, and everything trained on is strictly older than
    everything chosen or tested on.

    Args:
        how: One of :data:`SPLITS`.
        user: ``[n]`` rows of users, whole numbers from 0.
        item: ``[n]`` rows of items.
        time: ``[n]`` times, in the order of the file.
        given: ``[n]`` parts that the source gives.
        ratios: Shares of training, validation and test, for ``"random"`` and ``"time"``.
        seed: Seed of ``"random"``.
        where: The file, for messages.

    Returns:
        ``[n]`` int8.

    Raises:
        ConfigError: There is no such way to split, or the ratios do not sum to 1.
        DataError: The source lacks what the split needs.
    """
    check_split(how, ratios)
    if how == "given":
        if given is None:
            raise DataError(
                f"{where}: there is no split column; choose a split (data.split, --data.split): "
                "leave-last-out, random or time"
            )
        return given.astype(np.int8)
    if how == "random":
        return _random(user, item, ratios, seed)
    if time is not None and (unknown := int(np.isnan(time).sum())):
        raise DataError(
            f"{where}: {unknown} of {len(time)} interactions have no time, which the split "
            f"{how!r} needs"
        )
    if how == "leave-last-out":
        return _leave_last_out(user, time)
    if time is None:
        raise DataError(f"{where}: there is no time column, which the split 'time' needs")
    return _by_time(time, ratios)


def _position_from_end(order: np.ndarray, user: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For rows ordered by user: how many of the user's rows follow each, and how many there are.

    Both are given in the order of the rows as they came in.
    """
    count = np.bincount(user)
    ends = np.cumsum(count)
    sorted_user = user[order]
    following = np.empty(len(user), dtype=np.int64)
    following[order] = ends[sorted_user] - 1 - np.arange(len(user))
    return following, count[user]


def _leave_last_out(user: np.ndarray, time: np.ndarray | None) -> np.ndarray:
    # lexsort is stable: at equal times the order of the file decides.
    keys = (user,) if time is None else (time, user)
    following, count = _position_from_end(np.lexsort(keys), user)
    part = np.zeros(len(user), dtype=np.int8)
    part[(following == 1) & (count > 2)] = 1
    part[(following == 0) & (count > 1)] = 2
    return part


def _random(user: np.ndarray, item: np.ndarray, ratios: Sequence[float], seed: int) -> np.ndarray:
    by_pair = np.lexsort((item, user))
    draw = np.empty(len(user))
    draw[by_pair] = np.random.default_rng(seed).random(len(user))
    following, count = _position_from_end(np.lexsort((draw, user)), user)
    # A hair more than a half: 0.1 * 5 must round as one half does, whatever its last bit.
    test = np.minimum(np.floor(count * ratios[2] + 0.5 + 1e-9), count - 1)
    valid = np.minimum(np.floor(count * ratios[1] + 0.5 + 1e-9), count - 1 - test)
    part = np.zeros(len(user), dtype=np.int8)
    part[following < test + valid] = 1
    part[following < test] = 2
    return part


def _by_time(time: np.ndarray, ratios: Sequence[float]) -> np.ndarray:
    in_order = np.sort(time)
    part = np.zeros(len(time), dtype=np.int8)
    for share in (ratios[0], ratios[0] + ratios[1]):
        last = max(int(np.floor(len(time) * share + 1e-9)), 1) - 1
        part[time > in_order[min(last, len(time) - 1)]] += 1
    return part
