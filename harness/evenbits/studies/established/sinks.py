"""E-4: attention sinks are not outliers. Over heads: does attention to the first token go with heavy-tailed weights?

Shapes: P decoder layers, H heads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from evenbits.estimates import Finding
from evenbits.studies.established.pooled import Sample, pooled_correlation, smallness
from evenbits.studies.established.records import ModelHeads

__all__ = ["sinks_are_not_outliers"]

Float64 = NDArray[np.float64]


def sinks_are_not_outliers(models: Sequence[ModelHeads], *, margin: float, rng: np.random.Generator) -> Finding:
    """Whether the correlation of sink mass with the kurtosis of a head's weights is small, over the heads of models.

    The estimate is the mean over training runs of Pearson's r over heads within a model, with the 90 % interval of two
    one-sided tests against +-`margin`. Heads of a layer share their input, so layers are drawn as a whole; of one run
    no limit is nearer than by the jackknife over them. The weights are the columns of the output product that read the
    head; `also` takes the head's rows of the query product.
    """
    found = pooled_correlation(
        [_sample(one, one.output_kurtosis) for one in models], shared=False, margin=margin, rng=rng
    )
    verdict, because = smallness(found, units="layers")
    queries = [_sample(one, one.query_kurtosis) for one in models if one.query_kurtosis is not None]
    also = {}
    if queries:
        also["query_rows"] = pooled_correlation(queries, shared=False, margin=margin, rng=rng).estimate
        also["rank_correlation"] = pooled_correlation(
            [_ranked(_sample(one, one.output_kurtosis)) for one in models], shared=False, margin=margin, rng=rng
        ).estimate
    heads = sum(one.sink.size for one in models)
    sink = np.concatenate([one.sink.ravel() for one in models])
    return Finding(
        estimate=found.estimate,
        p_value=found.p_value,
        verdict=verdict,
        shown=True,
        because=f"{because} {heads} heads of {len({one.run for one in models})} training run(s) give the first token "
        f"{sink.mean():.0%} of their attention on average, the most attached one {sink.max():.0%}.",
        also=also,
        summary=f"sink mass against kurtosis, {heads} heads",
        data={
            "models": [
                {
                    "model": one.model,
                    "sink": one.sink,
                    "output_kurtosis": one.output_kurtosis,
                    "query_kurtosis": one.query_kurtosis,
                }
                for one in models
            ]
        },
    )


def _sample(one: ModelHeads, kurtosis: Float64) -> Sample:
    layers, heads = one.sink.shape
    return Sample(run=one.run, x=one.sink.ravel(), y=kurtosis.ravel(), clusters=np.repeat(np.arange(layers), heads))


def _ranked(one: Sample) -> Sample:
    rank: Callable[[Float64], Float64] = _ranks()
    return Sample(run=one.run, x=rank(one.x), y=rank(one.y), clusters=one.clusters)


def _ranks() -> Callable[[Float64], Float64]:
    from scipy.stats import rankdata

    return rankdata  # type: ignore[no-any-return]
