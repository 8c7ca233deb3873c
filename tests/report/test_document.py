"""The report document: built, checked, written, read."""

import copy
import json

import pytest
from evenbits.errors import ReportError
from evenbits.estimates import ROLES, Estimate, Measurement, Threshold, Verdict
from evenbits.report.contributions import Contributions
from evenbits.report.document import build, dump, load, schema, validate, write
from evenbits.report.html import html
from evenbits.report.markdown import markdown
from hypothesis import given, settings
from hypothesis import strategies as st

ENVIRONMENT = {
    "code": {"version": "0.1.0", "commit": None, "dirty": None},
    "packages": {"numpy": "2.0"},
    "device": "cpu",
    "dtype": "bfloat16",
    "seed": 0,
}

numbers = st.floats(allow_nan=False, allow_infinity=False)
names = st.text(min_size=1, max_size=8)
plain_values = st.recursive(
    st.none() | st.booleans() | st.integers() | numbers | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=5,
)


@st.composite
def estimates(draw):
    value = draw(st.none() | numbers)
    low, high = sorted(draw(st.tuples(numbers, numbers))) if value is not None else (None, None)
    reason = draw(names) if value is None else draw(st.none() | names)
    return Estimate(value=value, low=low, high=high, n=draw(st.integers(0, 10**6)), method=draw(names), reason=reason)


@st.composite
def measurements(draw):
    threshold = Threshold(metric=draw(names), op=draw(st.sampled_from([">", "<="])), bound=draw(numbers), why="fixed")
    return Measurement(
        hypothesis=draw(st.sampled_from(["H-035", "H-037", "established", "gate"])),
        test=draw(names),
        role=draw(st.sampled_from(ROLES)),
        model=draw(st.none() | names),
        spec=draw(st.none() | names),
        verdict=draw(st.sampled_from(list(Verdict))),
        metric=draw(names),
        estimate=draw(estimates()),
        threshold=draw(st.none() | st.just(threshold)),
        p_value=draw(st.none() | st.floats(0, 1)),
        metric_sensitive=draw(st.booleans()),
        explanation=draw(st.text(max_size=9)),
        summary=draw(st.text(max_size=9)),
        action=draw(st.none() | st.text(max_size=9)),
        also=draw(st.dictionaries(names, estimates(), max_size=2)),
        data=draw(st.dictionaries(names, plain_values, max_size=2)),
    )


def measurement(**changes):
    values = {
        "hypothesis": "H-037",
        "test": "test_pattern",
        "role": "criterion",
        "model": "m",
        "spec": "int4-g64",
        "verdict": Verdict.SUPPORTED,
        "metric": "stability",
        "estimate": Estimate(value=0.99, low=0.97, high=1.0, n=42, method="bootstrap"),
        "threshold": Threshold(metric="stability", op=">=", bound=0.95, why="clear"),
    }
    return Measurement(**{**values, **changes})


def damage_row(**changes):
    estimate = Estimate(value=12.5, low=11.0, high=14.0, n=30, method="BCa").to_json()
    row = {
        "model": "m",
        "spec": "int4-g64",
        "language": "sw",
        "segments": 30,
        "tokens": 900,
        "utf8_bytes": 3000,
        "nll_full": 100.5,
        "nll_quantized": 104.5,
        "excess_bits": estimate,
        "relative_increase": estimate,
        "kl_nats_per_token": {"mean": 0.1, "p50": 0.05, "p99": None},
        "rms_delta_p": 0.02,
        "top1_changed": 0.1,
        "bits_per_weight": 4.25,
    }
    return {**row, **changes}


def document(*rows, damage=(), **changes):
    contributions = Contributions()
    contributions.add("damage", damage)
    values = {
        "measurements": rows or (measurement(),),
        "contributions": contributions,
        "inputs": {"models": ["m"], "corpus": "gettext", "specs": ["int4-g64"]},
        "environment": ENVIRONMENT,
        "timing": {"tests": {}},
    }
    return build(**{**values, **changes})


