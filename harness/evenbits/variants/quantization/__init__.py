"""Quantization: spec, rounding, clipping, retention, and patching a model and putting it back."""
