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
from evenbits.statistics import Outcome, holm, language_mean, mean_interval, permutation_p, rearrangements
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
    compared = [(*pair, sides) for pair in pairs if (sides := _sides(contrast, *pair))]
    if not compared:
        return None
    languages = tuple(sorted(set.intersection(*(set(sides) for *_, sides in compared))))
    raw_PL4 = np.array([[np.subtract(a.losses[tag], b.losses[tag]) for tag in languages] for a, b, _ in compared])
    sides_PL = np.array([[sides[tag] for tag in languages] for *_, sides in compared])
    if len(languages) < 2 or (contrast.by == "exposure" and not _both(sides_PL)):
        return None
    values_PL4 = raw_PL4 if contrast.by == "model" else _of_exposure(raw_PL4, sides_PL)
    names = (f"{a.name} against {b.name}" for a, b, _ in compared)
    by_pair = dict(zip(names, values_PL4[:, :, 0].mean(axis=1).tolist(), strict=True))
    if contrast.by == "model":
        # a pair is one unit, however many languages it was measured in
        columns = [values_PL4[:, :, column].mean(axis=1) for column in range(4)]
        damage = _over_pairs(columns[0], rng)
        full, quantized, relative = (mean_interval(column, rng=rng) for column in columns[1:])
    else:
        # a language is one unit, however many pairs of models it was measured in
        mean_L4 = values_PL4.mean(axis=0)
        bits, full, quantized, relative = (_over_languages(languages, mean_L4[:, column], rng) for column in range(4))
        damage = _dealt_otherwise(bits, raw_PL4[:, :, 0], sides_PL, rng)
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
        dict(zip(languages, values_L.tolist(), strict=True)),
        rng=rng,
        families=families_of(languages),
        what="mean over languages",
    )


def _dealt_otherwise(bits: Estimate, raw_PL: Float64, sides_PL: Float64, rng: np.random.Generator) -> Outcome:
    """Return `bits` with p of the effect if the same languages had been dealt to the sides in another order.

    Which language was shown more was drawn by lot, so every order was as likely. The sides of a language in all pairs
    stay together; how many languages a side has stays, too, as what runs differ by is taken from both sides.
    """
    drawn = rearrangements(raw_PL.shape[1], rng=rng)
    if drawn is None:
        return Outcome(estimate=bits, p_value=None, p_method="none: one language")
    more_PL, less_PL = sides_PL > 0, sides_PL < 0
    weights_PL = more_PL / more_PL.sum(axis=1, keepdims=True) - less_PL / less_PL.sum(axis=1, keepdims=True)
    effects_M = sum(weights_L[drawn.rows] @ raw_L for weights_L, raw_L in zip(weights_PL, raw_PL, strict=True))
    p = permutation_p(float((weights_PL * raw_PL).sum()), np.asarray(effects_M), exact=drawn.exact)
    return Outcome(estimate=bits, p_value=p, p_method=f"{drawn.method} of who was shown more")


def _of_exposure(raw_PL4: Float64, sides_PL: Float64) -> Float64:
    """Return the side that was shown more minus the other, by pair and language.

    What the two runs differ by in all languages alike is taken out, half-way between the languages of either side.
    """
    means_2P4 = [
        (raw_PL4 * side[:, :, None]).sum(axis=1) / side.sum(axis=1)[:, None] for side in (sides_PL > 0, sides_PL < 0)
    ]
    return np.asarray(sides_PL[:, :, None] * (raw_PL4 - np.mean(means_2P4, axis=0)[:, None]))


def _both(sides_PL: Float64) -> bool:
    return bool((sides_PL > 0).any(axis=1).all() and (sides_PL < 0).any(axis=1).all())


def _sides(contrast: Contrast, first: TrainedModel, second: TrainedModel) -> dict[str, float]:
    """Return 1 or -1 for every language that is compared: by exposure, which model was shown more of it.

    Nothing where all of them are on one side.
    """
    shared = [tag for tag in first.losses if tag in second.losses]
    if contrast.by == "model":
        return dict.fromkeys(shared, 1.0)
    sides = {tag: side for tag in shared if (side := _shown_more(tag, first, second))}
    return sides if len(set(sides.values())) > 1 else {}


def _shown_more(tag: str, first: TrainedModel, second: TrainedModel) -> float:
    """Return 1 where `first` was shown more of the language, -1 where `second` was, 0 where neither or unknown."""
    a, b = ((model.exposure or {}).get(tag) for model in (first, second))
    if a is None or b is None or max(a, b) < MORE_TEXT * min(a, b):
        return 0.0
    return 1.0 if a > b else -1.0
