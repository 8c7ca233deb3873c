"""The study of H-039: one model and grid at several k, the same k kept at random, and a comparator at equal bits.

Shapes: L languages, S segments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from evenbits.cells import Subject, measure_damage
from evenbits.cells.damage import Damage
from evenbits.estimates import Estimate, Finding, Verdict
from evenbits.records import Corpus
from evenbits.statistics.samples import FloatArray
from evenbits.studies.families import without_a_family
from evenbits.studies.sequential import Until
from evenbits.text.languages import families_of
from evenbits.variants.quantization.spec import Criterion, QuantSpec
from evenbits.variants.rounding import bits_per_weight

__all__ = [
    "BELOW",
    "CRITERION",
    "MIN_LANGUAGES",
    "PERCENTS",
    "RetentionStudy",
    "at_bits_of",
    "brief",
    "retention_grid",
    "retention_specs",
    "study_retention",
    "too_few",
    "with_specs",
]

PERCENTS: tuple[Decimal, ...] = tuple(Decimal(text) for text in ("0", "0.01", "0.03", "0.1", "0.3", "1"))
"""k in percent: the programme's 0, .01, .1 and 1, and half decades between them."""

CONTROL_PERCENTS: tuple[Decimal, ...] = (Decimal(1),)
"""k at which the same number of random weights is kept."""

CRITERION: Criterion = "magnitude"
"""The programme's outliers are the largest magnitudes; other criteria are comparators (`comparators.py`)."""

BELOW = Decimal(1)
"""The hypothesis speaks of k < 1 %."""

MIN_LANGUAGES = 5
"""Languages per tier below which a disparity is underpowered: a bootstrap over fewer understates by a fifth or more."""

MOST_MATCHED = 5
"""Percent of weights kept, at most, to match a comparator's bits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RetentionStudy:
    """Damage of one model and grid over k.

    `kept`: k -> spec, k ascending from 0. `random`: k -> spec keeping as many random weights.
    `tier`: `low` or `high` by language, others left out.
    `places`: the segments it stands on, None where these are all of the text; `confidence`: of every interval, and 1
    minus it the level of every test, which a look asks for that may have been followed by others.
    """

    table: Damage
    kept: Mapping[Decimal, str]
    random: Mapping[Decimal, str]
    tier: Mapping[str, str]
    places: tuple[int, ...] | None = None
    confidence: float = 0.95

    @property
    def alpha(self) -> float:
        return round(1 - self.confidence, 12)

    @property
    def low(self) -> tuple[str, ...]:
        return tuple(tag for tag in self.table.languages if self.tier.get(tag) == "low")

    @property
    def high(self) -> tuple[str, ...]:
        return tuple(tag for tag in self.table.languages if self.tier.get(tag) == "high")

    @property
    def families(self) -> dict[str, str]:
        return families_of(self.table.languages)

    @property
    def base(self) -> str:
        return self.kept[Decimal(0)]

    def without_a_family(self, bits_LS: FloatArray, *, low_alone: bool = False) -> str:
        """Return a sentence on low minus high (`low_alone`: on low) of the means over segments, by family left out."""
        means = dict(zip(self.table.languages, bits_LS.mean(axis=1).tolist(), strict=True))
        high = () if low_alone else self.high
        return without_a_family(means, low=self.low, high=high, families=self.families, unit=" bits")


def retention_specs(
    base: QuantSpec, *, criterion: Criterion = CRITERION, percents: Sequence[Decimal] = PERCENTS
) -> dict[Decimal, QuantSpec]:
    """Return `base` at each k, keeping the largest by `criterion`."""
    return {percent: base.with_keep(percent, criterion) for percent in percents}


def study_retention(
    model: Subject,
    base: QuantSpec,
    corpus: Corpus,
    *,
    tier: Mapping[str, str],
    until: Until[RetentionStudy] | None = None,
) -> RetentionStudy:
    """Measure `base` (its retention is ignored) at every k, and its random control.

    `until`: on as many segments of `corpus` as it takes; all of them where it is None.
    """
    kept, random = retention_specs(base.base), _random(base)
    grid = retention_grid(base)

    def study(table: Damage, places: Sequence[int] | None = None, confidence: float = 0.95) -> RetentionStudy:
        return RetentionStudy(
            table=table,
            kept={percent: str(spec) for percent, spec in kept.items()},
            random={percent: str(spec) for percent, spec in random.items()},
            tier=dict(tier),
            places=None if places is None else tuple(places),
            confidence=confidence,
        )

    if until is None:
        return study(measure_damage(model, grid, corpus))
    return until.study(len(corpus), lambda places: measure_damage(model, grid, corpus, indices=places), study)


def retention_grid(base: QuantSpec) -> tuple[QuantSpec, ...]:
    """Return every spec that the study measures: `base` at each k, and its random controls."""
    return (*retention_specs(base.base).values(), *_random(base).values())


def _random(base: QuantSpec) -> dict[Decimal, QuantSpec]:
    return retention_specs(base.base, criterion="random", percents=CONTROL_PERCENTS)


def with_specs(model: Subject, study: RetentionStudy, specs: Sequence[QuantSpec], corpus: Corpus) -> RetentionStudy:
    """Measure more specs on the text of `study`, and return it with them in its table."""
    more = measure_damage(model, specs, corpus, indices=study.places)
    return replace(study, table=replace(study.table, columns={**study.table.columns, **more.columns}))


def at_bits_of(model: Subject, grid: QuantSpec, comparator: QuantSpec) -> QuantSpec | None:
    """Return `grid` with so many weights kept, largest first, that it costs the bits of `comparator`.

    None where that would be none, or more than a few percent: such a matrix is no longer a sparse remainder.
    """
    base = bits_per_weight(grid, model)
    one_percent = bits_per_weight(grid.with_keep(1, CRITERION), model) - base
    percent = Decimal(str((bits_per_weight(comparator, model) - base) / one_percent)).quantize(Decimal("0.001"))
    return grid.with_keep(percent, CRITERION) if 0 < percent <= MOST_MATCHED else None


def too_few(study: RetentionStudy) -> Finding | None:
    """Return the finding of a study with too few languages in a tier to speak of disparity, else None."""
    low, high = len(study.low), len(study.high)
    if min(low, high) >= MIN_LANGUAGES:
        return None
    if low == high == 0:
        reason = "no language of this text is low- or high-resource for the model"
        return Finding(
            estimate=Estimate.undefined(reason, method="disparity ratio"),
            verdict=Verdict.NOT_APPLICABLE,
            because="All languages saw about as much training text, or their levels are unknown or in between: there "
            "is no disparity between levels to speak of.",
            summary=reason,
        )
    lacking = f"{low} low-resource and {high} high-resource languages, needed {MIN_LANGUAGES} of each"
    return Finding(
        estimate=Estimate.undefined(lacking, n=low + high, method="disparity ratio"),
        verdict=Verdict.UNDERPOWERED,
        because=f"{lacking}. Add languages with --languages or a corpus that has them.",
        summary=lacking,
    )


def brief(estimate: Estimate) -> str:
    """Return `1.41 [1.20, 1.62]`, as far as it is defined."""
    if estimate.value is None:
        return "undefined"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.2f}"
    return f"{estimate.value:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]"
