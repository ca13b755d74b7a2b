"""Time of a step through sparse experts, beside a dense layer and beside computing all experts."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from graphmoe.benchmark.environment import environment
from graphmoe.benchmark.report import earlier_result
from graphmoe.benchmark.results import Result, Row, SeedResult
from graphmoe.benchmark.significance import compare_pairs
from graphmoe.checkpoint.files import sha256
from graphmoe.errors import ConfigError, unknown_name
from graphmoe.nn.diagnostics.costs import layer_costs
from graphmoe.nn.models.moe_ffn import MoEFFN
from graphmoe.training.device import limited_threads
from graphmoe.training.state import differences
from graphmoe.typing import PathLike

#: Tokens, their width, experts, experts a token.
SIZES = {"T": 16384, "D": 128, "E": 8, "k": 2}
MODELS = ("moe", "dense", "all-experts")
WARM_UP, ROUNDS = 1, 5


def run_dispatch(
    dataset: str | None = None,
    *,
    models: Sequence[str] = MODELS,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    out: PathLike,
    threads: int = 1,
    jobs: int = 1,
    resume: bool = False,
    overwrite: bool = False,
) -> Result:
    """Time forward and backward of whole layers, router included.

    Per seed, layers and tokens are drawn anew and all layers take turns, so that what else the
    machine does meets all of them; the score is the median of the rounds. Experts have hidden width
    :math:`4D`; ``dense`` is one network of hidden width :math:`4Dk`, as wide as what a token meets;
    ``all-experts`` sends every token to every expert.

    Args:
        dataset: Sizes, as ``"T=16384,D=128,E=8,k=2"``; those not named keep these values.
        models: Of ``moe``, ``dense``, ``all-experts``.
        seeds: One drawing each.
        out: The run's folder; seeds of a result in it are kept when it is resumed.
        threads: Of torch.
        jobs: One: layers that are timed at once slow each other down.
        resume: Measure only seeds that are not there yet.
        overwrite: Measure again.

    Raises:
        ConfigError: A size or a name is wrong, or there is a result already, or one of other
            sizes, layers or threads.
    """
    if jobs != 1:
        raise ConfigError(f"jobs: got {jobs}, expected 1: what is timed together is slowed down")
    sizes = read_sizes(dataset)
    for name in models:
        if name not in MODELS:
            raise ConfigError(unknown_name("model", name, MODELS))
    models = tuple(dict.fromkeys(models))
    settings = ",".join(f"{key}={value}" for key, value in sizes.items())
    finished = earlier_result(Path(out), resume, overwrite)
    found: dict[str, dict[int, float]] = {name: {} for name in models}
    if finished is not None:
        _refuse_others(finished, Path(out), settings, models, threads)
        found = {row.name: row.scored for row in finished.rows}
        if set(seeds) <= set(found[models[0]]):
            return finished
    with limited_threads(threads):
        for seed in seeds:
            if seed not in found[models[0]]:
                for name, seconds in _timed(models, sizes, seed).items():
                    found[name][seed] = 1e3 * seconds
    rows = [_row(name, sizes, found[name], threads) for name in models]
    pairs = [("moe", name) for name in models if name != "moe" and "moe" in models]
    return Result(
        suite="dispatch",
        dataset=settings,
        metric="ms a step",
        higher_is_better=False,
        split=sha256(settings.encode()),
        baselines=tuple(name for _, name in pairs),
        rows=tuple(rows),
        comparisons=compare_pairs(pairs, rows, False),
        environment=environment(threads),
    )


def _refuse_others(
    finished: Result, out: Path, settings: str, models: Sequence[str], threads: int
) -> None:
    """That times of other sizes, layers or threads are not taken for those asked for.

    Raises:
        ConfigError: They are such times.
    """
    there = {
        "dataset": finished.dataset,
        "models": [row.name for row in finished.rows],
        "threads": finished.rows[0].config.get("threads"),
    }
    asked = {"dataset": settings, "models": list(models), "threads": threads}
    if changed := differences(there, asked):
        raise ConfigError(
            f"{out} was measured with other settings: {'; '.join(changed)}; overwrite to measure "
            "again (--overwrite), or choose another folder"
        )


def read_sizes(text: str | None) -> dict[str, int]:
    """``"T=4096,E=4"`` as numbers, the others as in :data:`SIZES`.

    Raises:
        ConfigError: It is not of that form, or a token goes to more experts than there are.
    """
    sizes = dict(SIZES)
    for part in filter(None, (text or "").split(",")):
        match = re.fullmatch(r"\s*(\w+)\s*=\s*([1-9]\d*)\s*", part)
        if match is None or match[1] not in SIZES:
            raise ConfigError(
                f"dataset: got {part!r}, expected sizes of {', '.join(SIZES)} such as "
                "T=16384,D=128,E=8,k=2"
            )
        sizes[match[1]] = int(match[2])
    if sizes["k"] > sizes["E"]:
        raise ConfigError(f"dataset: got k={sizes['k']}, expected at most E={sizes['E']}")
    return sizes


def make_layer(name: str, sizes: dict[str, int]) -> nn.Module:
    """The layer of that name."""
    D, E, k = sizes["D"], sizes["E"], sizes["k"]
    if name == "dense":
        return nn.Sequential(nn.Linear(D, 4 * D * k), nn.GELU(), nn.Linear(4 * D * k, D))
    return MoEFFN(D, num_experts=E, k=E if name == "all-experts" else k)


def _timed(models: Sequence[str], sizes: dict[str, int], seed: int) -> dict[str, float]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = {name: make_layer(name, sizes) for name in models}
        x, gradient = (torch.randn(sizes["T"], sizes["D"]) for _ in range(2))
        times: dict[str, list[float]] = {name: [] for name in models}
        for turn in range(WARM_UP + ROUNDS):
            for name, layer in layers.items():
                seconds = _step(layer, x, gradient)
                if turn >= WARM_UP:
                    times[name].append(seconds)
    return {name: median(values) for name, values in times.items()}


def _step(layer: nn.Module, x: torch.Tensor, gradient: torch.Tensor) -> float:
    x = x.detach().requires_grad_()
    layer.zero_grad(set_to_none=True)
    began = time.perf_counter()
    layer(x).backward(gradient)
    return time.perf_counter() - began


def _row(name: str, sizes: dict[str, int], times: Mapping[int, float], threads: int) -> Row:
    layer = make_layer(name, sizes)
    total = sum(p.numel() for p in layer.parameters())
    about: dict[str, Any] = {"parameters_active": total, "flops": 2.0 * _entries(layer)}
    if isinstance(layer, MoEFFN) and (costs := layer_costs(layer, layer.router)) is not None:
        about = {
            "parameters_active": costs.common_parameters + layer.k * costs.expert_parameters[0],
            "flops": float(costs.common_flops + layer.k * costs.expert_flops[0]),
        }
    return Row.of(
        name,
        [SeedResult(seed=seed, test=time) for seed, time in times.items()],
        config={"model": name, **sizes, "threads": threads},
        parameters_total=total,
        flops_of="token",
        **about,
    )


def _entries(layer: nn.Module) -> int:
    return sum(p.numel() for p in layer.parameters() if p.dim() > 1)
