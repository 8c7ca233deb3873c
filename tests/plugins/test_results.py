"""The report of a run: serial and under xdist, after failures, crashes and contradictions."""

import errno
import json
import os
import xml.etree.ElementTree as ET

import evenbits.text  # noqa: F401 - numpy cannot be imported again in each of pytester's runs
import pytest
import results_suite
from results_suite import CHOICES, EVALS, cases, report


@pytest.fixture
def suite(pytester, monkeypatch):
    return results_suite.prepare(pytester, monkeypatch)


def properties(suite, name):
    """Return the JUnit properties of the test case `name`."""
    tree = ET.parse(suite.path / "out" / "junit.xml")  # noqa: S314 - our own file
    (case,) = [case for case in tree.iter("testcase") if case.get("name") == name]
    return {one.get("name"): one.get("value") for one in case.iter("property")}


def test_every_collected_eval_gives_a_row_and_nobody_elses_test_does(suite):
    suite.makepyfile(EVALS)
    assert suite.runpytest_inprocess(*CHOICES).ret == 1
    document = report(suite)
    grid = [(model, spec) for model in ("a/b", "c/d") for spec in ("int3-row", "int4-g64")]
    assert cases(document) == [
        *[("test_two", *pair, "supported") for pair in grid for _ in range(2)],
        ("test_skipped[0.5]", None, None, "not_applicable"),
        ("test_skipped[0.9]", None, None, "not_applicable"),
        ("test_broken", None, None, "error"),
        *[("test_refuted", *pair, "not_supported") for pair in grid],
        ("test_silent", "a/b", None, "error"),
        ("test_silent", "c/d", None, "error"),
    ]
    assert {name: found["verdict"] for name, found in document["verdicts"].items()} == {
        "H-037": "supported",
        "H-036": "error",
        "H-039": "not_supported",
        "gate": "error",
    }
    assert len(document["damage"]) == 2 * 2 * 2  # models x specs x languages, though two tests asked for each
    assert [(model["text"], model["digest"]) for model in document["inputs"]["models"]] == [
        ("a/b", "0f"),
        ("c/d", "0f"),
    ]
    assert len(document["timing"]["tests"]) == 4 + 4 + 2 + 1 + 2


def test_two_workers_give_the_document_of_a_serial_run(suite):
    suite.makepyfile(EVALS)
    serial = suite.runpytest_inprocess(*CHOICES)
    parallel = suite.runpytest_subprocess(*CHOICES, "--report=parallel", "-p", "xdist", "-n", "2")
    assert serial.ret == parallel.ret == 1
    documents = [report(suite), report(suite, "parallel")]
    for document in documents:
        del document["timing"], document["environment"]
    assert json.dumps(documents[0]) == json.dumps(documents[1])  # order included
    assert (suite.path / "parallel" / "junit.xml").is_file()
    # ... and the same run again
    suite.runpytest_inprocess(*CHOICES, "--report=again")
    again = report(suite, "again")
    assert again["measurements"] == documents[0]["measurements"]


def test_a_crashed_worker_leaves_error_rows_also_for_what_never_ran(suite):
    suite.makepyfile("""
        import os
        import pytest

        @pytest.fixture
        def fatal():
            os._exit(3)

        @pytest.mark.hypothesis("H-037")
        @pytest.mark.criterion
        def test_first(measure):
            assert measure(1.0).supported

        @pytest.mark.hypothesis("H-036")
        @pytest.mark.criterion
        def test_fatal(fatal, measure): pass

        @pytest.mark.hypothesis("H-039")
        @pytest.mark.criterion
        def test_last(measure):
            assert measure(1.0).supported

        @pytest.mark.hypothesis("H-039")
        @pytest.mark.prediction
        def test_very_last(measure):
            assert measure(1.0).supported
        """)
    result = suite.runpytest_subprocess("-p", "xdist", "-n", "1", "--max-worker-restart=0", "--advisory")
    assert result.ret == 1
    document = report(suite)
    assert [(test, verdict) for test, _, _, verdict in cases(document)] == [
        ("test_first", "supported"),
        ("test_fatal", "error"),
        ("test_last", "error"),
        ("test_very_last", "error"),
    ]
    reasons = [row["estimate"]["reason"] for row in document["measurements"]]
    assert reasons[1].startswith("worker 'gw0' crashed while running")
    assert reasons[2] == reasons[3] == "it never ran: the session ended first"
    verdicts = {name: properties(suite, name)["evenbits.verdict"] for name in ("test_fatal", "test_last")}
    assert verdicts == {"test_fatal": "error", "test_last": "error"}  # JUnit is as complete as the report


def test_a_usage_error_found_by_workers_ends_the_run_with_its_sentence(suite):
    suite.makepyfile(EVALS)
    result = suite.runpytest_subprocess("-p", "xdist", "-n", "2")
    assert result.ret == 2
    result.stdout.fnmatch_lines(["*evenbits: no model was named, and test_* needs one. Give --model*"])
    assert not (suite.path / "out").exists()


