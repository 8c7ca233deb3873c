"""Interventions: change a model on purpose, with its function held equal or a named part removed.

Rescaling and rotation turn "outliers go with damage" into an experiment: outliers appear or vanish, what the model
computes in full precision stays the same, so whatever changes in the damage is the outliers' doing. Ablation removes
named weights. Instruments of evals and of the controls; nothing here decides a verdict.
"""

from __future__ import annotations

from evenbits.variants.interventions.checkpoints import altered_copy, weights_of
from evenbits.variants.interventions.choice import distinctive_channels, random_channels
from evenbits.variants.interventions.rotation import rotated
from evenbits.variants.interventions.scaling import Channels, Into, rescaled
from evenbits.variants.quantization.patching import zeroed as without_weights

__all__ = [
    "Channels",
    "Into",
    "altered_copy",
    "distinctive_channels",
    "random_channels",
    "rescaled",
    "rotated",
    "weights_of",
    "without_weights",
]
