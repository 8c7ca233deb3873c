"""What H-035 takes of a model."""

from __future__ import annotations

import math

from evenbits.models.blueprint import blueprint
from evenbits.store import Store
from evenbits.studies.h035.errors import FISHER_SEGMENTS, GRADIENT_SEGMENTS, HELD_BYTES, KIND, error_key
from evenbits.studies.study import Inputs, Observation, Wants, activations_on
from evenbits.variants.registry import simulated
from evenbits.variants.variant import FULL_PRECISION

__all__ = ["predictors"]

PASSES = {"rounding errors": 2.0, "mean gradients": 3.0, "squared gradients": 3.0}
"""In passes of scoring: a backward pass is two forward ones, and the errors of rounding run beside every product."""


def predictors(given: Inputs) -> Wants:
    """Everything that may predict damage, on the probe half: no quantized model is run."""
    size = len(given.probe)
    first = given.probe.select(indices=tuple(range(min(size, GRADIENT_SEGMENTS))))
    few = given.probe.select(indices=tuple(range(min(size, FISHER_SEGMENTS))))
    text = {"mean gradients": first, "squared gradients": few}
    model, spec = given.subject.on_demand(), simulated(given.spec, "a forecast from weights")

    def stored(store: Store, tag: str) -> bool:
        return store.has(KIND, error_key(model, given.probe, spec, tag, given.subject.seed))

    errors = (
        Observation(what=name, corpus=text.get(name, given.probe), passes=passes * _rounds(given), stored=stored)
        for name, passes in PASSES.items()
    )
    return Wants(
        cells=given.subject.cells(FULL_PRECISION, given.probe),
        observations=(activations_on(given, given.probe), *errors),
    )


def _rounds(given: Inputs) -> int:
    """Return in how many rounds of passes the products are measured: a large model's errors are held in parts."""
    drawn = blueprint(given.subject.local, store=given.subject.store)
    weights = sum(math.prod(drawn.shapes[linear.name]) for linear in drawn.anatomy.linears)
    held = 2 * (4 if given.subject.dtype == "float32" else 2) + 4  # an error, a gradient, and its square in float32
    return max(1, math.ceil(weights * held / HELD_BYTES))
