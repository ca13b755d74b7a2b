"""What ``graphmoe benchmark`` does: run a suite, write what it found, and compare."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphmoe.cli.benchmark_arguments import REC_WITHOUT
from graphmoe.cli.parser import config_of
from graphmoe.config import (
    BenchmarkConfig,
    FuseConfig,
    RecommendConfig,
    check_rows,
    load_config,
)
from graphmoe.errors import ConfigError

if TYPE_CHECKING:
    from graphmoe.benchmark.results import Result

#: From the options and the folder of the run to what was found.
Run = Callable[[Any, Path], "Result"]


def ogb(options: Any) -> None:
    """Models on an official task."""
    chosen = _ogb_config(options)
    if options.dry_run:
        _plan(options, chosen)
    else:
        _run(options, "ogb", lambda options, out: _ogb(options, out, chosen))


def fewshot(options: Any) -> None:
    """Experts fused from a few labels."""
    config = config_of(options, FuseConfig)
    _run(options, "fewshot", lambda options, out: _fewshot(options, out, config))


def rec(options: Any) -> None:
    """Recommenders on one set of interactions."""
    if options.dataset is not None:
        options["data.source"] = options.dataset
    if options.seeds is not None:
        options.seeds = ",".join(map(str, _seeds(options.seeds)))
    config = config_of(options, RecommendConfig, REC_WITHOUT)
    _run(options, "rec", lambda options, out: _rec(options, out, config))


def dispatch(options: Any) -> None:
    """Time of sparse experts."""
    _run(options, "dispatch", _dispatch)


COMMANDS: dict[str, Callable[[Any], None]] = {
    "benchmark ogb": ogb,
    "benchmark fewshot": fewshot,
    "benchmark rec": rec,
    "benchmark dispatch": dispatch,
}


def _run(options: Any, suite: str, run: Run) -> None:
    """Run, or where two results are named, only compare them."""
    files = options.compare or []
    if len(files) > 2:
        raise ConfigError(f"--compare: got {len(files)} results, expected one or two")
    from graphmoe.benchmark.compare import compare
    from graphmoe.benchmark.report import finish, show
    from graphmoe.benchmark.results import load_result

    if len(files) == 2:
        show(compare(*files))
        return
    before = load_result(files[0]) if files else None  # a wrong name shows before hours of work
    if options.offline and options.yes:
        raise ConfigError("--offline never asks the network, and --yes downloads: choose one")
    out = Path(options.out or f"benchmark-{suite}")
    result = run(options, out)
    finish(result, out, before, progress=not options.quiet)


def _ogb_config(options: Any) -> BenchmarkConfig:
    """The configuration, with what has an option of its own."""
    for option, key in (
        ("dataset", "data.name"),
        ("root", "data.root"),
        ("search", "trials.count"),
    ):
        if (value := options[option]) is not None:
            options[key] = str(value)
    config: BenchmarkConfig = config_of(options, BenchmarkConfig)
    if options.model is not None:
        from graphmoe.benchmark.choose_rows import choose_rows

        given = options.config is not None or options.models is not None
        config = choose_rows(config, options.model, given)
    if options.bank is not None:
        from graphmoe.benchmark.choose_rows import with_bank

        config = with_bank(config, options.bank)
    return config


def _plan(options: Any, config: BenchmarkConfig) -> None:
    from graphmoe.benchmark.plan import print_plan
    from graphmoe.benchmark.sources import load_task

    check_rows(config)
    data = load_task(
        config.data.name,
        root=config.data.root,
        data_root=options.data_root,
        offline=options.offline,
        yes=options.yes,
    )
    print_plan(config, data)


def _ogb(options: Any, out: Path, config: BenchmarkConfig) -> Result:
    from graphmoe.benchmark.runner import run_benchmark

    return run_benchmark(
        config,
        data_root=options.data_root,
        offline=options.offline,
        yes=options.yes,
        **_running(options, out),
    )


def _fewshot(options: Any, out: Path, config: FuseConfig) -> Result:
    from graphmoe.benchmark.suite_fewshot import run_fewshot

    dataset = options.dataset or "cora"
    if options.yes:
        from graphmoe.data import load_graph

        load_graph(dataset, options.root or options.data_root, download=True)
    return run_fewshot(
        dataset,
        config,
        models=options.model,
        bank=options.bank,
        shots=options.shots,
        tasks=options.tasks,
        seeds=_seeds(options.seeds),
        data_root=options.root or options.data_root,
        **_running(options, out),
    )


def _rec(options: Any, out: Path, config: RecommendConfig) -> Result:
    from graphmoe.benchmark.suite_rec import run_rec

    where = options.root or options.data_root
    return run_rec(config, models=options.model, data_root=where, **_running(options, out))


def _dispatch(options: Any, out: Path) -> Result:
    from graphmoe.benchmark.suite_dispatch import run_dispatch

    return run_dispatch(
        options.dataset,
        models=options.model,
        seeds=_seeds(options.seeds),
        out=out,
        threads=options.threads,
        jobs=options.jobs,
        resume=options.resume,
        overwrite=options.overwrite,
    )


def _running(options: Any, out: Path) -> dict[str, Any]:
    """How trainings are carried out."""
    return {
        "out": out,
        "device": options.device,
        "jobs": options.jobs,
        "resume": options.resume,
        "overwrite": options.overwrite,
        "progress": not options.quiet,
    }


def _seeds(text: str) -> tuple[int, ...]:
    """``0..9`` or ``0,1,2`` as numbers, different ones."""
    found = load_config(BenchmarkConfig, None, {"seeds": text}).seeds
    if len(set(found)) < len(found):
        raise ConfigError(f"seeds: got {list(found)}, expected different ones")
    return found
