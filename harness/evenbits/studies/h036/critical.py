"""Critical layers: where each language writes most, and whether those are the layers with outlier weights.

Raw norms follow depth, so every language would pick the same layers by them. Magnitude is what attention and MLP of a
layer write relative to the stream they are added to; raw norms are reported beside it.

Shapes: P layers, L languages.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evenbits.estimates import Estimate, Finding, Verdict
from evenbits.statistics import Outcome, cliffs_delta
from evenbits.studies.families import without_a_family
from evenbits.studies.h036.profiles import ALPHA
from evenbits.text.languages import describe, families_of

if TYPE_CHECKING:
    from evenbits.observe.activations.statistics import ActivationStatistics

__all__ = ["MIN_TIER", "CriticalLayers", "critical_layers", "overlap_with_outliers", "top_layers"]

Float64 = NDArray[np.float64]

TOP_SHARE = 0.2
MIN_TIER = 5
"""Languages per tier below which low and high cannot be compared."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CriticalLayers:
    """Writes of one language by layer [P]: `write` relative to the stream, `raw` the norms; `layers`: its top 20 %."""

    language: str
    write: Float64
    raw: Float64
    layers: tuple[int, ...]


def critical_layers(statistics: Mapping[str, ActivationStatistics]) -> tuple[CriticalLayers, ...]:
    """Return the critical layers of each language: relative writes of attention and MLP, added.

    `ModelError` where these are not all that a layer adds to the stream.
    """
    found = []
    for tag, one in statistics.items():
        write, raw = one.writes()
        found.append(CriticalLayers(language=tag, write=write, raw=raw, layers=top_layers(write)))
    return tuple(found)


def top_layers(values: Float64) -> tuple[int, ...]:
    """Return the layers with the largest 20 % of `values`, at least one, in order of depth; ties go to the earlier."""
    count = max(1, round(TOP_SHARE * len(values)))
    return tuple(sorted(int(place) for place in np.argsort(-values, kind="stable")[:count]))


def overlap_with_outliers(
    critical: tuple[CriticalLayers, ...],
    kurtosis: Mapping[int, float],
    *,
    tier: Mapping[str, str],
    rng: np.random.Generator,
) -> Finding:
    """Whether critical layers of low-resource languages overlap high-kurtosis layers more than those of high-resource.

    Overlap of a language: share of its critical layers among the 20 % of layers of largest weight kurtosis. The
    estimate is Cliff's delta of low against high; p permutes languages within family x script, one-sided. `also` holds
    the same for the share of all writing that happens in those layers, which no cut-off decides.
    """
    low = [one for one in critical if tier.get(one.language) == "low"]
    high = [one for one in critical if tier.get(one.language) == "high"]
    data = _tables(critical, kurtosis)
    if min(len(low), len(high)) < MIN_TIER:
        lacking = f"{len(low)} low-resource and {len(high)} high-resource languages, needed {MIN_TIER} of each"
        return Finding(
            estimate=Estimate.undefined(lacking, n=len(low) + len(high), method="Cliff's delta of overlap"),
            verdict=Verdict.UNDERPOWERED,
            because=f"{lacking}. Add languages with --languages.",
            summary=lacking,
            data=data,
        )
    if not kurtosis:
        reason = "no tensor has spread, so no layer has a kurtosis"
        return Finding(
            estimate=Estimate.undefined(reason), verdict=Verdict.NOT_APPLICABLE, because=f"{reason}.", data=data
        )
    outliers = _outlier_layers(critical, kurtosis)
    strata = [_stratum(one.language) for one in (*low, *high)]
    by_set = _compared(low, high, lambda one: _overlap(one, outliers), strata, rng)
    by_write = _compared(low, high, lambda one: float(one.write[list(outliers)].sum() / one.write.sum()), strata, rng)
    places = ", ".join(str(layer) for layer in outliers)
    tags = {side: [one.language for one in group] for side, group in (("low", low), ("high", high))}
    family = without_a_family(
        {one.language: _overlap(one, outliers) for one in (*low, *high)},
        low=tags["low"],
        high=tags["high"],
        families=families_of((*tags["low"], *tags["high"])),
    )
    means = [float(np.mean([_overlap(one, outliers) for one in group])) for group in (low, high)]
    sentence = (
        f"High-kurtosis layers: {places}. Of critical layers {means[0]:.0%} are among them in low-resource languages, "
        f"{means[1]:.0%} in high-resource ones."
    )
    verdict, shown, why = _verdict(by_set, _least_p(low, high))
    return Finding(
        estimate=by_set.estimate,
        p_value=by_set.p_value,
        verdict=verdict,
        shown=shown,
        because=" ".join(part for part in (sentence, family, why) if part),
        summary=f"overlap with outlier layers: low-resource {means[0]:.0%}, high-resource {means[1]:.0%}",
        also={"write_share": by_write.estimate},
        data=data | {"write_share": by_write.to_json(), "outlier_layers": list(outliers)},
    )


