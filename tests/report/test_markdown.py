"""The Markdown summary for CI."""

import pytest
from evenbits.report.markdown import LIMIT, markdown

NOTHING = {"value": None, "low": None, "high": None, "n": 0, "method": "none", "reason": "x"}
VALUE = {"value": 12.5, "low": 11.0, "high": 14.0, "n": 30, "method": "BCa", "reason": None}
DECISION = {
    "verdict": "not_supported",
    "metric": "disparity",
    "estimate": VALUE,
    "n": 30,
    "p_value": 0.01,
    "threshold": {"metric": "disparity", "op": "<", "bound": 1.25, "why": "parity"},
    "metric_sensitive": True,
    "explain": "All of it.",
    "summary": "It was | measured <b>.",
    "by_case": [{"verdict": "not_supported"}, {"verdict": "supported"}],
}


def measurement(**changes):
    return {
        "hypothesis": "H-039",
        "role": "criterion",
        "test": "test_parity",
        "model": "m",
        "spec": "s",
        "verdict": "not_supported",
        "metric": "disparity",
        "estimate": VALUE,
        "explain": "Too large.",
        "action": "Keep 0.1 %.",
        **changes,
    }


def damage(count):
    return [
        {
            "model": "m",
            "spec": "int4-g64",
            "language": f"l{place:05}",
            "segments": 30,
            "excess_bits": VALUE | {"value": float(place)},
            "relative_increase": VALUE,
            "kl_nats_per_token": {"mean": 0.1},
            "top1_changed": None,
        }
        for place in range(count)
    ]


def document(rows=3, **changes):
    whole = {
        "environment": {
            "code": {"version": "0.1.0", "commit": "abcdef1234567890", "dirty": True},
            "seed": 0,
            "dtype": "bfloat16",
        },
        "inputs": {"models": [{"text": "m"}], "specs": [{"text": "int4-g64"}], "corpus": {"text": "gettext"}},
        "verdicts": {"H-039": DECISION},
        "damage": damage(rows),
        "measurements": [measurement()],
    }
    return {**whole, **changes}


def test_answers_come_first_then_the_verdict_with_effect_size_need_n_and_p():
    text = markdown(document())
    row = next(line for line in text.splitlines() if "H-039" in line)
    assert text.index("**What does it cost?**") < text.index("H-039") < text.index("<details>")
    assert [cell.strip() for cell in row.replace("\\|", "").strip("|").split("|")] == [
        "❌",
        "H-039",
        "Keeping the top outliers brings languages to parity",
        "not supported (metric-sensitive)",
        "It was  measured &lt;b>. (supported in 1 of 2 cases)",
        "disparity 12.5 [11.0, 14.0]",
        "&lt; 1.25",
        "30",
        "0.010",
    ]


def test_specs_measured_to_compare_with_are_counted_not_listed():
    whole = document()
    whole["inputs"] = {**whole["inputs"], "specs": [{"text": "s"}, {"text": "comparator"}, {"text": "s+keep1%:random"}]}
    assert "`s` (and 2 to compare with) on `gettext`" in markdown(whole)


def test_details_are_folded_and_the_worst_language_comes_first():
    _, _, text = markdown(document()).partition("### Verdicts")
    assert text.index("<details>") < text.index("l00002") < text.index("l00001") < text.index("l00000")
    assert text.count("<details>") == text.count("</details>") == 3  # damage, advice, all measurements


def test_the_commit_is_named_with_its_changes():
    assert "commit abcdef123456 with changes" in markdown(document())


def test_an_error_row_shows_its_message_and_no_number():
    row = measurement(verdict="error", estimate=NOTHING, explain="error: ModelError: no such model.", action=None)
    line = next(line for line in markdown(document(measurements=[row])).splitlines() if "ModelError" in line)
    assert "| 💥 error |  | error: ModelError: no such model. |" in line


@pytest.mark.parametrize("limit", [1_500, 20_000, LIMIT])
def test_a_long_report_is_cut_by_whole_rows_and_says_how_many_are_missing(limit):
    text = markdown(document(rows=20_000), limit=limit)
    assert len(text.encode()) <= limit
    assert text.count("<details>") == text.count("</details>")
    shown = [line for line in text.splitlines() if line.startswith(("| l0", "| l1"))]
    assert all(line.endswith("|") for line in shown)
    missing = 20_000 - len(shown)
    assert f"{missing} more rows are in report.json" in text or "20000 rows are in report.json" in text


def test_a_short_report_is_not_cut():
    assert "report.json" not in markdown(document())
