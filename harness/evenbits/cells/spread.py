"""A few of many, spread evenly over them: samples of languages and segments that need no generator."""

from __future__ import annotations

import numpy as np

__all__ = ["FLOOR_LANGUAGES", "spread", "spread_of"]

FLOOR_LANGUAGES = 8
"""So many languages stand for all where what is measured hardly differs between them."""


def spread_of(languages: tuple[str, ...], most: int) -> tuple[str, ...]:
    """Return at most `most` of the languages."""
    return tuple(languages[place] for place in spread(len(languages), most))


def spread(n: int, most: int) -> tuple[int, ...]:
    """Return at most `most` places of 0 .. n - 1, the first and the last among them."""
    return tuple(sorted({int(place) for place in np.linspace(0, n - 1, min(n, most))}))
