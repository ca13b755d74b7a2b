"""One graph from its source to its expert: what a worker does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch_geometric.data import Data

from graphmoe.checkpoint import ExpertManifest
from graphmoe.checkpoint.block_files import ImportedGraph
from graphmoe.checkpoint.files import discard, sha256
from graphmoe.checkpoint.large_graph import LargeGraph, is_large_graph
from graphmoe.checkpoint.large_hetero import LargeHeteroGraph, open_imported
from graphmoe.checkpoint.store import MANIFEST, settle
from graphmoe.data.catalog import load_graph
from graphmoe.data.fingerprint import graph_fingerprint
from graphmoe.data.locations import resolve_data_root
from graphmoe.data.validate import validate_graph
from graphmoe.errors import ConfigError, DataError
from graphmoe.ops.peers import ALONE, Peers
from graphmoe.ops.row_blocks import RowBlockOperator
from graphmoe.training.batches import BatchLoop, BatchSettings, about_batches
from graphmoe.training.device import limited_threads
from graphmoe.training.expert import find_finished, pretrain_expert, training_identity
from graphmoe.training.interrupts import SharedStop, StopRequest, TrainingInterruptedError
from graphmoe.training.large import large_hetero_views, large_multi_view, large_views
from graphmoe.training.logs import LOGS, RunLogs, draw_losses
from graphmoe.training.settings import PretrainSettings, SaveSettings
from graphmoe.training.state import TrainingState
from graphmoe.training.watch import Watch
from graphmoe.transforms import MultiView
from graphmoe.typing import Graph

#: Said to whoever starts the exact mode in several processes.
DIVIDES_BATCHES = (
    "several processes (torchrun) divide batches of nodes among themselves, and a whole graph has "
    "none: set batches.mode to always (--batches.mode always), or start one process"
)


@dataclass(frozen=True)
class PretrainTask:
    """The making of one expert.

    Attributes:
        name: The expert's name.
        source: A graph, what :func:`graphmoe.data.load_graph` takes, or the folder of an imported
            graph.
        out: The bank's folder.
        multi_view: Arguments of :class:`graphmoe.transforms.MultiView` but its seed.
        resample: Whether dropped edges are drawn anew each epoch.
        settings: What decides about the training.
        seed: Of everything random.
        device: Where it runs.
        resume: Go on where an earlier run stopped.
        overwrite: Replace what is there.
        save: How often the state is saved.
        data_root: Where datasets are looked for.
        batches: How it goes by batches of nodes; ``None``: in the exact mode.
        work: Folder for propagated features; ``None``: the expert's own place in the bank.
        memory: Bytes for their propagation.
    """

    name: str
    source: str | Graph
    out: Path
    multi_view: dict[str, Any] = field(default_factory=dict)
    resample: bool = False
    settings: PretrainSettings = field(default_factory=PretrainSettings)
    seed: int = 0
    device: str = "cpu"
    resume: bool = False
    overwrite: bool = False
    save: SaveSettings = field(default_factory=SaveSettings)
    data_root: Path | None = None
    batches: BatchSettings | None = None
    work: Path | None = None
    memory: int = 1 << 30

    def anywhere(self) -> PretrainTask:
        """The same task for a process that stands in another folder."""
        source = self.source
        if isinstance(source, str) and (
            is_large_graph(source) or Path(source).suffix.lower() in (".yaml", ".yml")
        ):
            source = str(Path(source).resolve())
        return replace(
            self,
            source=source,
            out=self.out.resolve(),
            data_root=resolve_data_root(self.data_root).resolve(),
            work=None if self.work is None else self.work.resolve(),
        )

    def finished(self) -> bool:
        """Whether the expert is where this process looks for it."""
        return (self.out / self.name / MANIFEST).exists()

    @property
    def folder(self) -> Path:
        """Where propagated features are kept until the expert is finished."""
        if self.work is None:
            return self.out / self.name / "propagated"
        # Two banks may share the folder, and have experts of one name.
        bank = sha256(str(self.out.resolve()).encode())[:8]
        return self.work / f"{self.name}-{bank}"


@dataclass(frozen=True)
class TaskResult:
    """What became of a task: the expert itself is in the bank.

    Attributes:
        manifest: What is known about it.
        losses: The loss of each epoch; empty where nothing was trained.
        skipped: It was finished before.
    """

    manifest: ExpertManifest
    losses: tuple[float, ...] = ()
    skipped: bool = False


def pretrain_task(
    task: PretrainTask,
    emit: Callable[[dict[str, Any]], None],
    stop: StopRequest,
    peers: Peers = ALONE,
    operator: type[RowBlockOperator] = RowBlockOperator,
) -> TaskResult:
    """Load, validate, transform and train.

    Args:
        task: What to do.
        emit: Called with ``epoch``, ``loss``, ``best_loss``, ``seconds`` a few times a second.
        stop: When set, the training saves its state and stops.
        peers: Who else does the same task, each with a part of every batch.
        operator: Who multiplies the row blocks of an imported graph that has several.
    """
    # The decomposition of the features is as sensitive to threads as the training is.
    with limited_threads(task.settings.threads):
        graph = _opened(task)
        imported = isinstance(graph, ImportedGraph)
        fingerprint = graph.fingerprint() if imported else graph_fingerprint(graph)
        about = {
            "multi_view": task.multi_view,
            "resample": task.resample,
            **about_batches(task.batches),
        }
        identity = training_identity(task.settings, task.seed, fingerprint, about)
        if peers.any(peers.told(lambda: identity) != identity):
            raise DataError(f"{task.source}: not all processes see the same graph there")

        def finished() -> ExpertManifest | None:
            if task.out.is_dir():
                settle(task.out)
            found = find_finished(task.out, task.name, identity, task.resume, task.overwrite)
            return None if found is None else found.manifest

        if (manifest := peers.told(finished)) is not None:
            return TaskResult(manifest, skipped=True)
        multi, modes = _prepared(task, graph, f"{fingerprint} {about}", emit, stop, peers, operator)
        _check_stop(stop)
        # One process speaks and writes for all.
        watch = _Watch(task.out, task.name, emit) if peers.first else None
        try:
            result = pretrain_expert(
                multi,
                task.settings,
                name=task.name,
                seed=task.seed,
                out=task.out,
                device=task.device,
                resume=task.resume,
                overwrite=task.overwrite,
                save=task.save,
                fingerprint=fingerprint,
                about=about,
                on_epoch=watch,
                on_trained=None if watch is None else watch.trained,
                stop=stop,
                peers=peers,
                **modes,
            )
        finally:
            if watch is not None:
                watch.close()
        if task.batches is not None and peers.first:
            discard(task.folder)
    return TaskResult(result.manifest, result.losses, result.skipped)


def _opened(task: PretrainTask) -> Any:
    """The graph, validated; an imported one where it lies."""
    if not isinstance(task.source, str):
        return validate_graph(task.source)[0]
    if is_large_graph(task.source):
        return open_imported(task.source)
    return load_graph(task.source, task.data_root)


def _prepared(
    task: PretrainTask,
    graph: Any,
    identity: str,
    emit: Callable[[dict[str, Any]], None],
    stop: StopRequest,
    peers: Peers,
    operator: type[RowBlockOperator],
) -> tuple[Data, dict[str, Any]]:
    """The graph in multi-view form, and arguments of :func:`pretrain_expert` for its mode."""
    form = task.multi_view
    if isinstance(graph, ImportedGraph) and task.batches is not None:
        # In the call of one peer alone only its own request can be looked at.
        check = partial(_check_stop, stop.own if isinstance(stop, SharedStop) else stop)
        multi = large_multi_view(graph, form, task.folder, peers, task.memory, check)
        if isinstance(graph, LargeHeteroGraph):
            folder = task.folder / "views"
            multi.view_names, views = large_hetero_views(
                graph, form, folder, task.memory, check, peers
            )
            views_at: Any = lambda turn: (views, "0")  # noqa: E731
        elif isinstance(graph, LargeGraph):
            shares = (form["num_views"], form["drop_edge"])
            kind = operator if len(graph.manifest.blocks) > 1 else RowBlockOperator
            views_at = large_views(graph, *shares, task.seed, task.resample, kind)
    else:
        if isinstance(graph, ImportedGraph):
            graph, _ = validate_graph(graph.to_data())
        transform = MultiView(**form, seed=task.seed)
        multi = transform(graph)
        resample = (lambda e: transform.resample(multi, e).views) if task.resample else None
        if task.batches is None:
            if peers.count > 1:
                raise ConfigError(DIVIDES_BATCHES)
            return multi, {"views_of": resample}
        views_at = lambda turn: (  # noqa: E731
            (multi.views, "0") if resample is None else (resample(turn), str(turn))
        )
    loop = partial(
        BatchLoop,
        batches=task.batches,
        views_at=views_at,
        seed=task.seed,
        identity=identity,
        folder=task.folder,
        memory=task.memory,
        tell=lambda epoch, note: emit({"epoch": epoch, "seconds": 0.0, "note": note}),
        peers=peers,
    )
    return multi, {"loop": loop}


def _check_stop(stop: StopRequest) -> None:
    if stop:
        raise TrainingInterruptedError("stopped before the first epoch")


class _Watch(Watch):
    def trained(self, state: TrainingState) -> None:
        """Leave logs that are whole, and a picture: who finds the expert finds them too."""
        if self.logs is None:  # every epoch was done by an earlier run
            self.logs = RunLogs(self.out, self.name, self.columns(state))
            self.write(self.logs, state, first=True)
        self.close()
        draw_losses({self.name: state.losses}, self.out / LOGS / self.name / "loss.png")

    def columns(self, state: TrainingState) -> Sequence[str]:
        return "loss", "best_loss"

    def write(self, logs: RunLogs, state: TrainingState, first: bool) -> None:
        if first:
            logs.replay(state.losses)
        else:
            logs.write(state.epoch, state.losses[-1], state.best_loss)

    def progress(self, state: TrainingState) -> dict[str, Any]:
        return {"loss": state.losses[-1], "best_loss": state.best_loss}
