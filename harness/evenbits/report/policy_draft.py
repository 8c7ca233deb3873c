"""A first policy from a measured report: every limit is what was measured, its interval's upper end, plus a margin."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from decimal import ROUND_CEILING, Decimal
from pathlib import Path
from typing import Any

from evenbits.errors import ReportError
from evenbits.estimates import Estimate
from evenbits.report.described import exposure_of
from evenbits.report.document import asked, load, schema
from evenbits.studies.gate.decision import disparity_estimates, estimate_of
from evenbits.studies.gate.policy import LANGUAGE_METRICS, UNITS, Policy

__all__ = ["LEAST", "measured", "policy_draft"]

LEAST: Mapping[str, float] = {
    "excess_bits": 0.1,
    "relative_increase": 0.001,
    "kl": 0.001,
    "task_loss": 0.01,
    "disparity": 0.1,
    "disparity_ratio": 0.1,
}
"""Smallest limits written: below them a damage near zero would make a limit that noise alone exceeds."""


def policy_draft(document: Mapping[str, Any], *, margin: float = 0.1) -> str:
    """Return a commented policy that the report passes, as TOML text.

    `margin`: share of the interval's upper end that is added. With several models and specs in the report a limit is
    the largest, over those that the run was asked for: what evals measured to compare with sets no limit.
    `ReportError` where the report has no damage rows with an interval.
    """
    if not (math.isfinite(margin) and margin >= 0):
        raise ReportError(f"the margin must be a number of 0 or more, not {margin}.")
    wanted = {section: asked(document, section) for section in ("models", "specs")}
    rows = [row for row in document["damage"] if row["model"] in wanted["models"] and row["spec"] in wanted["specs"]]
    document = {**document, "damage": rows}
    tops = {metric: _tops(rows, metric) for metric in LANGUAGE_METRICS}
    if not tops["excess_bits"]:
        raise ReportError("the report has no damage rows with an interval, so there is nothing to base a policy on.")
    lines = [*_head(document, margin)]
    for metric, by_language in tops.items():
        if by_language:
            lines += _language_metric(metric, by_language, margin)
    overall = _overall(document)
    for metric, top in overall.items():
        lines += ["", f"[metric.{metric}]  # {UNITS[metric]}", f"limit = {_limit(metric, top, margin)}"]
    lines += _foot()
    text = "\n".join(lines) + "\n"
    _check(text)
    return text


def measured(file: Path) -> dict[str, Any]:
    """Return a report, or the damage that `evenbits damage --json` printed as the part of a report a draft needs.

    `ReportError` says what is wrong with the file.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return load(file)  # says what is wrong
    if not isinstance(found, dict) or not {"damage", "corpus", "seed"} <= set(found) or "measurements" in found:
        return load(file)
    try:
        _check_rows(found["damage"])
        texts = {key: list(dict.fromkeys(str(row[key]) for row in found["damage"])) for key in ("model", "spec")}
        return {
            "inputs": {
                "models": [{"text": text} for text in texts["model"]],
                "specs": [{"text": text} for text in texts["spec"]],
                "corpus": {"text": str(found["corpus"]["text"]), "digest": str(found["corpus"]["digest"])},
            },
            "environment": {"seed": int(found["seed"])},
            "damage": found["damage"],
            "measurements": [],
        }
    except (KeyError, TypeError, ValueError):
        raise ReportError(f"{file} is not what `evenbits damage --json` printed: it was cut or changed.") from None


def _check_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """Check damage rows against their part of the published schema; `ReportError` where they do not follow it."""
    from jsonschema import Draft202012Validator

    whole = schema()
    part = {"$defs": whole["$defs"], **whole["properties"]["damage"]}
    error = next(Draft202012Validator(part).iter_errors(rows), None)
    if error is not None:
        raise ValueError(error.message)