def _least_p(low: list[CriticalLayers], high: list[CriticalLayers]) -> float:
    """Return the least p there can be: tiers are exchanged within family x script, in so many ways."""
    strata = [Counter(_stratum(one.language) for one in group) for group in (low, high)]
    return 1 / math.prod(math.comb(count + strata[1][name], count) for name, count in strata[0].items())


def _verdict(found: Outcome, least_p: float) -> tuple[Verdict | None, bool, str]:
    """Return the verdict that number and interval cannot give, whether the test shows the claim, and a sentence."""
    if found.estimate.value is None:
        return Verdict.NOT_APPLICABLE, False, f"There is no difference to test: {found.estimate.reason}."
    if least_p >= ALPHA:
        return (
            Verdict.UNDERPOWERED,
            False,
            (
                f"Low- and high-resource languages of one family and script are so few that p cannot fall below "
                f"{least_p:.2g}; needed is less than {ALPHA:g}. Add related languages of the other tier."
            ),
        )
    if found.p_value is None:
        return Verdict.UNDERPOWERED, False, f"No test is possible ({found.p_method})."
    p = f"p {found.p_value:.3g}"
    if found.p_value >= ALPHA:
        return None, False, f"{p}, needed below {ALPHA:g}; the least possible is {least_p:.2g} ({found.p_method})."
    return None, True, f"{p} ({found.p_method})."


def _compared(
    low: list[CriticalLayers],
    high: list[CriticalLayers],
    value: Any,
    strata: list[str],
    rng: np.random.Generator,
) -> Outcome:
    groups = [[value(one) for one in group] for group in (low, high)]
    families = list(families_of(one.language for one in (*low, *high)).values())
    return cliffs_delta(groups[0], groups[1], rng=rng, strata=strata, clusters=families, alternative="greater")


def _overlap(one: CriticalLayers, outliers: tuple[int, ...]) -> float:
    return len(set(one.layers) & set(outliers)) / len(one.layers)


def _outlier_layers(critical: tuple[CriticalLayers, ...], kurtosis: Mapping[int, float]) -> tuple[int, ...]:
    # A layer whose tensors have no spread has no outliers either: it comes last.
    lowest = min(kurtosis.values()) - 1
    return top_layers(np.array([kurtosis.get(layer, lowest) for layer in range(len(critical[0].write))]))


def _stratum(tag: str) -> str:
    language = describe(tag)
    return f"{language.family or tag} {language.script}"


def _tables(critical: tuple[CriticalLayers, ...], kurtosis: Mapping[int, float]) -> dict[str, Any]:
    return {
        "layer_kurtosis": {str(layer): value for layer, value in sorted(kurtosis.items())},
        "critical": [
            {
                "language": one.language,
                "layers": list(one.layers),
                "layers_by_raw_norm": list(top_layers(one.raw)),
                "write": one.write.tolist(),
                "raw": one.raw.tolist(),
            }
            for one in critical
        ],
    }
