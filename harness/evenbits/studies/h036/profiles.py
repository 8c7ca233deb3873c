"""Do languages rely on different layers? The layer x language interaction of single-layer damage, in two scales.

In excess bits a language that loses twice as much in every layer is an interaction too, so the same test on each
language's shares of its own damage stands beside it: the criterion is on bits (METHOD 4), the shape is its robustness.

Shapes: P layers, L languages, S segments.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from evenbits.estimates import Estimate, Finding, Verdict
from evenbits.statistics import Interaction, layer_language_interaction
from evenbits.studies.h036.depth import where_damage_lies
from evenbits.studies.h036.study import LayerStudy

__all__ = ["ALPHA", "MIN_LANGUAGES", "different_layers", "different_shapes", "layer_language"]

ALPHA = 0.05
SCHEMES: tuple[Literal["labels", "signs"], ...] = ("labels", "signs")
MIN_LANGUAGES = 10
"""Fewer languages than this in two families give a permutation within families too few arrangements to speak."""


def different_layers(study: LayerStudy, *, rng: np.random.Generator) -> Finding:
    """Whether damage has a layer x language interaction, in excess bits: the criterion.

    The estimate is partial omega squared; p permutes language labels within families. `also` holds the same number on
    relative increase and on shares.
    """
    lacking = _too_few(study)
    if lacking is not None:
        return lacking
    bits = layer_language_interaction(study.excess_bits, rng=rng, families=study.families)
    shares, left_out = _in_shares(study, rng)
    scaled = study.excess_bits / study.nll_bits[None, :, None]
    relative = layer_language_interaction(scaled, rng=rng, families=study.families)
    place = where_damage_lies(study)
    shape = f"in shares of each language's own damage {_brief(shares)}"
    return _judged(
        bits,
        because=f"{_because(bits)} {_capital(shape)}: {_reading(bits, shares)}.{left_out} {place.sentence}",
        summary=f"layer x language w2p {_brief(bits)}; {place.brief}",
        action=place.advice,
        also={"relative_increase": relative.estimate, "share": shares.estimate},
        data={
            "layer_language": layer_language(study),
            "interaction": {"bits": bits.to_json(), "share": shares.to_json(), "relative_increase": relative.to_json()},
            "depth": place.to_json(),
            "floor_bits": study.floor.to_json(),
        },
    )


def different_shapes(study: LayerStudy, *, rng: np.random.Generator) -> Finding:
    """Whether the interaction remains when each language's damage is divided by its own mean: the robustness.

    Permuting labels takes equal spread in all languages as given, which dividing by a small damage may break; flipping
    the signs of whole segments does not. The larger p of the two decides.
    """
    lacking = _too_few(study)
    if lacking is not None:
        return lacking
    shares, left_out = _in_shares(study, rng)
    if shares.estimate.value is None:
        return Finding(
            estimate=shares.estimate,
            verdict=Verdict.UNDERPOWERED,
            because=f"Shares are undefined: {shares.estimate.reason}.{left_out} "
            "Use a lower precision, more segments or --dtype float32.",
        )
    return _judged(
        shares,
        because=f"{_because(shares)}{left_out}",
        summary=f"shape over layers w2p {_brief(shares)}",
        action=None,
        also={},
        data={"interaction": shares.to_json()},
    )


def layer_language(study: LayerStudy) -> dict[str, Any]:
    """Return the table for the report's figure: mean excess bits by layer and language."""
    return {
        "layers": [unit.label for unit in study.units],
        "languages": list(study.languages),
        "excess_bits": study.means.tolist(),
    }


def _judged(found: Interaction, *, because: str, summary: str, action: str | None, also: dict[str, Estimate],
            data: dict[str, Any]) -> Finding:  # fmt: skip
    verdict = None
    if found.estimate.value is None:
        verdict = Verdict.NOT_APPLICABLE
    elif found.p_value is None:
        verdict = Verdict.UNDERPOWERED
    elif found.p_value >= ALPHA:
        verdict = Verdict.NOT_SUPPORTED
    return Finding(
        estimate=found.estimate, p_value=found.p_value, verdict=verdict, because=because, summary=summary,
        action=action, also=also, data=data,
    )  # fmt: skip


def _in_shares(study: LayerStudy, rng: np.random.Generator) -> tuple[Interaction, str]:
    """Return the interaction of shares, over languages with damage to divide by, and a sentence on the others."""
    above = study.above_floor
    kept = study.only([tag for tag, is_above in zip(study.languages, above, strict=True) if is_above])
    out = [tag for tag, is_above in zip(study.languages, above, strict=True) if not is_above]
    sentence = f" Left out, as their damage is below three noise floors: {', '.join(out)}." if out else ""
    if len(kept.languages) < 2:
        reason = f"{len(kept.languages)} of {len(above)} languages have single-layer damage above three noise floors"
        return Interaction(
            estimate=Estimate.undefined(reason), p_value=None, p_method=f"none: {reason}", f=None, degrees=(0, 0),
            squares={}, movable=0,
        ), sentence  # fmt: skip
    tests = [
        layer_language_interaction(kept.excess_bits, rng=rng, families=kept.families, scale="share", scheme=scheme)
        for scheme in SCHEMES
    ]
    return max(tests, key=lambda one: 1.0 if one.p_value is None else one.p_value), sentence


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


def _because(found: Interaction) -> str:
    if found.p_value is None:
        return f"{_capital(found.p_method)}."
    against = "" if found.p_value < ALPHA else f", needed below {ALPHA:g}"
    return f"p {_p(found.p_value)}{against} ({found.p_method})."


def _reading(bits: Interaction, shares: Interaction) -> str:
    if shares.p_value is None or bits.p_value is None:
        return "that scale decides nothing here"
    if bits.p_value >= ALPHA:
        return "damage adds up from a layer part and a language part"
    if shares.p_value < ALPHA:
        return "the shape over layers differs between languages, not only the size"
    return "languages lose more or less of the same profile over layers, they do not rely on different layers"


def _brief(found: Interaction) -> str:
    estimate = found.estimate
    if estimate.value is None:
        return "undefined"
    interval = "" if estimate.low is None or estimate.high is None else f" [{estimate.low:.2f}, {estimate.high:.2f}]"
    return f"{estimate.value:.2f}{interval}" + ("" if found.p_value is None else f" p {_p(found.p_value)}")


def _p(value: float) -> str:
    return "< .001" if value <= 0.001 else f"{value:.3f}".replace("0.", ".", 1)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
