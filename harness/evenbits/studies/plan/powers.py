"""Power of each decision at sizes asked for: tables drawn like the pilot's, decided as a run decides them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from evenbits.estimates import Estimate, Verdict, three_way
from evenbits.statistics import (
    FEWEST_FOR_PASS,
    LOG_PARITY,
    disparity,
    draw_damage,
    joint_flips,
    mean_interval,
    pearson,
    power,
)
from evenbits.studies.h035.study import NEEDED as LANGUAGES_FOR_R
from evenbits.studies.h039.study import MIN_LANGUAGES
from evenbits.studies.plan.pilot import Pilot

__all__ = ["TARGET", "Planned", "planned"]

TARGET = 0.8
"""Power from which a decision counts as one that a run can make."""
ALPHA = 0.05
RESAMPLES = 300
FOLDS = (2, 4, 8)
"""Times the pilot's languages that are tried where no text is enough for a decision about languages."""
DRAWS = 40
"""Draws per size: power is known to about .07, which is what a choice of sizes needs."""

Float64 = NDArray[np.float64]


class Decides(Protocol):
    """Draws a table with so many segments, and decides on it."""

    def __call__(self, draw: np.random.Generator, segments: int) -> bool: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """A decision: `truth` it is tried on, `power` at each number of segments; or `lacking`, why it cannot be made.

    `languages`: how many languages, of the same tiers and sizes of families, have the power that is asked for at the
    most segments, where the pilot's have not; None where that was not asked, or even `FOLDS` times as many have not.
    """

    decision: str
    truth: str
    power: dict[int, Estimate]
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
        said = f"{self.decision}: made in {self.power[at].value or 0.0:.0%} at {at} segments, if {self.truth}"
        if self.enough is not None:
            return f"{said}; {self.enough} segments are enough"
        if self.decision.startswith("gate"):
            return f"{said}; more than {max(self.power)} segments are needed"
        if self.languages is None:
            return f"{said}; even {FOLDS[-1]} times as many languages would not do"
        return f"{said}; it takes about {self.languages} languages, with {max(self.power)} segments"


def planned(pilot: Pilot, sizes: Sequence[int], *, rng: np.random.Generator, draws: int = DRAWS) -> tuple[Planned, ...]:
    """Return the power of every decision that damage decides, at `sizes` segments per language.

    Where no size is enough for a decision about languages, as many as would be are looked for at the largest.
    """
    larger = {fold: {name: decides for name, _, _, decides in _decisions(pilot.times(fold))} for fold in FOLDS}
    found = []
    for name, truth, lacking, decides in _decisions(pilot):
        tried = [] if lacking else sizes
        chances = {size: power(partial(decides, segments=size), rng=rng, draws=draws) for size in tried}
        one = Planned(decision=name, truth=truth, power=chances, lacking=lacking)
        if not lacking and one.enough is None and not name.startswith("gate"):
            for fold, decisions in larger.items():
                chance = power(partial(decisions[name], segments=max(sizes)), rng=rng, draws=draws)
                if (chance.value or 0.0) >= TARGET:
                    one = replace(one, languages=fold * len(pilot.languages))
                    break
        found.append(one)
    return tuple(found)


def _decisions(pilot: Pilot) -> list[tuple[str, str, str | None, Decides]]:
    low, high = len(pilot.members("low")), len(pilot.members("high"))
    tiers = None
    if min(low, high) < MIN_LANGUAGES:
        tiers = f"{low} low- and {high} high-resource languages, needed {MIN_LANGUAGES} of each"
    few = None
    if len(pilot.languages) < LANGUAGES_FOR_R:
        few = f"{len(pilot.languages)} languages, needed {LANGUAGES_FOR_R}"
    mean = pilot.components.mean
    none = None if mean > 0 else "the pilot shows no damage"
    return [
        ("gate: a language passes", "its damage is half of its limit", none, _gate(pilot, 0.5)),
        ("gate: a language fails", "its damage is twice its limit", none, _gate(pilot, 2.0)),
        ("gate: a regression fails", "one language loses a quarter more than in the baseline", none, _worse(pilot)),
        ("H-039: disparity at k = 0", "low-resource languages lose twice as much", none or tiers, _unequal(pilot, 2.0)),
        ("H-039: parity at k < 1 %", "low- and high-resource languages lose alike", none or tiers, _parity(pilot)),
        ("H-035: overlap predicts damage", "r = .7 between overlap and damage", none or few, _predicts(pilot)),
    ]


