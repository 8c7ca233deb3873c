"""Super weights: single weights found through activation spikes and confirmed by zeroing them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from evenbits.cells import Subject, measure
from evenbits.estimates import Estimate, Finding, Verdict
from evenbits.observe.weights.superweights import SuperWeightCandidate
from evenbits.records import Corpus
from evenbits.statistics import ratio_of_sums
from evenbits.studies.h037.ablation import ablation_sample
from evenbits.variants.zeroing import without_weight

__all__ = ["SuperWeight", "find_super_weights", "super_weights"]

SUPER_FACTOR = 2.0
CANDIDATES = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class SuperWeight:
    """A candidate with what zeroing it does: the factor on perplexity per token, over the sampled text.

    `low`, `high`: its 95 % interval over segments, None where it was not taken.
    """

    candidate: SuperWeightCandidate
    factor: float
    low: float | None = None
    high: float | None = None


def find_super_weights(
    model: Subject, candidates: Iterable[SuperWeightCandidate], corpus: Corpus
) -> tuple[SuperWeight, ...]:
    """Zero each candidate on its own and return them with their factor on perplexity, largest first."""
    sample = ablation_sample(corpus)
    strongest = list(candidates)[:CANDIDATES]
    if not strongest:
        return ()
    variants = {one.place: without_weight(one.name, one.row, one.column) for one in strongest}
    damage = measure(model, variants, sample)
    found = []
    for one in strongest:
        more_S = (damage.nll_quantized(one.place) - damage.nll_full(one.place)).sum(axis=0)
        column = damage.columns[one.place]
        tokens_S = damage.by_unit(np.sum([column.full[tag].tokens for tag in damage.languages], axis=0))
        log = ratio_of_sums(more_S, tokens_S, rng=np.random.default_rng(model.seed), what="log factor")
        low, high = (None if limit is None else math.exp(min(limit, 700.0)) for limit in (log.low, log.high))
        found.append(SuperWeight(candidate=one, factor=damage.perplexity_ratio(one.place), low=low, high=high))
    return tuple(sorted(found, key=lambda one: -one.factor))


def super_weights(found: Sequence[SuperWeight]) -> Finding:
    """Whether zeroing a single weight multiplies perplexity at least twofold. The estimate is the largest factor."""
    if not found:
        reason = "no layer has an MLP down projection to look for spikes at"
        return Finding(estimate=Estimate.undefined(reason), verdict=Verdict.NOT_APPLICABLE, because=f"{reason}.")
    best = found[0]
    place = best.candidate.place
    many = sum(one.factor >= SUPER_FACTOR for one in found)
    shown = best.low is not None and best.low >= SUPER_FACTOR
    look = f"Not shown yet, a first look: {place} may be a super weight; more segments decide." if many else None
    return Finding(
        estimate=Estimate(
            value=best.factor,
            low=best.low,
            high=best.high,
            n=len(found),
            method="factor on perplexity per token when one weight is zeroed, largest of the candidates from spikes; "
            "95% interval over segments",
            reason="no interval was taken" if best.low is None else None,
        ),
        because=f"Zeroing {place} multiplies perplexity by {best.factor:.3g}.",
        summary=f"{many or 'no'} super weight{'' if many == 1 else 's'}: {place} x {best.factor:.3g} perplexity",
        action=f"Keep {place} in high precision." if shown else look,
        data={
            "candidates": [
                {
                    "name": one.candidate.name,
                    "row": one.candidate.row,
                    "column": one.candidate.column,
                    "weight": one.candidate.weight,
                    "input_peak": one.candidate.input_peak,
                    "output_peak": one.candidate.output_peak,
                    "explained": one.candidate.explained,
                    "factor": one.factor,
                }
                for one in found
            ]
        },
    )
