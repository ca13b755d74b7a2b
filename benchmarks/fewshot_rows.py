"""The rows of the few-shot tables: who votes, and with what weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from torch import Tensor

from graphmoe.evaluation import Member, mean_std, member_prior

SHARPNESS = (6.0, 12.0)
CLASS_SHARE = (0.0, 0.5)
EXPERT_SETS = {
    "published": ("published",),
    "fast": ("fast",),
    "published+mean": ("published", "mean"),
    "fast+mean": ("fast", "mean"),
    "all": ("published", "fast", "mean"),
}
FLOORS = (
    *(f"logistic K={K}" for K in (0, 2, 3, 5)),
    "operator pool, logistic",
    *(f"own expert, logistic K{K}" for K in (2, 5, 10)),
    "published fusion, strict",
    "published fusion, strict, recalibrated",
)


@dataclass(frozen=True)
class Row:
    """One fusion.

    Attributes:
        name: In the tables.
        setting: ``"target"``, ``"strict"``, ``"no experts"``, ``"random experts"``.
        experts: Recipes of the target's own experts.
        sharpness: How much a better held-out score counts.
        target: Prior mass of the target's own experts.
        other: Prior mass of the other graphs' experts.
        class_share: Share of the score that is the class's own.
        operators: Untrained operators vote, too.
        structure: Members on features from structure vote, too.
        depths: Only these depths of experts; none: all.
        recalibrated: BatchNorm statistics of the target.
    """

    name: str
    setting: str
    experts: tuple[str, ...] = ("published", "fast", "mean")
    sharpness: float = 12.0
    target: float = 1.0
    other: float = 1.0
    class_share: float = 0.5
    operators: bool = True
    structure: bool = True
    depths: tuple[str, ...] | None = None
    recalibrated: bool = True

    def lets_in(self, recipe: str, member: Member) -> bool:
        """Whether a member of that recipe votes."""
        if member.kind == "operator":
            return self.operators and (self.structure or "(both)" not in member.name)
        if self.setting == "no experts":
            return False
        drawn = recipe.startswith("random ")
        if drawn != (self.setting == "random experts"):
            return False
        recipe = recipe.removeprefix("random ")
        if self.depths is not None and member.name.split("@K")[1] not in self.depths:
            return False
        if (recipe == "as trained") == self.recalibrated:
            return False
        if member.kind == "other":
            return self.other > 0
        own = "published" if recipe == "as trained" else recipe
        return self.setting != "strict" and own in self.experts

    def prior(self, members: Sequence[Member]) -> Tensor:
        """Prior of the members that vote."""
        mass = {"operator": 1.0, "target": self.target, "other": self.other}
        return member_prior(members, mass)


def _grid() -> list[Row]:
    rows = []
    for t, share in product(SHARPNESS, CLASS_SHARE):
        tail = f"t={t:g}, class share={share:g}"
        common: dict[str, Any] = {"sharpness": t, "class_share": share}
        rows.append(Row(f"no experts, {tail}", "no experts", **common))
        rows.append(Row(f"strict, {tail}", "strict", **common))
        for label, experts in EXPERT_SETS.items():
            row = Row(f"target, {label}, {tail}", "target", experts, **common)
            rows.append(row)
            rows.append(replace(row, name=f"random, {label}, {tail}", setting="random experts"))
    return rows


#: Among these rows each target's is chosen on the other four graphs.
GRID = _grid()

_FULL = Row("full", "target")
#: One idea taken away, or put in, at a time, at fixed settings.
ABLATIONS = [
    _FULL,
    replace(_FULL, name="only experts of the target", operators=False, other=0.0),
    replace(_FULL, name="only all experts", operators=False),
    replace(_FULL, name="without experts of other graphs", other=0.0),
    replace(_FULL, name="without the target's experts", setting="strict"),
    replace(_FULL, name="without any expert", setting="no experts"),
    replace(_FULL, name="experts with random weights", setting="random experts"),
    replace(_FULL, name="without features from structure", structure=False, experts=("fast",)),
    replace(_FULL, name="published recipe only", experts=("published",)),
    replace(_FULL, name="larger learning rate only", experts=("fast",)),
    replace(_FULL, name="mean-view experts only", experts=("mean",)),
    replace(_FULL, name="published, K = 2 only", experts=("published",), depths=("2",), other=0.0),
    replace(_FULL, name="published, K = 2 and 5", experts=("published",), depths=("2", "5")),
    replace(
        _FULL,
        name="published, K = 2 and 5, BatchNorm as trained",
        experts=("published",),
        depths=("2", "5"),
        recalibrated=False,
    ),
    replace(_FULL, name="uniform weights", sharpness=0.0),
    replace(_FULL, name="the best held-out member alone", sharpness=1000.0),
    replace(_FULL, name="none of the score class by class", class_share=0.0),
    replace(_FULL, name="the target's experts at half the mass", target=0.5),
    replace(_FULL, name="the target's experts at twice the mass", target=2.0),
    replace(_FULL, name="experts of other graphs at a fifth of the mass", other=0.2),
    replace(_FULL, name="all of the score class by class", class_share=1.0),
]


def chosen_row(rows: Sequence[Row], raw: dict[str, Any], target: str) -> Row:
    """The row with the best mean 3-shot micro F1 on the graphs other than ``target``."""
    others = [n for n in raw if n != target]
    if not others:
        return rows[0]

    def mean(row: Row) -> float:
        return mean_std(
            [mean_std([s[0] for s in raw[n]["scores"][row.name]["3"]])[0] for n in others]
        )[0]

    return max(rows, key=mean)
