"""What a run decides, each with the truth that its power is asked for, and a draw of it like the pilot.

The decision is the run's own: the same test, the same strata, the same caps on the text that takes part.

Shapes: P layers, L languages, S segments, K features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from evenbits.estimates import Verdict, three_way
from evenbits.statistics import (
    FEWEST_FOR_PASS,
    LOG_PARITY,
    Components,
    Interaction,
    Outcome,
    disparity,
    draw_damage,
    joint_flips,
    layer_language_interaction,
    mean_interval,
    pearson,
)
from evenbits.studies.h035.study import NEEDED as LANGUAGES_FOR_R
from evenbits.studies.h036.profiles import MIN_LANGUAGES as LANGUAGES_FOR_LAYERS
from evenbits.studies.h036.study import SWEEP_SEGMENTS
from evenbits.studies.h037.ablation import ABLATION_LANGUAGES, ABLATION_SEGMENTS, SHARES, Ablation, normal_energy_ratio
from evenbits.studies.h037.classes import HOLDS, ablation_stability
from evenbits.studies.h038.arrangements import fewest
from evenbits.studies.h038.discrimination import Discrimination, discriminate
from evenbits.studies.h038.features import EXPECTED, FeatureTable
from evenbits.studies.h038.groups import ResilienceGroups
from evenbits.studies.h039.study import MIN_LANGUAGES
from evenbits.studies.plan.pilot import Pilot

__all__ = ["Decision", "decisions"]

ALPHA = 0.05
RESAMPLES = 300
FEW = 100
"""Resamples where the interval decides nothing."""
TOLD_APART = 0.2
"""Relative SD of a language's shares of its damage over layers, around the profile that all have."""
CONCENTRATED = 4.0
"""Times what a normal distribution's tails carry: twice the cut-off, as 2 is the least that is called outliers."""
TELLING = 1.5
"""SDs that five of the features fall by for each SD of the damage beyond what is expected."""
ARRANGEMENTS = 399
"""Fewest that let the best of ten features have q < .05."""

Float64 = NDArray[np.float64]


class Decides(Protocol):
    """Draws a table with so many segments, and decides on it."""

    def __call__(self, draw: np.random.Generator, segments: int) -> bool: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """One that a run makes: `decides` on a draw in which `truth` holds; `lacking`: why it cannot be made at all.

    `over`: what it takes more of where the power is low; `a sample` is of fixed size. `most`: segments that take part,
    of however many there are; None: all.
    """

    name: str
    truth: str
    decides: Decides
    over: Literal["segments", "languages", "a sample"] = "languages"
    most: int | None = None
    lacking: str | None = None

    def taken(self, segments: int) -> int:
        """Return how many of so many segments take part."""
        return segments if self.most is None else min(segments, self.most)


def decisions(pilot: Pilot) -> tuple[Decision, ...]:
    """Return the gate's decisions and the criteria, in the order of their names, for languages like the pilot's."""
    found = (*_of_the_gate(pilot), *_of_hypotheses(pilot))
    if pilot.components.mean > 0:
        return found
    return tuple(replace(one, lacking=one.lacking or "the pilot shows no damage") for one in found)


def _of_the_gate(pilot: Pilot) -> Iterator[Decision]:
    yield Decision(
        name="gate: a language passes",
        truth="its damage is half of its limit",
        decides=_gate(pilot, 0.5),
        over="segments",
    )
    yield Decision(
        name="gate: a language fails",
        truth="its damage is twice its limit",
        decides=_gate(pilot, 2.0),
        over="segments",
    )
    yield Decision(
        name="gate: a regression fails",
        truth="one language loses a quarter more than in the baseline",
        decides=_worse(pilot),
        over="segments",
    )


def _of_hypotheses(pilot: Pilot) -> Iterator[Decision]:
    count = len(pilot.languages)
    yield Decision(
        name="H-035: overlap predicts damage",
        truth="r = .7 between overlap and damage",
        decides=_predicts(pilot),
        lacking=_fewer(count, LANGUAGES_FOR_R),
    )
    unknown = None if pilot.layers else "the report has no sweep over layers that says how many there are"
    yield Decision(
        name="H-036: layers of their own",
        truth=f"languages of a family differ by {TOLD_APART:.0%} in what layers take of their damage",
        decides=_layers(pilot),
        most=SWEEP_SEGMENTS,
        lacking=_fewer(count, LANGUAGES_FOR_LAYERS) or unknown,
    )
    yield Decision(
        name="H-037: sparse by ablation",
        truth=f"the largest {SHARES[0]:.2%} of the weights carry {CONCENTRATED:g} times a normal tail",
        decides=_sparse(pilot),
        over="a sample",
        most=ABLATION_SEGMENTS,
    )
    low, high = len(pilot.members("low")), len(pilot.members("high"))
    yield Decision(
        name="H-038: features discriminate",
        truth=f"five of {len(EXPECTED)} features fall {TELLING:g} SD per SD of unexpected damage",
        decides=_resilient(pilot),
        lacking=_smaller_tiers(low, high, fewest(len(EXPECTED))),
    )
    tiers = _smaller_tiers(low, high, MIN_LANGUAGES)
    yield Decision(
        name="H-039: disparity at k = 0",
        truth="low-resource languages lose twice as much",
        decides=_unequal(pilot, 2.0),
        lacking=tiers,
    )
    yield Decision(
        name="H-039: parity at k < 1 %",
        truth="low- and high-resource languages lose alike",
        decides=_parity(pilot),
        lacking=tiers,
    )


