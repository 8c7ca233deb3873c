"""Training runs: which models are checkpoints of one run, and therefore one unit."""

from __future__ import annotations

import re

__all__ = ["training_run"]

STEP = re.compile(r"(-s\d+|@step\d+(-tokens\d+B)?|/checkpoint-\d+)$")
"""How public checkpoints name their step: `run-s0080`, `id@step1000` (Pythia), `id@step1000-tokens4B` (OLMo), and
`run/checkpoint-500` (transformers' Trainer)."""


def training_run(text: str) -> str:
    """Return the training run that a model belongs to: its name without a step or a slash at its end."""
    return STEP.sub("", text.rstrip("/"))
