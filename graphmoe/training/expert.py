"""Pre-training of one expert on one graph, from fresh weights to its place in the bank."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map
from torch_geometric.data import Data

from graphmoe.checkpoint import ExpertBank, ExpertManifest, multiview_fingerprint, store
from graphmoe.checkpoint.files import make_folder
from graphmoe.checkpoint.manifest import check_expert_name
from graphmoe.errors import ConfigError
from graphmoe.nn.divided_batches import divided_batches
from graphmoe.ops.peers import ALONE, Peers
from graphmoe.training.device import limited_threads, resolve_device
from graphmoe.training.interrupts import SharedStop, StopRequest, stop_on_signal
from graphmoe.training.loop import Loop, OnEpoch
from graphmoe.training.memory import reused_memory
from graphmoe.training.objective import build_objective, build_optimizer
from graphmoe.training.settings import PretrainSettings, SaveSettings
from graphmoe.training.state import RESUME, Checkpointer, TrainingState, differences
from graphmoe.typing import PathLike


@dataclass(frozen=True)
class PretrainResult:
    """What one training gave.

    Attributes:
        name: The expert's name.
        expert: The encoder with the weights of the best epoch, in evaluation mode, on the CPU.
        manifest: What is known about it.
        losses: The loss of each epoch; empty for an expert that was there already.
        skipped: It was finished before, with the same settings on the same graph.
    """

    name: str
    expert: Any
    manifest: ExpertManifest
    losses: tuple[float, ...]
    skipped: bool = False


def pretrain_expert(
    graph: Data,
    settings: PretrainSettings | None = None,
    *,
    name: str = "expert",
    seed: int = 0,
    out: PathLike | None = None,
    device: str = "cpu",
    resume: bool = False,
    overwrite: bool = False,
    save: SaveSettings | None = None,
    fingerprint: str | None = None,
    about: dict[str, Any] | None = None,
    views_of: Callable[[int], tuple[Any, ...]] | None = None,
    on_epoch: OnEpoch | None = None,
    on_trained: OnEpoch | None = None,
    stop: StopRequest | None = None,
    loop: Callable[..., Loop] | None = None,
    peers: Peers = ALONE,
) -> PretrainResult:
    """Pre-train one encoder on one multi-view graph (GPH², arXiv 2602.13075, section 4.2).

    Equal arguments give equal weights, bit for bit, on one machine: also when the training was
    killed in the middle and goes on with ``resume``. The global random state of torch is left as
    it was.

    Args:
        graph: In multi-view form: ``x`` [N, D], ``views``; see
            :class:`graphmoe.transforms.MultiView`. Not changed.
        settings: What decides about the weights; ``None``: the defaults.
        name: The expert's name in the bank.
        seed: Of the weights, the dropout and the corruption.
        out: The bank's folder; ``None``: nothing is written.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:N"`` or ``"auto"``.
        resume: Go on where an earlier run stopped; an expert that is finished is returned as it
            is.
        overwrite: Replace a finished expert of that name, and drop the state of an earlier run
            unless ``resume`` is set and fits.
        save: How often the state is saved.
        fingerprint: Of the graph before it was transformed; ``None``: of ``graph`` itself.
        about: Further plain values that decide about the result, such as how ``graph`` was made;
            compared on resume and kept in the manifest.
        views_of: Gives the views of an epoch (counted from 0) where they are drawn anew.
        on_epoch: Called after each epoch with the state so far.
        on_trained: Called with the last state before the expert is put into the bank: what has to
            be there beside a finished expert is written here.
        stop: A request to stop that somebody else sets; ``None``: SIGINT and SIGTERM do.
        loop: Makes a loop of another kind from the fields of
            :class:`~graphmoe.training.loop.Loop`; it moves ``graph`` to the device itself.
        peers: Who else trains this expert, each called with the same arguments; the first one
            writes. Only for a ``loop`` that divides its work.

    Raises:
        ConfigError: A setting is wrong; or an expert or state of that name is there and neither
            ``overwrite`` nor a fitting ``resume`` is asked for.
        DataError: The loss became NaN or infinite.
        TrainingInterruptedError: It was asked to stop; the state is saved where ``out`` is given.
    """
    settings = settings or PretrainSettings()
    place = resolve_device(device)
    fingerprint = fingerprint or multiview_fingerprint(graph)
    identity = training_identity(settings, seed, fingerprint, about)
    with ExitStack() as stack:
        checkpointer = None
        if out is not None:
            root = Path(out)
            checkpointer = Checkpointer(root / name, {**identity, "device": place.type})

            def begun() -> bool:
                """Whether it is finished; if not, nobody else will train it."""
                make_folder(root)
                stack.enter_context(store.training_lock(root, check_expert_name(name)))
                store.settle(root)
                if find_finished(root, name, identity, resume, overwrite) is not None:
                    return True
                if not (resume or overwrite):
                    refuse_existing(root, [name])
                if overwrite and not (resume and checkpointer.fits()):
                    checkpointer.clear()
                return False

            if peers.told(begun):
                finished = find_finished(root, name, identity, resume, overwrite)
                assert finished is not None
                return finished
        if stop is None:
            stop = SharedStop(stack.enter_context(stop_on_signal()), peers)
        stack.enter_context(limited_threads(settings.threads))
        stack.enter_context(reused_memory())
        stack.enter_context(torch.random.fork_rng(_cuda_indices(place)))
        objective, state = _train(
            graph, settings, seed, place, checkpointer, save, views_of, on_epoch, stop, loop, peers
        )
        if on_trained is not None:
            on_trained(state)
        expert = objective.encoder.cpu().float().eval()  # whatever the precision of the training
        manifest = ExpertManifest.of(
            name,
            expert,
            task=settings.objective,
            metrics={
                "loss": state.best_loss,
                "best_epoch": state.best_epoch + 1,
                "epochs": state.epoch,
                "seconds": round(state.seconds, 3),
                **({"processes": peers.count} if peers.count > 1 else {}),
            },
            seed=seed,
            graph={"fingerprint": fingerprint, "num_nodes": graph.num_nodes},
            views=tuple(getattr(graph, "view_names", ())),
            alignment=dict(getattr(graph, "alignment", {})),
            settings=identity["settings"],
        )
        if out is not None:
            # The bank's folder replaces the one with the saved state in a single move.
            def added() -> ExpertManifest:
                bank = ExpertBank(root)
                bank.add(name, expert, manifest, alignment=_projection(graph), overwrite=True)
                return bank.manifest(name)

            manifest = peers.told(added)
        return PretrainResult(name, expert, manifest, tuple(state.losses))


def _train(
    graph: Data,
    settings: PretrainSettings,
    seed: int,
    place: torch.device,
    checkpointer: Checkpointer | None,
    save: SaveSettings | None,
    views_of: Callable[[int], tuple[Any, ...]] | None,
    on_epoch: OnEpoch | None,
    stop: StopRequest,
    make_loop: Callable[..., Loop] | None,
    peers: Peers,
) -> tuple[Any, TrainingState]:
    """Fit a fresh objective, or one that goes on; its weights at the end are the best ones."""
    torch.manual_seed(seed)
    objective = build_objective(settings, graph.x.size(1)).to(place)
    optimizer: Any = build_optimizer(settings, objective)
    optimizer, precision = _in_precision(settings.precision, objective, optimizer, place)
    generators = {
        "objective": torch.Generator(place).manual_seed(seed),
        "cpu": torch.default_generator,
    }
    for index in _cuda_indices(place):
        generators["cuda"] = torch.cuda.default_generators[index]
    state = None
    if checkpointer is not None:
        known = checkpointer
        state = peers.told(lambda: known.load(objective, optimizer, generators))
    if peers.count > 1:
        _same_state(peers, objective, optimizer, generators, state)
    kind = next(objective.parameters()).dtype  # Fabric's plugin has set it
    if views_of is not None:
        drawn = views_of
        views_of = lambda epoch: _moved(drawn(epoch), place, kind)  # noqa: E731
    loop = (make_loop or Loop)(
        objective=objective,
        optimizer=optimizer,
        settings=settings,
        generators=generators,
        **precision,
        views_of=views_of,
        checkpointer=checkpointer if peers.first else None,
        save=save or SaveSettings(),
        stop=stop,
        on_epoch=on_epoch,
    )
    if make_loop is None:
        graph = Data(x=graph.x.to(place, kind), views=_moved(graph.views, place, kind))
    with divided_batches(objective, peers.group):
        state = loop.run(graph, state or TrainingState())
    objective.load_state_dict(state.best)
    return objective, state


def _in_precision(
    precision: str, objective: Any, optimizer: Any, place: torch.device
) -> tuple[Any, dict[str, Any]]:
    """The optimizer as Fabric sets it up, and arguments of :class:`~graphmoe.training.loop.Loop`.

    The objective gets its type in place.
    """
    if precision == "32-true":  # nothing to set up, and loading Fabric takes more than a second
        return optimizer, {}
    from lightning_fabric import Fabric

    fabric = Fabric(
        accelerator=place.type,
        devices=1 if place.index is None else [place.index],
        precision=precision,  # type: ignore[arg-type]
    )
    _, optimizer = fabric.setup(objective, optimizer)
    # Its wrapper enters autocast for `forward` alone, and we have methods.
    return optimizer, {"backward": fabric.backward, "precision": fabric.autocast}


def _same_state(
    peers: Peers,
    objective: Any,
    optimizer: Any,
    generators: dict[str, torch.Generator],
    state: TrainingState | None,
) -> None:
    """Everything that decides about the rest of a training as the first of the peers has it."""
    place = next(objective.parameters()).device

    def moved(tree: Any, to: torch.device) -> Any:
        return tree_map(lambda leaf: leaf.to(to) if isinstance(leaf, Tensor) else leaf, tree)

    weights, moments, random = peers.told(
        lambda: moved(
            (
                objective.state_dict(),
                optimizer.state_dict(),
                {name: generator.get_state() for name, generator in generators.items()},
            ),
            torch.device("cpu"),
        )
    )
    if not peers.first:
        objective.load_state_dict(weights)
        optimizer.load_state_dict(moments)
        for name, generator in generators.items():
            generator.set_state(random[name])
        if state is not None:
            state.best = moved(state.best, place)


def training_identity(
    settings: PretrainSettings, seed: int, fingerprint: str, about: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Everything that decides about the weights, as plain values: equal identity, equal expert."""
    return {
        "settings": {**settings.to_json(), **(about or {})},
        "seed": seed,
        "graph": fingerprint,
    }


