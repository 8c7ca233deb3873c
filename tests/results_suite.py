"""A suite of small evals with everything of the plugins but our own fixtures: what a report is made of, quickly."""

from evenbits.report.document import load

LOADING = """
import pytest
from evenbits.estimates import Estimate, Finding, Threshold
from evenbits.plugins import PLUGINS
wanted = ("evenbits.plugins.", "evenbits.fixtures.recording")
pytest_plugins = [name for name in PLUGINS if name.startswith(wanted)]

@pytest.fixture(scope="session")
def model(request):
    return request.param

@pytest.fixture(scope="session")
def spec(request):
    return request.param

@pytest.fixture(scope="session")
def damage(model, spec, contribute):
    excess = {"value": 2.0, "low": 1.0, "high": 3.0, "n": 9, "method": "BCa", "reason": None}
    row = {"model": model.text, "spec": str(spec), "segments": 9, "tokens": 99, "utf8_bytes": 300, "nll_full": 5.0,
           "nll_quantized": 6.0, "excess_bits": excess, "relative_increase": excess, "rms_delta_p": 0.1,
           "kl_nats_per_token": {"mean": 0.1, "p50": 0.1, "p99": None}, "top1_changed": 0.5, "bits_per_weight": 4.25}
    rows = [{**row, "language": tag} for tag in ("sw", "de")]
    contribute("damage", rows)
    contribute("models", {"text": model.text, "digest": "0f"})
    contribute("environment", {"device": "cpu"})
    return rows

@pytest.fixture
def measure(record):
    def measured(value, metric="m", **options):
        finding = Finding(estimate=Estimate(value=value, low=value, high=value, n=3, method="given"), **options)
        return record(finding, Threshold(metric=metric, op=">", bound=0, why="fixed"))
    return measured
"""

EVALS = """
import pytest

@pytest.mark.hypothesis("H-039")
@pytest.mark.criterion
def test_refuted(damage, measure):
    result = measure(-1.0)
    assert result.supported, result.explain()

@pytest.mark.hypothesis("H-037")
@pytest.mark.criterion
def test_two(damage, measure):
    assert measure(1.0, "first").supported
    assert measure(2.0, "second", p_value=0.5).supported

@pytest.mark.hypothesis("H-037")
@pytest.mark.robustness
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_skipped(share):
    pytest.skip("no; yes")

@pytest.mark.hypothesis("H-036")
@pytest.mark.criterion
def test_broken(no_such_fixture): pass

@pytest.mark.gate
def test_silent(model, record): pass

def test_foreign(): pass
"""

CHOICES = ("--model=a/b", "--model=c/d", "--spec=int4-g64,int3-row")


def prepare(pytester, monkeypatch):
    """Write the suite's conftest and settings into the folder of `pytester`, and return it."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("COLUMNS", "80")
    pytester.makeconftest(LOADING)
    pytester.makepyprojecttoml('[tool.evenbits]\nreport = "out"\nrobustness = true\n')
    return pytester


def report(suite, folder="out"):
    return load(suite.path / folder / "report.json")


def cases(document):
    return [(row["test"], row["model"], row["spec"], row["verdict"]) for row in document["measurements"]]
