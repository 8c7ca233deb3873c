"""What H-035 takes of a model."""

from __future__ import annotations

import math
from dataclasses import replace

from evenbits.cells import variant_cells
from evenbits.models.blueprint import blueprint
from evenbits.store import Store
from evenbits.studies.h035.errors import FISHER_SEGMENTS, GRADIENT_SEGMENTS, HELD_BYTES, KIND, error_key
from evenbits.studies.observation import BACKWARD, linear_weights, statistics_for
from evenbits.studies.study import Inputs, Observation, Wants, activations_on
from evenbits.variants.registry import simulated
from evenbits.variants.rounding import rounded
from evenbits.variants.variant import FULL_PRECISION

__all__ = ["calibrated", "predictors"]

PASSES = {"rounding errors": 2.0, "mean gradients": BACKWARD, "squared gradients": BACKWARD}
"""In passes of scoring: the errors of rounding run beside every product."""


def predictors(given: Inputs) -> Wants:
    """Everything that may predict damage, on the probe half: no quantized model is run."""
    size = len(given.probe)
    first = given.probe.select(indices=tuple(range(min(size, GRADIENT_SEGMENTS))))
    few = given.probe.select(indices=tuple(range(min(size, FISHER_SEGMENTS))))
    text = {"mean gradients": first, "squared gradients": few}
    model, spec = given.subject.on_demand(), simulated(given.spec, "a forecast from weights")

    def stored(store: Store, tag: str) -> bool:
        return store.has(KIND, error_key(model, given.probe, spec, tag, given.subject.seed))

    held = _held_bytes(given)
    rounds = max(1, math.ceil(held / HELD_BYTES))  # a large model's errors are held in parts, each with its own passes
    errors = (
        Observation(
            what=name,
            corpus=text.get(name, given.probe),
            passes=passes * rounds,
            alone=name == "squared gradients",
            rounds=float(name == "rounding errors"),
            held_bytes=min(held, HELD_BYTES),
            stored=stored,
        )
        for name, passes in PASSES.items()
    )
    return Wants(
        cells=given.subject.cells(FULL_PRECISION, given.probe),
        observations=(activations_on(given, given.probe), *errors),
        weighed=given.subject,
    )


def calibrated(given: Inputs) -> Wants:
    """What a calibration takes of a model: predictors on the probe half, and damage on the other."""
    spec = simulated(given.spec, "a forecast from weights")
    known = predictors(given)
    measured = variant_cells(given.subject, rounded(spec, given.subject, divergence=False), given.corpus)
    needed = statistics_for(given.subject, [spec])
    return replace(known, cells=(*known.cells, *measured), observations=(*known.observations, *needed))


def _held_bytes(given: Inputs) -> int:
    """Return the bytes of every product's error, its gradient, and the square of that in float32."""
    held = 2 * (4 if given.subject.dtype == "float32" else 2) + 4
    return held * linear_weights(blueprint(given.subject.local, store=given.subject.store))
