"""Streamed statistics of weight tensors, positions of outliers, super-weight candidates."""
