"""Training runs: which models are checkpoints of one run, and therefore one unit."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

from evenbits.observe.weights.statistics import WeightStatistics
from evenbits.records import digest_of

__all__ = ["latest", "origin_of", "step_of", "training_run", "training_runs"]

STEP = re.compile(r"(-s\d+|@step\d+(-tokens\d+B)?|/checkpoint-\d+)$")
"""How public checkpoints name their step: `run-s0080`, `id@step1000` (Pythia), `id@step1000-tokens4B` (OLMo), and
`run/checkpoint-500` (transformers' Trainer)."""


def training_run(text: str) -> str:
    """Return the training run that a model belongs to: its name without a step or a slash at its end."""
    return STEP.sub("", text.rstrip("/"))


def origin_of(statistics: WeightStatistics) -> str | None:
    """Return a digest that a model shares with its changed copies only, None for a model without an embedding.

    Two trainings never end in the same embedding. Models whose embeddings have exactly the same statistics are copies
    with some weights changed: rescaled, pruned, with outliers put in.
    """
    mark = [[t.name, list(t.shape), t.mean, t.std, t.kurtosis, t.absmax] for t in statistics.outside]
    return digest_of(mark) if mark else None


def training_runs(origins: Mapping[str, str | None]) -> dict[str, str]:
    """Return the training run of each of several models: by name, and by `origin_of` where one is a copy of another.

    Copies belong to one run, which takes the shortest of their names, as a copy is usually named after its original.
    """
    found = {text: training_run(text) for text in origins}
    copies: dict[str, list[str]] = {}
    for text, origin in origins.items():
        copies.setdefault(text if origin is None else origin, []).append(text)
    for texts in copies.values():
        original = min((found[text] for text in texts), key=lambda run: (len(run), run))
        found.update(dict.fromkeys(texts, original))
    return found


def step_of(text: str) -> float:
    """Return the step a checkpoint's name says, infinity for a name without one: the end of its run."""
    found = STEP.search(text.rstrip("/"))
    if found is None:
        return math.inf
    digits = re.search(r"\d+", found.group(0))
    return float(digits.group(0)) if digits is not None else math.inf


def latest(texts: Iterable[str]) -> tuple[str, ...]:
    """Return the last checkpoint of every training run, in the order in which the runs first appear."""
    last: dict[str, str] = {}
    for text in texts:
        run = training_run(text)
        if run not in last or step_of(text) > step_of(last[run]):
            last[run] = text
    return tuple(last.values())