def _head(document: Mapping[str, Any], margin: float) -> Iterator[str]:
    inputs = document["inputs"]
    names = [", ".join(asked(document, key)) for key in ("models", "specs")]
    corpus = inputs["corpus"]
    yield "# Policy of the deployment gate. Checked by `evenbits gate --policy THIS_FILE`."
    yield "#"
    for line in (
        f"Measured: {names[0]} under {names[1]}",
        f"on {corpus['text']} (digest {str(corpus['digest'])[:12]}), seed {document['environment']['seed']}.",
    ):
        yield f"# {_one_line(line)}"
    yield f"# Every limit is the upper end of the measured 95 % interval plus {margin:.0%}, rounded up; where"
    yield "# several models or specs were measured, the largest. A result passes if all of its interval lies below."
    yield "#"
    yield "# A language's limit wins over that of its tier (high, middle, low), which wins over that of the metric."
    yield ""
    yield '# What happens where the interval straddles the limit: "fail" or "pass". Any table below may set its own.'
    yield 'inconclusive = "fail"'


def _language_metric(metric: str, tops: Mapping[str, float], margin: float) -> Iterator[str]:
    yield ""
    yield f"[metric.{metric}]  # {UNITS[metric]}"
    yield f"limit = {_limit(metric, max(tops.values()), margin)}  # for a language without a limit of its own"
    for tag, top in tops.items():
        yield f"language.{tag}.limit = {_limit(metric, top, margin)}"


def _foot() -> Iterator[str]:
    yield ""
    yield "# Compared with --baseline: a language fails where its change in mean excess bits per segment is shown"
    yield "# (over all languages at once) to be above this."
    yield "[baseline]"
    yield "limit = 0.0"
    yield 'inconclusive = "pass"'
    yield ""
    yield "# A waiver excuses one limit until a date. It fails the gate when it has expired or is no longer needed."
    yield "# [[waiver]]"
    yield '# metric = "excess_bits"'
    yield '# language = "sw"'
    yield '# spec = "int4-g64"        # optional, as is `model`'
    yield '# owner = "name@example.org"'
    yield '# reason = "accepted for the pilot"'
    yield "# expires = 2030-01-31"


def _tops(rows: Sequence[Mapping[str, Any]], metric: str) -> dict[str, float]:
    """Return the largest upper end by language, languages in alphabetic order."""
    tops: dict[str, float] = {}
    for row in rows:
        top = _top(estimate_of(row, metric))
        if top is not None:
            tops[row["language"]] = max(tops.get(row["language"], top), top)
    return dict(sorted(tops.items()))


def _overall(document: Mapping[str, Any]) -> dict[str, float]:
    """Return the largest upper end of the disparity over models and specs; nothing where it is undefined."""
    seed = document["environment"]["seed"]
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in document["damage"]:
        groups.setdefault((row["model"], row["spec"]), []).append(row)
    found = [
        disparity_estimates(group, seed=seed, exposure=exposure_of([document], model))["disparity"]
        for (model, _), group in groups.items()
    ]
    tops = [top for one in found if (top := _top(one)) is not None]
    return {"disparity": max(tops)} if tops else {}


def _top(found: Estimate) -> float | None:
    return None if found.value is None or found.high is None else max(found.value, found.high)


def _limit(metric: str, top: float, margin: float) -> str:
    """Return `top` plus the margin as TOML, rounded up to three significant digits, above `top` in any case."""
    number = max(Decimal(repr(top)) * (1 + Decimal(repr(margin))), Decimal(repr(LEAST[metric])))
    digits = number.quantize(Decimal(1).scaleb(number.adjusted() - 2), rounding=ROUND_CEILING)
    if float(digits) <= top:  # a margin of 0, or one lost in the digits
        digits += Decimal(1).scaleb(number.adjusted() - 2)
    return f"{digits:f}"


def _check(text: str) -> None:
    import tomllib

    Policy.parse(tomllib.loads(text), source="the draft")


def _one_line(text: str) -> str:
    """Return `text` without anything that could end a TOML comment."""
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())
