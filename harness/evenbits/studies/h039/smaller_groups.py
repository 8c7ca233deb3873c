"""The same bits spent on smaller groups instead of kept weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evenbits.cells import Subject
from evenbits.errors import SpecError
from evenbits.estimates import Estimate, Finding, Verdict
from evenbits.records import Corpus
from evenbits.studies.h039.controls import at_equal_bits
from evenbits.studies.h039.study import RetentionStudy, at_bits_of, too_few, with_specs
from evenbits.variants.quantization.spec import QuantSpec, parse_spec

__all__ = ["SmallerGroups", "equal_bits", "grouped_specs", "study_smaller_groups"]

GROUP = 64
"""Group that a grid by row or tensor is held against; one that has groups is held against half of its own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SmallerGroups:
    """The study over k, its table widened by two specs that cost the same.

    `pair`: smaller groups with nothing kept, and the grid with weights kept. None where no smaller group divides the
    model's layers.
    """

    retention: RetentionStudy
    pair: tuple[str, str] | None


def study_smaller_groups(model: Subject, study: RetentionStudy, corpus: Corpus) -> SmallerGroups:
    """Measure both specs on the text of `study`."""
    specs = grouped_specs(model, parse_spec(study.base))
    if not specs:
        return SmallerGroups(retention=study, pair=None)
    comparator, matched = (str(spec) for spec in specs)
    return SmallerGroups(retention=with_specs(model, study, specs, corpus), pair=(comparator, matched))


def grouped_specs(model: Subject, grid: QuantSpec) -> tuple[QuantSpec, ...]:
    """Return the grid with smaller groups and nothing kept, and with so many weights kept that both cost the same.

    Nothing where no smaller group divides the model's layers.
    """
    comparator = _smaller_groups(grid)
    if comparator is None:
        return ()
    try:
        matched = at_bits_of(model, grid, comparator)
    except SpecError:  # the smaller group does not divide a layer of this model
        return ()
    return () if matched is None else (comparator, matched)


def _smaller_groups(grid: QuantSpec) -> QuantSpec | None:
    if grid.grid is None:
        return None
    size = GROUP if grid.grid.size is None else grid.grid.size // 2
    if size < 8 or grid.grid.kind == "nf4":
        return None
    suffix = "" if grid.grid.symmetric else "-asym"
    return parse_spec("+".join([f"int{grid.grid.bits}-g{size}{suffix}", *(f"include:{name}" for name in grid.include)]))


def equal_bits(study: SmallerGroups, *, rng: np.random.Generator) -> Finding:
    """Whether retention leaves less disparity than smaller groups that cost the same bits."""
    few = too_few(study.retention)
    if few is not None:
        return few
    if study.pair is None:
        reason = "no smaller group of this grid divides the model's layers"
        return Finding(estimate=Estimate.undefined(reason), verdict=Verdict.NOT_APPLICABLE, because=f"{reason}.")
    comparator, matched = study.pair
    return at_equal_bits(study.retention, comparator=comparator, matched=matched, what="smaller groups", rng=rng)
