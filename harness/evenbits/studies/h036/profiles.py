"""Do languages rely on different layers? The layer x language interaction of each language's shares of its own damage.

In excess bits a language that loses twice as much in every layer is an interaction too, though it relies on the same
layers: that is difference in size, and stands beside the criterion. Segments are the replicates, and their residuals
are flipped in sign: exchanging labels of languages would take equal noise in all of them as given.

Shapes: P layers, L languages, S segments.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from evenbits.estimates import Estimate, Finding, Verdict
from evenbits.printable import capital
from evenbits.statistics import Interaction, Scale, layer_language_interaction
from evenbits.studies.h036.depth import where_damage_lies
from evenbits.studies.h036.study import LayerStudy

__all__ = ["ALPHA", "MIN_LANGUAGES", "different_layers", "layer_language"]

Float64 = NDArray[np.float64]

ALPHA = 0.05
MIN_LANGUAGES = 10
"""Fewer languages than this in two families give an interaction within families too little to speak of."""

NEGLIGIBLE = 0.06
"""An effect shown to be below this refutes: less than a medium one (Kirk 1996), fixed 2026-11."""


def different_layers(study: LayerStudy, *, rng: np.random.Generator) -> Finding:
    """Whether damage has a layer x language interaction in shares: the criterion.

    The estimate is partial omega squared of damage divided by each language's own mean; p flips the signs of whole
    segments, within families. `also` holds the same number in bits (size included) and on relative increase. Languages
    without damage above three noise floors have no shares and are named.
    """
    lacking = _too_few(study)
    if lacking is not None:
        return lacking
    shares, left_out = _in_shares(study, rng)
    bits = _interaction(study, study.excess_bits, rng)
    relative = _interaction(study, study.excess_bits / study.nll_bits[None, :, None], rng)
    place = where_damage_lies(study)
    verdict = _verdict(shares, study.alpha)
    shown = shares.p_value is not None and shares.p_value < study.alpha
    return Finding(
        estimate=shares.estimate,
        p_value=shares.p_value,
        verdict=verdict,
        shown=shown,
        because=f"{_because(shares, study.alpha)}{left_out} In bits {_brief(bits)}: "
        f"{_reading(bits, shares, study.alpha)}. {place.sentence}",
        summary=f"languages' own layers explain {_brief(shares)}{_decided_by(shares, study.alpha)}; "
        f"damage {place.brief}",
        action=place.advice(shown=verdict is Verdict.NOT_SUPPORTED or (verdict is None and shown)),
        also={"bits": bits.estimate, "relative_increase": relative.estimate},
        sensitive=False if shares.estimate.value is None else None,
        data={
            "layer_language": layer_language(study),
            "interaction": {"share": shares.to_json(), "bits": bits.to_json(), "relative_increase": relative.to_json()},
            "depth": place.to_json(),
            "floor_bits": study.floor.to_json(),
            "nll_full_bits": dict(zip(study.languages, study.nll_bits.tolist(), strict=True)),
        },
    )


def _interaction(study: LayerStudy, damage: Float64, rng: np.random.Generator, scale: Scale = "bits") -> Interaction:
    return layer_language_interaction(
        damage, rng=rng, families=study.families, scale=scale, scheme="signs", confidence=study.confidence
    )


def _decided_by(found: Interaction, alpha: float) -> str:
    """Return why a small effect is shown although its interval holds 0; empty where there is nothing to explain."""
    estimate = found.estimate
    holds_0 = estimate.low is not None and estimate.low <= 0
    return " (p decides, the interval is of the size)" if holds_0 and (found.p_value or 1.0) < alpha else ""


def layer_language(study: LayerStudy) -> dict[str, Any]:
    """Return the table for the report's figure: mean excess bits by layer and language."""
    return {
        "layers": [unit.label for unit in study.units],
        "languages": list(study.languages),
        "excess_bits": study.means.tolist(),
    }


def _verdict(found: Interaction, alpha: float) -> Verdict | None:
    """Return the verdict where number and test cannot decide, or where the effect is shown to be negligible."""
    estimate = found.estimate
    if estimate.value is None:
        return Verdict.NOT_APPLICABLE
    if found.p_value is None or found.least_p >= alpha:
        return Verdict.UNDERPOWERED
    if found.p_value >= alpha and estimate.high is not None and estimate.high < NEGLIGIBLE:
        return Verdict.NOT_SUPPORTED
    return None


def _in_shares(study: LayerStudy, rng: np.random.Generator) -> tuple[Interaction, str]:
    """Return the interaction of shares, over languages with damage to divide by, and a sentence on the others."""
    above = study.above_floor
    kept = study.only([tag for tag, is_above in zip(study.languages, above, strict=True) if is_above])
    out = [tag for tag, is_above in zip(study.languages, above, strict=True) if not is_above]
    sentence = f" Left out, as their damage is below three noise floors: {', '.join(out)}." if out else ""
    if len(kept.languages) < 2:
        reason = f"{len(kept.languages)} of {len(above)} languages have single-layer damage above three noise floors"
        return Interaction.undefined(Estimate.undefined(reason)), sentence
    return _interaction(kept, kept.excess_bits, rng, "share"), sentence


def _too_few(study: LayerStudy) -> Finding | None:
    count, families = len(study.languages), len(set(study.families))
    if count < MIN_LANGUAGES:
        lacking = f"{count} languages, needed {MIN_LANGUAGES}"
    elif families < 2:
        lacking = f"{count} languages of one family, needed two families or more to tell family from language"
    else:
        return None
    return Finding(
        estimate=Estimate.undefined(lacking, n=count, method="partial omega squared of layer x language"),
        verdict=Verdict.UNDERPOWERED,
        because=f"{lacking}. Add languages with --languages or a corpus that has them.",
        summary=lacking,
        data={"layer_language": layer_language(study)},
    )


def _because(found: Interaction, alpha: float) -> str:
    if found.p_value is None:
        return f"{capital(found.p_method)}."
    if found.least_p >= alpha:
        return f"p cannot fall below {found.least_p:.2g} with {found.estimate.n} segments; take 6 or more."
    against = (
        "" if found.p_value < alpha else f", needed below {alpha:.2g}, and an upper limit below {NEGLIGIBLE:g} refutes"
    )
    return f"p {_p(found.p_value)}{against} ({found.p_method})."


def _reading(bits: Interaction, shares: Interaction, alpha: float) -> str:
    if shares.p_value is None or bits.p_value is None:
        return "that scale decides nothing here"
    if shares.p_value < alpha:
        return "the shape over layers differs between languages, not only the size"
    if bits.p_value < alpha:
        return "what is shown is difference in size, languages lose more or less of one profile over layers"
    return "neither shape nor size over layers is shown to differ between languages"


def _brief(found: Interaction) -> str:
    estimate = found.estimate
    if estimate.value is None:
        return "undefined"
    interval = "" if estimate.low is None or estimate.high is None else f" [{estimate.low:.2f}, {estimate.high:.2f}]"
    return f"{estimate.value:.2f}{interval}" + ("" if found.p_value is None else f" p {_p(found.p_value)}")


def _p(value: float) -> str:
    return "< .001" if value <= 0.001 else f"{value:.3f}".replace("0.", ".", 1)
