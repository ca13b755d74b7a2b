"""From a dense layer to a mixture of experts and back."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch_geometric.nn import MLP, MessagePassing
from torch_geometric.nn.models.basic_gnn import BasicGNN

from graphmoe.nn.conv.moe_conv import MoEConv
from graphmoe.nn.models.moe_ffn import MoEFFN
from graphmoe.nn.models.moe_gnn import MoEGNN
from graphmoe.typing import Routing

#: What tells how much work each expert does: a routing, or the tokens each expert got ``[E]``.
Statistics = Routing | Tensor | Sequence[float]


def upcycle(
    dense: nn.Module,
    num_experts: int = 4,
    k: int = 1,
    *,
    noise: float = 0.0,
    router: str = "topk",
    router_kwargs: dict[str, Any] | None = None,
    **kwargs: Any,
) -> MoEConv | MoEFFN | MoEGNN:
    """Make a mixture of experts from a trained dense layer, as in `"Sparse Upcycling: Training
    Mixture-of-Experts from Dense Checkpoints" <https://arxiv.org/abs/2212.05055>`_ (ICLR 2023):
    each expert starts as a copy of the dense layer, only the router is new.

    The result is the same at the start, for every input: the weights of a token sum to 1, so that
    it does not matter which copies it goes to. Routers are therefore built with
    ``renormalize=True`` unless ``router_kwargs`` say otherwise. (With ``k = 1`` that leaves the
    router without a gradient from the outputs; give it one by a balance loss, choose ``k = 2``, or
    pass ``{"renormalize": False}`` and do without the equality.)

    Args:
        dense: A convolution of PyG, a ``Sequential(Linear, activation, Linear)`` or an MLP of PyG
            with two layers, or a whole ``BasicGNN`` (all of its convolutions become mixtures).
        num_experts: Number of experts.
        k: Experts a token goes to.
        noise: Standard deviation of the noise added to each copy, relative to that of the
            parameter; the paper found that none is needed.
        router: Kind of router.
        router_kwargs: Further arguments of the router. (default: ``{"renormalize": True}``)
        **kwargs: Further arguments of :class:`~graphmoe.nn.MoEConv` or
            :class:`~graphmoe.nn.MoEFFN`.

    Returns:
        A ``MoEConv``, ``MoEFFN`` or ``MoEGNN``; ``dense`` itself is not changed.

    Raises:
        ValueError: ``dense`` is of another make, or ``noise`` is negative.

    Example:
        >>> import torch
        >>> from torch_geometric.nn import GCN
        >>> from graphmoe.nn import upcycle
        >>> gcn = GCN(16, 32, num_layers=2, out_channels=4).eval()
        >>> moe = upcycle(gcn, num_experts=8, k=2).eval()
        >>> x, edge_index = torch.randn(5, 16), torch.tensor([[0, 1, 2, 3], [1, 2, 3, 4]])
        >>> torch.allclose(moe(x, edge_index), gcn(x, edge_index), atol=1e-5)
        True
    """
    if not noise >= 0:
        raise ValueError(f"expected noise >= 0, got {noise}")
    if kwargs.get("shared_expert"):
        raise ValueError("a shared expert would add the dense layer a second time")
    mixture = {
        "num_experts": num_experts,
        "k": k,
        "router": router,
        "router_kwargs": {"renormalize": True} if router_kwargs is None else router_kwargs,
    } | kwargs
    made: MoEConv | MoEFFN | MoEGNN
    if isinstance(dense, BasicGNN):
        made = MoEGNN.from_dense(dense, lambda conv: _upcycle_conv(conv, mixture))
    elif isinstance(dense, MessagePassing):
        made = _upcycle_conv(dense, mixture)
    else:
        made = _upcycle_mlp(dense, mixture)
    if noise:
        _add_noise(made, noise)
    return made.train(dense.training)


def fold(
    layer: nn.Module,
    expert: int | None = None,
    *,
    routing: Statistics | Sequence[Statistics] | None = None,
    threshold: float = 0.99,
) -> nn.Module:
    """Make the dense layer from a mixture in which one expert does all the work.

    Args:
        layer: A ``MoEConv``, ``MoEFFN`` or ``MoEGNN``.
        expert: The expert to keep. (default: the one that does most of the work)
        routing: What tells how much each expert does: a
            :class:`~graphmoe.typing.Routing` of real inputs, or the tokens each expert got; for a
            ``MoEGNN``, one a mixture. Not needed when all experts are equal, nor when there is one.
        threshold: Least share of the work that the expert must do. From a routing, the share is
            the mean weight that it gets, so that it is also the scale of the mixture's outputs.

    Returns:
        A convolution, a ``Sequential(Linear, activation, Linear)``, or a ``BasicGNN``; its
        parameters are copies.

    Raises:
        ValueError: No expert does as much (the loads are given), or something else than one expert
            is needed to give the same outputs.
    """
    if isinstance(layer, MoEGNN):
        mixtures = layer.mixtures
        each = _one_each(routing, len(mixtures))
        folded = [
            fold(m, expert, routing=r, threshold=threshold)
            for m, r in zip(mixtures, each, strict=True)
        ]
        return layer.to_dense(folded)
    mixture = _mixture(layer)
    if mixture.shared_expert is not None:
        raise ValueError("the shared expert works beside the others: expected shared_expert=False")
    chosen = _sole_worker(mixture, expert, routing, threshold)
    if isinstance(mixture, MoEConv):
        return copy.deepcopy(mixture.experts[chosen])
    dense: nn.Module = mixture.experts.dense(chosen)
    return dense


def prune(
    layer: nn.Module,
    keep: Sequence[int] | None = None,
    *,
    routing: Statistics | Sequence[Statistics] | None = None,
    threshold: float = 0.0,
) -> nn.Module:
    """Drop experts, and with them their rows of the router.

    Outputs stay the same where no token went to a dropped expert and the router's weights are
    renormalised; without renormalising, what a softmax gave the dropped experts goes to the others.

    Args:
        layer: A ``MoEConv``, ``MoEFFN`` or ``MoEGNN``.
        keep: Experts to keep. (default: those that do more than ``threshold`` of the work)
        routing: As for :func:`fold`; needed if ``keep`` is not given.
        threshold: Share of the work up to which an expert counts as dead.

    Returns:
        A smaller copy of ``layer``; ``layer`` itself is not changed.

    Raises:
        ValueError: No expert is left, or one of ``keep`` does not exist.
    """
    pruned = copy.deepcopy(layer)
    if isinstance(pruned, MoEGNN):
        mixtures = pruned.mixtures
        for mixture, statistics in zip(mixtures, _one_each(routing, len(mixtures)), strict=True):
            mixture.keep_experts(_kept(mixture, keep, statistics, threshold))
        return pruned
    _mixture(pruned).keep_experts(_kept(pruned, keep, routing, threshold))
    return pruned


# --------------------------------------------------------------------------- there


def _upcycle_conv(conv: nn.Module, mixture: dict[str, Any]) -> MoEConv:
    _check_known(conv)

    def copied(*_: Any, **__: Any) -> nn.Module:
        return copy.deepcopy(conv)

    width = getattr(conv, "in_channels", -1)  # where the layer does not say, the first input does
    width = width if isinstance(width, int) else tuple(width)
    device = next((p.device for p in conv.parameters()), None)
    out = getattr(conv, "out_channels", -1)
    return MoEConv(width, out, expert=copied, **mixture).to(device)


def _upcycle_mlp(dense: nn.Module, mixture: dict[str, Any]) -> MoEFFN:
    up, act, down = _two_layers(dense)
    _check_known(dense)
    layer = MoEFFN(
        up.weight.size(1),
        up.weight.size(0),
        down.weight.size(0),
        expert_kwargs={"act": copy.deepcopy(act), "bias": up.bias is not None},
        **mixture,
    ).to(up.weight.device, up.weight.dtype)
    for expert in range(layer.num_experts):
        layer.experts.up.set_expert(expert, up)
        layer.experts.down.set_expert(expert, down)
    return layer


def _two_layers(dense: nn.Module) -> tuple[Any, Any, Any]:
    parts: list[Any] = []
    if isinstance(dense, nn.Sequential):
        parts = list(dense)
    elif isinstance(dense, MLP) and len(dense.lins) == 2 and dense.plain_last:
        plain = all(isinstance(norm, nn.Identity) for norm in dense.norms)
        parts = [dense.lins[0], dense.act, dense.lins[1]] if plain else []
        parts = [] if any(dense.dropout) else parts
    if len(parts) != 3 or not all(_is_linear(parts[i]) for i in (0, 2)):
        raise ValueError(
            "expected a convolution of PyG, a Sequential(Linear, activation, Linear), an MLP of "
            f"two layers without normalisation and dropout, or a BasicGNN, got {dense}"
        )
    return parts[0], parts[1], parts[2]


def _is_linear(module: Any) -> bool:
    return isinstance(getattr(module, "weight", None), Tensor) and module.weight.dim() == 2


def _check_known(dense: nn.Module) -> None:
    if any(isinstance(p, UninitializedParameter) for p in dense.parameters()):
        raise ValueError("the dense layer has seen no input yet: call it once before upcycling it")


@torch.no_grad()
def _add_noise(made: nn.Module, noise: float) -> None:
    layers: list[Any] = made.mixtures if isinstance(made, MoEGNN) else [made]
    for layer in layers:
        for parameter in layer.experts.parameters():
            if parameter.numel() > 1:
                parameter.add_(torch.randn_like(parameter) * (noise * parameter.std()))


# --------------------------------------------------------------------------- and back


def _mixture(layer: Any) -> Any:
    if not isinstance(layer, (MoEConv, MoEFFN)):
        raise TypeError(f"expected a MoEConv, MoEFFN or MoEGNN, got {type(layer).__name__}")
    return layer


def _one_each(routing: Any, count: int) -> list[Any]:
    if routing is None:
        return [None] * count
    if isinstance(routing, (Routing, Tensor)) or len(routing) != count:
        raise ValueError(f"expected the statistics of each of the {count} mixtures")
    return list(routing)


def _shares(statistics: Any, num_experts: int) -> Tensor:
    """Share of the work that each expert does ``[E]``."""
    if isinstance(statistics, Routing):
        weight = statistics.weight.detach().float()
        if statistics.mask is not None:
            weight = weight.masked_fill(~statistics.mask, 0)
        shares = weight.new_zeros(num_experts)
        shares.index_add_(0, statistics.index.flatten(), weight.flatten())
        return shares / max(weight.size(0), 1)
    load = torch.as_tensor(statistics, dtype=torch.float32)
    if tuple(load.shape) != (num_experts,):
        raise ValueError(f"expected a load of shape [{num_experts}], got {list(load.shape)}")
    return load / load.sum().clamp_min(1e-12)


def _sole_worker(layer: Any, expert: int | None, routing: Any, threshold: float) -> int:
    if expert is not None and not 0 <= expert < layer.num_experts:
        raise ValueError(f"there are {layer.num_experts} experts, got expert={expert}")
    if routing is None:
        if expert is None and layer.num_experts > 1 and not _equal_experts(layer):
            raise ValueError(
                f"which of {layer.num_experts} different experts does the work? give a routing, a "
                f"load, or the expert"
            )
        return expert or 0
    shares = _shares(routing, layer.num_experts)
    chosen = int(shares.argmax()) if expert is None else expert
    if not float(shares[chosen]) >= threshold:
        loads = ", ".join(f"{share:.3f}" for share in shares.tolist())
        raise ValueError(
            f"expert {chosen} does not do all the work: the experts' shares are [{loads}], "
            f"expected at least {threshold} for it"
        )
    return chosen


def _equal_experts(layer: Any) -> bool:
    if isinstance(layer, MoEFFN):
        return all(bool((p == p[:1]).all()) for p in layer.experts.parameters())
    first = layer.experts[0].state_dict()
    return all(
        all(torch.equal(value, first[name]) for name, value in other.state_dict().items())
        for other in layer.experts
    )


def _kept(layer: Any, keep: Sequence[int] | None, routing: Any, threshold: float) -> list[int]:
    if keep is None:
        if routing is None:
            raise ValueError("give the experts to keep, or a routing or load that tells the dead")
        shares = _shares(routing, layer.num_experts)
        keep = [expert for expert, share in enumerate(shares.tolist()) if share > threshold]
    wrong = [expert for expert in keep if not 0 <= expert < layer.num_experts]
    if wrong or len(set(keep)) != len(keep) or not keep:
        raise ValueError(
            f"keep names one or more of the {layer.num_experts} experts once, got {list(keep)}"
        )
    return list(keep)
