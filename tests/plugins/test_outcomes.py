"""When an eval's test passes, fails or is advised, and with which exit code the run ends."""

import json
import xml.etree.ElementTree as ET

import evenbits.text  # noqa: F401 - numpy cannot be imported again in each of pytester's runs
import pytest

LOADING = """
import pytest
from evenbits.estimates import Estimate, Finding, Threshold, Verdict
from evenbits.plugins import PLUGINS
wanted = ("evenbits.plugins.", "evenbits.fixtures.recording")
pytest_plugins = [name for name in PLUGINS if name.startswith(wanted)]

@pytest.fixture
def measure(record):
    def measured(value, **options):
        estimate = Estimate.undefined("broken")
        if value is not None:
            estimate = Estimate(value=value, low=value, high=value, n=3, method="given")
        return record(Finding(estimate=estimate, **options), Threshold(metric="m", op=">", bound=0, why="fixed"))
    return measured
"""

ONE = """
import pytest
from evenbits.estimates import Verdict

@pytest.mark.hypothesis("H-037")
@pytest.mark.{role}
{marks}
def test_claim(measure):
    {body}
"""

ASSERTED = "assert result.supported, result.explain()"

# name -> role, extra marks, body, what the row says, exit code, exit code with --advisory
CASES = {
    "supported": ("criterion", "", f"result = measure(1.0); {ASSERTED}", ["supported"], 0, 0),
    "not supported": ("criterion", "", f"result = measure(-1.0); {ASSERTED}", ["not_supported"], 1, 0),
    "not supported, asserted without words": (
        "criterion",
        "",
        "result = measure(-1.0); assert result.supported",
        ["not_supported"],
        1,
        0,
    ),
    "underpowered": (
        "criterion",
        "",
        f"result = measure(1.0, verdict=Verdict.UNDERPOWERED, because='few ~ 100 %.'); {ASSERTED}",
        ["underpowered"],
        1,
        0,
    ),
    "a verdict that is an error": ("criterion", "", f"result = measure(None); {ASSERTED}", ["error"], 1, 1),
    "a verdict nobody asserts": ("criterion", "", "measure(-1.0)", ["not_supported"], 1, 0),
    "an error nobody asserts": ("robustness", "", "measure(None)", ["error"], 1, 1),
    "a robustness check nobody asserts": ("robustness", "", "measure(-1.0)", ["not_supported"], 0, 0),
    "a pass without a measurement": ("criterion", "", "pass", ["error"], 1, 1),
    "an exception": ("criterion", "", "1 / 0", ["error"], 1, 1),
    "an exception after a refuted verdict": ("criterion", "", "measure(-1.0); 1 / 0", ["not_supported", "error"], 1, 1),
    "another assertion after a refuted verdict": (
        "criterion",
        "",
        "measure(-1.0); assert 1 == 2",
        ["not_supported", "error"],
        1,
        1,
    ),
    "another assertion after a supported verdict": (
        "criterion",
        "",
        "measure(1.0); assert 1 == 2",
        ["supported", "error"],
        1,
        1,
    ),
    "a skip": ("criterion", "", "pytest.skip('one model; name eight')", ["not_applicable"], 0, 0),
    "a skip by mark": ("criterion", "@pytest.mark.skip(reason='no GPU; use one')", "1 / 0", ["not_applicable"], 0, 0),
    "an expected failure": (
        "criterion",
        "@pytest.mark.xfail(strict=False)",
        f"result = measure(-1.0); {ASSERTED}",
        ["not_supported", "error"],
        1,
        1,
    ),
}


@pytest.fixture
def suite(pytester, monkeypatch):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makeconftest(LOADING)
    pytester.makepyprojecttoml('[tool.evenbits]\nreport = "out"\nrobustness = true\n')
    return pytester


def rows(suite):
    return json.loads((suite.path / "out" / "report.json").read_text(encoding="utf-8"))["measurements"]


