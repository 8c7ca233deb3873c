"""Controls: how often does a verdict come out `supported`, where an effect was planted and where there is none?

A positive control plants an effect and asks for `supported`; a negative one takes it away and counts how often the
verdict is `supported` all the same. Studies are drawn (`drawn_studies.py`), cost milliseconds, and pass through the
very functions that give the verdict on a real model. `planted.py` and `ruined_rows.py` have whole models for H-039.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from evenbits.estimates import Finding, Threshold, judge
from evenbits.statistics import binomial_band

__all__ = ["count_supported", "permuted_tiers", "rejections", "replicated", "supported", "within_band"]


def supported(finding: Finding, threshold: Threshold, *, hypothesis: str) -> bool:
    """Return whether the finding comes out `supported`, judged as an eval judges it."""
    return judge(finding, threshold, hypothesis=hypothesis, test="control", role="control").supported


def within_band(hits: int, trials: int, *, rate: float = 0.05) -> bool:
    """Return whether `hits` of `trials` lie in the 95 % band of a test that rejects at its nominal rate."""
    low, high = binomial_band(trials, rate)
    return low <= hits <= high


def permuted_tiers(tier: Mapping[str, str], *, rng: np.random.Generator) -> dict[str, str]:
    """Return the same tiers dealt to other languages: whatever low-resource languages had, chance has now."""
    tags = list(tier)
    return dict(zip(tags, [tier[tags[place]] for place in rng.permutation(len(tags))], strict=True))


def replicated(draw: Callable[[np.random.Generator], Finding], *, replicates: int, seed: int) -> list[Finding]:
    """Return the findings of independent draws; the first integers of `seed` seed them."""
    return [draw(np.random.default_rng([seed, place])) for place in range(replicates)]


def rejections(p_values: Sequence[float | None], *, alpha: float = 0.05) -> tuple[int, int]:
    """Return how many of the p-values are at most `alpha`, and how many there are: a part of a verdict, on its own."""
    known = [p for p in p_values if p is not None]
    return sum(p <= alpha for p in known), len(known)


def count_supported(
    draw: Callable[[np.random.Generator], Finding], threshold: Threshold, *, hypothesis: str, replicates: int, seed: int
) -> int:
    """Return how many of `replicates` independent draws are `supported`."""
    found = replicated(draw, replicates=replicates, seed=seed)
    return sum(supported(one, threshold, hypothesis=hypothesis) for one in found)
