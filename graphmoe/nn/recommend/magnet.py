"""Modality-guided mixture of graph experts with entropy-triggered routing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from graphmoe.nn.recommend.base import Recommender
from graphmoe.nn.recommend.content_profile import ContentProfile
from graphmoe.nn.recommend.cue_router import CueRouter, rows
from graphmoe.nn.recommend.degree_fusion import DegreeFusion
from graphmoe.nn.recommend.item_walk import item_walks
from graphmoe.nn.recommend.light_encoder import LightEncoder
from graphmoe.nn.recommend.magnet_explain import explain_pairs
from graphmoe.nn.recommend.magnet_loss import magnet_loss
from graphmoe.nn.recommend.magnet_pairs import pair_factors
from graphmoe.nn.recommend.magnet_settings import check_settings
from graphmoe.nn.recommend.magnet_side import MagnetSide
from graphmoe.nn.recommend.modality_cues import ModalityCues
from graphmoe.nn.recommend.node_traits import NodeTraits
from graphmoe.nn.recommend.pair_experts import PairExperts
from graphmoe.nn.recommend.pair_ranking import rank_scores
from graphmoe.nn.recommend.routing_loads import RoutingLoads
from graphmoe.nn.recommend.structured_experts import (
    ROLES,
    StructuredExperts,
    dense_gates,
    even_routing,
)
from graphmoe.ops import SparseOperator, gcn_normalize
from graphmoe.registry import recommenders
from graphmoe.transforms.content_knn import content_graphs
from graphmoe.transforms.dual_view import DualView
from graphmoe.typing import Routing

if TYPE_CHECKING:
    from graphmoe.nn.recommend.graph import InteractionGraph

#: Users, items, and whose items are whose: what scores are made from.
Prepared: TypeAlias = tuple[MagnetSide, MagnetSide, SparseOperator]
#: Collaborative vectors, cues and traits of some users or items.
Part: TypeAlias = tuple[Tensor, Tensor, Tensor]


@recommenders.add
class MAGNET(Recommender):
    r"""Collaborative vectors, and what structured experts make of the cues of each node.

    .. math::
        y_n = e_n + \gamma \sum_{k \in T(n)} g_{nk}\, f_k(c_n), \qquad
        s(u, i) = \langle y_u, y_i \rangle + \omega M \sum_m w_u^m \langle p_u^m, q_i^m \rangle
        + \kappa\, w(u, i)

    After `"Modality-Guided Mixture of Graph Experts with Entropy-Triggered Routing for Multimodal
    Recommendation" <https://arxiv.org/abs/2602.20723>`_. The paper's are: two views of the graph,
    the second with edges induced by content, encoded in parallel and lightly fused
    (:class:`DegreeFusion`); cues of the modalities induced by the history (:class:`ModalityCues`);
    experts that are dominant, balanced or complementary in a cue (:class:`StructuredExperts`);
    sparse routing conditioned on interactions (:class:`CueRouter`); the two-stage schedule that is
    triggered by entropy. Its code is not public, and all forms and constants are ours, as are the
    sum with :math:`e_n`, the content profile :math:`\langle p_u, q_i \rangle`
    (:class:`ContentProfile`), the walks :math:`w(u, i)` along the interactions
    (:func:`~graphmoe.nn.recommend.item_walk.item_walks`) and the weights of users below.

    **Weights of users** (ours). A pair counts in the loss in proportion to :math:`n_u^{-\alpha}`:
    few users with long histories otherwise make up most of the loss, where recommendations are
    judged user by user.

    Args:
        graph: Training interactions and item features.
        embedding_dim: Width :math:`d`.
        num_layers: Steps over interactions in view A.
        content_layers: Steps in view B, from the same vectors: what content adds is near by.
        ego: Whether the mean over layers has the vectors before propagation in it.
        num_neighbours: Content neighbours of an item in each modality.
        k: Experts a node is given.
        level: ``"representation"``: experts work on each side, the score is a dot product.
            ``"score"``: experts with towers of their own (:class:`PairExperts`) add to the score
            of a pair, gated by both of its sides; it memorises sooner and is an option.
        roles: Of the experts; there is one for each role and cue.
        gated: Whether behaviour gates the experts' channels. Without gates an expert is its
            template alone, and what a node takes of each cue is read off its routing.
        side_weight: :math:`\gamma`.
        content_weight: :math:`\omega`; 0 leaves the content profile out.
        content_rank: Most directions of a modality in it.
        guided: Whether a user's routing weighs the modalities of the content profile: by the shares
            :math:`w_u^m` that the templates of the user's experts give to each cue, times
            :math:`M`. (At the level of scores it does not, routing being of pairs.)
        walk_weight: :math:`\kappa`; 0 leaves the walks out. They count in the ranking alone, the
            training does not see them.
        user_power: :math:`\alpha`.
        negative_candidates: Negatives drawn for each pair, the one of them that learnt vectors rank
            highest counting (:func:`~graphmoe.training.sampling.hardest`).
        reg_weight: Penalty on the final vectors of the batch.
        contrast_weight: Of the contrast of what experts say with the collaborative vectors.
        drift_weight: Of the templates' drift.
        view_b: Whether there is the view with edges by content.
        loo: Whether cues of users leave out the item that is asked about.
        moe: Whether there are routers: if not, all experts count alike.
        templates: Whether experts keep to their roles.
        route_reg: Whether routing has losses.
        two_stage: Whether their weights follow the schedule: if not, both are on from the start.
        routed_by: Whose interactions decide: ``"both"``, ``"users"`` (to items all experts count
            alike), or ``"chance"`` (the routers stay as they were drawn).
        router: Name of the router that is wrapped.
        temperature: Of the contrast.
        schedule_kwargs: Of the schedule.

    Shapes:
        - **users:** :math:`(U, d + F)`
        - **items:** :math:`(I, d + F)`

    Raises:
        ConfigError: A setting is out of range.
    """

    user_weight: Tensor
    user_degree: Tensor
    item_degree: Tensor

    def __init__(
        self,
        graph: InteractionGraph,
        embedding_dim: int = 64,
        num_layers: int = 3,
        content_layers: int = 1,
        ego: bool = False,
        num_neighbours: int = 10,
        k: int = 3,
        level: str = "representation",
        roles: Sequence[str] = tuple(ROLES),
        gated: bool = False,
        side_weight: float = 1 / 3,
        content_weight: float = 1.8,
        content_rank: int = 128,
        guided: bool = True,
        walk_weight: float = 80.0,
        user_power: float = 0.5,
        negative_candidates: int = 2,
        reg_weight: float = 1e-3,
        contrast_weight: float = 1e-3,
        drift_weight: float = 1e-3,
        view_b: bool = True,
        loo: bool = False,
        moe: bool = True,
        templates: bool = True,
        route_reg: bool = True,
        two_stage: bool = True,
        routed_by: str = "both",
        router: str = "topk",
        temperature: float = 0.2,
        schedule_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(graph)
        self.cue_names = ["behaviour", *graph.modalities]
        self.num_cues = len(self.cue_names)
        num_experts = len(roles) * self.num_cues
        check_settings(
            k=k,
            num_roles=len(roles),
            num_cues=self.num_cues,
            level=level,
            routed_by=routed_by,
            moe=moe,
            ego=ego,
            layers=(num_layers, content_layers),
            negative_candidates=negative_candidates,
        )
        self.level = level
        self.embedding_dim, self.k, self.num_neighbours = embedding_dim, k, num_neighbours
        self.side_weight, self.content_weight = side_weight, content_weight
        self.walk_weight = walk_weight
        self.user_power, self.reg_weight = user_power, reg_weight
        self.negative_candidates = negative_candidates
        self.contrast_weight, self.drift_weight = contrast_weight, drift_weight
        self.loo, self.moe, self.two_stage, self.routed_by = loo, moe, two_stage, routed_by
        # There is nothing to hold a router to that learns nothing.
        self.route_reg = route_reg and routed_by != "chance"
        self.content_layers = content_layers
        self.guided = guided and level == "representation" and bool(graph.modalities)
        self.temperature = temperature
        self.view_a = graph.normalized
        self.view_b: SparseOperator | None = None
        near: Mapping[str, SparseOperator] = {}
        if graph.modalities:
            near, merged = content_graphs(graph, graph.content_knn(num_neighbours))
            if view_b:
                self.dual = DualView(graph, merged)
                self.view_b = self.dual.b
        for m, op in enumerate(near.values()):
            setattr(self, f"neighbours_{m}", gcn_normalize(op))
        self.encoder = LightEncoder(self.num_users, self.num_items, embedding_dim, num_layers, ego)
        self.fusion = DegreeFusion(graph.user_degree, graph.item_degree)
        self.cues = ModalityCues(graph, embedding_dim)
        self.experts = StructuredExperts(embedding_dim, self.num_cues, roles, gated, templates)
        if not two_stage or routed_by == "chance":
            schedule_kwargs = {**(schedule_kwargs or {}), "noise": 0.0}
        self.routing = CueRouter(
            embedding_dim,
            self.num_cues,
            num_experts,
            k,
            router=router,
            schedule_kwargs=schedule_kwargs,
        )
        if routed_by == "chance":
            self.routing.requires_grad_(False)
        self.pairs = PairExperts(embedding_dim, num_experts) if level == "score" else None
        self.loads = RoutingLoads(num_experts)
        self.profile = ContentProfile(graph, content_rank)
        self.traits = NodeTraits(graph, self.profile)
        weight = graph.user_degree.clamp_min(1).float().pow(-user_power)
        mean = weight[graph.user].mean() if graph.user.numel() else weight.new_ones(())
        self.register_buffer("user_weight", weight / mean, persistent=False)
        self.register_buffer("user_degree", graph.user_degree.float(), persistent=False)
        self.register_buffer("item_degree", graph.item_degree.float(), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw everything anew, and start the schedule over."""
        for module in (self.encoder, self.fusion, self.cues, self.experts, self.routing):
            module.reset_parameters()
        if self.pairs is not None:
            self.pairs.reset_parameters()

    @property
    def schedule_done(self) -> bool:
        """Whether routing losses have reached their final weights, or there are none."""
        if not (self.moe and self.route_reg and self.two_stage):
            return True
        return self.routing.router.schedule.ramp >= 1

    @property
    def may_stop(self) -> bool:
        """Early stopping waits for the end of the schedule's ramp."""
        return self.schedule_done

    @property
    def expert_names(self) -> list[str]:
        """The experts by role and cue."""
        return self.experts.names(self.cue_names)

    def templates(self) -> Tensor:
        """The share of each cue in each expert ``[K, M]``."""
        return self.experts.mixture().detach()

    @torch.no_grad()
    def expert_gates(self, prepared: Prepared) -> tuple[Tensor, Tensor]:
        """The weight of each expert for users ``[U, K]`` and items ``[I, K]``, 0 if not chosen."""
        found, _ = self.routed(prepared[0][1:], prepared[1][1:])
        users, items = (dense_gates(own, self.experts.num_experts) for *_, own in found)
        return users, items

    def end_epoch(self) -> dict[str, Any]:
        """Move the schedule on; gives what the record of an epoch tells of routing."""
        told: dict[str, Any] = {"template_drift": float(self.experts.drift.detach().norm())}
        if self.view_b is not None:
            told |= self.fusion.by_degree(self.user_degree, self.item_degree)
        if not self.moe:
            return told
        self.routing.router.step()
        return {**told, **self.routing.router.schedule.told(), **self.loads.take()}

    @property
    def neighbours(self) -> list[SparseOperator]:
        """Normalised content neighbours of the items by each modality, themselves included."""
        return [getattr(self, f"neighbours_{m}") for m in range(self.num_cues - 1)]

    def encode(
        self, rows: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Collaborative vectors of users and items, and the cues of all of them.

        Args:
            rows: Users and items whose collaborative vectors are wanted. (default: all)
        """
        a = self.encoder(self.view_a)
        user_cues, item_cues = self.cues(a[1], self.neighbours, self.view_a)
        b = None
        if self.view_b is not None:
            b = self.encoder(self.view_b, self.content_layers)
        if rows is not None:
            a = a[0].index_select(0, rows[0]), a[1].index_select(0, rows[1])
            b = b and (b[0].index_select(0, rows[0]), b[1].index_select(0, rows[1]))
        user, item = a if b is None else self.fusion(a, b, rows)
        return user, item, user_cues, item_cues

    def routed(
        self, users: Part, items: Part
    ) -> tuple[list[tuple[Tensor, Tensor, Routing]], Routing | None]:
        """Cues ``[B, M, d]``, collaborative vectors and routing of both, and the routing of all.

        Args:
            users: Collaborative vectors ``[B, d]``, cues ``[B, (M - 1) d]``, traits ``[B, M]``.
            items: Likewise ``[C, ...]``.
        """
        left, right = (self.stack(*part[:2]) for part in (users, items))
        if not self.moe:
            routing, of_users = None, even_routing(left, self.experts.num_experts)
            of_items = even_routing(right, self.experts.num_experts)
        elif self.routed_by == "users":
            routing = of_users = self.routing((left, users[2]))
            of_items = even_routing(right, self.experts.num_experts)
        else:
            routing = self.routing((left, users[2]), (right, items[2]))
            of_users = rows(routing, slice(0, left.size(0)))
            of_items = rows(routing, slice(left.size(0), None))
        return [(left, users[0], of_users), (right, items[0], of_items)], routing

    def side(
        self, users: Part, items: Part
    ) -> tuple[Tensor, Tensor, Tensor | None, Routing | None]:
        """What experts add to some users and items, users' content weights, and the routing.

        Args:
            users: As :meth:`routed` takes them.
            items: Likewise.
        """
        found, routing = self.routed(users, items)
        added = [self.side_weight * self.experts(*part) for part in found]
        return added[0], added[1], self.content_weights(found[0][2]), routing

    def content_weights(self, routing: Routing) -> Tensor | None:
        """What each modality counts in the profiles of some users, ``[B, M - 1]``; mean 1.

        Args:
            routing: Of these users.
        """
        if not self.guided:
            return None
        return self.num_cues * self.experts.cue_weights(routing)[:, 1:]

    def loss(self, user: Tensor, positive: Tensor, negative: Tensor) -> dict[str, Tensor]:
        """Ranking, contrast, penalty, templates and routing."""
        return magnet_loss(self, user, positive, negative)

    def sides(self) -> tuple[MagnetSide, MagnetSide]:
        """All users and all items."""
        user, item, user_cues, item_cues = self.encode()
        return self.complete(
            (user, user_cues, self.traits.users), (item, item_cues, self.traits.items)
        )

    def complete(
        self,
        users: Part,
        items: Part,
        profiles: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[MagnetSide, MagnetSide]:
        """Some users and items with what experts and the content profile add to them.

        Args:
            users: Collaborative vectors, cues and traits, as :meth:`side` takes them.
            items: Likewise.
            profiles: Content profiles of both; ``None``: those of all users and items.
        """
        final, weight = [users[0], items[0]], None
        if self.pairs is None:
            user_side, item_side, weight, _ = self.side(users, items)
            final = [users[0] + user_side, items[0] + item_side]
        if self.content_weight:
            of_users, of_items = profiles or (self.profile.users(), self.profile.items)
            if weight is not None:
                of_users = self.profile.weighed(of_users, weight)
            final[0] = torch.cat([final[0], self.content_weight * of_users], dim=1)
            final[1] = torch.cat([final[1], of_items], dim=1)
        return MagnetSide(final[0], *users), MagnetSide(final[1], *items)

    def negative_vectors(self) -> tuple[Tensor, Tensor]:
        """What is learnt of all users and items: likeness of content finds no hard negatives."""
        users, items, _ = self.prepare()
        return users.final[:, : self.embedding_dim], items.final[:, : self.embedding_dim]

    def prepare(self) -> Prepared:
        """All users and all items, without gradients, and the histories of the users."""
        with torch.no_grad():
            return (*self.sides(), self.graph.mean_of_history)

    def score(self, prepared: Prepared, users: Tensor) -> Tensor:
        """Dot products, walks, and at the level of scores the experts' part."""
        if self.pairs is None:
            scores = prepared[0].final[users] @ prepared[1].final.t()
        else:
            factors = pair_factors(self, prepared[0].rows(users), prepared[1])
            scores = rank_scores(factors, torch.arange(users.numel(), device=users.device))
        if self.walk_weight:
            walks = item_walks(self.graph, users, prepared[2])
            scores[:, : self.num_items].add_(walks, alpha=self.walk_weight)
        return scores

    def explain(self, prepared: Prepared, users: Tensor, items: Tensor) -> dict[str, Tensor]:
        """What gave the score of each pair; the contributions sum to the score."""
        return explain_pairs(self, prepared, users, items)

    def stack(self, base: Tensor, cues: Tensor) -> Tensor:
        """All cues of some nodes ``[B, M, d]``: their collaborative vectors are the first."""
        return torch.cat([base, cues], dim=1).unflatten(1, (self.num_cues, self.embedding_dim))
