"""How much each unit matters, by its weights or on batches."""

from l0prune.importance.importance import Importance, check_importance, checked_scores, importances

__all__ = ["Importance", "check_importance", "checked_scores", "importances"]