@pytest.mark.parametrize("advisory", [False, True], ids=["gate", "advisory"])
@pytest.mark.parametrize("name", CASES)
def test_rows_and_exit_code_say_the_same(suite, name, advisory):
    role, marks, body, verdicts, code, advised = CASES[name]
    suite.makepyfile(ONE.format(role=role, marks=marks, body=body))
    result = suite.runpytest_inprocess(*(["--advisory"] if advisory else []))
    assert result.ret == (advised if advisory else code)
    assert [row["verdict"] for row in rows(suite)] == verdicts


def test_a_failing_eval_does_not_print_its_arguments_unless_asked_to(suite):
    suite.makepyfile("""
        import pytest

        class Study:
            def __repr__(self): return "PRINTED"

        @pytest.fixture
        def study(): return Study()

        @pytest.mark.hypothesis("H-037")
        @pytest.mark.criterion
        def test_claim(study, measure):
            result = measure(-1.0)
            assert result.supported, result.explain()

        def test_foreign(study):
            assert not study
        """)
    shown = suite.runpytest_inprocess("-k", "claim").stdout
    shown.fnmatch_lines(["*m -1.00 *, needed > 0*", "FAILED *::test_claim*"])
    shown.no_fnmatch_line("*PRINTED*")
    shown.no_fnmatch_line("*assert result.supported*")
    failure = ET.parse(suite.path / "out" / "junit.xml").find(".//failure")  # noqa: S314 - our own file
    assert failure.get("message").startswith("not_supported: m -1 [-1, -1], n 3; needed > 0")
    suite.runpytest_inprocess("-k", "claim", "--tb=long").stdout.fnmatch_lines(["study = PRINTED*"])
    suite.runpytest_inprocess("-k", "foreign").stdout.fnmatch_lines(["study = PRINTED*"])


def test_an_advised_verdict_is_shown_as_one(suite):
    suite.makepyfile(ONE.format(role="criterion", marks="", body=f"result = measure(-1.0); {ASSERTED}"))
    result = suite.runpytest_inprocess("--advisory", "-v")
    result.stdout.fnmatch_lines(["*test_claim ADVISORY (not_supported)*", "*1 advisory*"])


def test_a_skip_tells_the_condition_that_lifts_it(suite):
    suite.makepyfile(ONE.format(role="criterion", marks="", body="pytest.skip('one model; name eight with --model')"))
    suite.runpytest_inprocess()
    (row,) = rows(suite)
    assert row["estimate"]["reason"] == "one model; name eight with --model"
    assert row["action"] == "name eight with --model"
    assert row["explain"] == "not_applicable: skipped: one model; name eight with --model."


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "raise ModelError('no model a/b on this machine.\\nLong story.')",
            "set-up: ModelError: no model a/b on this machine.",
        ),
        ("1 / 0", "set-up: ZeroDivisionError: division by zero"),
    ],
)
def test_a_set_up_error_is_a_row_with_its_message(suite, body, message):
    suite.makepyfile(f"""
        import pytest
        from evenbits.errors import ModelError

        @pytest.fixture
        def broken():
            {body}

        @pytest.mark.hypothesis("H-037")
        @pytest.mark.criterion
        def test_claim(broken, measure): pass
        """)
    result = suite.runpytest_inprocess("--advisory")
    assert result.ret == 1
    (row,) = rows(suite)
    assert (row["verdict"], row["estimate"]["reason"]) == ("error", message)
    assert row["explain"].startswith("error: set-up: ")


def test_a_tear_down_error_stands_beside_the_measurement(suite):
    suite.makepyfile("""
        import pytest

        @pytest.fixture
        def broken():
            yield
            1 / 0

        @pytest.mark.established
        def test_claim(broken, measure):
            assert measure(1.0).supported
        """)
    assert suite.runpytest_inprocess().ret == 1
    assert [(row["hypothesis"], row["verdict"]) for row in rows(suite)] == [
        ("established", "supported"),
        ("established", "error"),
    ]
