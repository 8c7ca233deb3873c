"""Text where it is needed: segments are added until a decision is made, at the error rates of a fixed design.

Looks, and how sure an interval has to be at each, are those of a group-sequential rule (`statistics.sequential`). The
gate adds segments language by language, and like a hypothesis in all languages at once where it compares them.
Whatever is decided on the segments of the look that ended it, with the confidence of that look, errs no more often than
by one look: ending there is one of the ways in which some look could err.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from evenbits.cells.damage import Damage, joined
from evenbits.errors import UsageError
from evenbits.estimates import Finding, Verdict
from evenbits.statistics import FEWEST_FOR_PASS, By, Looks, looks, schedule

__all__ = ["Until", "measured_until_decided", "planned_looks"]

FIRST = 5
"""The first look is at this part of the text, or at `FEWEST_FOR_PASS`: what may be spent on less decides nothing."""

Rows = dict[str, dict[str, Any]]
S = TypeVar("S")


def planned_looks(most: int | None, available: int, *, by: By) -> Looks:
    """Return the looks at up to `most` segments of the `available` ones; `UsageError` where these are too few."""
    end = available if most is None else min(most, available)
    if end < FEWEST_FOR_PASS:
        raise UsageError(
            f"--until-decided starts with {FEWEST_FOR_PASS} segments, and there are only {end}; raise --most or "
            "--segments, or name a longer text with --corpus."
        )
    return looks(schedule(end, first=max(FEWEST_FOR_PASS, end // FIRST)), by=by)


def _added(planned: Looks, available: int, seed: int) -> Iterator[tuple[list[int], float]]:
    """Yield the places in the text that each look adds, and its confidence.

    Segments come in an order drawn from `seed`, the same in every language: neighbours in a text are alike, and the
    first ones are not the text.
    """
    order, start = np.random.default_rng(seed).permutation(available), 0
    for size, confidence in zip(planned.sizes, planned.confidence, strict=True):
        yield [int(place) for place in order[start:size]], confidence
        start = size


@dataclass(frozen=True, kw_only=True, slots=True)
class Until(Generic[S]):
    """Segments for a study as a whole, until `decide` settles it."""

    planned: Looks
    seed: int
    decide: Callable[[S], Finding]

    def study(
        self,
        available: int,
        measure: Callable[[Sequence[int]], Damage],
        study_of: Callable[[Damage, Sequence[int], float], S],
    ) -> S:
        """Return the study at the look that settles it, or at the last one.

        `measure(places)`: damage on these segments. `study_of(damage, places, confidence)`: the study of all so far.
        """
        parts: list[Damage] = []
        so_far: list[int] = []
        for places, confidence in _added(self.planned, available, self.seed):
            parts.append(measure(places))
            so_far += places
            found = study_of(joined(parts), so_far, confidence)
            if _settled(self.decide(found)):
                break
        return found


def _settled(finding: Finding) -> bool:
    """Return whether more segments have nothing left to decide: it is shown, ruled out, or shown not to arise.

    What is underpowered without a number has too few languages, which no text makes more. That a number is undefined
    here is no test: it may be defined on more text.
    """
    match finding.verdict:
        case None:
            return bool(finding.shown)
        case Verdict.UNDERPOWERED:
            return finding.estimate.value is None
        case Verdict.NOT_APPLICABLE:
            return finding.shown is not False
        case _:
            return True


def measured_until_decided(
    languages: Sequence[str],
    planned: Looks,
    *,
    available: int,
    measure: Callable[[Sequence[str], Sequence[int]], Damage],
    undecided: Callable[[Rows], Sequence[str]],
    seed: int,
) -> Rows:
    """Return the damage row of each language, with values by segment, at the look that decides it, or at the last one.

    `measure(languages, indices)`: damage of these languages on segments of the text: a look measures the new segments
    of all undecided languages at once, so that the model is quantized once for them. `undecided(rows)`: which of the
    rows so far need more. The intervals of a row are as sure as its look asks for, `confidence`.
    """
    parts: dict[str, list[Damage]] = {tag: [] for tag in languages}
    rows: Rows = {}
    waiting = languages
    for places, confidence in _added(planned, available, seed):
        added = measure(waiting, places)
        for tag in waiting:
            parts[tag].append(added.only([tag]))
            (row,) = joined(parts[tag]).rows(seed=seed, by_segment=True, confidence=confidence)
            rows[tag] = {**row, "confidence": confidence}
        waiting = undecided(rows)
        if not waiting:
            break
    return rows