def test_junit_properties_say_verdict_effect_size_and_n_and_carry_no_payload(suite):
    suite.makepyfile(EVALS)
    suite.runpytest_inprocess("--model=a/b", "--spec=int4-g64")
    assert properties(suite, "test_two a/b int4-g64") == {
        "evenbits.hypothesis": "H-037",
        "evenbits.role": "criterion",
        "evenbits.model": "a/b",
        "evenbits.spec": "int4-g64",
        "evenbits.verdict": "supported",
        "evenbits.metric": "first",
        "evenbits.estimate": "1.0",
        "evenbits.low": "1.0",
        "evenbits.high": "1.0",
        "evenbits.n": "3",
        "evenbits.needed": "> 0",
        "evenbits.2.hypothesis": "H-037",
        "evenbits.2.role": "criterion",
        "evenbits.2.model": "a/b",
        "evenbits.2.spec": "int4-g64",
        "evenbits.2.verdict": "supported",
        "evenbits.2.metric": "second",
        "evenbits.2.estimate": "2.0",
        "evenbits.2.low": "2.0",
        "evenbits.2.high": "2.0",
        "evenbits.2.n": "3",
        "evenbits.2.p_value": "0.5",
        "evenbits.2.needed": "> 0",
    }


def test_what_failed_before_it_could_record_has_its_verdict_and_reason_in_junit_too(suite):
    suite.makepyfile(EVALS)
    suite.runpytest_inprocess("--model=a/b", "--spec=int4-g64")
    found = properties(suite, "test_broken")
    assert (found["evenbits.hypothesis"], found["evenbits.verdict"]) == ("H-036", "error")
    assert "fixture 'no_such_fixture' not found" in found["evenbits.reason"]
    assert properties(suite, "test_skipped[0.5]")["evenbits.verdict"] == "not_applicable"
    assert properties(suite, "test_silent a/b")["evenbits.outcome"] == "error"  # a test of the gate


def test_a_junit_file_that_was_asked_for_elsewhere_stays_there(suite):
    suite.makepyfile(EVALS)
    suite.runpytest_inprocess("--model=a/b", "--junitxml=mine.xml")
    assert (suite.path / "mine.xml").is_file()
    assert sorted(path.name for path in (suite.path / "out").iterdir()) == ["index.html", "report.json", "summary.md"]


def test_contradicting_damage_refuses_the_report_and_fails_the_run(suite):
    suite.makepyfile("""
        import pytest

        @pytest.mark.hypothesis("H-037")
        @pytest.mark.criterion
        @pytest.mark.parametrize("tokens", [1, 2])
        def test_claim(tokens, measure, contribute):
            contribute("damage", {"model": "m", "spec": "s", "language": "de", "tokens": tokens})
            assert measure(1.0).supported
        """)
    result = suite.runpytest_inprocess()
    assert result.ret == 1
    result.stdout.fnmatch_lines(["report        not written: two processes report damage of model m, spec s, *tokens*"])
    assert not (suite.path / "out" / "report.json").exists()


def test_a_report_that_cannot_be_written_fails_the_run_with_a_sentence(suite):
    suite.makepyfile(EVALS)
    (suite.path / "out").mkdir()
    (suite.path / "out" / "report.json").mkdir()
    result = suite.runpytest_inprocess("--model=a/b", "-k", "two")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["report        not written: *report.json cannot be written: *"])
    assert "Traceback" not in result.stdout.str()
    assert not list((suite.path / "out").glob(".*"))


def test_evals_that_an_early_stop_left_over_are_errors_not_silence(suite):
    suite.makepyfile(EVALS)
    assert suite.runpytest_inprocess("--model=a/b", "--spec=int4-g64", "-x").ret == 1
    left = [row["test"] for row in report(suite)["measurements"] if "never ran" in str(row["estimate"]["reason"])]
    assert left == ["test_skipped[0.5]", "test_skipped[0.9]", "test_broken", "test_silent"]


@pytest.mark.parametrize("options", [("--collect-only",), ("-k", "foreign"), ("-k", "nothing_at_all")])
def test_nothing_is_written_where_no_eval_ran(suite, options):
    suite.makepyfile(EVALS)
    suite.runpytest_inprocess("--model=a/b", *options)
    assert not (suite.path / "out").exists()


