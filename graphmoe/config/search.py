"""Random search over hyper-parameters: what is drawn for each model, and how.

Every model gets the same number of trials. The first is always the configuration as it stands, so
a search never chooses worse than what it began with (on validation); the others are drawn
independently of each other, so a search of 40 trials begins with the 20 of one of 20.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Any

from graphmoe.errors import ConfigError

#: How one setting is drawn: ``{"choice": [...]}``, ``{"uniform": [low, high]}`` or
#: ``{"log": [low, high]}`` (uniform in the logarithm).
Space = Mapping[str, Mapping[str, list[Any]]]

_LR: dict[str, dict[str, list[Any]]] = {"optim.lr": {"log": [2e-4, 5e-3]}}
_PENALTY: dict[str, list[Any]] = {"log": [1e-6, 1e-2]}
_LAYERS: dict[str, list[Any]] = {"choice": [1, 2, 3]}

#: What is drawn for each of our recommenders, unless ``trials.space`` says otherwise.
SPACES: dict[str, Space] = {
    "Popularity": {},
    "ItemKNN": {
        "model.hyper.by": {"choice": ["content", "company"]},
        "model.hyper.k": {"choice": [5, 10, 20, 50, 100, 200]},
    },
    "RandomWalk": {"model.hyper.steps": {"choice": [1, 2, 3, 4, 5, 6]}},
    "BPRMF": {**_LR, "model.hyper.reg_weight": {"log": [1e-5, 1e-1]}},
    "LightGCN": {
        **_LR,
        "model.hyper.num_layers": {"choice": [1, 2, 3, 4]},
        "model.hyper.reg_weight": _PENALTY,
        "model.hyper.init_std": {"choice": [None, 0.1]},
    },
    "VBPR": {**_LR, "model.hyper.reg_weight": {"log": [1e-5, 1e-1]}},
    "FREEDOM": {
        **_LR,
        "model.hyper.num_layers": _LAYERS,
        "model.hyper.num_item_layers": {"choice": [1, 2]},
        "model.hyper.dropout": {"choice": [0.0, 0.5, 0.8, 0.9]},
        "model.hyper.feature_weight": {"log": [1e-5, 1e-1]},
    },
    "MGCN": {
        **_LR,
        "model.hyper.num_layers": _LAYERS,
        "model.hyper.contrast_weight": {"log": [1e-4, 1e-1]},
        "model.hyper.reg_weight": _PENALTY,
    },
    "MAGNET": {
        **_LR,
        "model.hyper.num_layers": {"choice": [2, 3, 4]},
        "model.hyper.content_weight": {"choice": [0.8, 1.2, 1.8, 2.5]},
        "model.hyper.side_weight": {"choice": [1 / 3, 1.0]},
        "model.hyper.guided": {"choice": [True, False]},
        "model.hyper.walk_weight": {"choice": [0.0, 40.0, 80.0, 120.0]},
        "model.hyper.user_power": {"choice": [0.0, 0.25, 0.5]},
        "model.hyper.contrast_weight": {"log": [3e-4, 1e-2]},
        "model.hyper.reg_weight": {"log": [1e-4, 1e-1]},
    },
}


def space_of(name: str, own: Space | None = None) -> Space:
    """What is drawn for the recommender of that class name.

    Args:
        name: Of the class.
        own: A person's own space, which wins.

    Raises:
        ConfigError: There is no space for it, or a distribution in it is none.
    """
    found = SPACES.get(name) if own is None else own
    if found is None:
        raise ConfigError(
            f"there is no search space for {name}: write one under trials.space, such as "
            "{optim.lr: {log: [0.0001, 0.01]}}"
        )
    check_space(found)
    return found


def check_space(space: Space, path: str = "trials.space") -> None:
    """That every setting is drawn in one of the ways there are.

    Args:
        space: What is drawn.
        path: Where it was written, for the error.

    Raises:
        ConfigError: One is not.
    """
    for key, how in space.items():
        _check(f"{path}.{key}", how)


def draw(space: Space, seed: int, trial: int) -> dict[str, Any]:
    """The settings of one trial by dotted name; trial 0 changes nothing.

    Args:
        space: What is drawn.
        seed: Of the search.
        trial: Its number; it decides alone, whatever was drawn before.
    """
    if trial == 0:
        return {}
    generator = random.Random(f"{seed} {trial}")
    return {key: _draw(how, generator) for key, how in sorted(space.items())}


def _draw(how: Mapping[str, list[Any]], generator: random.Random) -> Any:
    [(kind, values)] = how.items()
    if kind == "choice":
        return generator.choice(values)
    low, high = values
    if kind == "uniform":
        return generator.uniform(low, high)
    return math.exp(generator.uniform(math.log(low), math.log(high)))


def _check(path: str, how: Mapping[str, list[Any]]) -> None:
    if len(how) != 1 or not {*how} <= {"choice", "uniform", "log"}:
        raise ConfigError(f"{path}: got {dict(how)}, expected one of choice, uniform, log")
    [(kind, values)] = how.items()
    if kind == "choice":
        fine = len(values) > 0
    else:
        numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
        fine = numbers and len(values) == 2 and values[0] <= values[1]
        fine = fine and (kind == "uniform" or values[0] > 0)
    if not fine:
        wanted = {
            "choice": "at least one value",
            "uniform": "two numbers, the lower first",
            "log": "two numbers above 0, the lower first",
        }
        raise ConfigError(f"{path}.{kind}: got {values}, expected {wanted[kind]}")
