"""Experts of two layers each."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from torch_geometric.nn.resolver import activation_resolver

from graphmoe.nn.experts.stacked_linear import StackedLinear
from graphmoe.ops.activations import activation_name
from graphmoe.ops.segment_mlp import segment_mlp
from graphmoe.registry import experts


@experts.add
class MLPExperts(nn.Module):
    r"""Feed-forward experts of two layers, kept as stacked parameters.

    .. math::
        f_e(x) = \sigma\left(x W^{(1)}_e + b^{(1)}_e\right) W^{(2)}_e + b^{(2)}_e

    and, if ``gated``, as in `"GLU Variants Improve Transformer"
    <https://arxiv.org/abs/2002.05202>`_ (arXiv 2020),

    .. math::
        f_e(x) = \left(\sigma\left(x W^{(g)}_e + b^{(g)}_e\right) \odot
        \left(x W^{(1)}_e + b^{(1)}_e\right)\right) W^{(2)}_e + b^{(2)}_e,

    where :math:`[W^{(g)}_e, W^{(1)}_e]` is one matrix, so that it is one product.

    The parameters of a new module are those of :math:`E` independent
    ``Sequential(Linear, act, Linear)`` drawn one after the other.

    Args:
        in_channels: Width :math:`D` of a token; ``-1`` takes it from the first input.
        hidden_channels: Width :math:`H` between the layers. (default: :math:`4D`)
        out_channels: Width :math:`F` of the result. (default: :math:`D`)
        num_experts: Number of experts :math:`E`.
        act: Activation :math:`\sigma`, a name or a callable as PyG takes it.
        gated: Multiply the activation by a second linear map.
        bias: Whether the linear maps have biases.
        act_kwargs: Arguments of the activation.

    Shapes:
        - **input:** tokens sorted by expert :math:`(P, D)`, offsets :math:`(E + 1)`: the rows of
          expert :math:`e` are ``offsets[e]:offsets[e + 1]``
        - **output:** :math:`(P, F)`
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int | None = None,
        out_channels: int | None = None,
        num_experts: int = 4,
        act: str | Callable[..., Any] | None = "gelu",
        gated: bool = False,
        bias: bool = True,
        act_kwargs: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if num_experts < 1:
            raise ValueError(f"expected at least one expert, got num_experts={num_experts}")
        for name, width in (("hidden_channels", hidden_channels), ("out_channels", out_channels)):
            if width is not None and width < 1:
                raise ValueError(f"expected {name} >= 1 or None, got {width}")
        self.num_experts, self.gated = num_experts, gated
        self._asked = (hidden_channels, out_channels)
        self.act = activation_resolver(act, **(act_kwargs or {}))
        self.up = StackedLinear(-1, -1, num_experts, bias)
        self.down = StackedLinear(-1, -1, num_experts, bias)
        if in_channels >= 0:
            self._materialize(in_channels)

    @property
    def in_channels(self) -> int:
        """Width of a token, ``-1`` before the first input has shown it."""
        return self.up.in_channels

    @property
    def hidden_channels(self) -> int:
        """Width between the layers, ``-1`` before it is known."""
        return self.down.in_channels

    @property
    def out_channels(self) -> int:
        """Width of the result, ``-1`` before it is known."""
        return self.down.out_channels

    def _materialize(self, in_channels: int) -> None:
        hidden, out = self._asked
        hidden = 4 * in_channels if hidden is None else hidden
        self.up.materialize(in_channels, (1 + self.gated) * hidden)
        self.down.materialize(hidden, in_channels if out is None else out)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw every expert anew."""
        for expert in range(self.num_experts):
            self.up.reset_expert(expert)
            self.down.reset_expert(expert)

    def keep_experts(self, indices: Sequence[int]) -> None:
        """Drop all experts but these, which are then numbered in the order given."""
        self.up.keep_experts(indices)
        self.down.keep_experts(indices)
        self.num_experts = len(indices)

    def dense(self, expert: int) -> nn.Sequential:
        """One of the experts, as layers of its own with values of its own.

        Raises:
            ValueError: It is gated, and so no sequence of layers.
        """
        if self.gated:
            raise ValueError("a gated expert is not a sequence of layers: expected gated=False")
        act = nn.Identity() if self.act is None else copy.deepcopy(self.act)
        return nn.Sequential(self.up.expert(expert), act, self.down.expert(expert))

    def forward(self, x: Tensor, offsets: Tensor) -> Tensor:
        """Run each token through its expert.

        Args:
            x: Tokens sorted by expert ``[P, D]``.
            offsets: Where each expert's tokens begin and end ``[E + 1]``, int64.
        """
        if self.up.is_lazy:
            self._materialize(x.size(-1))
        act = activation_name(self.act)
        if act is not None:
            up, down = self.up, self.down
            return segment_mlp(
                x, up.weight, down.weight, offsets, up.bias, down.bias, act, self.gated
            )
        hidden = self.up(x, offsets)
        if self.gated:
            gate, hidden = hidden.chunk(2, dim=-1)
            return self.down(self.act(gate) * hidden, offsets)
        return self.down(self.act(hidden), offsets)

    def __repr__(self) -> str:
        return (
            f"{self.__class__.__name__}({self.in_channels}, {self.hidden_channels}, "
            f"{self.out_channels}, num_experts={self.num_experts}, gated={self.gated})"
        )
