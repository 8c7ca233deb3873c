"""A pilot: what damage of a few segments says of the spread between families, languages and segments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from evenbits.errors import ReportError
from evenbits.numbers import counted
from evenbits.rows import Row
from evenbits.statistics import Components, variance_components
from evenbits.studies.gate.decision import segments_of
from evenbits.text.languages import describe, families_of

__all__ = ["Pilot", "pilot_of"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pilot(Row):
    """Damage of one model under one spec: `components` of its excess bits, and the languages they come from.

    `tiers`: `low`, `high` or None by language. `segments`: of the pilot. `layers`: of the model, None: not known.
    """

    model: str
    spec: str
    languages: tuple[str, ...]
    families: Mapping[str, str]
    tiers: Mapping[str, str | None]
    scripts: Mapping[str, str | None]
    segments: int
    components: Components
    layers: int | None = None

    def members(self, tier: str) -> tuple[str, ...]:
        return tuple(tag for tag in self.languages if self.tiers[tag] == tier)

    def times(self, fold: int) -> Pilot:
        """Return the pilot with so many times its languages, in families of the same sizes.

        Copies have tags for private use, which say the script and family of the original.
        """
        copies = [(f"{tag}-x-copy{copy}", tag, copy) for copy in range(fold) for tag in self.languages]
        return replace(
            self,
            languages=tuple(name for name, _, _ in copies),
            families={name: f"{self.families[tag]}~{copy}" for name, tag, copy in copies},
            tiers={name: self.tiers[tag] for name, tag, _ in copies},
            scripts={name: self.scripts[tag] for name, tag, _ in copies},
        )


def pilot_of(
    rows: Sequence[Mapping[str, Any]], *, exposure: Mapping[str, int] | None = None, layers: int | None = None
) -> Pilot:
    """Return the pilot that damage rows of one model and spec make.

    `exposure`: training bytes by language, which decide the tier where they are known. `layers`: how many the model
    has. `ReportError` where values by segment are missing or there are too few.
    """
    values = {str(row["language"]): segments_of(row) for row in sorted(rows, key=lambda row: str(row["language"]))}
    known = {tag: one for tag, one in values.items() if one is not None}
    if len(known) < len(values) or len({len(one) for one in known.values()}) != 1:
        raise ReportError(
            "a pilot needs the excess bits of the same segments in every language; measure one with `plan`."
        )
    if len(known) < 3 or len(next(iter(known.values()))) < 2:
        segments = counted(len(next(iter(known.values()))), "segment")
        raise ReportError(
            f"a pilot needs 3 languages and 2 segments, got {counted(len(known), 'language')} and {segments}."
        )
    families = families_of(known)
    components = variance_components(np.stack(list(known.values())), list(families.values()))
    tags = tuple(known)
    return Pilot(
        model=str(rows[0]["model"]),
        spec=str(rows[0]["spec"]),
        languages=tags,
        families={tag: families[tag] for tag in tags},
        tiers={tag: describe(tag, exposure=exposure).tier for tag in tags},
        scripts={tag: describe(tag).script for tag in tags},
        segments=len(next(iter(known.values()))),
        components=components,
        layers=layers,
    )
