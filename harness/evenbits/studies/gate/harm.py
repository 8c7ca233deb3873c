"""Which languages are harmed most: damage rows by model and spec, worst first.

Worst by the pooled estimate where there is one: of many raw means of a few segments the largest is too large.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evenbits.studies.gate.decision import segments_of
from evenbits.text.languages import families_of

__all__ = ["Harm", "asked", "harms", "losing", "pooled_bits", "sparing", "specs_of", "with_pooled"]

ALPHA = 0.05


@dataclass(frozen=True, kw_only=True, slots=True)
class Harm:
    """Damage of one model under one spec. `ranked`: rows with a value, most pooled excess bits first, then most raw.

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
    known.sort(key=lambda row: (-pooled_bits(row), -row["excess_bits"]["value"], row["language"]))
    below = sum(map(_below_floor, known))
    undefined = tuple(row for row in rows if row["excess_bits"]["value"] is None)
    return Harm(model=model, spec=spec, ranked=tuple(known), below_floor=below, undefined=undefined)


def losing(harm: Harm, *, seed: int) -> frozenset[str]:
    """Return the languages that are shown to lose: family-wise over all of them, and not below three noise floors.

    By joint sign flips of segments. A report without damage by segment has intervals alone: those above 0 count.
    """
    from evenbits.statistics import joint_flips

    rows = [row for row in harm.ranked if not _below_floor(row)]
    known = {row["language"]: values for row in harm.ranked if (values := segments_of(row)) is not None}
    if len(known) < len(harm.ranked):
        return frozenset(row["language"] for row in rows if (row["excess_bits"]["low"] or 0) > 0)
    if not rows:
        return frozenset()
    found = joint_flips(known, rng=np.random.default_rng(seed), alternative="greater")
    return frozenset(row["language"] for row in rows if found.adjusted[row["language"]] < ALPHA)


def sparing(lead: Harm, others: Sequence[Harm], *, seed: int) -> frozenset[str]:
    """Return the specs among `others`, of the same model, that are shown to lose less than `lead` on average.

    By sign flips of segments, in all of them at once: paired, mean over languages. Nothing is shown of a spec without
    damage by segment of every language.
    """
    from evenbits.statistics import joint_flips

    spared = {}
    for harm in others:
        rows = {row["language"]: segments_of(row) for row in harm.ranked}
        pairs = [(segments_of(row), rows.get(row["language"])) for row in lead.ranked]
        known = [(before, after) for before, after in pairs if before is not None and after is not None]
        if len(known) == len(pairs) and len({len(values) for pair in known for values in pair}) == 1:
            spared[harm.spec] = np.mean([before - after for before, after in known], axis=0)
    if not spared:
        return frozenset()
    found = joint_flips(spared, rng=np.random.default_rng(seed), alternative="greater")
    return frozenset(spec for spec, p in found.adjusted.items() if p < ALPHA)


def _below_floor(row: Mapping[str, Any]) -> bool:
    return (row["excess_bits"]["reason"] or "").startswith("below_floor")


def pooled_bits(row: Mapping[str, Any]) -> float:
    """Return the pooled excess bits of a row, the raw ones where there is no pooled estimate."""
    pooled = (row.get("pooled_bits") or {}).get("value")
    return float(row["excess_bits"]["value"] if pooled is None else pooled)


def with_pooled(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return damage rows with `pooled_bits`, by model and spec, where all languages have the same segments."""
    from evenbits.statistics import pooled_means

    groups: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        groups.setdefault((row["model"], row["spec"]), {})[row["language"]] = segments_of(row)
    found = {
        pair: pooled_means(values, families_of(values))
        for pair, values in groups.items()
        if all(one is not None for one in values.values()) and len({len(one) for one in values.values()}) == 1
    }
    return [
        {**row, "pooled_bits": one.to_json()}
        if (one := found.get((row["model"], row["spec"]), {}).get(row["language"])) is not None
        and one.value is not None
        else dict(row)
        for row in rows
    ]
