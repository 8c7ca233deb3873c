"""Over all languages: does what a language loses beyond expectation go with a feature, whatever group it is in?

Groups of a few languages need large effects to show any. The same question asked of every language, low, high and in
between, is a correlation of two things from which resource level and likelihood are taken out.

Shapes: B arrangements, K features, N languages, C covariates.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from evenbits.estimates import Estimate, Finding, Verdict
from evenbits.statistics import benjamini_hochberg, partial_correlation, permutation_p, rearrangements
from evenbits.studies.h038.arrangements import ALPHA, ARRANGEMENTS
from evenbits.studies.h038.features import EXPECTED, Usable
from evenbits.studies.h038.groups import Float64, Refusal, ResilienceGroups
from evenbits.studies.h038.study import ResilienceStudy
from evenbits.text.languages import families_of

__all__ = ["along_all_languages", "left_over"]

WHAT = "partial Pearson r of ln damage and feature"


def along_all_languages(study: ResilienceStudy, *, rng: np.random.Generator) -> Finding:
    """Whether damage beyond expectation correlates with some feature over all languages, q < .05.

    The estimate is the partial r of ln damage with the decisive feature given resource level and likelihood, turned so
    that it is above 0 where it goes as expected (more of what makes resilient, less damage); the feature is chosen as
    in the search over groups, p is its q, one-sided. Residuals are exchanged within family x script (Freedman & Lane
    1983); the interval draws families first.
    """
    groups = study.groups.primary
    if isinstance(groups, Refusal):
        return Finding(
            estimate=Estimate.undefined(groups.lacking, n=groups.n, method=WHAT),
            verdict=groups.verdict,
            because=groups.because,
            summary=groups.lacking,
        )
    usable = study.features.over(groups.languages)
    orders = rearrangements(len(groups.languages), rng=rng, strata=groups.strata, permutations=ARRANGEMENTS)
    if orders is None or not usable.names:
        lacking = "no feature differs between languages" if orders else "no two languages can be exchanged"
        return Finding(
            estimate=Estimate.undefined(lacking, n=len(groups.languages), method=WHAT),
            verdict=Verdict.NOT_APPLICABLE if orders else Verdict.UNDERPOWERED,
            because=f"{lacking}.",
            summary=lacking,
        )
    left_NK = left_over(usable, groups)
    observed_K = _correlations(left_NK, groups.residual[None])[0]
    moved = groups.residual[orders.rows]
    null_BK = _correlations(left_NK, moved - moved @ _hat(groups.design))
    p = {
        name: permutation_p(
            -EXPECTED[name] * float(observed_K[k]),
            -EXPECTED[name] * null_BK[:, k],
            exact=orders.exact,
            alternative="greater",
            centred=False,
        )
        for k, name in enumerate(usable.names)
    }
    q = {name: 1.0 if value is None else value for name, value in benjamini_hochberg(p).items()}
    r = dict(zip(usable.names, observed_K.tolist(), strict=True))
    best = min(
        usable.names, key=lambda name: (q[name] >= ALPHA, EXPECTED[name] * r[name] if q[name] < ALPHA else p[name])
    )
    rows = [
        {"feature": name, "partial_r": r[name], "p_value": p[name], "q": q[name], "expected": -EXPECTED[name]}
        for name in sorted(usable.names, key=lambda name: p[name])
    ]
    return _finding(groups, usable, best, q=q[best], rows=rows, method=f"residuals exchanged: {orders.method}", rng=rng)


def left_over(usable: Usable, groups: ResilienceGroups) -> Float64:
    """Return what the covariates of the groups do not explain of each feature, [N, K]; exactly 0 where that is all."""
    left_NK = usable.table - _hat(groups.design) @ usable.table
    # What the covariates explain completely leaves rounding errors, which must not be ranked.
    left_NK[:, left_NK.std(axis=0) <= 1e-9 * usable.table.std(axis=0)] = 0.0
    return left_NK


def _hat(design_NC: Float64) -> Float64:
    """Return the projection onto the columns of the design, [N, N]; symmetric."""
    return np.asarray(design_NC @ np.linalg.pinv(design_NC))


def _correlations(left_NK: Float64, residual_BN: Float64) -> Float64:
    """Return r of every residual with every feature, both of mean 0 already: [B, K]; 0 where nothing is left."""
    below_BK = np.linalg.norm(residual_BN, axis=1)[:, None] * np.linalg.norm(left_NK, axis=0)
    products = residual_BN @ left_NK
    return np.asarray(np.divide(products, below_BK, out=np.zeros_like(products), where=below_BK > 0))


def _finding(
    groups: ResilienceGroups,
    usable: Usable,
    best: str,
    *,
    q: float,
    rows: list[dict[str, Any]],
    method: str,
    rng: np.random.Generator,
) -> Finding:
    column = usable.table[:, usable.names.index(best)]
    target = groups.design @ np.array(list(groups.coefficients.values())) + groups.residual
    covariates = dict(zip(list(groups.coefficients)[1:], groups.design.T[1:], strict=True))
    families = list(families_of(groups.languages).values())
    found = partial_correlation(column, target, covariates, rng=rng, clusters=families, permutations=1).estimate
    value, sign = found.value or 0.0, -EXPECTED[best]
    low, high = (found.low, found.high) if sign > 0 else (found.high, found.low)
    size = Estimate(
        value=None if found.value is None else sign * value,
        low=None if low is None else sign * low,
        high=None if high is None else sign * high,
        n=found.n,
        method=f"{found.method}, sign as expected",
        reason=found.reason,
    )
    predicted = "as" if value * sign > 0 else "against what is"
    against = "" if q < ALPHA else f", needed below {ALPHA:g}"
    return Finding(
        estimate=size,
        p_value=q,
        shown=q < ALPHA,
        because=f"{best}: partial r {value:+.2f}, {predicted} predicted, q {q:.3g}{against} ({method}).",
        summary=f"{best} partial r {value:+.2f}, q {q:.2g}, over {len(groups.languages)} languages",
        data={"features": rows},
    )
