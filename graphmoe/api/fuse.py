"""Fusion of the experts of a bank on a new graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from graphmoe.api.pictures import shots_text
from graphmoe.api.run_folder import write_run
from graphmoe.api.tables import print_result, task_progress
from graphmoe.api.target import Target, build_members, open_bank, prepare_target
from graphmoe.checkpoint import ExpertBank
from graphmoe.checkpoint.files import make_folder
from graphmoe.config import FuseConfig, load_config
from graphmoe.data.fewshot import FewShotSplit, few_shot_splits, load_splits, splits_fingerprint
from graphmoe.errors import ConfigError, DataError
from graphmoe.evaluation import (
    FewShotResult,
    Member,
    Method,
    evaluate_methods,
    f1,
    logistic_probs,
    mean_std,
    member_prior,
    propagated_features,
    random_experts,
    relative_entropy,
)
from graphmoe.nn import PrototypeFusion, TaskExpertFusion
from graphmoe.training.device import resolve_device
from graphmoe.typing import Graph, PathLike

#: Steps of propagation that the logistic floors are taken at.
FLOOR_STEPS = (0, 2, 3, 5)
#: How floors begin that are a fusion themselves.
OWN_FLOORS = "same, "


@dataclass(repr=False)
class FuseResult:
    """What fusing gave.

    Attributes:
        target: The graph.
        members: Name and kind of everyone who took part, in the order of the weights.
        results: Scores by method; ``"fusion"`` is the asked one, the others are its floors. Empty
            where every label was trained on: then nothing is scored.
        alpha: Mean weights over tasks by shots, ``[M, C]``.
        alpha_entropy: Their mean entropy by shots, as a share of the maximum: 1 chooses nothing.
        member_scores: Micro F1 of each member alone by shots, in percent, mean over tasks.
        fitted: The fusion that is kept: of the most shots, the first task.
        shots: Labels a class that ``fitted`` has seen.
        splits: Hash of the splits.
    """

    target: Target
    members: list[Member]
    results: dict[str, FewShotResult]
    alpha: dict[int, Tensor]
    alpha_entropy: dict[int, float]
    member_scores: dict[int, list[float]]
    fitted: nn.Module
    shots: int
    splits: str

    @torch.no_grad()
    def probs(self) -> Tensor:
        """Class probabilities of all nodes by the kept fusion, shape (N, C)."""
        return fused_probs(self.fitted, [m.z for m in self.members])

    def to_dict(self) -> dict[str, Any]:
        """Everything but tensors, as plain values."""
        return {
            "target": self.target.name,
            "fingerprint": self.target.fingerprint,
            "num_classes": self.target.num_classes,
            "splits": self.splits,
            "scored": bool(self.results),
            "members": [{"name": m.name, "kind": m.kind, "source": m.source} for m in self.members],
            "results": {name: result.to_dict() for name, result in self.results.items()},
            "degrees": {
                name: {str(k): table for k, table in result.degrees.items()}
                for name, result in self.results.items()
            },
            "alpha": {str(k): alpha.tolist() for k, alpha in self.alpha.items()},
            "alpha_entropy": {str(k): value for k, value in self.alpha_entropy.items()},
            "member_scores": {str(k): scores for k, scores in self.member_scores.items()},
        }

    def __repr__(self) -> str:
        found = self.results.get("fusion", FewShotResult()).scores
        scores = [f"{shots_text(k)} {mean_std([s.micro for s in found[k]])[0]:.1f}" for k in found]
        said = ", ".join(scores) or "trained on every label, nothing scored"
        return f"{type(self).__name__}({self.target.name}, {len(self.members)} members: {said})"


def fuse(
    target: PathLike | Graph,
    *,
    bank: ExpertBank | PathLike,
    config: PathLike | Mapping[str, Any] | FuseConfig | None = None,
    shots: int | Sequence[int] | Literal["all"] = (1, 3, 5),
    tasks: int = 10,
    splits: PathLike | Sequence[FewShotSplit] | None = None,
    hold_out: Sequence[str] = (),
    protocol: str = "strict",
    out: PathLike | None = None,
    seed: int = 0,
    data_root: PathLike | None = None,
    device: str = "cpu",
    progress: bool = True,
) -> FuseResult:
    """Fuse frozen experts on ``target`` from a few labels, and score it beside its floors.

    Args:
        target: A built-in name, a YAML file, or a graph with labels ``y`` (-1 where unknown).
        bank: A bank, or its folder.
        config: A YAML file, a mapping of the same shape, or a ready configuration.
        shots: Labels a class, k, or several; one table column each. ``"all"``: train on every
            label there is and score nothing, for a graph with only a few labels; :func:`predict`
            gives the rest.
        tasks: Draws of labelled nodes for each k.
        splits: ``.npz`` with published splits, or ready ones; ``None``: drawn by ``protocol``.
        hold_out: Experts that do not take part.
        protocol: ``"strict"`` (disjoint) or ``"legacy"`` (as published; see ``docs/fewshot.md``).
        out: Folder for results, pictures and the fitted fusion; ``None``: nothing is written.
        seed: Of splits and training.
        data_root: Where datasets are looked for.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:N"`` or ``"auto"``.
        progress: Show progress and a table.

    Raises:
        ConfigError: A setting or a name is wrong.
        DataError: The graph has no labels, or too few.
        VerificationError: The bank is damaged.

    Example:
        >>> import graphmoe
        >>> result = graphmoe.fuse("iris", bank="bank", shots=3, tasks=1, progress=False)
        >>> result.probs().shape
        torch.Size([150, 3])
    """
    settings = load_config(FuseConfig, config)  # type: ignore[arg-type]
    shots = (shots,) if isinstance(shots, int) else shots
    place = resolve_device(device)
    graph = prepare_target(target, settings, seed, data_root, place)
    if graph.num_classes < 2:
        raise DataError(f"graph {graph.name!r} has one class: there is nothing to tell apart")
    drawn = _splits(graph, shots, tasks, splits, protocol, seed)
    experts = open_bank(bank, hold_out)
    members = build_members(graph, experts, settings)
    if out is not None:
        make_folder(Path(out))  # a place that cannot be written is told before the work, not after
    head = Head(settings, graph.num_classes, seed)
    keeper = _Keeper(head, members, graph.labels, drawn)
    methods: dict[str, Method] = {"fusion": keeper}
    results: dict[str, FewShotResult] = {}
    if shots == "all":
        keeper(drawn[0].train, graph.labels[drawn[0].train])
    else:
        if settings.floors:
            methods |= floor_methods(graph, members, head, experts, settings, seed)
        with task_progress(progress, len(drawn) * len(methods)) as report:
            results = evaluate_methods(
                methods,
                graph.labels,
                drawn,
                graph.num_classes,
                on_task=report,
                degree=graph.degree,
            )
    result = keeper.result(graph, results, splits_fingerprint(drawn))
    if out is not None:
        write_run(out, result, settings, experts, {"seed": seed, "hold_out": sorted(hold_out)})
    if progress:
        print_result(result)
    return result


class Head:
    """Fits the fusion that ``config`` names.

    Args:
        config: Settings.
        num_classes: C.
        seed: Of the trained fusion.
    """

    def __init__(self, config: FuseConfig, num_classes: int, seed: int) -> None:
        self.config, self.num_classes, self.seed = config, num_classes, seed

    def build(self, widths: Sequence[int]) -> PrototypeFusion | TaskExpertFusion:
        """The fusion, not fitted."""
        if self.config.method == "prototype":
            return PrototypeFusion(self.num_classes, **self.config.prototype.model_dump())
        chosen = self.config.task_expert
        return TaskExpertFusion(widths, self.num_classes, chosen.hidden_channels, chosen.dropout)

    def fit(
        self, members: Sequence[Member], index: Tensor, y: Tensor
    ) -> PrototypeFusion | TaskExpertFusion:
        """The fusion of ``members``, fitted on the labelled nodes."""
        z = [m.z for m in members]
        index, y = index.to(z[0].device), y.to(z[0].device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            fusion = self.build([each.size(1) for each in z])
            if isinstance(fusion, PrototypeFusion):
                mass = self.config.prior.model_dump()
                return fusion.fit(z, index, y, member_prior(members, mass))
            chosen = self.config.task_expert
            return fusion.to(z[0].device).fit(
                z,
                index,
                y,
                lr=chosen.lr,
                weight_decay=chosen.weight_decay,
                max_epochs=chosen.max_epochs,
                patience=chosen.patience,
            )

    def method(self, members: Sequence[Member]) -> Method:
        """Fit and predict in one call."""
        z = [m.z for m in members]
        return lambda index, y: fused_probs(self.fit(members, index, y), z)


@torch.no_grad()
def fused_probs(fusion: nn.Module, embeddings: Sequence[Tensor]) -> Tensor:
    """Class probabilities (N, C) of either kind of fusion."""
    out: Tensor = fusion(embeddings)
    return out if isinstance(fusion, PrototypeFusion) else out.softmax(dim=1)


def floor_methods(
    target: Target,
    members: Sequence[Member],
    head: Head,
    experts: Mapping[str, ExpertBank],
    config: FuseConfig,
    seed: int,
) -> dict[str, Method]:
    """The untrained floors of the fusion, on the same nodes and labels."""

    def logistic(z: Tensor) -> Method:
        return lambda index, y: logistic_probs(z, index, y, head.num_classes)

    floors = {
        f"logistic K={K}": logistic(propagated_features(target.forms["features"], K))
        for K in FLOOR_STEPS
    }
    for m in members:
        if m.kind == "target":
            floors[f"logistic {m.name}"] = logistic(m.z)
    if experts:
        fresh = build_members(target, _fresh_banks(experts, seed), config)
        floors["same, random experts"] = head.method(fresh)
    operators = [m for m in members if m.kind == "operator"]
    if operators:
        floors["same, no experts"] = head.method(operators)
    return floors


def _fresh_banks(experts: Mapping[str, ExpertBank], seed: int) -> dict[str, ExpertBank]:
    """The bank's experts with weights drawn anew, in a bank in memory."""
    drawn = random_experts({name: bank[name] for name, bank in experts.items()}, seed)
    memory = ExpertBank()
    for name, bank in experts.items():
        memory.add(name, drawn[name], bank.manifest(name))
    return dict.fromkeys(experts, memory)


