"""Answers to tasks in a report: beside excess bits, and whether the two go together."""

import pytest
from evenbits.report.answers import answers_and_bits
from evenbits.report.sections import sections_of


def estimate(value, low=None, high=None, reason=None):
    return {"value": value, "low": low, "high": high, "n": 40, "method": "m", "reason": reason}


def row(tag, bits, loss, **changes):
    tasks = {
        "task": f"inn_{tag}",
        "documents": 40,
        "full": 0.8,
        "quantized": 0.8 - loss,
        "lost": 5,
        "gained": 1,
        "mcnemar_p": 0.2,
        "recovery_percent": 100 - 125 * loss,
        "of": [],
        "loss": estimate(loss, loss - 0.1, loss + 0.1),
    }
    return {"model": "m", "spec": "int4-g64", "language": tag, "excess_bits": estimate(bits), "tasks": tasks} | changes


def document(*rows):
    return {"damage": list(rows), "environment": {"seed": 0}}


LOSSES = {
    "de": (1.0, 0.02),
    "en": (2.0, 0.01),
    "fr": (3.0, 0.04),
    "ka": (4.0, 0.05),
    "sw": (5.0, 0.07),
    "vi": (6.0, 0.06),
}


def test_losses_that_go_with_bits_have_their_rank_correlation():
    (found,) = answers_and_bits([row(tag, *both) for tag, both in LOSSES.items()], seed=0)
    # ranks 1..6 against 2 1 3 4 6 5: 1 - 6 (1 + 1 + 1 + 1) / (6 x 35)
    assert found.rho.value == pytest.approx(1 - 24 / 210)
    assert found.sentence.startswith("over 6 languages lost answers go with excess bits by Spearman's rho +0.886")


def test_too_few_languages_leave_it_open():
    (found,) = answers_and_bits([row("de", 1.0, 0.02), row("en", 2.0, 0.01)], seed=0)
    assert found.rho.value is None
    assert "is open" in found.sentence


def test_a_section_has_both_losses_of_each_language_the_largest_loss_of_answers_first():
    rows = [row(tag, *both) for tag, both in LOSSES.items()]
    rows.append({key: value for key, value in row("it", 9.0, 0.5).items() if key != "tasks"})  # no task in Italian
    (section,) = sections_of(document(*rows))
    assert [cells[0] for cells in section["rows"]] == ["sw", "vi", "ka", "fr", "de", "en"]
    first = dict(zip(section["columns"], section["rows"][0], strict=True))
    assert first["points lost"] == pytest.approx(7)
    assert first["excess bits per segment"] == 5.0
    assert first["recovery, %"] == pytest.approx(100 - 125 * 0.07)


def test_an_artefact_that_no_task_was_run_on_says_why():
    refused = {"task": None, "documents": 0, "loss": estimate(None, reason="served:x is not run by torch"), "of": []}
    (section,) = sections_of(document(row("de", 1.0, 0.1, tasks=refused), row("en", 2.0, 0.1, tasks=refused)))
    assert section["text"] == "served:x is not run by torch"
    assert section["rows"] == []


def test_a_report_without_tasks_has_no_such_section():
    assert sections_of(document({"model": "m", "spec": "s", "language": "de", "excess_bits": estimate(1.0)})) == []
