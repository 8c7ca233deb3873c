"""What may tell resilient from vulnerable languages: features of each language's representations, on probe text.

The sign that the hypothesis predicts for each is fixed here, before anything is measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evenbits.observe.activations.features import aligned_similarity, language_features
from evenbits.statistics.samples import spread_of

if TYPE_CHECKING:
    from evenbits.observe.activations.statistics import ActivationStatistics

__all__ = ["EXPECTED", "FeatureTable", "Usable", "measured_features", "similarity_to_others"]

Float64 = NDArray[np.float64]

EXPECTED: Mapping[str, int] = MappingProxyType(
    {
        "participation_early": +1,
        "participation_middle": +1,
        "participation_late": +1,
        "channel_entropy": +1,
        "layer_usage_entropy": +1,
        "head_utilisation_entropy": +1,
        "half_prediction": +1,
        "channel_drop_increase": -1,
        "head_drop_increase": -1,
        "cross_language_similarity": +1,
    }
)
"""Feature -> +1 where the hypothesis expects more of it in resilient languages, -1 where less: more directions, more
even use of channels, layers and heads, one half of the channels predicting the other, less lost when parts are dropped,
states that other languages share."""

FROM_ACTIVATIONS = tuple(EXPECTED)[:7]


@dataclass(frozen=True, kw_only=True, slots=True)
class Usable:
    """Features known and not constant over some languages, `table` [N, K], and why the others are left out."""

    names: tuple[str, ...]
    table: Float64
    left_out: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureTable:
    """Value of every feature by language; None where it is undefined."""

    values: Mapping[str, Mapping[str, float | None]]

    def over(self, languages: Sequence[str]) -> Usable:
        """Return the features that can say something about `languages`, rows in that order."""
        left_out, columns = {}, {}
        for name, by_language in self.values.items():
            column = [by_language.get(tag) for tag in languages]
            known = np.array([value for value in column if value is not None], dtype=np.float64)
            if not len(known):
                left_out[name] = "undefined in this model"
            elif len(known) < len(column):
                left_out[name] = "undefined in " + ", ".join(
                    tag for tag, value in zip(languages, column, strict=True) if value is None
                )
            elif spread_of(known) == 0:
                left_out[name] = "constant"
            else:
                columns[name] = known
        table = np.column_stack(list(columns.values())) if columns else np.empty((len(languages), 0))
        return Usable(names=tuple(columns), table=table, left_out=left_out)

    def to_json(self) -> dict[str, Any]:
        return {name: dict(by_language) for name, by_language in self.values.items()}


def measured_features(
    statistics: Mapping[str, ActivationStatistics], increase: Mapping[str, Mapping[str, float | None]]
) -> FeatureTable:
    """Return every feature of `EXPECTED`; `increase`: loss increase by kind (`channel`, `head`) and language."""
    plain = {tag: language_features(one) for tag, one in statistics.items()}
    values: dict[str, Mapping[str, float | None]] = {
        name: {tag: found[name] for tag, found in plain.items()} for name in FROM_ACTIVATIONS
    }
    values |= {f"{kind}_drop_increase": dict(by_language) for kind, by_language in increase.items()}
    values["cross_language_similarity"] = similarity_to_others(statistics)
    return FeatureTable(values={name: values[name] for name in EXPECTED})


def similarity_to_others(statistics: Mapping[str, ActivationStatistics]) -> dict[str, float | None]:
    """Return the mean over all other languages, and over the layers kept, of `aligned_similarity` of segment states.

    None without another language or with fewer than two segments.
    """
    tags = list(statistics)
    sums = dict.fromkeys(tags, 0.0)
    segments = min((len(one.tokens) for one in statistics.values()), default=0)
    if len(tags) < 2 or segments < 2:
        return dict.fromkeys(tags)
    for place, first in enumerate(tags):
        for second in tags[place + 1 :]:
            pairs = zip(statistics[first].segment_state, statistics[second].segment_state, strict=True)
            similarity = float(np.mean([aligned_similarity(a, b) for a, b in pairs]))
            sums[first] += similarity
            sums[second] += similarity
    return {tag: total / (len(tags) - 1) for tag, total in sums.items()}
