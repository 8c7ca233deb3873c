"""Which tests are evals, in which order they run, and that nobody else's tests are touched."""

from importlib.metadata import distribution

import evenbits.text  # noqa: F401 - numpy cannot be imported again in each of pytester's runs
import pytest
from evenbits.report.document import load

LOADING = """
import pytest
from evenbits.plugins import PLUGINS
wanted = ("evenbits.plugins.", "evenbits.fixtures.recording")
pytest_plugins = [name for name in PLUGINS if name.startswith(wanted)]

@pytest.fixture(scope="session")
def model(request):
    return request.param

@pytest.fixture
def models(settings):
    return settings.models
"""


@pytest.fixture
def suite(pytester, monkeypatch):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makeconftest(LOADING)
    pytester.makepyprojecttoml("[tool.evenbits]\nseed = 0\n")
    return pytester


def collected(suite, *options):
    result = suite.runpytest_inprocess("--collect-only", "-q", *options)
    return [line.partition("::")[2] for line in result.outlines if "::" in line]


def test_hypotheses_run_in_the_programmes_order_and_models_one_after_the_other(suite):
    suite.makepyfile("""
        import pytest

        def mark(name, role="criterion"):
            return lambda test: pytest.mark.hypothesis(name)(getattr(pytest.mark, role)(test))

        @mark("H-039")
        def test_039(model): pass

        @mark("H-035")
        def test_035(model): pass

        @mark("H-037", "prediction")
        def test_037_over_models(models): pass

        @pytest.mark.gate
        def test_gate(model, record): pass

        @mark("H-038")
        def test_038(model): pass

        @mark("H-100")
        def test_100(model): pass

        @mark("H-036")
        def test_036(model): pass

        @mark("H-037")
        def test_037(model): pass
        """)
    order = ["test_037", "test_036", "test_035", "test_038", "test_039", "test_100", "test_gate"]
    expected = [f"{name}[{model}]" for model in ("a/b", "c/d") for name in order]
    assert collected(suite, "--model=a/b", "--model=c/d") == [*expected, "test_037_over_models"]


def test_other_tests_keep_their_places_among_the_evals(suite):
    suite.makepyfile("""
        import pytest

        @pytest.mark.gate
        def test_gate(record): pass

        def test_b(): pass

        @pytest.mark.hypothesis("H-039")
        @pytest.mark.criterion
        def test_039(record): pass

        def test_a(): pass

        @pytest.mark.hypothesis("H-037")
        @pytest.mark.criterion
        def test_037(record): pass
        """)
    assert collected(suite) == ["test_037", "test_b", "test_039", "test_a", "test_gate"]


def test_installed_beside_another_suite_it_does_nothing_at_all():
    """Installing the distribution registers no pytest plugin: a suite that does not ask for one never sees it."""
    assert {point.group for point in distribution("evenbits").entry_points} <= {"console_scripts", "evenbits.models"}


def test_a_foreign_suite_is_left_alone(suite):
    # Other people's fixtures have our names, and the hypothesis library sets a marker called like ours.
    suite.makepyfile("""
        import pytest

        @pytest.fixture
        def model(): return "theirs"

        @pytest.fixture
        def record(): return "theirs"

        @pytest.fixture
        def spec(request): return "theirs"

        def test_b(model, spec, record):
            assert (model, spec, record) == ("theirs",) * 3

        @pytest.mark.hypothesis
        @pytest.mark.gate
        def test_a(): pass

        @pytest.mark.parametrize("model", [1, 2])
        def test_c(model): pass
        """)
    assert collected(suite) == ["test_b", "test_a", "test_c[1]", "test_c[2]"]
    result = suite.runpytest_inprocess("-v", "--no-header")  # the header has paths, which may hold our name
    assert result.ret == 0
    result.assert_outcomes(passed=4)
    result.stdout.no_fnmatch_line("*evenbits*")
    assert not list(suite.path.rglob("report*"))
    assert not list(suite.path.rglob("junit.xml"))


def test_collecting_imports_nothing_heavy(suite):
    suite.makeconftest("from evenbits.plugins import PLUGINS\npytest_plugins = list(PLUGINS)\n")
    suite.makepyfile(
        check="""
        import sys
        import pytest

        code = pytest.main(["--collect-only", "-q", "test_eval.py", "--model=a/b", "--spec=int4-g64"])
        heavy = {"torch", "transformers", "scipy.stats", "pandas", "datasets", "rich", "jsonschema", "statsmodels"}
        print("heavy", sorted(heavy & set(sys.modules)), int(code))
        """
    )
    suite.makepyfile(
        test_eval="""
        import pytest

        @pytest.mark.hypothesis("H-037")
        @pytest.mark.criterion
        def test_eval(model, record): pass
        """
    )
    result = suite.runpython("check.py")
    result.stdout.fnmatch_lines(["*test_eval[[]a/b[]]", "heavy [[][]] 0"])


@pytest.mark.parametrize(
    ("marks", "message"),
    [
        ('@pytest.mark.hypothesis("H-037")', "*test_eval needs exactly one role marker*; it has none*"),
        (
            '@pytest.mark.hypothesis("H-037")\n@pytest.mark.gate\n@pytest.mark.control',
            "*test_eval needs exactly one role marker*; it has gate and control*",
        ),
        (
            "@pytest.mark.criterion",
            '*test_eval records a measurement, so it needs a marker such as hypothesis("H-037")*',
        ),
    ],
)
def test_an_eval_that_does_not_say_what_it_is_ends_the_run(suite, marks, message):
    suite.makepyfile(f"import pytest\n\n{marks}\ndef test_eval(record): pass\n")
    result = suite.runpytest_inprocess()
    assert result.ret == 2
    result.stdout.fnmatch_lines([message])
    assert "Traceback" not in result.stdout.str()


def test_loadgroup_gives_every_model_to_one_worker(suite):
    suite.makepyfile("""
        import os
        import pytest
        from evenbits.estimates import Estimate, Finding, Threshold

        @pytest.mark.hypothesis("H-037")
        @pytest.mark.criterion
        @pytest.mark.parametrize("case", range(4))
        def test_claim(case, model, record):
            given = Estimate(value=1.0, low=1.0, high=1.0, n=3, method="given")
            finding = Finding(estimate=given, summary=str(os.getpid()))
            assert record(finding, Threshold(metric="m", op=">", bound=0, why="w")).supported

        def test_foreign(): pass
        """)
    # Revisions put an @ into a model's name, which xdist also uses to mark groups.
    models = ("a/b@main", "c/d@main", "g/h")
    chosen = [f"--model={model}" for model in models]
    result = suite.runpytest_subprocess("-p", "xdist", "-n", "2", "--dist", "loadgroup", "--report=out", *chosen)
    assert result.ret == 0
    rows = load(suite.path / "out" / "report.json")["measurements"]
    workers = {model: {row["summary"] for row in rows if row["model"] == model} for model in models}
    assert {model: len(found) for model, found in workers.items()} == dict.fromkeys(workers, 1)
    assert len(set.union(*workers.values())) == 2  # and both workers had something to do
    serial = suite.runpytest_inprocess("--report=serial", *chosen)
    assert serial.ret == 0
    alone = load(suite.path / "serial" / "report.json")["measurements"]
    assert [(row["test"], row["model"]) for row in rows] == [(row["test"], row["model"]) for row in alone]
