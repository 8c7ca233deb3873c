"""Report documents with anything put anywhere: refused with a sentence that names the key, or read by every reader."""

import copy
import datetime as dt
import json
from contextlib import suppress
from functools import cache

import pytest
from evenbits.errors import EvenbitsError, ReportError
from evenbits.estimates import Estimate, Finding, Measurement, Threshold, judge
from evenbits.report.compare import compare, comparison_markdown
from evenbits.report.comparison_page import comparison_html
from evenbits.report.document import load, validate
from evenbits.report.html import html
from evenbits.report.junit import junit_xml
from evenbits.report.markdown import markdown
from evenbits.report.policy_draft import policy_draft
from evenbits.report.summary import summary
from evenbits.studies.gate.decision import cases, lets_through
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from report_documents import realistic

TODAY = dt.date(2026, 11, 25)


@cache
def base():
    """A small document with every kind of content: figures, gate rows, values by segment, policy, sections."""
    whole = realistic(kept=(0.0,), layers=2)
    tags = {"de", "en", "sw"}
    whole["damage"] = [row for row in whole["damage"] if row["language"] in tags]
    for row in whole["damage"]:
        row["excess_bits_by_segment"] = [1.0, 2.5, 4.0]
    gate = judge(
        Finding(
            estimate=Estimate(value=1.0, low=0.5, high=1.5, n=3, method="BCa"),
            data={"outcome": "pass", "language": "sw", "because": None},
        ),
        Threshold(metric="excess_bits", op="<", bound=9.0, why="policy: metric.excess_bits"),
        hypothesis="gate",
        test="test_language_stays_within_the_policy[sw]",
        role="gate",
        model="m",
        spec="s",
    )
    whole["measurements"].append(gate.to_json())
    whole["inputs"]["policy"] = {"digest": "d", "content": {"metric": {"excess_bits": {"limit": 9.0}}}}
    whole["sections"] = [{"title": "t", "text": "x", "columns": ["a"], "rows": [[1.0], [None]]}]
    whole["timing"]["tests"] = {"a": 1.0}
    validate(whole)
    return json.dumps(whole)


def places(value, path=()):
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


@cache
def all_places():
    """Every path of the document, those of one list by its first two entries: the others are alike."""
    return [path for path in places(json.loads(base())) if path and all(key not in range(2, 999) for key in path)]


junk = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["error", "supported", "m", "sw", "<", "gate", 10**400, 1e308, -1e308, 5e-324]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)


changes = st.tuples(
    st.sampled_from(all_places()), st.sampled_from(["replace", "remove", "add", "repeat"]), st.text(max_size=8), junk
)
"""(path, action, key, value): what is done to the document, small enough to be shown when a test fails."""


def spoilt(change):
    """Return (document, path): the document with the entry at `path` replaced, removed, repeated or added."""
    path, action, name, value = change
    whole = json.loads(base())
    holder = whole
    for key in path[:-1]:
        holder = holder[key]
    if action == "replace":
        holder[path[-1]] = value
    elif action == "remove":
        del holder[path[-1]]
    elif isinstance(holder, dict):
        holder[name] = value
        path = (*path[:-1], name)
    else:
        holder.append(copy.deepcopy(holder[0]) if action == "repeat" else value)
        path = path[:-1]
    return whole, path


def read_everywhere(whole):
    """Let every reader of a report read it; errors of the harness are answers too, other ones are not."""
    summary(whole)
    summary(whole, verbose=True)
    markdown(whole)
    junit_xml(whole)
    lets_through(whole)
    cases(whole)
    for row in whole["measurements"]:
        Measurement.from_json(row)
    with suppress(EvenbitsError):
        policy_draft(whole)
    for pair in ((whole, json.loads(base())), (json.loads(base()), whole)):
        with suppress(EvenbitsError):
            found = compare(*pair)
            comparison_markdown(found)
            comparison_html(found, after="a", before="b")
    html(whole)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(changes)
@example((("verdicts", "H-037", "metric"), "replace", "", None))  # a decision may have a number without a name
def test_any_change_is_refused_by_its_key_or_read_by_every_reader(change):
    whole, path = spoilt(change)
    try:
        validate(whole)
    except ReportError as error:
        sentence = str(error)
        assert sentence.endswith(".")
        assert "\n" not in sentence
        named = [str(key) for key in path if isinstance(key, str)]
        assert any(key in sentence or repr(key)[1:-1] in sentence for key in named) or " at the top" in sentence, path
    else:
        read_everywhere(whole)


@settings(deadline=None, max_examples=100)
@given(junk)
@example([])
@example({"schema_version": 1})
@example({"schema_version": 10**400})
def test_anything_at_all_is_refused_with_a_sentence(value):
    with pytest.raises(ReportError) as caught:
        validate(value)
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=40) | st.text(max_size=40).map(str.encode))
@example(b"[" * 100_000)
@example(b'{"schema_version": 1e999}')
@example(b"1" * 5000)
def test_any_file_is_a_report_or_refused_by_its_name(tmp_path, content):
    file = tmp_path / "report.json"
    file.write_bytes(content)
    with pytest.raises(ReportError, match=r"report\.json") as caught:
        load(file)
    assert "\n" not in str(caught.value)
