"""What a finished recommendation run is used for: evaluated again, and asked for items."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from graphmoe.api.recommend_run import (
    compare_runs,
    load_recommender,
    read_config,
    seeds_of,
    spread_of,
)
from graphmoe.checkpoint.files import make_folder, write_bytes
from graphmoe.training.device import limited_threads
from graphmoe.training.recommend_task import evaluate_parts
from graphmoe.typing import PathLike

if TYPE_CHECKING:
    from graphmoe.api.recommend_predict import Recommendations


def evaluate_run(
    run: PathLike,
    *,
    part: Literal["valid", "test"] = "test",
    ks: Sequence[int] | None = None,
    against: PathLike | None = None,
    out: PathLike | None = None,
    source: Any = None,
    data_root: PathLike | None = None,
    device: str = "cpu",
    progress: bool = False,
) -> dict[str, Any]:
    """Rank all items for all users anew, with every finished seed of a run.

    Args:
        run: The folder that ``recommend`` wrote; nothing in it is changed.
        part: ``"test"`` or ``"valid"``.
        ks: Cut-offs; ``None``: those of the run.
        against: Folder of another run on the same data, compared user by user.
        out: A JSON file of the figures.
        source: The interactions, or where they are now; ``None``: where they were.
        data_root: Where datasets are looked for.
        device: Where the model runs.
        progress: Whether a table is printed.

    Returns:
        Figures of each seed, their mean and deviation, and the comparison, as ``metrics.json``.

    Raises:
        MissingDataError: There is no such run, or the data is not there.
        VerificationError: A file is damaged, or the data is not that of the training.
        DataError: The part has no interactions, or ``against`` is a run on other data.

    Example:
        >>> from graphmoe.api import evaluate_run
        >>> figures = evaluate_run("films", part="valid", ks=[5])
        >>> [name for name in figures["mean"]["valid"] if name.endswith("@5")]
        ['recall@5', 'ndcg@5', 'coverage@5', 'popularity@5']
    """
    config = read_config(run)
    each: dict[str, Any] = {}
    for seed in seeds_of(run):
        with limited_threads(config.run.threads):
            found = load_recommender(
                run, seed=seed, source=source, data_root=data_root, device=device
            )
            source = found.interactions  # read once
            cuts = tuple(ks or config.evaluation.ks)
            each[str(seed)], _ = evaluate_parts(found.model, found.interactions, (part,), cuts)
    metrics = {"model": config.model.name, "seeds": each, "mean": spread_of(each)}
    if against is not None:
        metrics["against"] = compare_runs(run, against, part)
    if out is not None:
        make_folder(Path(out).parent)
        write_bytes(Path(out), (json.dumps(metrics, indent=1) + "\n").encode())
    if progress:
        from graphmoe.api.recommend_tables import print_metrics

        print_metrics(metrics, config)
    return metrics


def recommend_top(
    run: PathLike,
    *,
    out: PathLike | None = None,
    users: Iterable[Any] | None = None,
    top: int = 20,
    exclude: Literal["known", "train", "nothing"] = "known",
    new_users: PathLike | Mapping[Any, Any] | None = None,
    new_items: Mapping[str, PathLike] | None = None,
    seed: int | None = None,
    source: Any = None,
    data_root: PathLike | None = None,
    device: str = "cpu",
) -> Recommendations:
    """The best items of each user by a finished run, and what each part of the model gave.

    Args:
        run: The folder that ``recommend`` wrote.
        out: A ``.csv``, ``.parquet`` or ``.json`` file of them.
        users: Original ids; ``None``: everybody, or, where ``new_users`` are given, these alone.
        top: Items a user.
        exclude: ``"known"``: no item that the user has in any part of the data; ``"train"``: none
            of the training part; ``"nothing"``.
        new_users: Users who were not there in training: a table with columns ``user`` and
            ``item``, or the items of each.
        new_items: Items that were not there in training: by modality a table with a column
            ``item``, the others being the features.
        seed: Which training; ``None``: the first.
        source: The interactions, or where they are now; ``None``: where they were.
        data_root: Where datasets are looked for.
        device: Where the model runs.

    Raises:
        MissingDataError: There is no such run, or the data is not there.
        VerificationError: A file is damaged, or the data is not that of the training.
        DataError: An id is unknown, or a new one is known already.
        ConfigError: The model cannot score new users or items, or an option is out of range.

    Example:
        >>> from graphmoe.api import recommend_top
        >>> best = recommend_top("films", users=["0", "7"], top=3)
        >>> list(zip(best.user.tolist(), best.rank.tolist()))
        [(0, 1), (0, 2), (0, 3), (7, 1), (7, 2), (7, 3)]
    """
    from graphmoe.api.recommend_newcomers import NewItems, NewUsers
    from graphmoe.api.recommend_predict import checked_out, top_items

    if out is not None:
        checked_out(out)  # before any work
    people = None
    if new_users is not None:
        given = isinstance(new_users, Mapping)
        people = NewUsers.of(new_users) if given else NewUsers.read(new_users)  # type: ignore[arg-type]
    things = None if new_items is None else NewItems.read(new_items)
    found = load_recommender(run, seed=seed, source=source, data_root=data_root, device=device)
    with limited_threads(found.config.run.threads):
        best = top_items(
            found.model,
            found.interactions,
            users=users,
            k=top,
            exclude=exclude,
            new_users=people,
            new_items=things,
        )
    if out is not None:
        best.write(out)
    return best
