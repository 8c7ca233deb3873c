"""Shards joined: byte for byte the report of an unsharded run apart from timing and environment, or refused."""

import copy
import datetime as dt
import json
import tomllib
import xml.etree.ElementTree as ET

import evenbits.text  # noqa: F401 - numpy cannot be imported again in each of pytester's runs
import gate_suite
import pytest
from evenbits.errors import ReportError
from evenbits.report.document import dump, load
from evenbits.report.junit import junit_xml
from evenbits.report.merge import merge
from evenbits.report.policy_draft import policy_draft
from evenbits.studies.gate.decision import lets_through

TODAY = dt.datetime.now(dt.UTC).date()
TAGS = ("de", "en", "fr", "ig", "sw", "yo")
POLICY = f"""
[metric.excess_bits]
limit = 20
language.yo.limit = 60

[metric.disparity]
limit = 30

[[waiver]]
metric = "excess_bits"
language = "sw"
owner = "Ada"
reason = "pilot"
expires = {TODAY + dt.timedelta(days=2)}
"""
MODELS, SPECS = ("a/b", "c/d"), ("int3-row", "int4-g64")


@pytest.fixture
def suite(pytester, monkeypatch):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    # sw is above its limit and waived, fr above it and not, yo has a limit of its own: the gate fails
    rows = {tag: gate_suite.damage_row(tag, 5.0 + 7.0 * place) for place, tag in enumerate(TAGS)}
    gate_suite.prepare(pytester, rows, POLICY)
    return pytester


def measure(suite, name, *options, models=MODELS, specs=SPECS, workers=False):
    """Run the gate and return its report; with `workers`, on two processes."""
    command = ["-m", "gate", f"--spec={','.join(specs)}", f"--languages={','.join(TAGS)}", "--policy=policy.toml",
               f"--report={name}", *(f"--model={model}" for model in models), *options]  # fmt: skip
    if workers:
        suite.runpytest_subprocess(*command, "-p", "xdist", "-n", "2")
    else:
        suite.runpytest_inprocess(*command)
    return load(suite.path / name / "report.json")


def joined(shards, baseline=None):
    return merge({f"shard {place}": one for place, one in enumerate(shards, start=1)}, today=TODAY, baseline=baseline)


def text(document):
    """The document as it is written, without what may differ between runs."""
    return dump({key: value for key, value in document.items() if key not in {"timing", "environment"}})


def test_shards_by_language_run_on_two_workers_give_the_bytes_of_the_unsharded_run(suite):
    whole = measure(suite, "whole")
    shards = [measure(suite, f"s{index}", f"--shard={index}/2", workers=True) for index in (1, 2)]
    merged = joined(shards)
    assert text(merged) == text(whole)
    assert text(joined(shards[::-1])) == text(whole)  # whatever the order
    # No shard alone decided disparity; the merge did, from the joined rows.
    assert not [row for one in shards for row in one["measurements"] if row["test"].startswith("test_disparity")]
    assert len([row for row in merged["measurements"] if row["test"].startswith("test_disparity")]) == 4
    assert lets_through(merged) is lets_through(whole) is False


@pytest.mark.parametrize("workers", [False, True])
def test_shards_by_spec_give_the_bytes_of_the_unsharded_run(suite, workers):
    whole = measure(suite, "whole")
    assert text(joined([measure(suite, spec, specs=(spec,), workers=workers) for spec in SPECS])) == text(whole)


def test_shards_by_model_give_the_bytes_of_the_unsharded_run(suite):
    whole = measure(suite, "whole")
    shards = [measure(suite, model.replace("/", "-"), models=(model,)) for model in MODELS]
    assert text(joined(shards)) == text(whole)


def test_shards_by_language_and_model_at_once_give_the_bytes_of_the_unsharded_run(suite):
    whole = measure(suite, "whole")
    shards = [
        measure(suite, f"{place}-{index}", f"--shard={index}/2", models=(model,))
        for place, model in enumerate(MODELS)
        for index in (1, 2)
    ]
    assert text(joined(shards)) == text(whole)


