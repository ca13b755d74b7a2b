"""What every router shares: arguments, levels, and the shape of an answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch_geometric.nn.dense.linear import Linear
from torch_geometric.utils import scatter

from graphmoe.nn.routers.float32_buffers import Float32Buffers
from graphmoe.typing import OptTensor, Routing

LEVELS = ("node", "graph")


class Router(Float32Buffers, ABC):
    r"""Base class of all routers: tokens in, a :class:`~graphmoe.typing.Routing` out.

    A subclass defines :meth:`route`; everything else (what the arguments must be, routing whole
    graphs, the registry's keyword arguments) is here. One whose rows look at each other also
    defines :meth:`route_graphs`.

    Experts that every token visits are no router's business: they belong to the layers
    (``shared_expert`` of ``MoEConv`` and ``MoEFFN``).

    Args:
        in_channels: Width :math:`D` of the tokens; ``-1`` takes it from the first input.
        num_experts: Number of experts :math:`E`, at least 1.
        k: Experts a token goes to, :math:`1 \le k \le E`.
        level: ``"node"``: each token chooses for itself. ``"graph"``: the mean of a graph's nodes
            chooses, and all of its nodes follow.

    Raises:
        ValueError: A number is out of range, or ``level`` is unknown.
    """

    #: Attributes with one row an expert (linear maps, parameters, buffers): these are cut by
    #: :meth:`keep_experts`.
    per_expert: tuple[str, ...] = ("lin",)

    #: Standard deviation of the noise that :meth:`perturb` adds; a schedule may set it.
    selection_noise: OptTensor

    def __init__(
        self, in_channels: int, num_experts: int, k: int = 1, *, level: str = "node"
    ) -> None:
        super().__init__()
        if in_channels < 1 and in_channels != -1:
            raise ValueError(f"expected in_channels >= 1, or -1 to infer it, got {in_channels}")
        if num_experts < 1:
            raise ValueError(f"a router needs at least one expert, got num_experts={num_experts}")
        if not 1 <= k <= num_experts:
            raise ValueError(
                f"k is the number of experts a token goes to: expected 1 <= k <= "
                f"num_experts={num_experts}, got k={k}"
            )
        if level not in LEVELS:
            raise ValueError(f"level is one of {', '.join(LEVELS)}, got {level!r}")
        self.in_channels, self.num_experts, self.k, self.level = in_channels, num_experts, k, level
        self.register_buffer("selection_noise", None)

    @abstractmethod
    def route(
        self,
        x: Tensor | tuple[Tensor, Tensor],
        edge_index: OptTensor = None,
        edge_weight: OptTensor = None,
        batch: OptTensor = None,
    ) -> Routing:
        """Route each row of ``x``; arguments as in :meth:`forward`."""

    def route_graphs(self, x: Tensor, size: Tensor) -> Routing:
        """Route graphs, for ``level="graph"``.

        Args:
            x: Mean of each graph's nodes ``[G, D]``. Rows without nodes may follow (how many
                graphs there are is not known while tracing): whatever they get is not used.
            size: Number of nodes of each row ``[G]``, 0 for those.
        """
        return self.route(x)

    @property
    def takes_sequences(self) -> bool:
        """Whether sequences ``[B, L, D]`` may be given too.

        Their shape says which tokens belong together, without a look at ``batch``.
        """
        return False

    def reset_parameters(self) -> None:
        """Draw all learnable parameters anew."""

    def forward(
        self,
        x: Tensor | tuple[Tensor, Tensor],
        edge_index: OptTensor = None,
        edge_weight: OptTensor = None,
        batch: OptTensor = None,
    ) -> Routing:
        r"""Route tokens to experts.

        Args:
            x: Tokens ``[N, D]``; or, on a bipartite graph, a pair ``(x_src, x_dst)`` of which the
                second is routed; or, where :attr:`takes_sequences`, sequences ``[B, L, D]``, whose
                :math:`N = B L` tokens are numbered in a row.
            edge_index: Token graph ``[2, M]`` (or a sparse adjacency), from column 0 to column 1,
                for routers that look at neighbours.
            edge_weight: Its weights ``[M]`` or ``[M, H]``.
            batch: Graph of each token ``[N]``, integers from 0, in any order; graphs may be empty.
                Without it all tokens are of one graph. For sequences ``[B, L]``: only tokens of
                one sequence with one number belong together (packed texts, padding).

        Returns:
            A :class:`~graphmoe.typing.Routing` of ``N`` rows.

        Raises:
            ValueError: ``x`` or ``batch`` is not what is said here.
        """
        nodes = routed(x)
        sequences = self.takes_sequences and self.level == "node" and nodes.dim() == 3
        if not (sequences or nodes.dim() == 2) or not nodes.is_floating_point():
            raise ValueError(
                f"a router takes floating-point tokens [N, D], got {nodes.dtype} of shape "
                f"{list(nodes.shape)}"
            )
        if sequences and batch is not None and batch.shape != nodes.shape[:2]:
            raise ValueError(
                f"batch tells tokens of a sequence apart: expected shape {list(nodes.shape[:2])}, "
                f"got {list(batch.shape)}"
            )
        if batch is not None:
            tokens = nodes.size(0) * nodes.size(1) if sequences else nodes.size(0)
            check_batch(batch.flatten() if sequences else batch, tokens)
        if self.level == "node":
            return self.route(x, edge_index, edge_weight, batch)
        if batch is None:
            batch = torch.zeros(nodes.size(0), dtype=torch.long, device=nodes.device)
        graph, rows = consecutive(batch)
        # Sums of many fp16 nodes leave its range: the mean is taken in float32.
        wide = nodes.to(at_least_float32(nodes.dtype))
        mean = scatter(wide, graph, dim=0, dim_size=rows, reduce="mean")
        size = scatter(torch.ones_like(graph), graph, dim=0, dim_size=rows, reduce="sum")
        routing = self.route_graphs(mean, size)
        return Routing(
            routing.index[graph],
            routing.weight[graph].to(nodes.dtype),
            routing.probs[graph],
            None if routing.mask is None else routing.mask[graph],
            None if routing.logits is None else routing.logits[graph],
            routing.load,
        )

    @torch.no_grad()
    def keep_experts(self, indices: Sequence[int]) -> None:
        """Route among these experts alone, which are then numbered in the order given.

        Args:
            indices: Experts to keep; fewer than ``k`` of them also lower ``k``.
        """
        for name in self.per_expert:
            found: Any = getattr(self, name)
            if isinstance(found, nn.Module):
                _keep_rows(found, "weight", indices)
                _keep_rows(found, "bias", indices)
                found.out_channels = len(indices)  # type: ignore[assignment]
            else:
                _keep_rows(self, name, indices)
        self.num_experts, self.k = len(indices), min(self.k, len(indices))

    def project(self, lin: Linear, x: Tensor) -> Tensor:
        """Scores of the experts ``[N, E]`` by a linear map, in float32 or wider.

        Routing is decided outside of autocast: half precision makes ties, and flips choices.
        """
        width = lin.in_channels
        if width > 0 and x.size(-1) != width:
            raise ValueError(
                f"{type(self).__name__} was made for tokens of width {width}, got {x.size(-1)}"
            )
        with exactly(x):
            scores = lin(x.to(lin.weight.dtype))
        return scores.to(at_least_float32(scores.dtype))

    def perturb(self, scores: Tensor) -> Tensor:
        r"""What experts are selected by: ``scores``, in training with noise when a schedule asks.

        Scores are positive (probabilities or gates) and are multiplied by
        :math:`e^{\sigma\epsilon}`, which is :math:`\mathcal{N}(0, \sigma^2)` added to their
        logarithms. Only the selection sees it, never the weights.
        """
        if self.selection_noise is None or not self.training:
            return scores
        noise = torch.randn_like(scores) * self.selection_noise.to(scores.dtype)
        return scores * noise.exp()

    def __repr__(self) -> str:
        return (
            f"{self.__class__.__name__}({self.in_channels}, num_experts={self.num_experts}, "
            f"k={self.k})"
        )


def _keep_rows(module: nn.Module, name: str, indices: Sequence[int]) -> None:
    rows = getattr(module, name)
    if rows is None or isinstance(rows, UninitializedParameter):
        return
    kept = rows.detach()[torch.as_tensor(indices, device=rows.device)]
    is_parameter = isinstance(rows, nn.Parameter)
    setattr(module, name, nn.Parameter(kept, rows.requires_grad) if is_parameter else kept)


def routed(x: Tensor | tuple[Tensor, Tensor]) -> Tensor:
    """The tokens to route: ``x`` itself, or the second of a bipartite pair.

    Raises:
        ValueError: There is no second.
    """
    if not isinstance(x, tuple):
        return x
    if x[1] is None:
        raise ValueError("a router needs the features of what it routes, got (x_src, None)")
    return x[1]


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """``dtype``, or float32 where that is wider."""
    return torch.promote_types(dtype, torch.float32)


def exactly(x: Tensor) -> AbstractContextManager[Any]:
    """No autocast on the device of ``x``; there is none to stop on ``meta``."""
    device = x.device.type
    return nullcontext() if device == "meta" else torch.autocast(device, enabled=False)


def check_batch(batch: Tensor, num_tokens: int) -> None:
    """Refuse a ``batch`` that is not one graph number a token.

    Shape and type are always checked; values only where looking at them is free of a device
    synchronisation and of a graph break.
    """
    if batch.dim() != 1 or batch.size(0) != num_tokens:
        raise ValueError(
            f"batch gives the graph of each token: expected shape [{num_tokens}], got "
            f"{list(batch.shape)}"
        )
    if batch.is_floating_point() or batch.is_complex() or batch.dtype == torch.bool:
        raise ValueError(f"batch gives the graph of each token: expected int64, got {batch.dtype}")
    if eager_cpu(batch) and num_tokens and (lowest := int(batch.min())) < 0:
        row = int(batch.argmin())
        raise ValueError(f"batch numbers graphs from 0, got {lowest} for token {row}")


def consecutive(batch: Tensor) -> tuple[Tensor, int]:
    """Graph numbers without gaps, and a bound on how many there are.

    Numbers without gaps are below the number of tokens, so that a table of that many rows holds
    every graph, whatever the values of ``batch`` are: nothing has to be read back from the device.
    In eager mode on the CPU the bound is the number of graphs itself.
    """
    ordered, order = batch.sort(stable=True)
    # The first differs from the last, its neighbour after rolling, unless there is one graph only.
    graph = ordered.ne(ordered.roll(1)).cumsum(0).sub(1).clamp_min(0)
    graph = torch.empty_like(graph).scatter(0, order, graph)
    if eager_cpu(batch):
        return graph, int(graph.max()) + 1 if graph.numel() else 0
    return graph, batch.size(0)


def eager_cpu(x: Tensor) -> bool:
    """Whether the values of ``x`` may be looked at for free."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def check_routing(routing: Routing, num_tokens: int, num_experts: int) -> Routing:
    """Refuse a router's answer of a foreign shape or type; looks at no value.

    Args:
        routing: What a router gave.
        num_tokens: Number of tokens :math:`N` that it was asked about.
        num_experts: Number of experts :math:`E` that there are.

    Returns:
        The same routing.

    Raises:
        TypeError: It is no :class:`~graphmoe.typing.Routing`.
        ValueError: A field has another shape or type; says which, what it is and should be.
    """
    if not isinstance(routing, Routing):
        raise TypeError(f"a router gives a Routing, got {type(routing).__name__}")
    if routing.index.dim() != 2 or routing.index.size(1) < 1:
        raise ValueError(
            f"routing.index: expected shape [{num_tokens}, k], got {list(routing.index.shape)}"
        )
    k = routing.index.size(1)
    _check("index", routing.index, (num_tokens, k), torch.int64)
    _check("weight", routing.weight, (num_tokens, k))
    _check("probs", routing.probs, (num_tokens, num_experts))
    _check("mask", routing.mask, (num_tokens, k), torch.bool)
    _check("logits", routing.logits, (num_tokens, num_experts))
    _check("load", routing.load, (num_experts,))
    return routing


def _check(
    name: str, field: OptTensor, shape: tuple[int, ...], dtype: torch.dtype | None = None
) -> None:
    if field is None:
        return
    if tuple(field.shape) != shape:
        raise ValueError(f"routing.{name}: expected shape {list(shape)}, got {list(field.shape)}")
    if dtype is not None and field.dtype != dtype:
        raise ValueError(f"routing.{name}: expected {dtype}, got {field.dtype}")
    if dtype is None and not field.is_floating_point():
        raise ValueError(f"routing.{name}: expected floating point, got {field.dtype}")