def test_the_run_ends_with_the_summary_within_80_columns(suite):
    suite.makepyfile(EVALS)
    result = suite.runpytest_inprocess("--model=a/b", "--spec=int4-g64", "-q", "--tb=no")
    lines = result.outlines[[line.strip("= ") for line in result.outlines].index("evenbits") + 1 :]
    assert lines[0].startswith("evenbits 0.1.0  a/b  int4-g64")
    result.stdout.fnmatch_lines(
        [
            "may it ship   May not ship: test_silent. 1 of 1 checks stand in the way: 1",
            "              error.",
            "why not       test_silent: test_silent passed without recording a measurement*",
            "H-037  supported       Models with sparse outliers are easier to fix",
            "H-036  error           Languages rely on different layers",
            "                       set-up: fixture 'no_such_fixture' not found",
            "H-039  not supported   Keeping the top outliers brings languages to parity",
            "damage        a/b int4-g64: excess bits per segment [[]95 % interval[]]  2 languages",
            "worst first   de +2.00 [[]1.00, 3.00[]]  sw +2.00 [[]1.00, 3.00[]]",
            "skipped       test_skipped[[]0.5[]]: no; yes",
            "report        out/index.html",
        ]
    )
    ours = lines[: next(place for place, line in enumerate(lines) if line.startswith("report  "))]
    assert max(len(line) for line in ours) <= 80
    assert "\x1b" not in result.stdout.str()  # no colour where there is no terminal


def test_verdicts_are_coloured_where_colour_is_asked_for(suite):
    suite.makepyfile(EVALS)
    result = suite.runpytest_inprocess("--model=a/b", "-k", "two", "--color=yes")
    assert "\x1b[32msupported" in result.stdout.str()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("contribute('damages', [])", "*UsageError: the report has no section 'damages'*"),
        ("contribute('recipes', {'bits': float('nan')})", "*ValueError: nan cannot be recorded*"),
        ("measure(1.0, data={'x': float('inf')})", "*ValueError: inf cannot be recorded*"),
        ("measure(1.0, data={'x': object()})", "*TypeError: object cannot be written to a report*"),
    ],
)
def test_what_json_cannot_carry_fails_in_the_test_that_records_it(suite, body, message):
    suite.makepyfile(f"""
        import pytest

        @pytest.mark.hypothesis("H-037")
        @pytest.mark.criterion
        def test_claim(measure, contribute):
            {body}
        """)
    result = suite.runpytest_inprocess()
    assert result.ret == 1
    result.stdout.fnmatch_lines([message])
    assert cases(report(suite))[-1][-1] == "error"


FLAKY = """
import pytest
seen = set()

@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item):
    if item.name.startswith("test_two") and item.nodeid not in seen:
        item.user_properties.append(("mine", 1))
        seen.add(item.nodeid)
        raise RuntimeError("transient: the disk was away for a moment")
"""


def case_names(text):
    """Return class, name and number of properties of every test case."""
    found = ET.fromstring(text).iter("testcase")  # noqa: S314 - our own file
    return [(case.get("classname"), case.get("name"), len(case.findall("properties/*"))) for case in found]


def test_a_test_that_is_run_again_has_the_rows_of_its_last_attempt_alone(suite):
    """As pytest-rerunfailures does it: a call that fails is reported as a rerun, then all begins again from set-up."""
    pytest.importorskip("pytest_rerunfailures", reason="lifted by: pip install pytest-rerunfailures")
    suite.makepyfile(EVALS)
    options = ("--model=a/b", "--spec=int4-g64", "-k", "two or refuted")
    suite.runpytest_inprocess(*options)
    once, junit_once = report(suite), (suite.path / "out" / "junit.xml").read_text(encoding="utf-8")
    suite.makepyfile(flaky_once=FLAKY)
    suite.syspathinsert()
    again = suite.runpytest_inprocess(*options, "-p", "pytest_rerunfailures", "-p", "flaky_once", "--reruns=2")
    again.stdout.fnmatch_lines(["*3 rerun*"])  # the refuted claim twice more, the transient fault once
    assert report(suite)["measurements"] == once["measurements"]
    names = [case_names(text) for text in (junit_once, (suite.path / "out" / "junit.xml").read_text(encoding="utf-8"))]
    assert names[0] == names[1]


@pytest.mark.parametrize("place", ["file", "sealed"])
def test_a_report_folder_that_cannot_be_written_is_a_sentence_before_anything_is_measured(suite, place, monkeypatch):
    def sealed(**_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    suite.makepyfile(EVALS)
    if place == "file":
        (suite.path / "out").write_text("a file", encoding="utf-8")
    else:
        monkeypatch.setattr("evenbits.report.document.TemporaryFile", sealed)
    result = suite.runpytest_inprocess("--model=a/b", "--spec=int4-g64", "-k", "two")
    assert result.ret == 2
    said = result.stdout.str() + result.stderr.str()
    words = {"file": "'out' is a file; name a folder.", "sealed": "out cannot be written to: Read-only file system."}
    assert words[place] in said
    assert "Traceback" not in said
    assert not (suite.path / "out").is_dir()


def test_junit_that_cannot_be_written_is_a_sentence_below_the_summary(suite):
    suite.makepyfile(EVALS)
    (suite.path / "out" / "junit.xml").mkdir(parents=True)
    result = suite.runpytest_inprocess("--model=a/b", "--spec=int4-g64", "-k", "two")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["report        not written: *junit.xml cannot be written: Is a directory."])
    assert "Traceback" not in result.stdout.str() + result.stderr.str()
    assert report(suite)["measurements"]  # what could be written is there
