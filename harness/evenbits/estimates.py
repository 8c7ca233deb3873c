"""Estimate, Threshold, Verdict, Finding and Measurement: the results schema.

An *estimate* is a number with its interval, its n and its method; where it is undefined the value is `None` and the
reason says why. A *finding* is what a hypothesis module measured. A *measurement* is a finding held against a
threshold, with its verdict. All of them convert to plain JSON types and back without loss.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Literal

from evenbits.rows import Row, plain

__all__ = [
    "Estimate",
    "Finding",
    "Measurement",
    "Role",
    "Threshold",
    "Verdict",
    "judge",
    "three_way",
    "units_needed",
]

Role = Literal["criterion", "prediction", "robustness", "established", "gate", "control"]
Operator = Literal[">", ">=", "<", "<="]

ROLES: tuple[Role, ...] = ("criterion", "prediction", "robustness", "established", "gate", "control")
OPERATORS: tuple[Operator, ...] = (">", ">=", "<", "<=")


class Verdict(StrEnum):
    """The five outcomes of a hypothesis test; only `SUPPORTED` passes."""

    SUPPORTED = "supported"
    NOT_SUPPORTED = "not_supported"
    UNDERPOWERED = "underpowered"
    NOT_APPLICABLE = "not_applicable"
    ERROR = "error"


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate(Row):
    """A number that supports a verdict.

    `value`, `low`, `high`: the estimate and its interval (95 % unless `method` says otherwise), unrounded.
    `n`: how many independent units it rests on. `method`: how value and interval were computed.
    `reason`: why the value (or its interval) is undefined or limited; required where `value` is None.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int
    method: str
    reason: str | None = None

    def __post_init__(self) -> None:
        for name in ("value", "low", "high"):
            number = getattr(self, name)
            if number is None:
                continue
            if not math.isfinite(number):
                raise ValueError(f"{name} is {number}: an undefined estimate is None with a reason")
            object.__setattr__(self, name, float(number))
        if self.value is None and not self.reason:
            raise ValueError("an undefined estimate needs a reason")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"interval is upside down: low {self.low} > high {self.high}")
        object.__setattr__(self, "n", int(self.n))

    @classmethod
    def undefined(cls, reason: str, *, n: int = 0, method: str = "none") -> Estimate:
        """Return an estimate without a value; `reason` says why."""
        return cls(value=None, n=n, method=method, reason=reason)


def three_way(estimate: Estimate, *, above: float = -math.inf, below: float = math.inf) -> Verdict:
    """Return whether a claim is shown: `above` < true value < `below`.

    `SUPPORTED` where the whole interval lies inside, `NOT_SUPPORTED` where all of it lies outside on one side, else
    `UNDERPOWERED`; an open limit reaches everywhere. What has no value is `NOT_APPLICABLE`.
    """
    if estimate.value is None:
        return Verdict.NOT_APPLICABLE
    low = -math.inf if estimate.low is None else min(estimate.low, estimate.value)
    high = math.inf if estimate.high is None else max(estimate.high, estimate.value)
    if above < low and high < below:
        return Verdict.SUPPORTED
    return Verdict.NOT_SUPPORTED if high <= above or low >= below else Verdict.UNDERPOWERED


def units_needed(estimate: Estimate, *, above: float = -math.inf, below: float = math.inf) -> int | None:
    """Return the n at which `three_way` would decide if the true value were the one measured.

    The interval shrinks with the root of n. None where the value is undefined, has no interval or lies on a limit.
    """
    value = estimate.value
    if value is None or estimate.low is None or estimate.high is None or estimate.n < 1:
        return None
    down, up = value - estimate.low, estimate.high - value  # how far the interval reaches
    if value > below:
        reaches = [(down, value - below)]
    elif value < above:
        reaches = [(up, above - value)]
    else:
        reaches = [(down, value - above), (up, below - value)]
    if any(distance == 0 for _, distance in reaches):
        return None
    return max(estimate.n, math.ceil(estimate.n * max(width / distance for width, distance in reaches) ** 2 - 1e-9))


