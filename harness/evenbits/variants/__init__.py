"""Ways in which a measured thing differs from the original: rounding, kept weights, interventions, exports."""
