"""Few-shot evaluation: who takes part, what it scores, and what it has to beat."""

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

__all__ = [
    "FewShotResult",
    "Member",
    "Method",
    "OnTask",
    "Score",
    "evaluate_methods",
    "expert_members",
    "f1",
    "logistic_probs",
    "mean_std",
    "member_prior",
    "operator_members",
    "operator_pool_probs",
    "paired_interval",
    "propagated_features",
    "random_experts",
    "relative_entropy",
]
