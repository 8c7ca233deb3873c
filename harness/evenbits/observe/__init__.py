"""Statistics streamed from a model: weights, activations, gradients."""
