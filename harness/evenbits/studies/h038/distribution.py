"""The programme's prediction: resilient languages use more distributed representations, all features taken together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evenbits.estimates import Estimate, Finding, Verdict
from evenbits.statistics import cliffs_delta
from evenbits.studies.h038.arrangements import ALPHA, arrange, standardising
from evenbits.studies.h038.discrimination import Discrimination, deltas, discriminate
from evenbits.studies.h038.features import EXPECTED, FeatureTable
from evenbits.studies.h038.groups import Float64, Refusal, ResilienceGroups
from evenbits.studies.h038.sentences import WHAT, refused
from evenbits.studies.h038.study import ResilienceStudy

__all__ = ["more_distributed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Compared:
    """Cliff's delta of the index between the groups, its one-sided p, and the search whose features it takes."""

    delta: Estimate
    p: float
    method: str
    index: Float64
    search: Discrimination


def more_distributed(study: ResilienceStudy, *, rng: np.random.Generator) -> Finding:
    """Whether resilient languages score higher on all features together, each with the sign fixed in advance.

    A language's index is the mean over features of sign x standardised value. The estimate is Cliff's delta of the
    index; p is one-sided, by the same exchange of residuals as the search. `also`: with groups by other metrics.
    """
    found = {name: _compared(groups, study.features, rng) for name, groups in study.groups.by_metric.items()}
    own, groups = found["excess_bits"], study.groups.primary
    if isinstance(groups, Refusal):
        return refused(groups)
    if isinstance(own, Refusal):
        return refused(own, groups)
    others = {name: one for name, one in found.items() if name != "excess_bits"}
    by_feature = {row["feature"]: row["delta"]["value"] or 0.0 for row in own.search.rows}
    agreeing = [name for name, value in by_feature.items() if value * EXPECTED[name] > 0]
    against = "" if own.p < ALPHA else f", needed below {ALPHA:g}"
    count = f"{len(agreeing)} of {len(by_feature)} features"
    return Finding(
        estimate=own.delta,
        p_value=own.p,
        shown=own.p < ALPHA,
        because=f"p {own.p:.3g}{against} ({own.method}, one-sided). {count} differ in the predicted direction.",
        summary=f"index of distribution; {count} as predicted",
        also={
            name: Estimate.undefined(one.lacking, n=one.n, method=WHAT) if isinstance(one, Refusal) else one.delta
            for name, one in others.items()
        },
        sensitive=any(_differ(one, own) for one in others.values() if isinstance(one, _Compared)),
        data={
            "index": dict(zip(groups.languages, own.index.tolist(), strict=True)),
            "as_predicted": agreeing,
            "expected_signs": {name: EXPECTED[name] for name in by_feature},
            "p_by_metric": {name: one.p for name, one in found.items() if isinstance(one, _Compared)},
        },
    )


def _differ(one: _Compared, other: _Compared) -> bool:
    """Return whether two metrics disagree in the sign of the effect or in what its p says."""
    opposite = (one.delta.value or 0.0) * (other.delta.value or 0.0) < 0
    return opposite or (one.p < ALPHA) != (other.p < ALPHA)


def _compared(
    groups: ResilienceGroups | Refusal, features: FeatureTable, rng: np.random.Generator
) -> _Compared | Refusal:
    if isinstance(groups, Refusal):
        return groups
    search = discriminate(groups, features, rng=rng)
    if isinstance(search, Refusal):
        return search
    usable = features.over(groups.languages)
    signs = np.array([EXPECTED[name] for name in usable.names])
    index_N = ((usable.table - usable.table.mean(axis=0)) / usable.table.std(axis=0) * signs).mean(axis=1)
    resilient, vulnerable = (mask[0] for mask in groups.masks(groups.residual[None]))
    delta = cliffs_delta(index_N[resilient], index_N[vulnerable], rng=rng, permutations=1).estimate
    null = arrange(groups, features=len(usable.names), rng=rng)
    if delta.value is None:
        return Refusal(verdict=Verdict.NOT_APPLICABLE, lacking=str(delta.reason), because=f"{delta.reason}.", n=delta.n)
    if isinstance(null, Refusal):
        return null
    scale = float(standardising(resilient[None], vulnerable[None])[0])
    null_B = null.scale * deltas(index_N[:, None], null.resilient, null.vulnerable)[:, 0]
    return _Compared(
        delta=delta,
        p=null.p_value(scale * delta.value, null_B, "greater"),
        method=null.method,
        index=index_N,
        search=search,
    )
