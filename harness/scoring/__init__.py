"""Scoring: what a model gives to text, and how far it moved from full precision."""

from harness.scoring.divergence import HiddenStates
from harness.scoring.likelihood import BATCH_TOKENS, CONTEXT, score

__all__ = ["BATCH_TOKENS", "CONTEXT", "HiddenStates", "score"]
