"""Resilient and vulnerable languages: who loses less, and who more, than training text and likelihood explain.

Groups are settled from damage, resource level and full-precision NLL alone. Nothing here takes a feature, so that no
feature can have a say in who belongs where.

Shapes: L languages of the table, N languages that take part, S segments, B rearrangements.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evenbits.cells.damage import Damage
from evenbits.estimates import Verdict
from evenbits.text.languages import describe

__all__ = ["EQUAL_BELOW", "METRICS", "MIN_LANGUAGES", "Refusal", "ResilienceGroups", "divide", "stratum_of"]

Float64 = NDArray[np.float64]
Masks = NDArray[np.bool_]

METRICS = ("excess_bits", "relative_increase", "kl")

RESILIENT_BELOW = 0.0
VULNERABLE_ABOVE = 0.0
"""Cut-offs of the residual, which is 0 for a language that loses exactly what was expected. A larger distance would
leave too few languages of a tier of about ten to find anything."""

MIN_LANGUAGES = 10
"""Two covariates are fitted; over fewer languages the residuals say more about the fit than about the languages."""

EQUAL_BELOW = 2.0
"""Exposure is equal where the most trained language has less than this many times the bytes of the least."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """Why there is no number: a verdict, a few words, and the sentence that says what to do."""

    verdict: Verdict
    lacking: str
    because: str
    n: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class ResilienceGroups:
    """Residuals of the languages of one model under `spec`, and the groups that follow from them.

    `languages` take part, `left_out` do not, with the reason. `tier` [N]: `low`, `high` or `between`.
    `resource_name`: what stands for resource level. `residual` [N]: ln damage minus its least-squares fit, so that
    exp(residual) is the factor by which a language loses more than expected.
    `design` [N, 1 + C]: constant and covariates of the fit; `coefficients`: by covariate.
    """

    spec: str
    metric: str
    languages: tuple[str, ...]
    tier: tuple[str, ...]
    resource_name: str
    design: Float64
    residual: Float64
    coefficients: Mapping[str, float]
    left_out: Mapping[str, str]

    @property
    def resilient(self) -> tuple[str, ...]:
        """Low-resource languages that lose less than expected."""
        return self._members(self.masks(self.residual[None])[0][0])

    @property
    def vulnerable(self) -> tuple[str, ...]:
        """High-resource languages that lose more than expected."""
        return self._members(self.masks(self.residual[None])[1][0])

    @property
    def strata(self) -> tuple[str, ...]:
        """Within which residuals are exchanged: family and script, and all languages that are alone in theirs.

        Blocks of one are exchanged whole (Winkler et al. 2015, multi-level block permutation).
        """
        own = [stratum_of(tag) for tag in self.languages]
        return tuple(stratum if own.count(stratum) > 1 else "alone" for stratum in own)

    def masks(self, residual_BN: Float64) -> tuple[Masks, Masks]:
        """Return who is resilient and who vulnerable under other residuals, [B, N] each; tiers stay as they are."""
        tier = np.array(self.tier)
        return (
            (tier == "low") & (residual_BN < RESILIENT_BELOW),
            (tier == "high") & (residual_BN > VULNERABLE_ABOVE),
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "metric": self.metric,
            "resource": self.resource_name,
            "coefficients": dict(self.coefficients),
            "resilient": list(self.resilient),
            "vulnerable": list(self.vulnerable),
            "residuals": [
                {"language": tag, "tier": tier, "residual": float(residual)}
                for tag, tier, residual in zip(self.languages, self.tier, self.residual, strict=True)
            ],
            "left_out": dict(self.left_out),
        }

    def _members(self, mask: Masks) -> tuple[str, ...]:
        return tuple(tag for tag, inside in zip(self.languages, mask, strict=True) if inside)


def divide(
    table: Damage,
    spec: str,
    *,
    tier: Mapping[str, str],
    exposure: Mapping[str, int] | None = None,
    metric: str = "excess_bits",
    likelihood: bool = True,
) -> ResilienceGroups | Refusal:
    """Divide the languages of `table` by the residual of their damage, or say why that cannot be done.

    ln damage is fitted on resource level (ln of 1 + training bytes where `exposure` is known, else the resource class)
    and, unless `likelihood` is false, on ln of full-precision NLL per segment: damage is thought of as a product, so
    that a language that starts with twice the bits may lose twice as much without being vulnerable. Languages without
    a known resource level, or without damage above three noise floors, take no part.
    """
    damage_L = table.degradation(spec)[metric].mean(axis=1)
    resource, name = _resources(table.languages, exposure)
    left_out = _left_out(table, spec, damage_L, resource)
    kept = [place for place, tag in enumerate(table.languages) if tag not in left_out]
    languages = tuple(table.languages[place] for place in kept)
    refusal = _too_few(languages, left_out) or _equal(languages, resource, exposure)
    if refusal is not None:
        return refusal
    columns = {name: np.array([resource[tag] for tag in languages], dtype=np.float64)}
    if likelihood:
        columns["ln NLL"] = np.log(table.nll_full(spec).mean(axis=1)[kept] / math.log(2))
    design_NC = np.column_stack([np.ones(len(kept)), *columns.values()])
    target_N = np.log(damage_L[kept])
    fitted, *_ = np.linalg.lstsq(design_NC, target_N, rcond=1e-10)
    residual_N = target_N - design_NC @ fitted
    # What rounding leaves of a perfect fit must not put a language on either side.
    residual_N[np.abs(residual_N) <= 1e-9 * max(1.0, float(np.abs(target_N).max()))] = 0.0
    if not residual_N.any():
        return _all_as_expected(len(kept))
    return ResilienceGroups(
        spec=spec,
        metric=metric,
        languages=languages,
        tier=tuple(tier.get(tag, "between") for tag in languages),
        resource_name=name,
        design=design_NC,
        residual=residual_N,
        left_out=left_out,
        coefficients=dict(zip(("constant", *columns), fitted.tolist(), strict=True)),
    )


def stratum_of(tag: str) -> str:
    """Return family and script of a language; one without a known family stands alone."""
    language = describe(tag)
    return f"{language.family or tag} {language.script}"


def _resources(languages: tuple[str, ...], exposure: Mapping[str, int] | None) -> tuple[dict[str, float | None], str]:
    if exposure is None:
        classes = {tag: describe(tag).resource_class for tag in languages}
        return {tag: None if found is None else float(found) for tag, found in classes.items()}, "resource class"
    amounts = {tag: describe(tag, exposure=exposure).exposure_bytes for tag in languages}
    return {tag: None if found is None else math.log1p(found) for tag, found in amounts.items()}, "ln training bytes"


def _left_out(table: Damage, spec: str, damage_L: Float64, resource: Mapping[str, float | None]) -> dict[str, str]:
    excess = table.excess_bits(spec).mean(axis=1)
    reasons = {}
    for tag, damage, bits, above in zip(table.languages, damage_L, excess, table.above_floor(spec), strict=True):
        if resource[tag] is None:
            reasons[tag] = "resource level unknown"
        elif not above or bits <= 0 or damage <= 0:
            reasons[tag] = "no damage above three noise floors"
    return reasons


def _too_few(languages: tuple[str, ...], left_out: Mapping[str, str]) -> Refusal | None:
    families = {describe(tag).family or tag for tag in languages}
    count = len(languages)
    if count >= MIN_LANGUAGES and len(families) > 1:
        return None
    if count < MIN_LANGUAGES:
        lacking = f"{count} languages, needed {MIN_LANGUAGES}"
        remedy = "Add languages with --languages or a corpus that has them"
        if any("noise" in reason for reason in left_out.values()):
            remedy += ", or take a lower precision, more segments or --dtype float32"
    else:
        lacking = f"{count} languages of one family, needed two families or more to tell family from resilience"
        remedy = "Add languages of other families with --languages"
    out = "; ".join(
        f"{', '.join(tag for tag, why in left_out.items() if why == reason)} ({reason})"
        for reason in dict.fromkeys(left_out.values())
    )
    without = f" Left out: {out}." if out else ""
    return Refusal(verdict=Verdict.UNDERPOWERED, lacking=lacking, n=count, because=f"{lacking}. {remedy}.{without}")


def _all_as_expected(count: int) -> Refusal:
    lacking = "resource level and likelihood explain damage completely"
    return Refusal(
        verdict=Verdict.NOT_APPLICABLE,
        lacking=lacking,
        n=count,
        because=f"{lacking}: no language is more resilient or vulnerable than another.",
    )


def _equal(
    languages: tuple[str, ...], resource: Mapping[str, float | None], exposure: Mapping[str, int] | None
) -> Refusal | None:
    """Return the refusal of a model whose languages all have the same resource level."""
    values = [value for tag in languages if (value := resource[tag]) is not None]
    apart = max(values) - min(values)
    if exposure is None:
        if apart > 0:
            return None
        lacking = f"all {len(languages)} languages are of resource class {values[0]:g}"
    else:
        if apart >= math.log(EQUAL_BELOW):
            return None
        lacking = f"equal exposure: the most trained language has {math.exp(apart):.2f} times the bytes of the least"
    return Refusal(
        verdict=Verdict.NOT_APPLICABLE,
        lacking=lacking,
        n=len(languages),
        because=f"{lacking}, so none is low- or high-resource. Name a model whose languages differ in training text.",
    )
