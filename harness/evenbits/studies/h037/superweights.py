"""Super weights: single weights found through activation spikes and confirmed by zeroing them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from evenbits.cells import FULL_PRECISION, ModelUnderTest, Variant
from evenbits.estimates import Estimate, Finding, Verdict
from evenbits.observe.weights import SuperWeightCandidate
from evenbits.records import Corpus
from evenbits.studies.h037.ablation import ablation_sample

if TYPE_CHECKING:
    from evenbits.models import LoadedModel

__all__ = ["SuperWeight", "find_super_weights", "super_weights"]

SUPER_FACTOR = 2.0
CANDIDATES = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class SuperWeight:
    """A candidate with what zeroing it does: the factor on perplexity per token, over the sampled text."""

    candidate: SuperWeightCandidate
    factor: float


def find_super_weights(
    model: ModelUnderTest, candidates: Iterable[SuperWeightCandidate], corpus: Corpus
) -> tuple[SuperWeight, ...]:
    """Zero each candidate on its own and return them with their factor on perplexity, largest first."""
    sample = ablation_sample(corpus)
    full = model.losses(FULL_PRECISION, sample)
    tokens = sum(int(losses.tokens.sum()) for losses in full.values())
    before = sum(float(losses.nll.sum()) for losses in full.values())
    found = []
    for candidate in list(candidates)[:CANDIDATES]:
        place = f"{candidate.name}[{candidate.row}, {candidate.column}]"
        apply: Callable[[LoadedModel], AbstractContextManager[None]] = partial(_without, candidate=candidate)
        variant = Variant(label=f"{place} zeroed", key={"zeroed": place}, apply=apply, divergence=False)
        after = sum(float(losses.nll.sum()) for losses in model.losses(variant, sample).values())
        found.append(SuperWeight(candidate=candidate, factor=math.exp((after - before) / tokens)))
    return tuple(sorted(found, key=lambda one: -one.factor))


def _without(loaded: LoadedModel, *, candidate: SuperWeightCandidate) -> AbstractContextManager[None]:
    import torch

    from evenbits.variants.quantization import zeroed
    from evenbits.variants.quantization.patching import shapes_of

    width = shapes_of(loaded.model, loaded.anatomy)[candidate.name][1]
    return zeroed(loaded, {candidate.name: torch.tensor([candidate.row * width + candidate.column])})


def super_weights(found: Sequence[SuperWeight]) -> Finding:
    """Whether zeroing a single weight multiplies perplexity at least twofold. The estimate is the largest factor."""
    if not found:
        reason = "no layer has an MLP down projection to look for spikes at"
        return Finding(estimate=Estimate.undefined(reason), verdict=Verdict.NOT_APPLICABLE, because=f"{reason}.")
    best = found[0]
    place = f"{best.candidate.name}[{best.candidate.row}, {best.candidate.column}]"
    many = sum(one.factor >= SUPER_FACTOR for one in found)
    return Finding(
        estimate=Estimate(
            value=best.factor, n=len(found),
            method="factor on perplexity per token when one weight is zeroed, largest of the candidates from spikes",
            reason="no interval: the largest of a few single ablations",
        ),
        because=f"Zeroing {place} multiplies perplexity by {best.factor:.3g}.",
        summary=f"{many or 'no'} super weight{'' if many == 1 else 's'}: {place} x {best.factor:.3g} perplexity",
        action=f"Keep {place} in high precision." if many else None,
        data={
            "candidates": [
                {
                    "name": one.candidate.name, "row": one.candidate.row, "column": one.candidate.column,
                    "weight": one.candidate.weight, "input_peak": one.candidate.input_peak,
                    "output_peak": one.candidate.output_peak, "explained": one.candidate.explained,
                    "factor": one.factor,
                }
                for one in found
            ]
        },
    )  # fmt: skip
