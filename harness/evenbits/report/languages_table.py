"""The table of languages in the HTML report, and the same rows in the compact form that the page filters and draws."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from evenbits.figure import short
from evenbits.numbers import estimate, interval, number
from evenbits.report.described import described
from evenbits.studies.gate.harm import Harm, harms, pooled_bits

__all__ = ["COLUMNS", "TIER", "TIERS", "cells", "overview", "payload"]

COLUMNS = (
    ("Language", "text"),
    ("Model", "text"),
    ("Spec", "text"),
    ("Script", "text"),
    ("Resource level", "text"),
    ("Extra loss, bits [95 %]", "number"),
    ("Pooled, bits", "number"),
    ("Extra loss, % [95 %]", "number"),
    ("Drift per token", "number"),
    ("Top word changed, %", "number"),
    ("Segments", "number"),
    ("Note", "text"),
)
"""Columns of the table of languages with how they sort."""

UNKNOWN = "unknown"
TIERS = ("low", "middle", "high", UNKNOWN)
TIER = 13
"""Place of a language's tier in a row of the payload."""


def payload(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the damage rows as arrays of numbers and places; `start` names the model and spec shown at first."""
    rows = document["damage"]
    about = described(document)
    models = list(dict.fromkeys(row["model"] for row in rows))
    specs = list(dict.fromkeys(row["spec"] for row in rows))
    tags = list(dict.fromkeys(row["language"] for row in rows))
    notes = list(dict.fromkeys(row["excess_bits"]["reason"] or "" for row in rows))
    first = next(harms(document), None)
    tiers = {model: {tag: _tier(entry) for tag, entry in described(document, model).items()} for model in models}
    where = {
        name: {text: place for place, text in enumerate(texts)}
        for name, texts in (("m", models), ("s", specs), ("l", tags), ("n", notes))
    }
    return {
        "models": models,
        "specs": specs,
        "notes": notes,
        "tiers": list(TIERS),
        "languages": [_language(tag, about.get(tag, {})) for tag in tags],
        "start": [] if first is None else [where["m"][first.model], where["s"][first.spec]],
        "rows": [
            [
                where["m"][row["model"]],
                where["s"][row["spec"]],
                where["l"][row["language"]],
                *(short(row["excess_bits"][key]) for key in ("value", "low", "high")),
                *(_percent(row["relative_increase"][key]) for key in ("value", "low", "high")),
                short(row["kl_nats_per_token"]["mean"]),
                _percent(row["top1_changed"]),
                row["segments"],
                where["n"][row["excess_bits"]["reason"] or ""],
                TIERS.index(tiers[row["model"]].get(row["language"], UNKNOWN)),
                None if row["excess_bits"]["value"] is None else short(pooled_bits(row)),
            ]
            for row in rows
        ],
    }


def _percent(share: float | None) -> float | None:
    return None if share is None else short(100 * share)


def _language(tag: str, about: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "tag": tag,
        "name": about.get("name") or tag,
        "script": about.get("script") or UNKNOWN,
        "family": about.get("family") or UNKNOWN,
    }


def _tier(about: Mapping[str, Any]) -> str:
    return about.get("tier") or UNKNOWN


def cells(harm: Harm, about: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of one model and spec as the page shows them before any script runs, worst first.

    `about`: what is known of each language, with its resource level for that model.
    """
    return [
        {
            **_language(row["language"], about.get(row["language"], {})),
            "tier": _tier(about.get(row["language"], {})),
            "model": row["model"],
            "spec": row["spec"],
            "excess": _with_interval(row["excess_bits"]),
            "pooled": "" if row["excess_bits"]["value"] is None else number(short(pooled_bits(row)), sign=True),
            "relative": _with_interval(_scaled(row["relative_increase"])),
            "kl": number(short(row["kl_nats_per_token"]["mean"])),
            "top1": number(_percent(row["top1_changed"])),
            "segments": number(row["segments"]) if row["segments"] >= 1000 else str(row["segments"]),
            "note": row["excess_bits"]["reason"] or "",
        }
        for row in (*harm.ranked, *harm.undefined)
    ]


def _scaled(found: Mapping[str, Any]) -> dict[str, Any]:
    return {**found, **{key: _percent(found[key]) for key in ("value", "low", "high")}}


def _with_interval(found: Mapping[str, Any]) -> str:
    if found["value"] is None:
        return "undefined"
    rounded = {key: short(found[key]) for key in ("value", "low", "high")}
    return " ".join(part for part in (number(rounded["value"], sign=True), interval(rounded)) if part)


def overview(groups: Iterable[Harm], about: Mapping[str, Mapping[str, Any]]) -> list[tuple[str | float | None, ...]]:
    """Return a row per model and spec: languages, worst, median and least excess bits, languages below the floor."""
    return [
        (
            harm.model,
            harm.spec,
            _bits(harm.ranked or harm.undefined),
            len(harm.ranked),
            len(harm.undefined),
            *(
                (
                    _named(harm.ranked[0], about),
                    median(row["excess_bits"]["value"] for row in harm.ranked),
                    _named(harm.ranked[-1], about),
                )
                if harm.ranked
                else ("", None, "")
            ),
            harm.below_floor,
        )
        for harm in groups
    ]


def _bits(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the bits per weight of a spec, which are the same in each of its rows."""
    value: float | None = rows[0]["bits_per_weight"] if rows else None
    return value


def _named(row: Mapping[str, Any], about: Mapping[str, Mapping[str, Any]]) -> str:
    name = about.get(row["language"], {}).get("name") or row["language"]
    return f"{name} {estimate(row['excess_bits'], sign=True)}"
