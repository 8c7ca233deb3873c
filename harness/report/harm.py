"""Which languages are harmed most: damage rows by model and spec, worst first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Harm", "harms"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Harm:
    """Damage of one model under one spec. `ranked`: rows with a value, most excess bits first.

    `below_floor`: how many of them lie below three noise floors. `undefined`: rows without a value.
    """

    model: str
    spec: str
    ranked: tuple[Mapping[str, Any], ...]
    below_floor: int
    undefined: tuple[Mapping[str, Any], ...]


def harms(damage: Sequence[Mapping[str, Any]], *, every_spec: bool = False) -> Iterator[Harm]:
    """Yield one `Harm` per model and base spec, in the order of the rows; of every spec where that is asked for.

    A base spec has no modifier (`int4-g64`, not `int4-g64+keep0.1%:magnitude`). A model whose specs all have one
    shows them all.
    """
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in damage:
        groups.setdefault((row["model"], row["spec"]), []).append(row)
    plain = {model for model, spec in groups if "+" not in spec}
    for (model, spec), rows in groups.items():
        if every_spec or "+" not in spec or model not in plain:
            yield _harm(model, spec, rows)


def _harm(model: str, spec: str, rows: Sequence[Mapping[str, Any]]) -> Harm:
    known = [row for row in rows if row["excess_bits"]["value"] is not None]
    known.sort(key=lambda row: (-row["excess_bits"]["value"], row["language"]))
    below = sum((row["excess_bits"]["reason"] or "").startswith("below_floor") for row in known)
    undefined = tuple(row for row in rows if row["excess_bits"]["value"] is None)
    return Harm(model=model, spec=spec, ranked=tuple(known), below_floor=below, undefined=undefined)