def test_resource_levels_are_those_of_the_models_own_training_in_a_run_a_merge_and_a_new_policy(suite):
    limits = "[metric.excess_bits]\ntier.low.limit = 15\ntier.high.limit = 60\n[metric.disparity]\nlimit = 1\n"
    (suite.path / "policy.toml").write_text(limits, encoding="utf-8")
    public = measure(suite, "public", models=MODELS[:1], specs=SPECS[:1])
    rows = json.loads((suite.path / "rows.json").read_text(encoding="utf-8"))
    rows["exposure"] = dict.fromkeys(("de", "en", "fr"), 1_000) | dict.fromkeys(("ig", "sw", "yo"), 900_000)
    (suite.path / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    whole = measure(suite, "whole", models=MODELS[:1], specs=SPECS[:1])
    shards = [measure(suite, f"s{index}", f"--shard={index}/2", models=MODELS[:1], specs=SPECS[:1]) for index in (1, 2)]
    assert text(joined(shards)) == text(whole)
    # de, en, fr lose 5, 12, 19 and ig, sw, yo 26, 33, 40: 33 - 12 = 21 bits by the proxy, turned by training
    found = {
        name: {row["test"]: row for row in one["measurements"]} for name, one in (("public", public), ("own", whole))
    }
    disparity = "test_disparity_stays_within_the_policy[disparity]"
    assert found["public"][disparity]["estimate"]["value"] == pytest.approx(21)
    assert found["own"][disparity]["estimate"]["value"] == pytest.approx(-21)
    fr, yo = (f"test_language_stays_within_the_policy[{tag}]" for tag in ("fr", "yo"))  # 19 and 40 bits
    assert [found["public"][test]["verdict"] for test in (fr, yo)] == ["supported", "not_supported"]
    assert [found["own"][test]["verdict"] for test in (fr, yo)] == ["not_supported", "supported"]
    drafts = [tomllib.loads(policy_draft(one))["metric"]["disparity"]["limit"] for one in (public, whole)]
    assert drafts[0] > 21
    assert drafts[1] == 0.1  # the least that is written


def test_a_baseline_is_compared_over_all_languages_at_the_merge(suite):
    measure(suite, "old", models=MODELS[:1])
    rows = json.loads((suite.path / "rows.json").read_text(encoding="utf-8"))
    rows["de"] = gate_suite.damage_row("de", 15.0)  # ten bits worse on every segment
    (suite.path / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    options = ("--baseline=old/report.json",)
    whole = measure(suite, "whole", *options, models=MODELS[:1])
    shards = [measure(suite, f"s{index}", f"--shard={index}/2", *options, models=MODELS[:1]) for index in (1, 2)]
    baseline = load(suite.path / "old" / "report.json")
    assert text(joined(shards, baseline)) == text(whole)
    with pytest.raises(ReportError, match=r"the shards ran with --baseline.* give --baseline again"):
        joined(shards)
    baseline["damage"][0]["tokens"] += 1
    with pytest.raises(ReportError, match="--baseline is not the report that the shards ran with"):
        joined(shards, baseline)


@pytest.fixture
def shards(suite):
    return [
        measure(suite, f"s{index}", f"--shard={index}/3", models=MODELS[:1], specs=SPECS[:1]) for index in (1, 2, 3)
    ]


def test_missing_and_overlapping_shards_are_refused_by_name(shards):
    with pytest.raises(ReportError, match="the shards 2/3 of a/b, int3-row are missing; run them with --shard"):
        joined([shards[0], shards[2]])
    again = copy.deepcopy(shards[0])
    assert text(joined([*shards, again])) == text(joined(shards))  # the same report twice changes nothing
    again["damage"][0]["nll_full"] += 1.0
    with pytest.raises(ReportError, match=r"shard 4 contradicts the reports before it: .*different nll_full"):
        joined([*shards, again])
    row = next(row for row in copy.deepcopy(shards[0])["measurements"])
    other = copy.deepcopy(shards[0])
    other["measurements"][0]["estimate"]["value"] = (row["estimate"]["value"] or 0.0) + 0.5
    with pytest.raises(ReportError, match=r"both have test_language_stays_within_the_policy\[.*leave one of them out"):
        joined([*shards, other])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda one: one["inputs"]["corpus"].update(digest="ee" * 32), "measured different text"),
        (lambda one: one["environment"].update(seed=1), "ran with seed 0 and shard 2 with 1"),
        (lambda one: one["inputs"]["policy"].update(digest="x"), "were decided by a different policy"),
        (lambda one: one["inputs"]["shard"].update(count=4), "divide the languages differently"),
        (lambda one: one["inputs"].pop("shard"), "divide the languages differently"),
    ],
)
def test_parts_of_different_runs_are_refused(shards, change, message):
    change(shards[1])
    with pytest.raises(ReportError, match=message):
        joined(shards)


def test_a_shard_that_lost_a_language_is_refused(shards):
    lost = shards[1]["damage"][0]["language"]
    shards[1]["damage"] = [row for row in shards[1]["damage"] if row["language"] != lost]
    with pytest.raises(ReportError, match=f"a part of the run is missing: a/b int3-row {lost}"):
        joined(shards)


def test_nothing_to_merge_is_a_sentence():
    with pytest.raises(ReportError, match="nothing to merge"):
        merge({}, today=TODAY)


def test_the_merged_junit_has_a_case_per_row_with_the_result_of_its_verdict(shards):
    merged = joined(shards)
    root = ET.fromstring(junit_xml(merged))  # noqa: S314 - our own text
    cases = {one.get("name"): one for one in root.iter("testcase")}
    assert len(cases) == len(TAGS) + 1  # and disparity
    results = {
        name.partition("[")[2].partition("]")[0]: [child.tag for child in one if child.tag != "properties"]
        for name, one in cases.items()
    }
    # 5, 12, 19 +- 1 pass the limit of 20, 26 fails it, 33 is waived, 40 has a limit of 60; 20 does not clear 19 +- 1
    assert results["de"] == results["en"] == results["yo"] == []
    assert results["ig"] == ["failure"]
    assert results["sw"] == ["skipped"]
    suite = root.find("testsuite")
    assert suite.get("tests") == str(len(cases))
    assert int(suite.get("failures")) == sum("failure" in tags for tags in results.values())


def test_control_characters_in_a_message_leave_the_file_readable(shards):
    merged = joined(shards)
    merged["measurements"][0]["explain"] = "bad \x00\x1b[31m <&> \u0085"
    ET.fromstring(junit_xml(merged))  # noqa: S314 - our own text
