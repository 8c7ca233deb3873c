"""Prediction and robustness of H-039: change with k, random retention, and the same bits spent otherwise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evenbits.estimates import Estimate, Finding, Verdict
from evenbits.statistics import disparity_change, group_contrast, language_mean
from evenbits.studies.families import without_a_family
from evenbits.studies.h039.parity import curves_of
from evenbits.studies.h039.study import RetentionStudy, brief, too_few

__all__ = ["at_equal_bits", "falling", "random_control", "saved_bits"]

Float64 = NDArray[np.float64]


def falling(study: RetentionStudy, *, rng: np.random.Generator) -> Finding:
    """The programme's prediction, disparity falls as k grows: low-resource languages gain more than high-resource ones.

    One number per language, its change from k = 0 to the largest k: asinh of its excess bits, a logarithm for damage of
    several bits that tolerates none at all, so that a language whose damage vanishes, the success, stays in. The
    estimate is the mean change of low- minus that of high-resource languages, drawn by family; below zero, disparity
    falls. A trend test over k would take a smooth curve for evidence: kept sets are nested.
    """
    few = too_few(study)
    if few is not None:
        return few
    percents = list(study.kept)
    ends = [study.table.excess_bits(study.kept[k]) for k in (percents[0], percents[-1])]
    damage = {
        tag: np.stack([end[place] for end in ends])
        for place, tag in enumerate(study.table.languages)
        if tag in study.tier
    }

    def change(means_BL2: Float64) -> Float64:
        return np.asarray(np.arcsinh(means_BL2[:, :, 1]) - np.arcsinh(means_BL2[:, :, 0]))

    estimate = group_contrast(
        damage,
        change,
        low=study.low,
        high=study.high,
        rng=rng,
        families=study.families,
        what=f"change of asinh(bits) from k = 0 to {percents[-1]} %, low minus high",
        confidence=study.confidence,
    )
    changes = {tag: float(change(table.mean(axis=1)[None, None])[0, 0]) for tag, table in damage.items()}
    gone = [tag for tag, table in damage.items() if table[1].mean() <= 0 < table[0].mean()]
    return Finding(
        estimate=estimate,
        because=f"Change over {len(study.low)} low- and {len(study.high)} high-resource languages, all kept in. "
        + (f"Without damage at {percents[-1]} %: {', '.join(gone)}. " if gone else "")
        + without_a_family(changes, low=study.low, high=study.high, families=study.families),
        summary=f"change with k, low against high: {brief(estimate)} on the asinh scale",
        data={"percents": [float(k) for k in percents], "changes": changes},
    )


def saved_bits(
    study: RetentionStudy,
    worse: str,
    better: str,
    metric: str = "excess_bits",
    *,
    rng: np.random.Generator,
    languages: Sequence[str] | None = None,
) -> Estimate:
    """Return what `better` saves against `worse`: mean over languages, drawn by family, on a degradation metric."""
    first, second = (study.table.degradation(spec)[metric] for spec in (worse, better))
    places = {tag: study.table.languages.index(tag) for tag in languages or study.table.languages}
    return language_mean(
        {tag: first[place] - second[place] for tag, place in places.items()},
        rng=rng,
        families=study.families,
        what="mean saving over languages",
        confidence=study.confidence,
    )


def random_control(study: RetentionStudy, *, rng: np.random.Generator) -> Finding:
    """Whether the largest weights recover more damage than as many random ones, at the largest k measured for both.

    The estimate is the mean over languages of the damage that the random choice leaves and the largest do not, in bits
    per segment.
    """
    percent = max(study.random)
    largest, random = study.kept[percent], study.random[percent]
    saved = {name: saved_bits(study, random, largest, name, rng=rng) for name in study.table.degradation(random)}
    base = float(study.table.excess_bits(study.base).mean())
    return Finding(
        estimate=saved["excess_bits"],
        also=saved,
        summary=f"k {percent} %: largest leave {_left(study, largest, base)} of the damage, "
        f"random {_left(study, random, base)}",
        data={
            "rows": [
                {
                    "percent": float(k),
                    "largest": float(study.table.excess_bits(study.kept[k]).mean()),
                    "random": float(study.table.excess_bits(spec).mean()),
                }
                for k, spec in study.random.items()
            ]
        },
    )


def _left(study: RetentionStudy, spec: str, base: float) -> str:
    return "n/a" if base <= 0 else f"{float(study.table.excess_bits(spec).mean()) / base:.0%}"


def at_equal_bits(
    study: RetentionStudy, *, comparator: str, matched: str, what: str, rng: np.random.Generator
) -> Finding:
    """Return how the disparity that retention leaves compares with that of a comparator (`what`) of the same cost.

    The estimate is the log disparity ratio under `matched` minus that under `comparator`, paired draws: negative where
    retention does better.
    """
    curves = curves_of(study, [comparator, matched], rng=rng)
    changes = {
        name: disparity_change(before, after, confidence=study.confidence) for name, (before, after) in curves.items()
    }
    estimate = changes["excess_bits"]
    if estimate.value is None:
        return Finding(estimate=estimate, verdict=Verdict.NOT_APPLICABLE, because=f"Undefined: {estimate.reason}.")
    columns = study.table.columns
    mean = {spec: float(study.table.excess_bits(spec).mean()) for spec in (comparator, matched)}
    return Finding(
        estimate=estimate,
        because=" ".join(
            f"{spec} at {columns[spec].bits_per_weight:.3f} bits per weight leaves {left:.1f} bits per segment."
            for spec, left in mean.items()
        )
        + " Low- minus high-resource languages, retention minus the other: "
        + study.without_a_family(study.table.excess_bits(matched) - study.table.excess_bits(comparator)),
        also={name: change for name, change in changes.items() if change.value is not None},
        summary=f"equal bits: log disparity {brief(estimate)} against {what}",
        data={"comparator": comparator, "matched": matched, "mean_excess_bits": mean},
    )
