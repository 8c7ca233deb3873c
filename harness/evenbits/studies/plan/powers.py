"""Power of each decision at sizes asked for: tables drawn like the pilot's, decided as a run decides them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from evenbits.estimates import Estimate
from evenbits.statistics import power
from evenbits.studies.plan.decisions import Decision, decisions
from evenbits.studies.plan.pilot import Pilot

__all__ = ["TARGET", "Planned", "planned"]

TARGET = 0.8
"""Power from which a decision counts as one that a run can make."""
FOLDS = (2, 4, 8)
"""Times the pilot's languages that are tried where no text is enough for a decision about languages."""
DRAWS = 40
"""Draws per size: power is known to about .07, which is what a choice of sizes needs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """A decision: `truth` it is tried on, `power` at each number of segments; or `lacking`, why it cannot be made.

    `over`: what it is decided over. `most`: segments that take part, of however many; None: all.
    `languages`: how many languages, of the same tiers and sizes of families, have the power that is asked for at the
    most segments, where the pilot's have not; None where that was not asked, or even `FOLDS` times as many have not.
    """

    decision: str
    truth: str
    over: str
    power: dict[int, Estimate]
    most: int | None = None
    lacking: str | None = None
    languages: int | None = None

    @property
    def enough(self) -> int | None:
        """The fewest segments of those tried with the power that is asked for, None where none has it."""
        found = [size for size, one in self.power.items() if (one.value or 0.0) >= TARGET]
        return min(found, default=None)

    def to_json(self) -> dict[str, Any]:
        return {
            "decision": self.decision,
            "truth": self.truth,
            "over": self.over,
            "most_segments": self.most,
            "lacking": self.lacking,
            "enough": self.enough,
            "languages": self.languages,
            "power": {str(size): one.to_json() for size, one in self.power.items()},
        }

    def sentence(self, segments: int | None = None) -> str:
        """Say how often the decision is made at `segments` (None: the most that were tried), and what would do."""
        if self.lacking:
            return f"{self.decision}: cannot be decided: {self.lacking}"
        at = max(self.power) if segments is None else segments
        often = round(self.power[at].value or 0.0, 2)  # as tables have it
        said = f"{self.decision}: made in {often:.0%} at {self._taken(at)}, if {self.truth}"
        if self.enough is not None:
            return f"{said}; {self.enough} segments are enough"
        if self.over == "segments":
            return f"{said}; more than {max(self.power)} segments are needed"
        if self.over == "a sample":
            return f"{said}; it is decided on a sample of fixed size, which no languages or segments make larger"
        if self.languages is None:
            return f"{said}; even {FOLDS[-1]} times as many languages would not do"
        return f"{said}; it takes about {self.languages} languages, with {self._taken(max(self.power))}"

    def _taken(self, segments: int) -> str:
        fewer = self.most is not None and self.most < segments
        return f"{segments} segments, of which {self.most} take part" if fewer else f"{segments} segments"


def planned(pilot: Pilot, sizes: Sequence[int], *, rng: np.random.Generator, draws: int = DRAWS) -> tuple[Planned, ...]:
    """Return the power of every criterion, and of the gate, at `sizes` segments per language.

    Where no size is enough for a decision about languages, as many as would be are looked for at the largest.
    """
    larger = {fold: {one.name: one for one in decisions(pilot.times(fold))} for fold in FOLDS}
    found = []
    for asked in decisions(pilot):
        chances = {} if asked.lacking else _chances(asked, sizes, rng, draws)
        one = Planned(
            decision=asked.name,
            truth=asked.truth,
            over=asked.over,
            power=chances,
            most=asked.most,
            lacking=asked.lacking,
        )
        if not asked.lacking and one.enough is None and asked.over == "languages":
            for fold, of_more in larger.items():
                if _reaches(partial(of_more[asked.name].decides, segments=asked.taken(max(sizes))), rng, draws):
                    one = replace(one, languages=fold * len(pilot.languages))
                    break
        found.append(one)
    return tuple(found)


def _chances(asked: Decision, sizes: Sequence[int], rng: np.random.Generator, draws: int) -> dict[int, Estimate]:
    """Return the power at each size; sizes of which the same segments take part are drawn once."""
    by_taken = {
        size: power(partial(asked.decides, segments=size), rng=rng, draws=draws)
        for size in dict.fromkeys(map(asked.taken, sizes))
    }
    return {size: by_taken[asked.taken(size)] for size in sizes}


def _reaches(decides: Callable[[np.random.Generator], bool], rng: np.random.Generator, draws: int) -> bool:
    """Return whether the power that is asked for is reached, as soon as the draws that failed say that it is not."""
    failed = 0
    for _ in range(draws):
        failed += not decides(rng)
        if failed > round((1 - TARGET) * draws):
            return False
    return True