def find_finished(
    root: Path, name: str, identity: dict[str, Any], resume: bool, overwrite: bool
) -> PretrainResult | None:
    """The finished expert of that identity; ``None`` where there is still something to train.

    Raises:
        ConfigError: An expert of that name is in the way.
    """
    if not root.is_dir() or name not in store.expert_names(root):
        return None
    if not resume:
        if not overwrite:
            refuse_existing(root, [name])
        return None
    manifest = store.read_manifest(root, name)
    found = {
        "settings": manifest.settings,
        "seed": manifest.seed,
        "graph": manifest.graph.get("fingerprint"),
    }
    changed = differences(found, identity)
    if not changed:
        expert = ExpertBank.load(root, names=[name])[name]
        return PretrainResult(name, expert, manifest, (), skipped=True)
    if overwrite:
        return None
    raise ConfigError(
        f"{root / name}: this expert was trained with other settings: {'; '.join(changed)}; "
        "ask to overwrite, or choose another bank"
    )


def refuse_existing(root: Path, names: Iterable[str]) -> None:
    """Refuse to start anew what is finished or half-way there: hours of work are not thrown away.

    Raises:
        ConfigError: Some of ``names`` are in the bank at ``root``, finished or not.
    """
    finished = [name for name in names if (root / name / store.MANIFEST).exists()]
    begun = [name for name in names if (root / name / RESUME).exists() and name not in finished]
    if finished or begun:
        there = [f"{name} is finished" for name in finished]
        there += [f"{name} is unfinished" for name in begun]
        raise ConfigError(
            f"the bank {root} already has experts of these names ({', '.join(there)}): "
            "resume to keep them (--resume), overwrite to train them again (--overwrite), "
            "or choose another bank"
        )


def _projection(graph: Data) -> dict[str, Tensor]:
    """Tensors of the fitted feature projection, where the graph brings them."""
    fitted = getattr(graph, "projection", None)
    if isinstance(fitted, Tensor):
        return {"projection": fitted}
    return dict(fitted or {})


def _moved(views: Iterable[Any], place: torch.device, kind: torch.dtype) -> tuple[Any, ...]:
    return tuple(view.to(place, kind) for view in views)


def _cuda_indices(place: torch.device) -> list[int]:
    if place.type != "cuda":
        return []
    return [torch.cuda.current_device() if place.index is None else place.index]