class _Keeper:
    """The fusion as a method that remembers its weights, and the fit that is worth keeping."""

    def __init__(
        self, head: Head, members: list[Member], y: Tensor, splits: Sequence[FewShotSplit]
    ) -> None:
        self.head, self.members, self.y = head, members, y
        self.splits = iter(splits)  # it is called once for each, in their order
        self.fits: list[tuple[int, PrototypeFusion | TaskExpertFusion, list[float]]] = []

    def __call__(self, index: Tensor, y: Tensor) -> Tensor:
        split = next(self.splits)
        fusion = self.head.fit(self.members, index, y)
        z = [m.z for m in self.members]
        alone: list[float] = []
        if isinstance(fusion, PrototypeFusion):
            said = fusion.expert_probs(z)
            if split.test.numel():
                alone = [self._alone(p, split.test) for p in said]
            fused = fusion.vote(said)
        else:
            fused = fused_probs(fusion, z)
        self.fits.append((split.shots, fusion, alone))
        return fused

    def _alone(self, probs: Tensor, test: Tensor) -> float:
        """Micro F1 of one member."""
        return f1(probs.argmax(dim=1)[test], self.y[test], self.head.num_classes).micro

    def result(self, target: Target, results: dict[str, FewShotResult], splits: str) -> FuseResult:
        alpha, entropy, alone = {}, {}, {}
        for k in sorted({shots for shots, _, _ in self.fits}):
            fits = [(fusion, scores) for shots, fusion, scores in self.fits if shots == k]
            weights = [fusion.alpha.detach().cpu() for fusion, _ in fits]
            alpha[k] = torch.stack(weights).mean(dim=0)
            entropy[k] = mean_std([relative_entropy(w) for w in weights])[0]
            alone[k] = [mean_std(column)[0] for column in zip(*(s for _, s in fits), strict=True)]
        most = max(shots for shots, _, _ in self.fits)
        fitted = next(fusion for shots, fusion, _ in self.fits if shots == most)
        return FuseResult(
            target, self.members, results, alpha, entropy, alone, fitted, most, splits
        )