def paths(value, path=()):
    """Yield the path of every place in a JSON value."""
    yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from paths(item, (*path, key))
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from paths(item, (*path, place))


def replaced(value, path, new):
    changed = copy.deepcopy(value)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = new
    return changed


def test_the_schema_is_itself_a_valid_schema():
    from jsonschema import Draft202012Validator

    Draft202012Validator.check_schema(schema())


def test_a_document_has_the_published_top_level_keys_in_order():
    assert list(document()) == [
        "schema_version",
        "environment",
        "inputs",
        "damage",
        "measurements",
        "verdicts",
        "recipes",
        "timing",
    ]


@settings(deadline=None, max_examples=60)
@given(st.lists(measurements(), min_size=1, max_size=3))
def test_every_measurement_validates_and_comes_back_from_json_unchanged(rows):
    read = json.loads(dump(document(*rows)))
    validate(read)
    back = [Measurement.from_json(row) for row in read["measurements"]]
    assert sorted(map(repr, back)) == sorted(map(repr, rows))


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_a_wrong_value_anywhere_in_a_measurement_gives_a_sentence_naming_its_key(data):
    whole = document(damage=[damage_row()])
    typed = {"hypothesis", "test", "role", "verdict", "metric", "estimate", "p_value", "metric_sensitive", "explain"}
    key = data.draw(st.sampled_from(sorted(typed)))
    wrong = {"p_value": 1.5, "metric_sensitive": "yes", "estimate": 3}.get(key, data.draw(st.just(7) | st.just([])))
    with pytest.raises(ReportError, match=rf"measurements\[0\]\.{key}\b") as caught:
        validate(replaced(whole, ("measurements", 0, key), wrong))
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_a_missing_key_of_any_row_is_named(data):
    whole = document(damage=[damage_row()])
    section = data.draw(st.sampled_from(["damage", "measurements"]))
    key = data.draw(st.sampled_from(sorted(whole[section][0])))
    del whole[section][0][key]
    with pytest.raises(ReportError, match=rf"{section}\[0\].*'{key}' is a required property"):
        validate(whole)


def test_an_unknown_key_is_named():
    whole = document()
    whole["measurements"][0]["verdikt"] = "supported"
    with pytest.raises(ReportError, match=r"measurements\[0\].*verdikt"):
        validate(whole)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_any_place_turned_into_nan_is_named(data):
    whole = document(damage=[damage_row()])
    path = data.draw(st.sampled_from([path for path in paths(whole) if path]))
    with pytest.raises(ReportError, match=r"nan at .*an undefined number is null with a reason") as caught:
        validate(replaced(whole, path, float("nan")))
    assert str(path[-1]) in str(caught.value)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_nothing_put_anywhere_causes_a_traceback(data):
    whole = document(damage=[damage_row()])
    path = data.draw(st.sampled_from([path for path in paths(whole) if path]))
    try:
        validate(replaced(whole, path, data.draw(plain_values)))
    except ReportError as error:
        assert str(error)  # noqa: PT017 - valid values are fine too; only other exceptions must not come


def test_an_undefined_estimate_without_a_reason_is_refused():
    whole = document(measurement(estimate=Estimate.undefined("no such thing"), verdict=Verdict.ERROR))
    whole["measurements"][0]["estimate"]["reason"] = None
    with pytest.raises(ReportError, match=r"measurements\[0\]\.estimate\.reason"):
        validate(whole)


def test_rows_stand_in_reporting_order_whatever_order_they_came_in():
    rows = [
        measurement(hypothesis="established", role="established"),
        measurement(hypothesis="H-039"),
        measurement(role="robustness", test="test_a"),
        measurement(model="z"),
        measurement(spec="int3-row"),
        measurement(hypothesis="H-036"),
    ]
    for given_rows in (rows, rows[::-1]):
        found = [
            (row["hypothesis"], row["role"], row["model"], row["spec"]) for row in document(*given_rows)["measurements"]
        ]
        assert found == [
            ("H-037", "criterion", "m", "int3-row"),
            ("H-037", "criterion", "z", "int4-g64"),
            ("H-037", "robustness", "m", "int4-g64"),
            ("H-036", "criterion", "m", "int4-g64"),
            ("H-039", "criterion", "m", "int4-g64"),
            ("established", "established", "m", "int4-g64"),
        ]


