"""MAGNET beside its baselines: quality, ablations, speed, growth.

Usage::

    python benchmarks/recommend.py quality   --data-root DIR --work DIR [--models ...] [--trials 20]
    python benchmarks/recommend.py ablations --data-root DIR --work DIR [--rows ...]
    python benchmarks/recommend.py report    --data-root DIR --work DIR
    python benchmarks/recommend.py speed     --data-root DIR
    python benchmarks/recommend.py growth

- *quality* trains every model with every seed, hyper-parameters chosen on validation with an equal
  number of trials; *ablations* take one element out of ours at a time, with the settings that the
  search found. Both keep their runs in ``--work`` and go on where they stopped; two processes may
  share it if they have different models. *report* makes figures, intervals and claims of what is
  finished, and writes them to ``--out``.
- *speed*: seconds of an epoch and of a full evaluation of LightGCN, MGCN and MAGNET in one process,
  in turns, and of ranking all items for all users beside that of a plain product of vectors of
  width 64. Ratios are of the fastest rounds, with quartiles of those within a round.
- *growth*: building, one step of an epoch, and ranking everybody, on generated data with a fixed
  catalogue and 10⁵ to 10⁷ interactions, each size in a process of its own. A step goes over the
  whole graph once, so that an epoch, which has steps in proportion to the interactions, grows with
  their square, in ours as in LightGCN.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from measure import environment, in_process

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
SPEED_MODELS = ("LightGCN", "MGCN", "MAGNET")


def run_worker(job: dict[str, Any]) -> dict[str, Any]:
    """What a process of its own does."""
    if job["mode"] == "growth":
        import recommend_growth

        return recommend_growth.run_worker(job)
    import recommend_speed

    return recommend_speed.run_worker(job)


def quality(args: argparse.Namespace) -> None:
    """Train and search what is not finished, then report."""
    import recommend_runs as runs

    names = args.models or [*runs.BASELINES, runs.OURS]
    rows = runs.quality_rows(names, args.data, args.trials, args.settings)
    failed = runs.run_rows(rows, _data(args), range(args.seeds), args.work, args.jobs)
    report(args)
    if failed:
        raise SystemExit("rows that failed:\n" + "\n".join(failed))


def ablations(args: argparse.Namespace) -> None:
    """Train our model without one element at a time, then report."""
    import recommend_runs as runs

    rows = runs.ablation_rows(
        args.work, args.rows or list(runs.ABLATIONS), runs.read_runs(args.work)
    )
    failed = runs.run_rows(rows, _data(args), range(args.seeds), args.work, args.jobs)
    report(args)
    if failed:
        raise SystemExit("rows that failed:\n" + "\n".join(failed))


def report(args: argparse.Namespace) -> None:
    """Figures, intervals and claims of every run that is finished."""
    import recommend_runs
    import recommend_tables as tables
    from recommend_summary import summarize

    result = summarize(recommend_runs.read_runs(args.work), _data(args))
    _write(args.out or RESULTS / "recommend.json", {"data": args.data, **result}, threads=1)
    print(
        tables.quality(result),
        tables.buckets(result),
        json.dumps(result.get("claims"), indent=1),
        sep="\n\n",
    )


def speed(args: argparse.Namespace) -> None:
    """Seconds in one process, memory in one for each model."""
    from recommend_speed import GOALS, summarize

    job = {
        "mode": "speed",
        "question": "time",
        "data": args.data,
        "data_root": None if args.data_root is None else str(args.data_root),
        "models": args.models or list(SPEED_MODELS),
        "hyper": args.settings.get("hyper", {}),
        "batch_size": args.batch_size,
        "rounds": args.rounds,
        "seed": 0,
    }
    result: dict[str, Any] = {"goals": GOALS, "data": args.data}
    result |= in_process(__file__, job, args.threads, limit_s=3600)
    result |= summarize(result)
    result["memory"] = {
        name: in_process(
            __file__, job | {"question": "memory", "models": [name]}, args.threads, limit_s=1800
        )
        for name in job["models"]
    }
    _write(args.out or RESULTS / "recommend_speed.json", result, args.threads)
    print(json.dumps({key: result[key] for key in ("ratios", "held", "memory")}, indent=1))


def growth(args: argparse.Namespace) -> None:
    """A process for each size and model."""
    import recommend_growth as g

    runs = []
    for name in args.models or g.MODELS:
        for pairs in args.sizes or g.SIZES:
            job = {
                "mode": "growth",
                "model": name,
                "pairs": pairs,
                "items": args.items or g.ITEMS,
                "hyper": args.settings.get("hyper", {}).get(name, {}),
                "batch_size": args.batch_size,
                "rounds": args.rounds,
                "steps": 3,
                "seed": 0,
            }
            runs.append(in_process(__file__, job, args.threads, limit_s=3600))
            told = {key: round(runs[-1][key], 3) for key in g.GROWING}
            print(f"{name}, {pairs:,}: {told}", file=sys.stderr, flush=True)
            result = {"goals": g.GOALS, "runs": runs, **g.summarize(runs)}
            _write(args.out or RESULTS / "recommend_growth.json", result, args.threads)
    print(json.dumps(result["held"], indent=1))


def main() -> None:
    """Do what is asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mode", nargs="?", choices=[m.__name__ for m in MODES])
    parser.add_argument("--data", default="tiktok", help="name, folder or file")
    parser.add_argument("--data-root", type=Path, help="where named data lies")
    parser.add_argument("--work", type=Path, help="where runs are kept")
    parser.add_argument("--out", type=Path, help="result file")
    parser.add_argument("--models", nargs="+")
    parser.add_argument("--rows", nargs="+", help="only these ablations")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=20, help="of every model's search")
    parser.add_argument(
        "--settings",
        type=json.loads,
        default={},
        help='JSON over shipped settings, as {"optim": {"max_epochs": 60}}; of speed and growth '
        'arguments by model, as {"hyper": {"MAGNET": {...}}}',
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1, help="trainings at once")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=2048)
    parser.add_argument("--sizes", nargs="+", type=int, help="interactions of growth")
    parser.add_argument("--items", type=int, help="catalogue of growth")
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(run_worker(args.worker)))
        return
    if args.mode is None:
        parser.error("say what to measure: quality, ablations, report, speed or growth")
    if args.mode in ("quality", "ablations", "report") and args.work is None:
        parser.error(f"{args.mode} needs --work, a folder for the runs")
    next(mode for mode in MODES if mode.__name__ == args.mode)(args)


def _data(args: argparse.Namespace) -> Any:
    from graphmoe.data.interactions import load_interactions

    return load_interactions(args.data, data_root=args.data_root)


def _write(path: Path, result: dict[str, Any], threads: int) -> None:
    result = {**result, "environment": environment(threads)}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n", encoding="utf-8")


MODES = (quality, ablations, report, speed, growth)


if __name__ == "__main__":
    main()
