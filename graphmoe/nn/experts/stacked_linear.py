"""One linear map an expert, all in one tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter, is_lazy

from graphmoe.ops import segment_matmul


class StackedLinear(nn.Module):
    r"""The linear maps of :math:`E` experts as one tensor, applied to rows sorted by expert.

    .. math::
        y_p = x_p W_e + b_e \quad \text{for the expert } e \text{ whose rows hold } p

    Args:
        in_channels: Width :math:`K` of a row; ``-1`` leaves the parameters without a shape until
            :meth:`materialize`.
        out_channels: Width :math:`F` of the result, or ``-1`` as above.
        num_experts: Number of maps :math:`E`.
        bias: Whether each has a bias.

    Shapes:
        - **input:** rows :math:`(P, K)`, offsets :math:`(E + 1)`
        - **output:** rows :math:`(P, F)`
    """

    def __init__(
        self, in_channels: int, out_channels: int, num_experts: int, bias: bool = True
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.num_experts = num_experts
        self.weight: Any = UninitializedParameter()
        self.bias: Any = UninitializedParameter() if bias else None
        if in_channels >= 0 and out_channels >= 0:
            self.materialize(in_channels, out_channels)

    @property
    def is_lazy(self) -> bool:
        """Whether the shapes are still to come."""
        return self.in_channels < 0 or self.out_channels < 0

    @torch.no_grad()
    def materialize(self, in_channels: int, out_channels: int) -> None:
        """Give the parameters their shapes; their values are for :meth:`reset_parameters`."""
        self.in_channels, self.out_channels = in_channels, out_channels
        self.weight.materialize((self.num_experts, in_channels, out_channels))
        if self.bias is not None:
            self.bias.materialize((self.num_experts, out_channels))

    def reset_parameters(self) -> None:
        """Draw every expert anew."""
        for expert in range(self.num_experts):
            self.reset_expert(expert)

    @torch.no_grad()
    def reset_expert(self, expert: int) -> None:
        """Draw one expert anew: the values that a new ``torch.nn.Linear`` would get."""
        if self.is_lazy:
            return
        lin = nn.Linear(
            self.in_channels,
            self.out_channels,
            self.bias is not None,
            device=self.weight.device,
            dtype=self.weight.dtype,
        )
        self.set_expert(expert, lin)

    @torch.no_grad()
    def set_expert(self, expert: int, lin: Any) -> None:
        """Take the values of a linear layer (of PyTorch or PyG), transposed as they are here.

        Raises:
            ValueError: The layer has other widths, or only one of the two has a bias.
        """
        weight, bias = lin.weight, lin.bias
        wanted = (self.out_channels, self.in_channels)
        if tuple(weight.shape) != wanted or (bias is None) != (self.bias is None):
            raise ValueError(
                f"expected a linear layer with a weight of shape {wanted} and "
                f"bias={self.bias is not None}, got {tuple(weight.shape)} and "
                f"bias={bias is not None}"
            )
        self.weight[expert] = weight.t()
        if self.bias is not None:
            self.bias[expert] = bias

    @torch.no_grad()
    def expert(self, expert: int) -> nn.Linear:
        """One of the maps, as a layer of its own with values of its own."""
        device, dtype = self.weight.device, self.weight.dtype
        lin = nn.utils.skip_init(
            nn.Linear,
            self.in_channels,
            self.out_channels,
            self.bias is not None,
            device=device,
            dtype=dtype,
        )
        lin.weight.copy_(self.weight[expert].t())
        if self.bias is not None:
            lin.bias.copy_(self.bias[expert])
        return lin

    def keep_experts(self, indices: Sequence[int]) -> None:
        """Drop all experts but these, which are then numbered in the order given."""
        kept = torch.as_tensor(indices, device=self.weight.device)
        self.weight = nn.Parameter(self.weight.detach()[kept], self.weight.requires_grad)
        if self.bias is not None:
            self.bias = nn.Parameter(self.bias.detach()[kept], self.bias.requires_grad)
        self.num_experts = len(indices)

    def forward(self, x: Tensor, offsets: Tensor) -> Tensor:
        """Apply map ``e`` to the rows ``offsets[e]:offsets[e + 1]``; rows past the last give 0."""
        return segment_matmul(x, self.weight, offsets, self.bias)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        if self.is_lazy:  # has no values to detach
            for name, parameter in self._parameters.items():
                if parameter is not None:
                    destination[prefix + name] = parameter
            return
        super()._save_to_state_dict(destination, prefix, keep_vars)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        stored = state_dict.get(prefix + "weight")
        if self.is_lazy and stored is not None and not is_lazy(stored):
            self.materialize(stored.size(1), stored.size(2))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def __repr__(self) -> str:
        return (
            f"{self.__class__.__name__}({self.in_channels}, {self.out_channels}, "
            f"num_experts={self.num_experts}, bias={self.bias is not None})"
        )
