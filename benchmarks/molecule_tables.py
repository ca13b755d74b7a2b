"""Tables of ``molecules.json``: what needs no trained network, and what a step takes."""

from __future__ import annotations

from typing import Any

from markdown_table import table


def floors(result: dict[str, Any]) -> str:
    """What molecules tell without a trained network."""
    names = list(result["datasets"])
    rows = []
    for row in result["datasets"][names[0]]["rows"]:
        cells = []
        for name in names:
            found = result["datasets"][name]["rows"][row]
            spread = f" ± {found['std']:.3f}" if found["std"] else ""
            cells += [f"{found['valid_mean']:.3f}", f"{found['mean']:.3f}{spread}"]
        rows.append([row, *cells])
    metrics = [result["datasets"][name]["metric"] for name in names]
    head = ["", *(f"{n} {m}, {p}" for n, m in zip(names, metrics, strict=True)
                  for p in ("validation", "test"))]  # fmt: skip
    return table(head, rows)


def times(result: dict[str, Any]) -> str:
    """Time of a training step, in milliseconds and in those of computing all experts."""
    rows = []
    for name, found in result["datasets"].items():
        step = found["step_ms"]
        share = step["mixture"] / step["all experts"]
        rows.append([name, *(f"{step[row]:.0f}" for row in step), f"{share:.2f}"])
    steps = list(next(iter(result["datasets"].values()))["step_ms"])
    return table(["ms a step", *steps, "mixture / all experts"], rows)
