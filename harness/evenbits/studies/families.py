"""Leave-one-family-out: what a statement about tiers comes to without each family, and which one carries it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from evenbits.statistics import without_each_family

__all__ = ["without_a_family"]


def without_a_family(
    values: Mapping[str, float],
    *,
    low: Sequence[str],
    high: Sequence[str] = (),
    families: Mapping[str, str],
    unit: str = "",
) -> str:
    """Return a sentence on the mean of low- minus that of high-resource languages with each family left out.

    `values`: by language; without `high` they are differences already, and their mean over `low` is what is said.
    `unit`: with the blank before it. Empty where there is one family, or no difference at all.
    """
    found = without_each_family(values, low=low, high=high, families=families)
    whole = float(np.mean([values[tag] for tag in low]) - (np.mean([values[tag] for tag in high]) if high else 0.0))
    alone = sorted({families[tag] for tag in (*low, *high)} - set(found))
    if alone and high:
        return f"Without {', '.join(alone)} a tier is empty: family and resource level cannot be told apart."
    if len(found) < 2 or whole == 0:
        return ""
    least = min(found, key=lambda name: found[name] * np.sign(whole))
    if found[least] * whole <= 0:
        return (
            f"The family {least} carries it: the difference is {found[least]:+.2f}{unit} without, "
            f"{whole:+.2f}{unit} with it."
        )
    return (
        f"Leaving one family out gives {min(found.values()):+.2f} to {max(found.values()):+.2f}{unit} of {whole:+.2f}."
    )
