"""Streamed statistics of activations by language, layer, channel and head; nothing large is kept."""
