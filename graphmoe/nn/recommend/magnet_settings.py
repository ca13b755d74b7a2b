"""Which settings of MAGNET go together."""

from __future__ import annotations

from typing import Final

from graphmoe.errors import ConfigError

LEVELS: Final = ("representation", "score")
ROUTED_BY: Final = ("both", "users", "chance")


def check_settings(
    *,
    k: int,
    num_roles: int,
    num_cues: int,
    level: str,
    routed_by: str,
    moe: bool,
    ego: bool,
    layers: tuple[int, int],
    negative_candidates: int,
) -> None:
    """Refuse what cannot be built; arguments as :class:`~graphmoe.nn.recommend.MAGNET` has them.

    Args:
        k: Experts a node is given.
        num_roles: Number of roles.
        num_cues: Number of cues, behaviour included.
        level: Where experts work.
        routed_by: Whose interactions decide.
        moe: Whether there are routers.
        ego: Whether the mean over layers has the vectors before propagation in it.
        layers: Steps in either view.
        negative_candidates: Negatives drawn for each pair.

    Raises:
        ConfigError: A setting is out of range, or does not go with another.
    """
    if not 1 <= k <= num_roles * num_cues:
        raise ConfigError(
            "k is the number of experts a node is given: expected "
            f"1 <= k <= {num_roles * num_cues} ({num_roles} roles of {num_cues} cues), got k={k}"
        )
    if level not in LEVELS:
        raise ConfigError(f"level is one of {', '.join(LEVELS)}, got {level!r}")
    if routed_by not in ROUTED_BY:
        raise ConfigError(f"routed_by is one of {', '.join(ROUTED_BY)}, got {routed_by!r}")
    if level == "score" and not (moe and routed_by == "both"):
        raise ConfigError(
            "experts at the level of scores are routed by both sides of a pair: expected "
            f"moe=True and routed_by='both', got moe={moe} and routed_by={routed_by!r}"
        )
    if negative_candidates < 1:
        raise ConfigError(f"expected negative_candidates >= 1, got {negative_candidates}")
    if not ego and min(layers) < 1:
        raise ConfigError(
            "without layers there are only the vectors themselves: expected num_layers >= 1 and "
            f"content_layers >= 1, or ego=True; got {layers[0]} and {layers[1]}"
        )
