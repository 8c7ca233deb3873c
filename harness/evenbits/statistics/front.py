"""Pareto front: the choices that no other choice equals or betters in everything at once."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["pareto"]


def pareto(points: Sequence[tuple[float, ...] | None]) -> frozenset[int]:
    """Return the places of points that no other point equals or betters in every objective (all are minimised).

    None is a point with an undefined objective: it is neither on the front nor does it push others off.
    """
    known = {place: point for place, point in enumerate(points) if point is not None}
    return frozenset(
        place
        for place, point in known.items()
        if not any(
            other != point and all(a <= b for a, b in zip(other, point, strict=True)) for other in known.values()
        )
    )