def _fewer(languages: int, needed: int) -> str | None:
    return f"{languages} languages, needed {needed}" if languages < needed else None


def _smaller_tiers(low: int, high: int, needed: int) -> str | None:
    if min(low, high) >= needed:
        return None
    return f"{low} low- and {high} high-resource languages, needed {needed} of each"


def _own(pilot: Pilot, segments: int, draw: np.random.Generator, *, low: float = 1.0) -> Float64:
    """Return a table like the pilot's, [L, S]; low-resource languages at `low` times the others."""
    mean = pilot.components.mean
    means = [mean * (low if pilot.tiers[tag] == "low" else 1.0) for tag in pilot.languages]
    families = [pilot.families[tag] for tag in pilot.languages]
    return draw_damage(pilot.components, families, segments, rng=draw, means=means)


def _true_share(parts: Components, segments: int) -> float:
    """Return the share of the variance of languages' means that is their own: what segments add, nothing goes with."""
    own = parts.family + parts.language
    return own / (own + parts.residual / segments) if own > 0 else 0.0


def _beyond(found: Outcome | Interaction, bound: float) -> bool:
    """Return whether the number lies above `bound` and its p-value below the level; one that is undefined does not."""
    value, p = found.estimate.value, found.p_value
    return value is not None and value > bound and p is not None and p < ALPHA


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
        share = _true_share(pilot.components, segments)
        x = r * np.sqrt(share) * (means - means.mean()) / means.std()
        x = x + np.sqrt(1 - r**2 * share) * draw.standard_normal(len(means))
        found = pearson(x, means, rng=draw, strata=strata, alternative="greater", resamples=FEW, permutations=199)
        return _beyond(found, 0.5)

    return decides


def _layers(pilot: Pilot) -> Decides:
    """Noise of single layers is independent, so that each has a part of the variance of all together.

    That of measured sweeps was .6 to 1.2 times as large (reference models, 4 and 8 layers).
    """
    parts, layers = pilot.components, pilot.layers or 0
    families = [pilot.families[tag] for tag in pilot.languages]

    def decides(draw: np.random.Generator, segments: int) -> bool:
        level_L = _own(pilot, segments, draw).mean(axis=1)
        shares_PL = np.exp(TOLD_APART * draw.standard_normal((layers, len(level_L))))
        shares_PL /= shares_PL.sum(axis=0)
        shared_S = np.sqrt(parts.segment) / parts.mean * draw.standard_normal(segments)
        noise_PLS = (
            np.sqrt(parts.residual / layers) / parts.mean * draw.standard_normal((layers, len(level_L), segments))
        )
        damage_PLS = level_L[:, None] * (shares_PL[:, :, None] * (1 + shared_S) + noise_PLS)
        found = layer_language_interaction(
            damage_PLS,
            rng=draw,
            families=families,
            scale="share",
            scheme="signs",
            resamples=FEW,
        )
        return _beyond(found, 0.0)

    return decides


def _sparse(pilot: Pilot) -> Decides:
    """The class by ablation holds in resamples; that by weights, which no text decides, is taken to be the same."""
    places = np.unique(np.linspace(0, len(pilot.languages) - 1, ABLATION_LANGUAGES).astype(int))
    languages = tuple(pilot.languages[place] for place in places)
    families = [pilot.families[tag] for tag in languages]

    def decides(draw: np.random.Generator, segments: int) -> bool:
        def table(times: float) -> Float64:
            return times * draw_damage(pilot.components, families, segments, rng=draw)

        ablations = {
            share: Ablation(
                share=share,
                languages=languages,
                top=table(1.0),
                random=table(1 / (CONCENTRATED * normal_energy_ratio(share))),
                floor_bits=0.0,
            )
            for share in SHARES
        }
        return (ablation_stability(ablations, "sparse", rng=draw) or 0.0) >= HOLDS

    return decides


def _resilient(pilot: Pilot) -> Decides:
    """Resource level is the tier."""
    tiers = tuple(pilot.tiers[tag] or "between" for tag in pilot.languages)
    levels = np.array([{"low": -1.0, "high": 1.0}.get(tier, 0.0) for tier in tiers])
    design = np.column_stack([np.ones(len(levels)), levels])

    def decides(draw: np.random.Generator, segments: int) -> bool:
        damage_L = np.log(_own(pilot, segments, draw).mean(axis=1))
        fitted, *_ = np.linalg.lstsq(design, damage_L, rcond=None)
        residual = damage_L - design @ fitted
        share = _true_share(pilot.components, segments)
        true = np.sqrt(share) * residual / residual.std() + np.sqrt(1 - share) * draw.standard_normal(len(residual))
        columns_LK = draw.standard_normal((len(residual), len(EXPECTED)))
        columns_LK[:, :5] -= TELLING * true[:, None]
        columns_LK *= np.array(list(EXPECTED.values()), dtype=np.float64)
        groups = ResilienceGroups(
            spec=pilot.spec,
            metric="excess_bits",
            languages=pilot.languages,
            tier=tiers,
            resource_name="tier",
            design=design,
            residual=residual,
            coefficients={},
            left_out={},
        )
        features = FeatureTable(
            values={
                name: dict(zip(pilot.languages, column.tolist(), strict=True))
                for name, column in zip(EXPECTED, columns_LK.T, strict=True)
            }
        )
        found = discriminate(groups, features, rng=draw, arrangements=ARRANGEMENTS, resamples=FEW)
        return isinstance(found, Discrimination) and found.discriminates

    return decides
