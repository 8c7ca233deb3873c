"""Which languages are harmed most: damage rows by model and spec, worst first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Harm", "asked", "harms", "specs_of"]


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


def asked(document: Mapping[str, Any]) -> frozenset[str]:
    """Return the specs that measurements are about; others were measured to compare with."""
    return frozenset(row["spec"] for row in document["measurements"] if row.get("spec"))


def specs_of(document: Mapping[str, Any]) -> tuple[list[str], int]:
    """Return the specs that were asked about, all where no measurement names one, and how many there are beside."""
    texts = [entry["text"] for entry in document["inputs"]["specs"]]
    wanted = asked(document)
    first = [text for text in texts if text in wanted] or texts
    return first, len(texts) - len(first)


def harms(document: Mapping[str, Any], *, every_spec: bool = False) -> Iterator[Harm]:
    """Yield one `Harm` per model and base spec, in the order of the rows; of every spec where that is asked for.

    A base spec has no modifier (`int4-g64`, not `int4-g64+keep0.1%:magnitude`) and is one that the measurements are
    about. A model without such a one shows what it has. Base specs come before the other specs of their model.
    """
    wanted = asked(document)
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in document["damage"]:
        groups.setdefault((row["model"], row["spec"]), []).append(row)
    by_model: dict[str, list[str]] = {}
    for model, spec in groups:
        by_model.setdefault(model, []).append(spec)
    for model, specs in by_model.items():
        plain = [spec for spec in specs if "+" not in spec] or specs
        first = [spec for spec in plain if spec in wanted] or plain
        others = [spec for spec in specs if spec not in first] if every_spec else []
        for spec in (*first, *others):
            yield _harm(model, spec, groups[model, spec])


def _harm(model: str, spec: str, rows: Sequence[Mapping[str, Any]]) -> Harm:
    known = [row for row in rows if row["excess_bits"]["value"] is not None]
    known.sort(key=lambda row: (-row["excess_bits"]["value"], row["language"]))
    below = sum((row["excess_bits"]["reason"] or "").startswith("below_floor") for row in known)
    undefined = tuple(row for row in rows if row["excess_bits"]["value"] is None)
    return Harm(model=model, spec=spec, ranked=tuple(known), below_floor=below, undefined=undefined)