def test_seconds_of_a_test_stand_in_timing_because_equal_runs_must_give_equal_rows():
    assert document(measurement(seconds=3.5))["measurements"][0]["seconds"] is None


def test_inputs_keep_the_order_asked_for_and_take_what_fixtures_learned():
    contributions = Contributions()
    contributions.add("models", [{"text": "extra", "digest": "e"}, {"text": "b", "digest": "f00"}])
    contributions.add("corpus", {"digest": "c0", "name": "django"})
    inputs = document(contributions=contributions, inputs={"models": ["b", "a"], "corpus": "gettext", "specs": []})[
        "inputs"
    ]
    assert [(model["text"], model["digest"], model["asked"]) for model in inputs["models"]] == [
        ("b", "f00", True),
        ("a", None, True),
        ("extra", "e", False),
        ("m", None, False),  # a row names it
    ]
    assert inputs["corpus"] == {"text": "gettext", "digest": "c0", "name": "django"}


def test_what_the_sizes_of_a_run_cannot_decide_stands_in_the_report_its_page_and_its_summary():
    contributions = Contributions()
    languages = [{"tag": tag, "tier": tier} for tag, tier in (("de", "high"), ("sw", "low"), ("et", "middle"))]
    contributions.add("corpus", {"digest": "c0", "languages": languages, "segments": {"probe": 6, "evaluation": 6}})
    rows = [measurement(hypothesis=name, role=role) for name, role in (("H-039", "criterion"), ("gate", "gate"))]
    found = document(*rows, contributions=contributions)
    said = found["inputs"]["cannot_decide"]
    assert said == [
        "gate passes nothing with 6 segments, needed 10",
        "H-039 has no verdict with 1 low- and 1 high-resource languages, needed 5 of each",
    ]
    for shown in (html(found), markdown(found)):
        assert "Cannot be decided at this size" in shown
        assert all(sentence in shown for sentence in said)
    assert "cannot_decide" not in document()["inputs"]  # no text was touched: nothing is known of sizes


def test_a_written_document_reads_back_equal_and_leaves_no_part_behind(tmp_path):
    whole = document(measurement(summary="ქართული \u200f\u05e2"), damage=[damage_row()])
    write(tmp_path / "deep" / "report.json", dump(whole))
    assert load(tmp_path / "deep" / "report.json") == whole
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["report.json"]


def test_writing_where_a_file_stands_in_the_way_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ReportError, match=r"file.report\.json cannot be written: "):
        write(tmp_path / "file" / "report.json", "{}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON at byte 1 .* so it is no report"),
        ("[" * 100_000, "is nested more than 64 levels deep, so it is no report"),
        ('{"schema_version": ' + "1" * 5000 + "}", "holds a whole number of 5000 digits"),
        ('{"a": "\\ud800"}', "which is no Unicode"),
        ("[]", "does not follow its schema at the top"),
        ('{"schema_version": NaN}', "holds NaN"),
        ('{"schema_version": 2}', "schema_version 2; this evenbits reads 1"),
        ('{"schema_version": 1}', "'environment' is a required property"),
    ],
)
def test_a_file_that_is_no_report_is_refused_with_its_name_and_reason(tmp_path, text, message):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(ReportError, match=message) as caught:
        load(tmp_path / "r.json")
    assert "r.json" in str(caught.value)


def test_a_file_that_is_absent_or_not_text_is_refused(tmp_path):
    with pytest.raises(ReportError, match="is not there"):
        load(tmp_path / "absent.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ReportError, match="not UTF-8"):
        load(tmp_path / "binary.json")
