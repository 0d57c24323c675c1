"""Metrics as plain functions of numpy arrays; the sub-folders hold the same as `evaluate` modules."""

from .paths import metric_path
from .ranking import ndcg_at_k, ndcg_of_ranking, rank_documents, recall_at_k
from .similarity import prefix_overlap, spearman, spearman_influence
from .trade_off import autc, monotonicity_violations, pareto_envelope


__all__ = [
    "autc",
    "metric_path",
    "monotonicity_violations",
    "ndcg_at_k",
    "ndcg_of_ranking",
    "pareto_envelope",
    "prefix_overlap",
    "rank_documents",
    "recall_at_k",
    "spearman",
    "spearman_influence",
]
