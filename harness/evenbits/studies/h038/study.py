"""The study of H-038: groups under every degradation metric, and the features of their languages.

Made in two steps that cannot be turned round: `group_languages` sees damage and resource level, and no feature;
`ResilienceStudy` joins what it settled with the features measured afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from evenbits.cells.damage import Damage
from evenbits.studies.h038.features import FeatureTable
from evenbits.studies.h038.groups import METRICS, Refusal, ResilienceGroups, divide

__all__ = ["ResilienceStudy", "SettledGroups", "group_languages"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SettledGroups:
    """Groups of one model and spec, or the reason there are none: by metric, and by exposure alone.

    `without_likelihood`: residuals of excess bits on resource level only.
    """

    by_metric: Mapping[str, ResilienceGroups | Refusal]
    without_likelihood: ResilienceGroups | Refusal

    @property
    def primary(self) -> ResilienceGroups | Refusal:
        """Groups by excess bits, on which verdicts stand."""
        return self.by_metric["excess_bits"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ResilienceStudy:
    """Groups and features of the languages of one model and spec."""

    groups: SettledGroups
    features: FeatureTable


def group_languages(
    table: Damage, spec: str, *, tier: Mapping[str, str], exposure: Mapping[str, int] | None
) -> SettledGroups:
    """Settle the groups. `tier`: `low` or `high`; `exposure`: training bytes, None where only the class is known."""
    return SettledGroups(
        by_metric={name: divide(table, spec, tier=tier, exposure=exposure, metric=name) for name in METRICS},
        without_likelihood=divide(table, spec, tier=tier, exposure=exposure, likelihood=False),
    )
