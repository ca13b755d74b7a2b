"""Few-shot evaluation: who takes part, what it scores, and what it has to beat.

And how well recommenders rank: :mod:`~graphmoe.evaluation.ranking`, compared by
:mod:`~graphmoe.evaluation.bootstrap`.
"""

from graphmoe.evaluation.bootstrap import PairedBootstrap, paired_bootstrap
from graphmoe.evaluation.fewshot import FewShotResult, Method, OnTask, evaluate_methods
from graphmoe.evaluation.floors import logistic_probs, operator_pool_probs, propagated_features
from graphmoe.evaluation.members import (
    Member,
    expert_members,
    member_prior,
    operator_members,
    random_experts,
)
from graphmoe.evaluation.metrics import Score, f1, mean_std, paired_interval, relative_entropy
from graphmoe.evaluation.ranking import RankingResult, evaluate_ranking, evaluate_scores
from graphmoe.evaluation.routing_tables import RoutingTables, read_routing
from graphmoe.evaluation.top_items import ItemsOfUsers, dot_product_tiles, rank

__all__ = [
    "FewShotResult",
    "ItemsOfUsers",
    "Member",
    "Method",
    "OnTask",
    "PairedBootstrap",
    "RankingResult",
    "RoutingTables",
    "Score",
    "dot_product_tiles",
    "evaluate_methods",
    "evaluate_ranking",
    "evaluate_scores",
    "expert_members",
    "f1",
    "logistic_probs",
    "mean_std",
    "member_prior",
    "operator_members",
    "operator_pool_probs",
    "paired_bootstrap",
    "paired_interval",
    "propagated_features",
    "random_experts",
    "rank",
    "read_routing",
    "relative_entropy",
]
