"""The first screen of every report: what a reader asks first, answered in plain sentences, from the document alone.

Of a gate: may it ship, why not, what to do. Of every other run: what quantizing costs, who pays most and how much,
whether that is more than noise, what to do next. Page, Markdown and terminal open with the same sentences; verdicts and
words of the trade come after them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from evenbits.report.answer import Answer
from evenbits.report.described import exposure_of
from evenbits.report.price import of_the_price
from evenbits.report.shipping import gated, may_ship, of_the_gate

__all__ = ["Answer", "already", "headline", "levels_note", "opening"]


def opening(document: Mapping[str, Any]) -> list[Answer]:
    """Return the answers in the order of asking; none where nothing was measured and no gate ran."""
    ran = gated(document)
    answers = [*(of_the_gate(document) if ran else ()), *of_the_price(document, gated=ran)]
    return [*answers, *_original(document)] if answers else answers


def already(document: Mapping[str, Any], model: str) -> Iterator[str]:
    """Say of a model that came quantized what was the original here: the file's precision, by type of tensor."""
    for entry in document["inputs"]["models"]:
        if entry["text"] == model and entry.get("precision"):
            yield f"{model} was in {entry['precision']} already: what is measured comes on top of that."


def _original(document: Mapping[str, Any]) -> Iterator[Answer]:
    """Say of each model that came quantized in what: the file's label and true size, without the types of tensors."""
    models = document["inputs"]["models"]
    for entry in models:
        if precision := entry.get("precision"):
            label, _, census = precision.partition(": ")
            bits = census.rpartition("; ")[2]
            text = (
                f"{entry['text'] if len(models) > 1 else 'The model'} was in {label}{f' ({bits})' if bits else ''} "
                "already: what is measured comes on top of that."
            )
            yield Answer(label="original", question="Compared with what?", text=text)


def headline(document: Mapping[str, Any]) -> str:
    """Return the report in one line: what the gate says, else who pays."""
    return f"{may_ship(document)}." if gated(document) else "Who pays for quantization"


def levels_note(document: Mapping[str, Any], model: str | None) -> str:
    """Return what resource levels mean in this report, in a sentence."""
    if exposure_of([document], model) is None:
        return "Resource level: how much text a language has in the world, by a public list (Joshi et al. 2020)."
    by_lot = " Which language got much was drawn by lot, so that level and language are not confounded."
    reference = str(model).startswith("reference:")
    return (
        f"Resource level: how much text of a language {model} was trained on, not how much there is in the world."
        + (by_lot if reference else "")
    )
