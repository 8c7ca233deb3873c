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

__all__ = ["along_all_languages", "left_over"]

WHAT = "partial Pearson r of ln damage and feature"


def along_all_languages(study: ResilienceStudy, *, rng: np.random.Generator) -> Finding:
    """Whether damage beyond expectation correlates with some feature over all languages, q < .05.

    The estimate is |partial r| of ln damage with the decisive feature given resource level and likelihood, the feature
    chosen as in the search over groups; p is its q. Residuals are exchanged within family x script (Freedman & Lane
    1983). A negative r is what redundancy predicts of a feature whose expected sign is positive.
    """
    groups = study.groups.primary
    if isinstance(groups, Refusal):
        return Finding(
            estimate=Estimate.undefined(groups.lacking, n=groups.n, method=WHAT), verdict=groups.verdict,
            because=groups.because, summary=groups.lacking,
        )  # fmt: skip
    usable = study.features.over(groups.languages)
    orders = rearrangements(len(groups.languages), rng=rng, strata=groups.strata, permutations=ARRANGEMENTS)
    if orders is None or not usable.names:
        lacking = "no feature differs between languages" if orders else "no two languages can be exchanged"
        return Finding(
            estimate=Estimate.undefined(lacking, n=len(groups.languages), method=WHAT),
            verdict=Verdict.NOT_APPLICABLE if orders else Verdict.UNDERPOWERED, because=f"{lacking}.", summary=lacking,
        )  # fmt: skip
    left_NK = left_over(usable, groups)
    observed_K = _correlations(left_NK, groups.residual[None])[0]
    moved = groups.residual[orders.rows]
    null_BK = _correlations(left_NK, moved - moved @ _hat(groups.design))
    p = {
        name: permutation_p(float(observed_K[k]), null_BK[:, k], exact=orders.exact, centred=False)
        for k, name in enumerate(usable.names)
    }
    q = {name: 1.0 if value is None else value for name, value in benjamini_hochberg(p).items()}
    r = dict(zip(usable.names, observed_K.tolist(), strict=True))
    best = min(usable.names, key=lambda name: (q[name] >= ALPHA, -abs(r[name]) if q[name] < ALPHA else p[name]))
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


def _finding(groups: ResilienceGroups, usable: Usable, best: str, *, q: float, rows: list[dict[str, Any]], method: str,
             rng: np.random.Generator) -> Finding:  # fmt: skip
    column = usable.table[:, usable.names.index(best)]
    target = groups.design @ np.array(list(groups.coefficients.values())) + groups.residual
    covariates = dict(zip(list(groups.coefficients)[1:], groups.design.T[1:], strict=True))
    found = partial_correlation(column, target, covariates, rng=rng, permutations=1).estimate
    value = found.value or 0.0
    low, high = (found.low, found.high) if value >= 0 else (found.high, found.low)
    sign = 1.0 if value >= 0 else -1.0
    size = Estimate(
        value=None if found.value is None else abs(value), low=None if low is None else sign * low,
        high=None if high is None else sign * high, n=found.n, method=f"|{found.method}|", reason=found.reason,
    )  # fmt: skip
    predicted = "as" if value * -EXPECTED[best] > 0 else "against what is"
    against = "" if q < ALPHA else f", needed below {ALPHA:g}"
    return Finding(
        estimate=size,
        p_value=q,
        verdict=None if q < ALPHA else Verdict.NOT_SUPPORTED,
        because=f"{best}: partial r {value:+.2f}, {predicted} predicted, q {q:.3g}{against} ({method}).",
        summary=f"{best} partial r {value:+.2f}, q {q:.2g}, over {len(groups.languages)} languages",
        data={"features": rows},
    )