def _own(pilot: Pilot, segments: int, draw: np.random.Generator, *, low: float = 1.0) -> Float64:
    """Return a table like the pilot's, [L, S]; low-resource languages at `low` times the others."""
    mean = pilot.components.mean
    means = [mean * (low if pilot.tiers[tag] == "low" else 1.0) for tag in pilot.languages]
    families = [pilot.families[tag] for tag in pilot.languages]
    return draw_damage(pilot.components, families, segments, rng=draw, means=means)


def _gate(pilot: Pilot, times: float) -> Decides:
    def decides(draw: np.random.Generator, segments: int) -> bool:
        parts = pilot.components
        limit = parts.mean / times
        only = draw_damage(
            type(parts)(mean=parts.mean, family=0.0, language=0.0, segment=parts.segment, residual=parts.residual),
            ["one"],
            segments,
            rng=draw,
        )[0]
        found = three_way(mean_interval(only, rng=draw, resamples=RESAMPLES), below=limit)
        if times > 1:
            return found is Verdict.NOT_SUPPORTED
        return found is Verdict.SUPPORTED and segments >= FEWEST_FOR_PASS

    return decides


def _worse(pilot: Pilot) -> Decides:
    """The artefact's noise against another of the same kind is taken as a tenth of the segments' own spread."""

    def decides(draw: np.random.Generator, segments: int) -> bool:
        parts = pilot.components
        noise = 0.1 * np.sqrt(parts.segment + parts.residual)
        table = noise * draw.standard_normal((len(pilot.languages), segments))
        table[0] += 0.25 * parts.mean * np.exp(0.5 * draw.standard_normal(segments) - 0.125)
        found = joint_flips(
            dict(zip(pilot.languages, table, strict=True)), rng=draw, alternative="greater", permutations=499
        )
        return found.adjusted[pilot.languages[0]] < ALPHA

    return decides


def _tiers(pilot: Pilot, segments: int, draw: np.random.Generator, low: float) -> Any:
    table = dict(zip(pilot.languages, _own(pilot, segments, draw, low=low), strict=True))
    return disparity(
        table,
        low=pilot.members("low"),
        high=pilot.members("high"),
        families=pilot.families,
        rng=draw,
        resamples=RESAMPLES,
    )


def _unequal(pilot: Pilot, ratio: float) -> Decides:
    return lambda draw, segments: (
        three_way(_tiers(pilot, segments, draw, ratio).log_ratio, above=LOG_PARITY) is Verdict.SUPPORTED
    )


def _parity(pilot: Pilot) -> Decides:
    return lambda draw, segments: bool(_tiers(pilot, segments, draw, 1.0).parity.equivalent)


def _predicts(pilot: Pilot, r: float = 0.7) -> Decides:
    strata = [f"{pilot.families[tag]} {pilot.scripts[tag]}" for tag in pilot.languages]

    def decides(draw: np.random.Generator, segments: int) -> bool:
        means = _own(pilot, segments, draw).mean(axis=1)
        # what segments add to the spread of languages weakens what overlap can have to do with it
        parts = pilot.components
        own = parts.family + parts.language
        share = own / (own + parts.residual / segments) if own > 0 else 0.0
        x = r * np.sqrt(share) * (means - means.mean()) / means.std()
        x = x + np.sqrt(1 - r**2 * share) * draw.standard_normal(len(means))
        found = pearson(x, means, rng=draw, strata=strata, alternative="greater", resamples=100, permutations=199)
        return (
            found.estimate.value is not None
            and found.estimate.value > 0.5
            and found.p_value is not None
            and found.p_value < ALPHA
        )

    return decides
