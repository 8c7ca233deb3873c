"""Text where it is needed: segments are added to the languages that their limits do not decide yet.

Looks, and how sure an interval has to be at each, are those of a group-sequential rule (`statistics.sequential`), so
that a language at its limit passes or fails no more often than by one look. A look measures the new segments of all
undecided languages at once: the model is quantized once for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from evenbits.cells.damage import Damage, joined
from evenbits.errors import UsageError
from evenbits.statistics import FEWEST_FOR_PASS, Looks, looks, schedule

__all__ = ["measured_until_decided", "planned_looks"]

Rows = dict[str, dict[str, Any]]


def planned_looks(most: int | None, available: int) -> Looks:
    """Return the looks at up to `most` segments of the `available` ones; `UsageError` where these are too few."""
    end = available if most is None else min(most, available)
    if end < FEWEST_FOR_PASS:
        raise UsageError(
            f"--until-decided starts with {FEWEST_FOR_PASS} segments, and there are only {end}; raise --most or "
            "--segments, or name a longer text with --corpus."
        )
    return looks(schedule(end, first=FEWEST_FOR_PASS))


def measured_until_decided(
    languages: Sequence[str],
    planned: Looks,
    *,
    available: int,
    measure: Callable[[Sequence[str], Sequence[int]], Damage],
    decided: Callable[[str, Mapping[str, Any]], bool],
    seed: int,
) -> Rows:
    """Return the damage row of each language at the look that decides it, or at the last one.

    `measure(languages, indices)`: damage of these languages on segments of the text. Segments come in an order drawn
    from `seed`, the same in every language: neighbours in a text are alike, and the first ones are not the text. The
    intervals of a row are as sure as its look asks for, which its methods say.
    """
    order = np.random.default_rng(seed).permutation(available)
    parts: dict[str, list[Damage]] = {tag: [] for tag in languages}
    rows: Rows = {}
    open_ones, start = list(languages), 0
    for size, confidence in zip(planned.sizes, planned.confidence, strict=True):
        added = measure(open_ones, [int(place) for place in order[start:size]])
        for tag in open_ones:
            parts[tag].append(added.only([tag]))
            (rows[tag],) = joined(parts[tag]).rows(seed=seed, confidence=confidence)
        open_ones = [tag for tag in open_ones if not decided(tag, rows[tag])]
        start = size
        if not open_ones:
            break
    return rows
