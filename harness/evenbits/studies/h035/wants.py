"""What H-035 takes of a model."""

from __future__ import annotations

from evenbits.studies.h035.errors import FISHER_SEGMENTS, GRADIENT_SEGMENTS
from evenbits.studies.study import Inputs, Observation, Wants
from evenbits.variants.variant import FULL_PRECISION

__all__ = ["predictors"]

PASSES = {"activations": 1.5, "rounding errors": 2.0, "mean gradients": 3.0, "squared gradients": 3.0}
"""In passes of scoring: a backward pass is two forward ones, and the errors of rounding run beside every product."""


def predictors(given: Inputs) -> Wants:
    """Everything that may predict damage, on the probe half: no quantized model is run."""
    size = len(given.probe)
    first = given.probe.select(indices=tuple(range(min(size, GRADIENT_SEGMENTS))))
    few = given.probe.select(indices=tuple(range(min(size, FISHER_SEGMENTS))))
    text = {"mean gradients": first, "squared gradients": few}
    return Wants(
        cells=given.subject.cells(FULL_PRECISION, given.probe),
        observations=tuple(
            Observation(what=name, corpus=text.get(name, given.probe), passes=passes) for name, passes in PASSES.items()
        ),
    )
