"""The relations of a heterogeneous graph, and the meta-paths that run along them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch_geometric.data import HeteroData

from graphmoe.errors import ConfigError, unknown_name
from graphmoe.ops import SparseOperator
from graphmoe.transforms.target import count_nodes

#: How a user may write one: "PAP", "paper-author-paper", node types, or edge types.
MetaPathLike = str | Sequence[str] | Sequence[tuple[str, str, str]]


@dataclass(frozen=True)
class Relation:
    """All links of one kind between two node types, whichever way they were stored.

    Attributes:
        source: One node type.
        name: The relation's name.
        target: The other node type.
        incidence: Which nodes are linked, binary, shape (source nodes, target nodes): a
            :class:`~graphmoe.ops.SparseOperator`, or what a :class:`Schema` of another kind has
            instead.
    """

    source: str
    name: str
    target: str
    incidence: Any

    def leaving(self, kind: str) -> tuple[str, Any] | None:
        """The type at the other end and the incidence, as seen from ``kind``."""
        if kind == self.source:
            return self.target, self.incidence
        if kind == self.target:
            return self.source, self.incidence.t()
        return None


@dataclass(frozen=True)
class MetaPath:
    """A walk over node types, with the incidence of every step.

    Attributes:
        name: How the view is called.
        steps: The incidences in order.
    """

    name: str
    steps: tuple[Any, ...]


class Schema:
    """The relations of a ``HeteroData``, both directions of each taken as one.

    ``("paper", "to", "author")`` and ``("author", "to", "paper")``, a name and the same with
    ``rev_`` in front, and any two relations that hold each other's links reversed are one relation.

    Args:
        data: The graph; it is not changed.
    """

    def __init__(self, data: HeteroData) -> None:
        self.types = list(data.node_types)
        self.relations: list[Relation] = []
        count = {kind: count_nodes(data, kind) for kind in self.types}
        merged: dict[tuple[str, str, str], list[torch.Tensor]] = {}
        for source, name, target in data.edge_types:
            edge_index = data[source, name, target].edge_index
            name = name.removeprefix("rev_")
            if (target, name, source) in merged:
                source, target, edge_index = target, source, edge_index.flip(0)
            merged.setdefault((source, name, target), []).append(edge_index)
        for (source, name, target), parts in merged.items():
            row, col = torch.cat(parts, dim=1)
            if source == target:
                row, col = torch.cat([row, col]), torch.cat([col, row])
            incidence = SparseOperator.from_edges(
                row,
                col,
                (count[source], count[target]),
                symmetric=source == target,
                dtype=torch.float32,
            )
            self.add(Relation(source, name, target, incidence))

    def add(self, relation: Relation) -> None:
        """Take in a relation that is not another one's reverse."""
        if not any(self._same(relation, known) for known in self.relations):
            self.relations.append(relation)

    def between(self, source: str, target: str) -> list[tuple[Relation, Any]]:
        """The relations that join two types, each with its incidence from ``source``."""
        found = []
        for relation in self.relations:
            end = relation.leaving(source)
            if end is not None and end[0] == target:
                found.append((relation, end[1]))
        return found

    def discover(self, target: str, max_length: int = 4) -> list[MetaPath]:
        """Meta-paths that start and end at ``target``, the shortest first.

        They are the direct relations among target nodes, and the walks out to another type and
        back the same way that meet no type twice on the way out.

        Args:
            target: The node type.
            max_length: The most steps in a path.
        """
        found = [
            self._path([target, target], [relation.name], [incidence])
            for relation, incidence in self.between(target, target)
        ]
        frontier: list[tuple[list[str], list[str], list[Any]]] = [([target], [], [])]
        for _ in range(max_length // 2):
            grown = []
            for kinds, names, steps in frontier:
                for relation in self.relations:
                    end = relation.leaving(kinds[-1])
                    if end is None or end[0] in kinds:
                        continue
                    grown.append(([*kinds, end[0]], [*names, relation.name], [*steps, end[1]]))
            for kinds, names, steps in grown:
                back = [step.t() for step in reversed(steps)]
                found.append(
                    self._path([*kinds, *kinds[-2::-1]], [*names, *names[::-1]], [*steps, *back])
                )
            frontier = grown
        return found

    def parse(self, written: MetaPathLike, target: str) -> MetaPath:
        """The meta-path a user wrote.

        Args:
            written: Initials (``"PAP"``), names joined by hyphens (``"paper-author-paper"``), node
                types (``("paper", "author", "paper")``), or edge types
                (``[("paper", "to", "author"), …]``). Where only types are given, a step follows
                every relation between the two.
            target: The type where it must start and end.

        Raises:
            ConfigError: It names unknown or ambiguous types or relations, does not hang together,
                or does not start and end at ``target``; the message lists what there is.
        """
        if not isinstance(written, str) and written and not isinstance(written[0], str):
            kinds, names, steps = self._along_edges(written)  # type: ignore[arg-type]
        else:
            kinds = self._kinds(written)  # type: ignore[arg-type]
            names, steps = [], []
            for source, end in pairwise(kinds):
                name, step = self._union(source, end, written)
                names.append(name)
                steps.append(step)
        if not steps:
            raise ConfigError(f"meta-path {written!r} has no step")
        if kinds[0] != target or kinds[-1] != target:
            raise ConfigError(
                f"meta-path {written!r} runs from {kinds[0]!r} to {kinds[-1]!r}, "
                f"expected it to start and end at the target type {target!r}"
            )
        return self._path(kinds, names, steps)

    def _kinds(self, written: str | Sequence[str]) -> list[str]:
        if not isinstance(written, str) or written in self.types:
            parts = [written] if isinstance(written, str) else list(written)
        elif "-" in written:
            parts = written.split("-")
        else:
            return [self._initial(letter, written) for letter in written]
        for part in parts:
            if part not in self.types:
                raise ConfigError(
                    unknown_name(f"node type in meta-path {written!r}:", part, self.types)
                )
        return parts

    def _initial(self, letter: str, written: str) -> str:
        fits = [kind for kind in self.types if kind[:1].lower() == letter.lower()]
        if len(fits) == 1:
            return fits[0]
        if not fits:
            raise ConfigError(
                f"meta-path {written!r}: no node type begins with {letter!r}, "
                f"expected one of {', '.join(self.types)}"
            )
        raise ConfigError(
            f"meta-path {written!r}: {letter!r} may be {' or '.join(fits)}; "
            f"write the names out, such as {'-'.join([fits[0], fits[1], fits[0]])!r}"
        )

    def _union(self, source: str, end: str, written: object) -> tuple[str, Any]:
        found = self.between(source, end)
        if not found:
            known = ", ".join(f"{r.source}-{r.target}" for r in self.relations) or "(none)"
            raise ConfigError(
                f"meta-path {written!r}: no relation joins {source!r} and {end!r}, "
                f"expected steps among {known}"
            )
        if len(found) == 1:
            return found[0][0].name, found[0][1]
        return "any", self.joined([step for _, step in found], symmetric=source == end)

    def joined(self, steps: list[Any], symmetric: bool) -> Any:
        """The links of all of some incidences between the same types."""
        row = torch.cat([step.row() for step in steps])
        col = torch.cat([step.col.long() for step in steps])
        return SparseOperator.from_edges(
            row, col, steps[0].shape, symmetric=symmetric, dtype=torch.float32
        )

    def _along_edges(
        self, written: Sequence[tuple[str, str, str]]
    ) -> tuple[list[str], list[str], list[Any]]:
        kinds, names, steps = [written[0][0]], [], []
        for edge in written:
            source, name, end = edge
            fits = [
                (relation, step)
                for relation, step in self.between(source, end)
                if relation.name == name.removeprefix("rev_")
            ]
            if source != kinds[-1] or not fits:
                known = ", ".join(str((r.source, r.name, r.target)) for r in self.relations)
                fault = "is not a relation" if source == kinds[-1] else f"leaves {kinds[-1]!r}"
                raise ConfigError(f"meta-path step {edge!r} {fault}; relations are {known}")
            kinds.append(end)
            names.append(fits[0][0].name)
            steps.append(fits[0][1])
        return kinds, names, steps

    def _path(self, kinds: list[str], names: list[str], steps: list[Any]) -> MetaPath:
        initials = [kind[:1].upper() for kind in self.types]
        single = all(len(self.between(a, b)) == 1 for a, b in pairwise(kinds))
        if single and len(set(initials)) == len(initials):
            return MetaPath("".join(kind[:1].upper() for kind in kinds), tuple(steps))
        if single:
            return MetaPath("-".join(kinds), tuple(steps))
        parts = [kinds[0]]
        for name, kind in zip(names, kinds[1:], strict=True):
            parts += [f"[{name}]", kind]
        return MetaPath("-".join(parts), tuple(steps))

    def _same(self, one: Relation, other: Relation) -> bool:
        end = other.leaving(one.source)
        if end is None or end[0] != one.target or one.incidence.nnz != other.incidence.nnz:
            return False
        if (one.source, one.target) == (other.source, other.target) and one.source != one.target:
            return False  # the same direction twice: two relations, even if their links agree
        return self.equal(one.incidence, end[1])

    def equal(self, one: Any, other: Any) -> bool:
        """Whether two incidences have the same links."""
        return torch.equal(one.crow, other.crow) and torch.equal(one.col, other.col)
