"""Training recommendations: a paragraph for each contrast of trained models, and whether it supports its advice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evenbits.estimates import Estimate, Finding, Verdict, three_way
from evenbits.studies.h038.contrasts import CONTRASTS, MIN_PAIRS, Contrasted, TrainedModel, contrasted, needed_models

__all__ = ["ALPHA", "Recommendation", "recommend", "training_choices", "training_recipes"]

ALPHA = 0.05
WHAT = "paired difference of excess bits over training runs"


@dataclass(frozen=True, kw_only=True, slots=True)
class Recommendation:
    """What one contrast says about its advice.

    `supported`: damage falls (Holm p < .05) in every pair of models, and the quantized model is no worse for it.
    `paragraph`: for people.
    """

    found: Contrasted
    supported: bool
    paragraph: str


def recommend(models: Mapping[str, TrainedModel], spec: str, *, rng: np.random.Generator) -> tuple[Recommendation, ...]:
    """Return what the models at hand say about training, a recommendation for each contrast that can be made."""
    return tuple(_recommendation(one, spec) for one in contrasted(models, rng=rng))


def training_choices(recommendations: Sequence[Recommendation]) -> Finding:
    """Return the finding: the contrast that supports its advice most, or the statement that none is supported.

    The estimate is a difference of damage in bits per segment, below zero where the advice saves; p is Holm's. Without
    support it is refuted only where the interval of every contrast lies above zero, else underpowered.
    """
    if not recommendations:
        names = ", ".join(needed_models())
        reason = "no two different models of this run differ in one training choice"
        return Finding(
            estimate=Estimate.undefined(reason, method=WHAT),
            verdict=Verdict.NOT_APPLICABLE,
            because=f"{reason}, so none is recommended. Give --model reference, or two of {names}.",
            summary=reason,
        )
    supported = [one for one in recommendations if one.supported]
    best = min(supported or recommendations, key=_evidence)
    damage = best.found.damage
    refuted = all(three_way(one.found.damage.estimate, below=0.0) is Verdict.NOT_SUPPORTED for one in recommendations)
    none = f"None of {len(recommendations)} training choices is supported by a contrast of this run."
    return Finding(
        estimate=damage.estimate,
        p_value=damage.adjusted_p,
        verdict=None if supported else Verdict.NOT_SUPPORTED if refuted else Verdict.UNDERPOWERED,
        shown=True,
        because=" ".join(one.paragraph for one in supported or (best,)),
        summary=f"{len(supported)} of {len(recommendations)} training choices save damage"
        + (f": {', '.join(one.found.contrast.name for one in supported)}" if supported else ""),
        action=" ".join(f"{one.found.contrast.advice}." for one in supported) or none,
        also={"relative_increase": best.found.relative},
        data={"contrasts": [_row(one) for one in recommendations], "of": len(CONTRASTS)},
    )


def training_recipes(recommendations: Sequence[Recommendation], spec: str) -> list[dict[str, Any]]:
    """Return the recipes of the report: one for each supported recommendation, else one that says none is."""
    supported = [one for one in recommendations if one.supported]
    shared = {"hypothesis": "H-038", "kind": "training", "spec": spec}
    if not supported:
        if not recommendations:
            return []
        title = "Training: no choice is supported"
        return [{**shared, "title": title, "paragraphs": [one.paragraph for one in recommendations]}]
    return [
        {**shared, "title": f"Training: {one.found.contrast.name}", "paragraph": one.paragraph, **one.found.to_json()}
        for one in supported
    ]


def _evidence(one: Recommendation) -> tuple[float, float]:
    damage = one.found.damage
    return (1.0 if damage.adjusted_p is None else damage.adjusted_p, damage.estimate.value or 0.0)


def _recommendation(found: Contrasted, spec: str) -> Recommendation:
    damage, advice = found.damage, found.contrast.advice
    value = damage.estimate.value or 0.0
    clear = damage.adjusted_p is not None and damage.adjusted_p < ALPHA
    agree = found.agreeing == len(found.by_pair)
    after = found.quantized.value or 0.0
    if damage.p_value is None:
        pairs = len(found.by_pair)
        head = (
            f"Not decided: {_lower(advice)}. {pairs} pair{'' if pairs == 1 else 's'} of training runs, needed "
            f"{MIN_PAIRS}: languages of one run are no replicates of a training choice."
        )
    elif not clear:
        head = f"Not recommended for quantization's sake: {_lower(advice)}. The difference is not significant."
    elif value > 0:
        better = found.quantized.high is not None and found.quantized.high < 0
        yet = ", less than it gains before quantizing" if better else ""
        head = f"Not recommended for quantization's sake: {_lower(advice)}. It costs damage{yet}."
    elif not agree:
        head = f"Not recommended: {_lower(advice)}. Pairs of models disagree on its sign."
    elif after > 0:
        head = f"Not recommended: {_lower(advice)}. It saves damage and costs more likelihood than it saves."
    else:
        head = f"{advice}."
    return Recommendation(
        found=found,
        supported=clear and value < 0 and agree and after <= 0,
        paragraph=f"{head} {_measured(found, spec)}",
    )


def _measured(found: Contrasted, spec: str) -> str:
    p = found.damage.adjusted_p
    pairs = "; ".join(f"{name} {value:+.2f}" for name, value in found.by_pair.items())
    return (
        f"At {spec}, damage differs by {_bits(found.damage.estimate)} bits per segment over {len(found.languages)} "
        f"languages (Holm p {'undefined' if p is None else f'{p:.2g}'}; {pairs}), full-precision NLL by "
        f"{_bits(found.full)}, quantized NLL by {_bits(found.quantized)}. Intervals are over {found.units}; "
        f"{len(found.by_pair)} pair{'s' if len(found.by_pair) > 1 else ''} of training runs stand behind them."
    )


def _bits(estimate: Estimate) -> str:
    if estimate.value is None:
        return "an undefined number of"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:+.2f}"
    return f"{estimate.value:+.2f} [{estimate.low:+.2f}, {estimate.high:+.2f}]"


def _lower(advice: str) -> str:
    return advice[:1].lower() + advice[1:]


def _row(one: Recommendation) -> dict[str, Any]:
    return one.found.to_json() | {"supported": one.supported, "paragraph": one.paragraph}
