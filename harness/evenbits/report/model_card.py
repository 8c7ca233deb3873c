"""What a report says about one model, as the metadata of a model card: types of `huggingface_hub`.

One evaluation result per language under each base spec, with the primary metric of METHOD: excess bits per segment.
Rows below the noise floor are kept and marked; rows without a value are left out of the metadata, which has no place
for a reason, and named in the card's text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from evenbits.errors import ReportError
from evenbits.numbers import estimate
from evenbits.report.escaping import markdown_code, markdown_text
from evenbits.report.opening import already
from evenbits.studies.gate.harm import Harm, harms

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCardData

__all__ = ["card_data", "eval_results", "model_card"]

METRIC = "excess_bits_per_segment"
METRIC_NAME = "Excess bits per segment against full precision"
HUB_LANGUAGE = 3
"""The Hub takes ISO 639 codes of two or three letters for `language`, not longer tags."""


def eval_results(document: Mapping[str, Any], model: str) -> list[EvalResult]:
    """Return an `EvalResult` per language and base spec of `model`, in the order of the report: worst first.

    `ReportError` where the report has no damage of that model.
    """
    from huggingface_hub import EvalResult

    corpus, code = document["inputs"]["corpus"], document["environment"]["code"]
    return [
        EvalResult(
            task_type="text-generation",
            dataset_type="evenbits",
            dataset_name=f"{corpus['text']} ({row['language']})",
            dataset_config=row["language"],
            dataset_revision=corpus["digest"],
            metric_type=METRIC,
            metric_name=f"{METRIC_NAME}, {harm.spec}",
            metric_config=harm.spec,
            metric_value=row["excess_bits"]["value"],
            metric_args={
                key: row["excess_bits"][key]
                for key in ("low", "high", "n", "method", "reason")
                if row["excess_bits"][key] is not None
            }
            | {"evenbits": code["version"] or "unknown"},  # the type's `source` needs an address, which we have not
        )
        for harm in _of(document, model)
        for row in harm.ranked
    ]


def card_data(document: Mapping[str, Any], model: str) -> ModelCardData:
    """Return the metadata of `model`: languages measured, tags, results. `ReportError` without damage of that model."""
    from huggingface_hub import ModelCardData

    results = eval_results(document, model)
    primary = {str(result.dataset_config).partition("-")[0] for result in results}
    return ModelCardData(
        model_name=model,
        language=sorted(tag for tag in primary if len(tag) <= HUB_LANGUAGE),
        tags=["evenbits", "quantization"],
        metrics=[METRIC],
        eval_results=results,
        pipeline_tag="text-generation",
    )


def model_card(document: Mapping[str, Any], model: str) -> str:
    """Return a Markdown section with metadata in front, ready to be put into a model card."""
    lines = [
        "---",
        card_data(document, model).to_yaml().rstrip("\n"),
        "---",
        "",
        f"## Quantization of {markdown_code(model)} by language",
        "",
    ]
    lines += [line for text in already(document, model) for line in (markdown_text(text), "")]
    corpus = document["inputs"]["corpus"]["text"]
    for harm in _of(document, model):
        lines += [
            f"### {markdown_text(harm.spec)} on {markdown_text(corpus)}",
            "",
            "| language | excess bits per segment [95 %] |",
            "| --- | --- |",
        ]
        lines += [
            f"| {markdown_text(row['language'])} | {estimate(row['excess_bits'], sign=True)}{_mark(row)} |"
            for row in harm.ranked
        ]
        lines += ["", *_notes(harm), ""]
    for name, found in document["verdicts"].items():
        if any(case["model"] in {model, None} for case in found["by_case"]):
            lines.append(f"- {markdown_text(name)}: {markdown_text(_verdict(found, model))}")
    return "\n".join(lines).rstrip("\n") + "\n"


def _verdict(found: Mapping[str, Any], model: str) -> str:
    """Return what was found for this model: the verdict over all models may be another's."""
    cases = [case for case in found["by_case"] if case["model"] in {model, None}]
    words = []
    for case in cases:
        where = f", {case['spec']}" if case["spec"] else ""
        words.append(f"{case['verdict'].replace('_', ' ')} ({case['summary'] or case['metric']}{where})")
    return " ".join("; ".join(words).split())


def _notes(harm: Harm) -> Iterator[str]:
    if harm.below_floor:
        yield f"\\* {harm.below_floor} below three noise floors: not distinguishable from the arithmetic's own scatter."
    for row in harm.undefined:
        yield f"- {markdown_text(row['language'])}: undefined ({markdown_text(row['excess_bits']['reason'])})"


def _mark(row: Mapping[str, Any]) -> str:
    return " \\*" if (row["excess_bits"]["reason"] or "").startswith("below_floor") else ""


def _of(document: Mapping[str, Any], model: str) -> list[Harm]:
    found = [harm for harm in harms(document) if harm.model == model]
    if not found:
        there = ", ".join(dict.fromkeys(row["model"] for row in document["damage"])) or "none"
        raise ReportError(f"The report has no damage of {model}; it has that of {there}.")
    return found
