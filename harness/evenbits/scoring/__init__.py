"""Scoring: what a model gives to text, and how far it moved from full precision."""

from evenbits.scoring.divergence import HiddenStates
from evenbits.scoring.likelihood import BATCH_TOKENS, CONTEXT, score

__all__ = ["BATCH_TOKENS", "CONTEXT", "HiddenStates", "score"]