def _splits(
    target: Target,
    shots: Sequence[int] | str,
    tasks: int,
    splits: PathLike | Sequence[FewShotSplit] | None,
    protocol: str,
    seed: int,
) -> list[FewShotSplit]:
    if shots == "all":
        if splits is not None:
            raise ConfigError("shots 'all' trains on every label: it takes no splits")
        return [_every_label(target.labels)]
    if isinstance(shots, str):
        raise ConfigError(f"expected numbers of shots or 'all', got {shots!r}")
    if not shots or min(shots) < 1:
        raise ConfigError(f"expected shots of at least 1, got {list(shots)}")
    if splits is None:
        try:
            return [
                split
                for k in shots
                for split in few_shot_splits(target.labels, k, tasks, seed=seed, protocol=protocol)
            ]
        except DataError as error:
            hint = "shots 'all' trains on every label and scores nothing"
            raise DataError(f"{error}; {hint}") from None
    if isinstance(splits, (list, tuple)):
        return list(splits)
    return [
        split
        for k in shots
        for split in load_splits(splits, k, y=target.labels)[:tasks]  # type: ignore[arg-type]
    ]


def _every_label(y: Tensor) -> FewShotSplit:
    """All labelled nodes train; k is the number of labels of the rarest class."""
    train = (y >= 0).nonzero().view(-1).cpu()
    nobody = train[:0]
    return FewShotSplit(train, nobody, nobody, int(torch.bincount(y[y >= 0]).min()), 1)