@dataclass(frozen=True, kw_only=True, slots=True)
class Threshold(Row):
    """A success threshold, fixed before measuring: `metric` `op` `bound`, and why that bound."""

    metric: str
    op: Operator
    bound: float
    why: str

    def __post_init__(self) -> None:
        if self.op not in OPERATORS:
            raise ValueError(f"unknown operator {self.op!r}: one of {', '.join(OPERATORS)}")
        if not math.isfinite(self.bound):
            raise ValueError("a threshold needs a finite bound")

    def met_by(self, value: float) -> bool:
        """Return whether `value` satisfies the threshold."""
        match self.op:
            case ">":
                return value > self.bound
            case ">=":
                return value >= self.bound
            case "<":
                return value < self.bound
            case "<=":
                return value <= self.bound

    def against(self, estimate: Estimate) -> Verdict:
        """Return the three-way verdict of the estimate's interval: the bound itself belongs to `>=` and `<=`."""
        return three_way(estimate, **self._region())

    def units_needed(self, estimate: Estimate) -> int | None:
        """Return the n at which the interval would decide if the true value were the one measured."""
        return units_needed(estimate, **self._region())

    def _region(self) -> dict[str, float]:
        match self.op:
            case ">":
                return {"above": self.bound}
            case ">=":
                return {"above": math.nextafter(self.bound, -math.inf)}
            case "<":
                return {"below": self.bound}
            case "<=":
                return {"below": math.nextafter(self.bound, math.inf)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What a hypothesis module measured, before it is held against a threshold.

    `estimate`: the decisive number. `p_value`: of the test that belongs to it, if any.
    `verdict`: set only where the number cannot decide (underpowered, not applicable, error) or where a condition beyond
    the number refutes the hypothesis (not_supported); `because` then says why in a sentence.
    `shown`: None: the interval decides both ways. True: tests of its own have shown what the claim adds to its bound
    (significance, equivalence), so that the value alone has to meet it. False: these tests have not shown it, so the
    interval can refute and nothing can support.
    `also`: the same number on other metrics or in other forms, by name; entries named like a degradation metric
    (`relative_increase`, `kl`) decide `metric_sensitive`. `sensitive`: whether it is set, whatever these numbers say,
    where the verdict hangs on conditions beyond the number; None: these numbers decide.
    `summary`: a few words for the terminal line. `action`: what a user should do with it, in a sentence.
    `data`: plain JSON tables for figures and for re-use.
    """

    estimate: Estimate
    p_value: float | None = None
    verdict: Verdict | None = None
    shown: bool | None = None
    because: str | None = None
    also: Mapping[str, Estimate] = field(default_factory=dict)
    sensitive: bool | None = None
    summary: str = ""
    action: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.verdict is Verdict.SUPPORTED:
            raise ValueError("a finding never declares itself supported: the threshold does")
        if self.verdict is not None and not self.because:
            raise ValueError(f"verdict {self.verdict} needs a sentence that says why")


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement(Row):
    """A finding held against its threshold: one row of the report's `measurements`."""

    KEYS: ClassVar = {"explanation": "explain"}

    hypothesis: str
    test: str
    role: Role
    model: str | None
    spec: str | None
    verdict: Verdict
    metric: str
    estimate: Estimate
    threshold: Threshold | None
    p_value: float | None = None
    metric_sensitive: bool = False
    explanation: str = ""
    seconds: float | None = None
    summary: str = ""
    action: str | None = None
    also: Mapping[str, Estimate] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ValueError(f"unknown role {self.role!r}: one of {', '.join(ROLES)}")
        if self.p_value is not None and not 0 <= self.p_value <= 1:
            raise ValueError(f"p-value {self.p_value} is outside [0, 1]")

    @property
    def supported(self) -> bool:
        return self.verdict is Verdict.SUPPORTED

    def explain(self) -> str:
        """Return a sentence: what was measured, what was needed, what to do."""
        return self.explanation


DEGRADATION_METRICS = ("excess_bits", "relative_increase", "kl")
"""Names under which `Finding.also` carries the same number on another degradation metric."""


def judge(
    finding: Finding,
    threshold: Threshold,
    *,
    hypothesis: str,
    test: str,
    role: Role,
    model: str | None = None,
    spec: str | None = None,
) -> Measurement:
    """Hold `finding` against `threshold` and return the measurement with its verdict.

    Three ways, by the interval: supported where it lies beyond the bound, not supported where it lies on the other
    side, underpowered where it reaches over the bound; a value without an interval shows nothing (see `Finding.shown`).
    An undefined estimate without a verdict of its own is an error of the instrument, not a refutation. The result is
    metric sensitive where the same number on another degradation metric has another sign or another verdict.
    """
    verdict = _verdict(finding, threshold)
    return Measurement(
        hypothesis=hypothesis,
        test=test,
        role=role,
        model=model,
        spec=spec,
        verdict=verdict,
        metric=threshold.metric,
        estimate=finding.estimate,
        threshold=threshold,
        p_value=finding.p_value,
        metric_sensitive=_metric_sensitive(finding, threshold) if finding.sensitive is None else finding.sensitive,
        explanation=_sentence(finding, threshold, verdict),
        summary=finding.summary,
        action=finding.action,
        also=dict(finding.also),
        data=plain(finding.data),
    )


def _verdict(finding: Finding, threshold: Threshold) -> Verdict:
    value = finding.estimate.value
    if finding.verdict is not None:
        return finding.verdict
    if value is None:
        return Verdict.ERROR
    if finding.shown and threshold.met_by(value):
        return Verdict.SUPPORTED
    verdict = threshold.against(finding.estimate)
    return Verdict.UNDERPOWERED if verdict is Verdict.SUPPORTED and finding.shown is not None else verdict


def _metric_sensitive(finding: Finding, threshold: Threshold) -> bool:
    value = finding.estimate.value
    if value is None:
        return False
    others = [finding.also[name].value for name in DEGRADATION_METRICS if name in finding.also]
    return any(
        other is not None and (threshold.met_by(other) != threshold.met_by(value) or other * value < 0)
        for other in others
    )


def _sentence(finding: Finding, threshold: Threshold, verdict: Verdict) -> str:
    estimate = finding.estimate
    if estimate.value is None:
        measured = f"{threshold.metric} is undefined: {estimate.reason}"
    else:
        bounds = ["open" if bound is None else f"{bound:.3g}" for bound in (estimate.low, estimate.high)]
        interval = "" if bounds == ["open", "open"] else f" [{', '.join(bounds)}]"
        measured = f"{threshold.metric} {estimate.value:.3g}{interval}, n {estimate.n}"
    parts = [f"{verdict}: {measured}; needed {threshold.op} {threshold.bound:g} ({threshold.why})."]
    if verdict is Verdict.UNDERPOWERED and finding.verdict is None and finding.shown is None:
        parts.append(_undecided(threshold, estimate))
    if finding.because:
        parts.append(finding.because)
    if finding.action:
        parts.append(finding.action)
    return " ".join(parts)


def _undecided(threshold: Threshold, estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return "Its interval is open, so it neither shows nor refutes that."
    needed = threshold.units_needed(estimate)
    more = "" if needed is None else f"; if the true value is the one measured, n of about {needed} would decide"
    return f"Its interval reaches over the bound, so it neither shows nor refutes that{more}."
