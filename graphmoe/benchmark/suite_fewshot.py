"""Experts fused on a graph from a few labels, beside their floors, over seeds of the draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from graphmoe.api.fuse import OWN_FLOORS, fuse
from graphmoe.api.pictures import shots_text
from graphmoe.api.pretrain import pretrain
from graphmoe.api.run_folder import weights_hash
from graphmoe.api.target import open_bank
from graphmoe.benchmark.environment import environment
from graphmoe.benchmark.report import earlier_result
from graphmoe.benchmark.results import Result, Row, SeedResult
from graphmoe.benchmark.significance import compare_pairs
from graphmoe.checkpoint.files import make_folder, sha256, write_bytes
from graphmoe.checkpoint.sealed import dump_sealed, load_sealed
from graphmoe.config import FuseConfig, load_config
from graphmoe.errors import ConfigError, unknown_name
from graphmoe.evaluation.metrics import mean_std
from graphmoe.training.state import differences
from graphmoe.typing import PathLike

MODELS = ("prototype", "task_expert")
#: What was found for one model and seed, beside the fusion itself.
SCORES = "scores.json"


def run_fewshot(
    dataset: str,
    config: PathLike | Mapping[str, Any] | FuseConfig | None = None,
    *,
    models: Sequence[str] = MODELS[:1],
    bank: PathLike | None = None,
    shots: Sequence[int] = (3, 5),
    tasks: int = 10,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    out: PathLike,
    jobs: int = 1,
    device: str = "cpu",
    resume: bool = False,
    overwrite: bool = False,
    data_root: PathLike | None = None,
    progress: bool = True,
) -> Result:
    """Fuse with every seed by :func:`graphmoe.api.fuse`; a score is the mean over its draws.

    The metric is micro-F1 in percent on the nodes that have no label. Nothing is chosen on them,
    and nothing on validation: there are no validation scores.

    Args:
        dataset: The graph: a built-in name or a YAML file.
        config: As for ``graphmoe fuse``.
        models: ``prototype`` (ours), ``task_expert`` (as published).
        bank: Folder of experts; ``None``: one is pre-trained on the graph itself, into ``out``.
        shots: Labels a class; a row each.
        tasks: Draws of labelled nodes a seed.
        seeds: Of draws and training.
        out: The run's folder.
        jobs: Pre-trainings at once; fusions come one after another.
        device: Where it runs.
        resume: Keep the seeds that are finished.
        overwrite: Fuse again.
        data_root: Where datasets are looked for.
        progress: Show bars.

    Raises:
        ConfigError: A setting or a name is wrong, or there is a result already.
        MissingDataError: The graph or the bank is not there.
    """
    for name in models:
        if name not in MODELS:
            raise ConfigError(unknown_name("model", name, MODELS))
    chosen = {
        name: load_config(FuseConfig, config, {"method": name})  # type: ignore[arg-type]
        for name in dict.fromkeys(models)
    }
    root = Path(out)
    earlier_result(root, resume, overwrite)  # refuses one that nobody asked to touch
    make_folder(root)
    if bank is None:
        bank = root / "bank"
        pretrain(
            [dataset], out=bank, device=device, jobs=jobs, resume=True, data_root=data_root,
            progress=progress,
        )  # fmt: skip
    experts = {name: weights_hash(owner[name]) for name, owner in open_bank(bank).items()}
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for name, settings in chosen.items():
        for seed in seeds:
            folder = root / name / f"seed-{seed}"
            identity = {
                "dataset": dataset,
                "config": settings.model_dump(mode="json", exclude={"reference"}),
                "shots": list(shots),
                "tasks": tasks,
                "seed": seed,
                "experts": experts,
            }
            told = _finished(folder, identity, resume and not overwrite)
            if told is None:
                result = fuse(
                    dataset, bank=bank, config=settings, shots=shots, tasks=tasks, out=folder,
                    seed=seed, data_root=data_root, device=device, progress=False,
                )  # fmt: skip
                told = {
                    "identity": identity,
                    "splits": result.splits,
                    "scores": {
                        method: {str(k): mean_std(scored.micro(k))[0] for k in shots}
                        for method, scored in result.results.items()
                    },
                }
                write_bytes(folder / SCORES, dump_sealed(told))
            found.setdefault(name, {})[seed] = told
    rows, pairs = _rows(found, shots, chosen)
    splits = [told["splits"] for told in next(iter(found.values())).values()]
    return Result(
        suite="fewshot",
        dataset=Path(dataset).stem,
        metric="micro-F1, %",
        higher_is_better=True,
        split=sha256("".join(splits).encode()),
        baselines=tuple(dict.fromkeys(b for _, b in pairs)),
        rows=tuple(rows),
        comparisons=compare_pairs(pairs, rows, True),
        environment=environment(1),
    )


def _finished(folder: Path, identity: dict[str, Any], resume: bool) -> dict[str, Any] | None:
    """What was found earlier, where that is kept.

    Raises:
        ConfigError: It was found with other settings.
    """
    if not resume or not (folder / SCORES).is_file():
        return None
    told = load_sealed(folder / SCORES)
    changed = differences(told["identity"], identity)
    if changed:
        raise ConfigError(
            f"{folder} was run with other settings: {'; '.join(changed)}; overwrite to run it "
            "again (--overwrite), or choose another folder"
        )
    return told


def _rows(
    found: Mapping[str, Mapping[int, dict[str, Any]]],
    shots: Sequence[int],
    chosen: Mapping[str, FuseConfig],
) -> tuple[list[Row], list[tuple[str, str]]]:
    """A row for each method and number of shots, and each model with its floors."""
    rows: dict[str, Row] = {}
    pairs: list[tuple[str, str]] = []
    for k in shots:
        for model, by_seed in found.items():
            ours = f"{model}, {shots_text(k)}"
            for method in next(iter(by_seed.values()))["scores"]:
                if method == "fusion":
                    name = ours
                elif method.startswith(OWN_FLOORS):
                    name = f"{model}, {method.removeprefix(OWN_FLOORS)}, {shots_text(k)}"
                else:
                    name = f"{method}, {shots_text(k)}"
                if method != "fusion":
                    pairs.append((ours, name))
                if name in rows:
                    continue
                seeds = [
                    SeedResult(seed=seed, test=told["scores"][method][str(k)])
                    for seed, told in by_seed.items()
                ]
                settings = chosen[model].model_dump(mode="json", exclude={"reference"})
                own = settings if method == "fusion" or method.startswith(OWN_FLOORS) else {}
                about = {"row": method, "shots": k, **own}
                rows[name] = Row.of(name, seeds, config=about)
    return [*rows.values()], pairs
