"""Comparators: other ways to choose the weights that are kept, at the k and the bits of the programme's own.

Each keeps as many weights as the reference (largest magnitudes of every tensor) and changes one thing: the criterion,
whose text the criterion looks at, the scope, or the range of the grid. A language-aware comparator looks at the
low-resource languages of the probe text; its language-blind partner at all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal

import numpy as np

from evenbits.cells import Subject
from evenbits.estimates import Estimate, Finding, Verdict
from evenbits.records import Corpus
from evenbits.studies.h039.parity import curves_of, start_verdict
from evenbits.studies.h039.study import CRITERION, RetentionStudy, at_bits_of, too_few, with_specs
from evenbits.variants.quantization.spec import LANGUAGE_AWARE, Clip, QuantSpec, parse_spec
from evenbits.variants.rounding import bits_per_weight

__all__ = [
    "AWARE",
    "PERCENT",
    "ComparatorStudy",
    "comparator_specs",
    "nothing_to_compare",
    "reference_budget",
    "study_comparators",
    "unmeasured",
]

PERCENT = Decimal("0.1")
"""k in percent at which ways to choose are compared: the middle of the programme's values."""

AWARE: Mapping[str, tuple[str, str]] = {
    "activation": ("activation", "activation, low-resource"),
    "sensitivity": ("sensitivity", "sensitivity, low-resource"),
    "clipping": ("magnitude, clipped by activations", "magnitude, clipped for low-resource"),
}
"""Language-blind and language-aware comparator of each statistic."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparatorStudy:
    """Damage under every comparator, beside all that the study over k measured.

    `retention`: that study, its table widened by the specs below. `reference`: the spec that comparators are held
    against. `settled`: why no comparator was measured, None where they were. `specs`: comparator -> spec. `protected`:
    the grid with layers (or parts of them) in high precision, and `matched`: retention that costs the same bits; None
    where the budget buys no layer.
    """

    retention: RetentionStudy
    reference: str
    settled: Finding | None = None
    specs: Mapping[str, str] = field(default_factory=dict)
    protected: str | None = None
    matched: str | None = None

    def named(self) -> dict[str, str | None]:
        """Return every measured spec with its name; those of the study over k have none, k says what they are."""
        names: dict[str, str | None] = dict.fromkeys(self.retention.kept.values())
        names |= {spec: f"random, k {k:f} %" for k, spec in self.retention.random.items()}
        names |= {spec: name for name, spec in self.specs.items()}
        if self.protected is not None:
            names[self.protected] = "layer protection"
        if self.matched is not None:
            keep = parse_spec(self.matched).keep
            names.setdefault(self.matched, None if keep is None else f"k {keep.percent:f} %")
        return names


def comparator_specs(
    grid: QuantSpec, *, low: tuple[str, ...], languages: tuple[str, ...], statistics: bool = True
) -> dict[str, QuantSpec]:
    """Return the comparators on `grid` by name, all at `PERCENT`.

    `low`: the low-resource languages, `languages`: all of them. Without `statistics` (there is no probe text) only
    those that look at weights alone.
    """
    reference = grid.with_keep(PERCENT, CRITERION)
    found = {
        "magnitude, all tensors together": grid.with_keep(PERCENT, CRITERION, scope="global"),
        "magnitude, clipped": replace(reference, clip=Clip()),
    }
    if not statistics:
        return found
    found["super weights"] = grid.with_keep(PERCENT, "superweight")
    for name in LANGUAGE_AWARE:
        blind, aware = AWARE[name]
        found[blind] = grid.with_keep(PERCENT, name)
        found[aware] = grid.with_keep(PERCENT, name, languages=low)
    blind, aware = AWARE["clipping"]
    found[blind] = replace(reference, clip=Clip(languages=languages))
    found[aware] = replace(reference, clip=Clip(languages=low))
    return found


def nothing_to_compare(study: RetentionStudy, *, rng: np.random.Generator) -> Finding | None:
    """Return the finding where no choice of weights can be better than another, else None.

    Too few languages, or no disparity to the disadvantage of low-resource languages at k = 0: comparators, which
    cost as much as the study over k again, need not be measured then.
    """
    few = too_few(study)
    if few is not None:
        return few
    (start,) = curves_of(study, [study.base], rng=rng)["excess_bits"]
    found = start_verdict(start)
    if found is None or found[0] is not Verdict.NOT_APPLICABLE:
        return None
    verdict, why = found
    return Finding(
        estimate=Estimate.undefined(f"not measured. {why.rstrip('.')}", n=len(study.low) + len(study.high)),
        verdict=verdict,
        because=f"{why} Other choices were not measured; `evenbits damage --spec` measures any of them.",
        summary="no disparity at k = 0: other choices not measured",
    )


def unmeasured(study: RetentionStudy, settled: Finding) -> ComparatorStudy:
    """Return a study without comparators, because of `settled`."""
    reference = str(parse_spec(study.base).with_keep(PERCENT, CRITERION))
    return ComparatorStudy(retention=study, reference=reference, settled=settled)


def reference_budget(model: Subject, spec: QuantSpec) -> float:
    """Return the extra bits per weight of keeping 1 %, the most that the hypothesis allows: a comparator's budget."""
    grid = spec.base
    return bits_per_weight(grid.with_keep(1, CRITERION), model) - bits_per_weight(grid, model)


def study_comparators(
    model: Subject, study: RetentionStudy, corpus: Corpus, *, protected: QuantSpec | None = None
) -> ComparatorStudy:
    """Measure every comparator on the text of `study`, and `protected` beside retention that costs the same bits."""
    grid = parse_spec(study.base)
    reference = grid.with_keep(PERCENT, CRITERION)
    specs = comparator_specs(
        grid, low=study.low, languages=corpus.languages, statistics=model.probe is not None and bool(study.low)
    )
    matched = None if protected is None else at_bits_of(model, grid, protected)
    pair = [protected, matched] if protected is not None and matched is not None else []
    return ComparatorStudy(
        retention=with_specs(model, study, [reference, *specs.values(), *pair], corpus),
        reference=str(reference),
        specs={name: str(spec) for name, spec in specs.items()},
        protected=str(pair[0]) if pair else None,
        matched=str(pair[1]) if pair else None,
    )
