"""Prediction and robustness of H-039: the order in k, random retention, and the same bits spent on smaller groups."""

from __future__ import annotations

import numpy as np

from evenbits.estimates import Estimate, Finding, Verdict
from evenbits.statistics import disparity_change, mean_interval, page_trend
from evenbits.studies.h039.parity import curves_of
from evenbits.studies.h039.study import ALPHA, RetentionStudy, brief, too_few

__all__ = ["at_equal_bits", "equal_bits", "monotone", "random_control"]


def monotone(study: RetentionStudy, *, rng: np.random.Generator) -> Finding:
    """The programme's prediction: disparity falls monotonically in k (Page's trend test over low-resource languages).

    A language's disparity at k is the log of its damage over the mean damage of the high-resource languages; a low-
    resource language whose damage is not above 0 at some k has none, and is left out and counted.
    """
    few = too_few(study)
    if few is not None:
        return few
    means = np.stack([study.table.excess_bits(spec).mean(axis=1) for spec in study.kept.values()], axis=1)
    places = {tag: place for place, tag in enumerate(study.table.languages)}
    high = means[[places[tag] for tag in study.high]].mean(axis=0)
    low = means[[places[tag] for tag in study.low]]
    usable = np.asarray((low > 0).all(axis=1))
    if (high <= 0).any() or not usable.any():
        reason = "the high-resource mean, or every low-resource language, loses nothing at some k"
        return Finding(
            estimate=Estimate.undefined(reason, n=len(study.low)), verdict=Verdict.NOT_APPLICABLE,
            because=f"Disparity is undefined: {reason}.",
        )  # fmt: skip
    outcome = page_trend(np.log(low[usable] / high), rng=rng, direction="decreasing")
    left_out = [tag for tag, use in zip(study.low, usable.tolist(), strict=True) if not use]
    return Finding(
        estimate=outcome.estimate,
        p_value=outcome.p_value,
        verdict=_unless_significant(outcome.p_value),
        because=f"Page's trend test over {int(usable.sum())} low-resource languages and {len(study.kept)} values of k: "
        f"p = {outcome.p_value if outcome.p_value is None else round(outcome.p_value, 4)}."
        + (f" Left out, no damage at some k: {', '.join(left_out)}." if left_out else ""),
        summary=f"disparity against k: mean rank correlation {brief(outcome.estimate)}",
        data={"percents": [float(p) for p in study.kept], "left_out": left_out},
    )


def _unless_significant(p_value: float | None) -> Verdict | None:
    return None if p_value is not None and p_value < ALPHA else Verdict.NOT_SUPPORTED


def random_control(study: RetentionStudy, *, rng: np.random.Generator) -> Finding:
    """Whether the largest weights recover more damage than as many random ones, at the largest k measured for both.

    The estimate is the mean over languages of the damage that the random choice leaves and the largest do not, in bits
    per segment.
    """
    percent = max(study.random)
    largest, random = study.kept[percent], study.random[percent]
    difference = (study.table.excess_bits(random) - study.table.excess_bits(largest)).mean(axis=1)
    estimate = mean_interval(difference, rng=rng)
    base = float(study.table.excess_bits(study.base).mean())
    clear = estimate.low is not None and estimate.low > 0
    return Finding(
        estimate=estimate,
        verdict=None if clear else Verdict.NOT_SUPPORTED,
        because=None if clear else "The interval over languages does not exclude zero.",
        also=_on_metrics(study, random, largest, rng),
        summary=f"k {percent} %: largest leave {_left(study, largest, base)} of the damage, "
        f"random {_left(study, random, base)}",
        data={
            "rows": [
                {"percent": float(k), "largest": float(study.table.excess_bits(study.kept[k]).mean()),
                 "random": float(study.table.excess_bits(spec).mean())}
                for k, spec in study.random.items()
            ]
        },
    )  # fmt: skip


def _left(study: RetentionStudy, spec: str, base: float) -> str:
    return "n/a" if base <= 0 else f"{float(study.table.excess_bits(spec).mean()) / base:.0%}"


def _on_metrics(study: RetentionStudy, worse: str, better: str, rng: np.random.Generator) -> dict[str, Estimate]:
    first, second = study.table.degradation(worse), study.table.degradation(better)
    return {name: mean_interval((first[name] - second[name]).mean(axis=1), rng=rng) for name in first}


def equal_bits(study: RetentionStudy, *, rng: np.random.Generator) -> Finding:
    """Whether retention leaves less disparity than smaller groups that cost the same bits."""
    few = too_few(study)
    if few is not None:
        return few
    if study.rival is None or study.matched is None:
        reason = "no smaller group of this grid divides the model's layers"
        return Finding(estimate=Estimate.undefined(reason), verdict=Verdict.NOT_APPLICABLE, because=f"{reason}.")
    return at_equal_bits(study, rival=study.rival, matched=study.matched, what="smaller groups", rng=rng)


def at_equal_bits(study: RetentionStudy, *, rival: str, matched: str, what: str, rng: np.random.Generator) -> Finding:
    """Return how the disparity that retention leaves compares with that of a rival (`what`) of the same cost.

    The estimate is the log disparity ratio under `matched` minus that under `rival`, paired draws: negative where
    retention does better.
    """
    curves = curves_of(study, [rival, matched], rng=rng)
    changes = {name: disparity_change(before, after) for name, (before, after) in curves.items()}
    estimate = changes["excess_bits"]
    if estimate.value is None:
        return Finding(estimate=estimate, verdict=Verdict.NOT_APPLICABLE, because=f"Undefined: {estimate.reason}.")
    clear = estimate.high is not None and estimate.high < 0
    columns = study.table.columns
    mean = {spec: float(study.table.excess_bits(spec).mean()) for spec in (rival, matched)}
    return Finding(
        estimate=estimate,
        verdict=None if clear else Verdict.NOT_SUPPORTED,
        because=" ".join(
            f"{spec} at {columns[spec].bits_per_weight:.3f} bits per weight leaves {left:.1f} bits per segment."
            for spec, left in mean.items()
        ),
        also={name: change for name, change in changes.items() if change.value is not None},
        summary=f"equal bits: log disparity {brief(estimate)} against {what}",
        data={"rival": rival, "matched": matched, "mean_excess_bits": mean},
    )
