"""Contrasts between trained models: what one training choice does to damage, language by language.

Which models answer which question stands in `CONTRASTS` and nowhere else. A model takes part under the name it has in
the reference family. Differences are of the recommended choice minus the other one: below zero, it saves damage.

The unit of a training choice is the pair of training runs: languages of one run share its luck (runs of one recipe
differ by about half a bit in all languages), so a mean over languages of one or two pairs says nothing of a choice.
Exposure is another thing: it was assigned to languages at random within the pair, so there languages are the units.

Shapes: P pairs of models, L languages.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from evenbits.cells.damage import Damage
from evenbits.estimates import Estimate
from evenbits.models.references import reference_name
from evenbits.statistics import Outcome, holm, language_mean, mean_interval, paired_difference
from evenbits.text.languages import families_of

__all__ = [
    "CONTRASTS",
    "MIN_PAIRS",
    "Contrast",
    "Contrasted",
    "TrainedModel",
    "contrasted",
    "name_in_contrasts",
    "needed_models",
]

Float64 = NDArray[np.float64]

MIN_PAIRS = 4
"""Pairs of training runs below which a training choice has no test: with three, t has two degrees of freedom."""

MORE_TEXT = 2.0
"""A language was shown more text by one model of a pair where that one has at least this many times the bytes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Contrast:
    """A question about training. `pairs`: (model with the recommended choice, model without), in names of the family.

    `by` says what the two sides are: `model`, or `exposure`: for every language the model that was shown more of it
    against the one that was shown less. `advice`: what to do if it holds, in the imperative.
    """

    name: str
    advice: str
    pairs: tuple[tuple[str, str], ...]
    by: Literal["model", "exposure"] = "model"


