"""Ways in which pytest is run in CI: workers that die, subsets, subtests, looking without running."""

import gate_suite
import pytest
import results_suite
from evenbits.report.document import load
from evenbits.report.opening import opening
from results_suite import CHOICES, EVALS, LOADING, cases, report


@pytest.fixture
def suite(pytester, monkeypatch):
    return results_suite.prepare(pytester, monkeypatch)


MANY = """
import os
import pytest

@pytest.mark.hypothesis("H-037")
@pytest.mark.criterion
def test_first(model, measure):
    assert measure(1.0).supported

@pytest.mark.hypothesis("H-036")
@pytest.mark.criterion
def test_second(model, measure):
    assert measure(1.0).supported

@pytest.mark.hypothesis("H-039")
@pytest.mark.criterion
def test_third(model, measure):
    assert measure(1.0).supported
"""


@pytest.mark.parametrize("fatal", ["first", "second", "third"])
def test_a_worker_that_dies_costs_its_test_alone_under_loadgroup_wherever_that_stands(suite, fatal):
    """xdist by itself waits for ever where it was the last of a group, and runs it again on the next worker else."""
    body = f"def test_{fatal}(model, measure):\n"
    suite.makepyfile(MANY.replace(body, body + '    if "c/d" in model.text:\n        os._exit(3)\n'))
    options = ("--model=a/b", "--model=c/d", "-p", "xdist", "-n", "2", "--dist", "loadgroup")
    result = suite.runpytest_subprocess(*options, timeout=120)
    assert result.ret == 1
    found = cases(report(suite))
    assert len(found) == 6
    assert [row for row in found if row[3] != "supported"] == [(f"test_{fatal}", "c/d", None, "error")]


def test_data_that_a_plain_test_asked_for_first_are_in_the_report_as_with_workers(suite):
    suite.makepyfile("""
        import pytest

        @pytest.fixture(scope="session")
        def shared(contribute):
            contribute("models", {"text": "a/b", "digest": "0f"})
            return 2

        def test_plain(shared):
            assert shared == 2

        @pytest.mark.hypothesis("H-039")
        @pytest.mark.criterion
        def test_eval(model, shared, measure):
            assert measure(1.0).supported
        """)
    for workers in ("0", "1"):
        assert suite.runpytest_subprocess("--model=a/b", "-p", "xdist", "-n", workers).ret == 0
        assert report(suite)["inputs"]["models"][0]["digest"] == "0f"
        assert "evenbits.contribution" not in (suite.path / "out" / "junit.xml").read_text(encoding="utf-8")


@pytest.mark.parametrize("option", ["--fixtures", "--fixtures-per-test", "--setup-plan", "--setup-only"])
def test_whoever_only_looks_leaves_an_earlier_report_as_it_was(suite, option):
    suite.makepyfile(MANY)
    assert suite.runpytest_inprocess("--model=a/b", "--autosave").ret == 0
    file = suite.path / "out" / "report.json"
    before = file.read_bytes(), sorted(one.name for one in suite.path.rglob("*.json"))
    assert suite.runpytest_inprocess("--model=a/b", "--autosave", option).ret in {0, 1}
    assert (file.read_bytes(), sorted(one.name for one in suite.path.rglob("*.json"))) == before


def test_fixtures_are_listed_though_no_model_was_named(suite):
    suite.makepyfile(MANY)
    result = suite.runpytest_inprocess("--fixtures")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["record -- *"])


@pytest.mark.parametrize(("holds", "verdict"), [(True, "supported"), (False, "error")])
def test_subtests_belong_to_the_eval_around_them(suite, holds, verdict):
    suite.makepyfile(f"""
        import pytest

        @pytest.mark.hypothesis("H-039")
        @pytest.mark.criterion
        def test_eval(subtests, measure):
            for number in range(3):
                with subtests.test(number=number):
                    assert {holds} or number
            assert measure(1.0).supported
        """)
    for workers in ("0", "1"):
        result = suite.runpytest_subprocess("-p", "xdist", "-n", workers)
        assert result.ret == (0 if holds else 1)
        found = [row[3] for row in cases(report(suite))]
        assert found == (["supported"] if holds else ["supported", "error"])
        assert verdict in found


