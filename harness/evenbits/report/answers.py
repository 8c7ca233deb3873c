"""Answers to tasks beside excess bits: what each language loses in both, and whether the two go together.

Both stand in a report's damage rows (`excess_bits`, `tasks`); here they are put side by side, one section for each
model and spec, in all that is made of a report.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evenbits.estimates import Estimate
from evenbits.numbers import estimate, p_value
from evenbits.statistics import spearman

__all__ = ["Together", "answer_sections", "answers_and_bits"]

COLUMNS = (
    "language",
    "excess bits per segment",
    "points lost",
    "lowest",
    "highest",
    "recovery, %",
    "full, %",
    "spec, %",
    "documents",
    "lost",
    "gained",
    "McNemar p",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Together:
    """How lost answers go with excess bits over the languages of one model and spec: Spearman's rho."""

    model: str
    spec: str
    rho: Estimate
    p: float | None

    @property
    def sentence(self) -> str:
        if self.rho.value is None:
            return f"whether lost answers go with excess bits is open: {self.rho.reason}"
        rho = ", ".join(part for part in (estimate(self.rho.to_json(), sign=True), p_value(self.p)) if part)
        return f"over {self.rho.n} languages lost answers go with excess bits by Spearman's rho {rho}"

    def to_json(self) -> dict[str, Any]:
        return {"model": self.model, "spec": self.spec, "spearman": self.rho.to_json(), "p": self.p}


def answers_and_bits(rows: Sequence[Mapping[str, Any]], *, seed: int) -> list[Together]:
    """Return, by model and spec, the rank correlation of lost answers with excess bits over languages that have both.

    Undefined, with the reason, where there are too few of them. Nothing where no task was run.
    """
    found = []
    for (model, spec), mine in _groups(rows).items():
        pairs = [(row["excess_bits"]["value"], row["tasks"]["loss"]["value"]) for row in mine]
        whole = [(bits, loss) for bits, loss in pairs if bits is not None and loss is not None]
        rng = np.random.default_rng(seed)
        bits, losses = ([pair[place] for pair in whole] for place in (0, 1))
        outcome = spearman(bits, losses, rng=rng)
        found.append(Together(model=model, spec=spec, rho=outcome.estimate, p=outcome.p_value))
    return found


def answer_sections(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield what a section for each model and spec that tasks were run on says, most lost answers first."""
    together = answers_and_bits(document["damage"], seed=document["environment"]["seed"])
    for one, mine in zip(together, _groups(document["damage"]).values(), strict=True):
        refused = [row["tasks"]["loss"]["reason"] for row in mine if row["tasks"]["task"] is None]
        answered = [row for row in mine if row["tasks"]["task"] is not None]
        answered.sort(key=lambda row: (-row["tasks"]["loss"]["value"], row["language"]))
        yield {
            "title": f"Answers to tasks: {one.model} {one.spec}",
            "text": refused[0] if refused else f"{one.sentence}. Intervals are over documents, paired.",
            "columns": COLUMNS if answered else (),
            "rows": [_row(row) for row in answered],
        }


def _row(row: Mapping[str, Any]) -> tuple[str | int | float | None, ...]:
    bits, tasks = row["excess_bits"]["value"], row["tasks"]
    low, high = (None if tasks["loss"][key] is None else 100 * tasks["loss"][key] for key in ("low", "high"))
    return (
        row["language"],
        bits,
        100 * tasks["loss"]["value"],
        low,
        high,
        tasks["recovery_percent"],
        100 * tasks["full"],
        100 * tasks["quantized"],
        tasks["documents"],
        tasks["lost"],
        tasks["gained"],
        tasks["mcnemar_p"],
    )


def _groups(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], list[Mapping[str, Any]]]:
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        if row.get("tasks") is not None:
            groups.setdefault((row["model"], row["spec"]), []).append(row)
    return groups