CONTRASTS: tuple[Contrast, ...] = (
    Contrast(
        name="small epsilon in Adam, moderate rate and decay",
        advice="Train with Adam's small epsilon, a moderate rate and decay of .1, not with 1e-3, a high rate and .5",
        pairs=(("a1", "a1-heavy"), ("a1r", "a1r-heavy")),
    ),
    Contrast(
        name="Muon",
        advice="Train the matrices with Muon instead of AdamW",
        pairs=(("a1-muon", "a1"), ("a1r-muon", "a1r")),
    ),
    Contrast(
        name="more text of the language",
        advice="Show the model more text of the languages that must survive quantization",
        pairs=(("a1", "a1r"), ("a2", "a2r")),
        by="exposure",
    ),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedModel:
    """A model of the family under one spec, and the training bytes of each language where they are known.

    `losses`: by language, means over segments: excess bits, NLL full and quantized in bits, relative increase.
    """

    name: str
    fingerprint: str
    losses: Mapping[str, Sequence[float]]
    exposure: Mapping[str, int] | None = None

    @classmethod
    def of(cls, name: str, table: Damage, spec: str, *, exposure: Mapping[str, int] | None = None) -> TrainedModel:
        """Return the model from its damage under `spec`."""
        full, quantized = (
            found.mean(axis=1) / math.log(2) for found in (table.nll_full(spec), table.nll_quantized(spec))
        )
        rows_L4 = np.column_stack([quantized - full, full, quantized, table.relative_increase(spec)]).tolist()
        losses = dict(zip(table.languages, rows_L4, strict=True))
        return cls(name=name, fingerprint=table.fingerprint, losses=losses, exposure=exposure)


@dataclass(frozen=True, kw_only=True, slots=True)
class Contrasted:
    """A contrast as measured, over its `units`; differences in bits per segment, recommended minus other.

    `damage`: excess bits, with p (None below `MIN_PAIRS` pairs) and, among all contrasts, Holm's. `full`, `quantized`:
    NLL before and after quantizing. `relative`: relative increase. `by_pair`: difference of damage in every pair, whose
    signs must agree.
    """

    contrast: Contrast
    damage: Outcome
    full: Estimate
    quantized: Estimate
    relative: Estimate
    by_pair: Mapping[str, float]
    languages: tuple[str, ...]

    @property
    def units(self) -> str:
        return "pairs of training runs" if self.contrast.by == "model" else "languages"

    @property
    def agreeing(self) -> int:
        """Pairs in which damage differs in the direction of the mean."""
        sign = math.copysign(1.0, self.damage.estimate.value or 0.0)
        return sum(value * sign > 0 for value in self.by_pair.values())

    def to_json(self) -> dict[str, Any]:
        return {
            "contrast": self.contrast.name,
            "by": self.contrast.by,
            "units": self.units,
            "pairs": dict(self.by_pair),
            "damage": self.damage.to_json(),
            "nll_full": self.full.to_json(),
            "nll_quantized": self.quantized.to_json(),
            "relative_increase": self.relative.to_json(),
            "languages": list(self.languages),
        }


def needed_models() -> tuple[str, ...]:
    """Return the names of all models that some contrast needs, each once."""
    return tuple(dict.fromkeys(name for contrast in CONTRASTS for pair in contrast.pairs for name in pair))


def name_in_contrasts(model: str) -> str | None:
    """Return the name by which contrasts know `reference:NAME`, None where none of them needs that model."""
    name = reference_name(model)
    return name if name in needed_models() else None


def contrasted(
    models: Mapping[str, TrainedModel],
    *,
    rng: np.random.Generator,
    contrasts: Sequence[Contrast] = CONTRASTS,
) -> tuple[Contrasted, ...]:
    """Measure every contrast that has a pair of different models here; p adjusted by Holm over those measured."""
    found = [one for contrast in contrasts if (one := _measured(contrast, models, rng)) is not None]
    adjusted = holm({one.contrast.name: one.damage.p_value for one in found})
    return tuple(replace(one, damage=replace(one.damage, adjusted_p=adjusted[one.contrast.name])) for one in found)


def _measured(contrast: Contrast, models: Mapping[str, TrainedModel], rng: np.random.Generator) -> Contrasted | None:
    pairs = [
        (models[first], models[second])
        for first, second in contrast.pairs
        if first in models and second in models and models[first].fingerprint != models[second].fingerprint
    ]
    differences = {f"{a.name} against {b.name}": _difference(contrast, a, b) for a, b in pairs}
    differences = {name: found for name, found in differences.items() if found}
    if not differences:
        return None
    languages = tuple(sorted(set.intersection(*(set(found) for found in differences.values()))))
    if len(languages) < 2:
        return None
    by_pair = {name: float(np.mean([found[tag][0] for tag in languages])) for name, found in differences.items()}
    values_PL4 = np.array([[found[tag] for tag in languages] for found in differences.values()])
    if contrast.by == "model":
        # a pair is one unit, however many languages it was measured in
        columns = [values_PL4[:, :, column].mean(axis=1) for column in range(4)]
        damage = _over_pairs(columns[0], rng)
        full, quantized, relative = (mean_interval(column, rng=rng) for column in columns[1:])
    else:
        # a language is one unit, however many pairs of models it was measured in
        mean_L4 = values_PL4.mean(axis=0)
        damage = paired_difference(mean_L4[:, 0], np.zeros(len(languages)), rng=rng)
        estimates = [_over_languages(languages, mean_L4[:, column], rng) for column in range(4)]
        damage = replace(damage, estimate=estimates[0])
        full, quantized, relative = estimates[1:]
    return Contrasted(
        contrast=contrast,
        damage=damage,
        full=full,
        quantized=quantized,
        relative=relative,
        by_pair=by_pair,
        languages=languages,
    )


def _over_pairs(values_P: Float64, rng: np.random.Generator) -> Outcome:
    """Return the mean over pairs of runs with its interval, and Student's p where there are enough of them."""
    from scipy.special import stdtr

    count = len(values_P)
    estimate = mean_interval(values_P, rng=rng)
    error = float(values_P.std(ddof=1)) / math.sqrt(count) if count > 1 else 0.0
    if count < MIN_PAIRS or error == 0:
        return Outcome(estimate=estimate, p_value=None, p_method=f"none: {count} pairs of runs, needed {MIN_PAIRS}")
    p = float(2 * stdtr(count - 1, -abs(float(values_P.mean())) / error))
    return Outcome(estimate=estimate, p_value=max(p, 1e-300), p_method=f"t-test over {count} pairs of training runs")


def _over_languages(languages: Sequence[str], values_L: Float64, rng: np.random.Generator) -> Estimate:
    return language_mean(
        {tag: [value] for tag, value in zip(languages, values_L.tolist(), strict=True)},
        rng=rng,
        families=families_of(languages),
        what="mean over languages",
    )


def _difference(
    contrast: Contrast, first: TrainedModel, second: TrainedModel
) -> dict[str, tuple[float, float, float, float]]:
    """Return first minus second by language: excess bits, NLL full and quantized in bits, relative increase.

    By exposure, the side that was shown more minus the other; what the two runs differ by in all languages alike is
    taken out, half-way between the languages of either sign. Nothing where only one sign occurs.
    """
    shared = [tag for tag in first.losses if tag in second.losses]
    raw = {tag: np.subtract(first.losses[tag], second.losses[tag]) for tag in shared}
    if contrast.by == "model":
        return {tag: tuple(values.tolist()) for tag, values in raw.items()}
    signs = {tag: sign for tag in shared if (sign := _shown_more(tag, first, second))}
    sides = [[raw[tag] for tag, sign in signs.items() if sign == side] for side in (1.0, -1.0)]
    if not all(sides):
        return {}
    between_runs = (np.mean(sides[0], axis=0) + np.mean(sides[1], axis=0)) / 2
    return {tag: tuple((sign * (raw[tag] - between_runs)).tolist()) for tag, sign in signs.items()}


def _shown_more(tag: str, first: TrainedModel, second: TrainedModel) -> float:
    """Return 1 where `first` was shown more of the language, -1 where `second` was, 0 where neither or unknown."""
    a, b = ((model.exposure or {}).get(tag) for model in (first, second))
    if a is None or b is None or max(a, b) < MORE_TEXT * min(a, b):
        return 0.0
    return 1.0 if a > b else -1.0