def test_a_session_that_was_stopped_at_its_first_failure_has_failed_also_with_workers(suite):
    suite.makepyfile(EVALS)
    assert suite.runpytest_inprocess(*CHOICES, "-x").ret == 1
    assert suite.runpytest_subprocess(*CHOICES, "-x", "-p", "xdist", "-n", "1").ret == 1


def test_without_the_terminal_plugin_a_session_runs(suite):
    suite.makepyfile(MANY + "\ndef test_plain():\n    pass\n")
    wanted = '"evenbits.fixtures.recording")'
    suite.makeconftest(LOADING.replace(wanted, wanted.replace(")", ', "evenbits.fixtures.progress")')))
    assert suite.runpytest_subprocess("--model=a/b", "-p", "no:terminal").ret == 0
    assert {row[3] for row in cases(report(suite))} == {"supported"}


POLICY = "[metric.excess_bits]\nlimit = 20\n"


@pytest.fixture
def gate(pytester, monkeypatch):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    rows = {tag: gate_suite.damage_row(tag, 5.0) for tag in ("de", "sw", "yo")}
    gate_suite.prepare(pytester, rows, POLICY)
    return pytester


GATE = ("-m", "gate", "--languages=de,sw,yo", "--policy=policy.toml", "--model=a/b", "--spec=int4-g64")


def said(gate):
    document = load(gate.path / "out" / "report.json")
    return document, {answer.label: answer.text for answer in opening(document)}["may it ship"]


@pytest.mark.parametrize("workers", [(), ("-p", "xdist", "-n", "1")])
def test_a_subset_of_the_gates_languages_ships_as_a_subset(gate, workers):
    assert gate.runpytest_subprocess(*GATE, "-k", "sw", *workers).ret == 0
    document, text = said(gate)
    within = "1 of 1 checks are shown to be within the policy"
    assert text == f"May ship, as far as was selected: {within}; not selected: de, yo."
    assert [(row["count"], row["reason"]) for row in document["inputs"]["not_run"]] == [(2, "not selected: de, yo")]
    assert "## May ship, as far as was selected." in (gate.path / "out" / "summary.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("tier", "code"), [("low", 1), ("high", 0)])
def test_a_policy_that_limits_nothing_of_what_was_measured_lets_nothing_through(gate, tier, code):
    """German has much text: a limit for languages with little is none for it."""
    (gate.path / "policy.toml").write_text(f"[metric.excess_bits]\ntier.{tier}.limit = 20\n", encoding="utf-8")
    options = [option.replace("de,sw,yo", "de") for option in GATE]
    assert gate.runpytest_inprocess(*options).ret == code
    _, text = said(gate)
    if code:
        assert text == "May not ship: the policy limits nothing that was measured: it sets no limit for de."
    else:
        assert text == "May ship: 1 of 1 checks are shown to be within the policy."


def test_a_gate_that_was_taken_whole_says_so(gate):
    assert gate.runpytest_inprocess(*GATE).ret == 0
    document, text = said(gate)
    assert text == "May ship: 3 of 3 checks are shown to be within the policy."
    assert document["inputs"].get("not_run", []) == []


def test_a_language_without_a_limit_beside_others_is_not_called_excused(gate):
    (gate.path / "policy.toml").write_text("[metric.excess_bits]\ntier.low.limit = 20\n", encoding="utf-8")
    assert gate.runpytest_inprocess(*GATE).ret == 0
    _, text = said(gate)
    assert text == "May ship: 2 of 3 checks are shown to be within the policy, 1 without a limit (de)."
