"""What a run takes by default, what it leaves out, and that terminal and report say so."""

import evenbits.text  # noqa: F401 - numpy cannot be imported again in each of pytester's runs
import pytest
from evenbits.report.document import load

LOADING = """
from evenbits.plugins import PLUGINS
wanted = ("evenbits.plugins.", "evenbits.fixtures.recording")
pytest_plugins = [name for name in PLUGINS if name.startswith(wanted)]
"""

EVALS = """
import pytest
from evenbits.estimates import Estimate, Finding, Threshold

def measured(record):
    finding = Finding(estimate=Estimate(value=1.0, low=1.0, high=1.0, n=3, method="given"))
    assert record(finding, Threshold(metric="m", op=">", bound=0, why="w")).supported

@pytest.mark.hypothesis("H-100")
@pytest.mark.criterion
def test_claim(record):
    measured(record)

@pytest.mark.hypothesis("H-100")
@pytest.mark.prediction
def test_prediction(record):
    measured(record)

@pytest.mark.hypothesis("H-100")
@pytest.mark.robustness(always="the claim may be an artefact")
def test_control(record):
    measured(record)

@pytest.mark.hypothesis("H-100")
@pytest.mark.robustness
def test_other_choice(record):
    measured(record)

@pytest.mark.hypothesis("H-100")
@pytest.mark.robustness
@pytest.mark.parametrize("half", [1, 2])
def test_other_half(half, record):
    measured(record)
"""

DEFAULT = {"test_claim", "test_prediction", "test_control"}
EVERYTHING = DEFAULT | {"test_other_choice", "test_other_half"}


@pytest.fixture
def suite(pytester, monkeypatch):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("COLUMNS", "200")
    pytester.makeconftest(LOADING)
    pytester.makepyprojecttoml("[tool.evenbits]\nseed = 0\n")
    pytester.makepyfile(test_evals=EVALS, test_theirs="def test_theirs(): pass")
    return pytester


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), DEFAULT),
        (("--robustness",), EVERYTHING),
        (("--full",), EVERYTHING),
        (("-m", "robustness"), EVERYTHING - {"test_claim", "test_prediction"}),
        (("test_evals.py::test_other_choice",), {"test_other_choice"}),
        (("test_evals.py", "-k", "other_half"), set()),
    ],
)
def test_robustness_is_asked_for(suite, options, expected):
    result = suite.runpytest_inprocess("--collect-only", "-q", *options)
    names = {line.partition("::")[2].partition("[")[0] for line in result.outlines if "::" in line}
    assert names - {"test_theirs"} == expected


def test_terminal_and_report_say_what_was_left_out_and_what_takes_it(suite):
    result = suite.runpytest_inprocess("--report=out")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["left out: 3 x H-100: robustness (--robustness)", "left out*3 evals; -v says why"])
    document = load(suite.path / "out" / "report.json")
    # one other choice, and two halves of the other
    assert document["inputs"]["not_run"] == [
        {"what": "eval", "language": None, "count": 3, "reason": "H-100: robustness (--robustness)"}
    ]
    assert "robustness (--robustness)" in (suite.path / "out" / "summary.md").read_text(encoding="utf-8")


def test_nothing_is_said_to_be_left_out_where_everything_was_asked_for_or_deselected(suite):
    suite.runpytest_inprocess("--report=out", "--robustness")
    assert "not_run" not in load(suite.path / "out" / "report.json")["inputs"]
    suite.runpytest_inprocess("--report=other", "-m", "criterion")
    assert "not_run" not in load(suite.path / "other" / "report.json")["inputs"]


COMPARISON = """
import pytest
from test_evals import measured

@pytest.fixture
def first_grid():
    return None

@pytest.mark.hypothesis("H-100")
@pytest.mark.prediction
def test_over_models(first_grid, record):
    measured(record)
"""


@pytest.mark.parametrize(("specs", "others"), [("int4-g64", 0), ("int4-g64,int3-g64,nf4-b64", 2)])
def test_of_several_specs_what_compares_models_says_that_it_takes_the_first(suite, specs, others):
    suite.makepyfile(test_comparison=COMPARISON)
    suite.runpytest_inprocess("test_comparison.py", "--report=out", "--full", f"--spec={specs}")
    reason = "H-100: models are compared under the first --spec alone"
    entry = {"what": "eval", "language": None, "count": others, "reason": reason}
    assert load(suite.path / "out" / "report.json")["inputs"].get("not_run", []) == [entry] * bool(others)


def test_workers_tell_the_report_what_they_left_out(suite, monkeypatch):
    pytest.importorskip("xdist", reason="install the extra xdist")
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    suite.runpytest_subprocess("-p", "xdist", "-n", "2", "--report=out")
    (entry,) = load(suite.path / "out" / "report.json")["inputs"]["not_run"]
    assert entry["count"] == 3
