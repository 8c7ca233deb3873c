"""Options, their defaults, and what happens to the ones that cannot be understood."""

import evenbits.text  # noqa: F401 - numpy cannot be imported again in each of pytester's runs
import pytest

LOADING = """
from evenbits.plugins import PLUGINS
wanted = ("evenbits.plugins.", "evenbits.fixtures.recording")
pytest_plugins = [name for name in PLUGINS if name.startswith(wanted)]
"""

EVAL = """
import pytest
from evenbits.estimates import Estimate, Finding, Threshold

@pytest.fixture(scope="session")
def model(request):
    return request.param

@pytest.mark.hypothesis("H-037")
@pytest.mark.criterion
def test_claim(model, settings, record):
    print("settings", model.text, settings)
    estimate = Estimate(value=1.0, low=1.0, high=1.0, n=3, method="given")
    assert record(Finding(estimate=estimate), Threshold(metric="m", op=">", bound=0, why="w")).supported
"""


@pytest.fixture
def suite(pytester, monkeypatch):
    """A folder with one eval that needs a model, and defaults of its own."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # hypothesis alone takes seconds to import
    pytester.makeconftest(LOADING)
    pytester.makepyprojecttoml('[tool.evenbits]\nspec = "int4-g64"\n')
    pytester.makepyfile(test_eval=EVAL)
    return pytester


def written(suite):
    return sorted(path.name for path in suite.path.rglob("*") if path.name in {"report.json", "junit.xml", "reports"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--spec", "int9-g64"], "*int9-g64*"),
        (["--corpus", "nonsense"], "*nonsense*"),
        (["--languages", "x_y_z!"], "*x_y_z!*"),
        (["--languages", ""], "*languages*"),
        (["--segments", "none"], "*--segments 'none' is not a whole number*"),
        (["--segments", "0"], "*--segments 0 is too small*"),
        (["--seed", "-1"], "*--seed -1 is too small*"),
        (["--dtype", "float16"], "*--dtype 'float16' is unknown; use bfloat16 or float32*"),
        (["--report", "test_eval.py"], "*--report 'test_eval.py' is a file*"),
        (["--model", ""], "*model*"),
    ],
)
def test_an_option_that_cannot_be_understood_gives_one_sentence_exit_2_and_writes_nothing(suite, options, message):
    result = suite.runpytest_inprocess("test_eval.py", "--model", "a/b", *options)
    assert result.ret == 2
    result.stderr.fnmatch_lines([message])
    assert "Traceback" not in result.stderr.str() + result.stdout.str()
    assert written(suite) == []


def test_an_eval_without_a_model_is_a_usage_error_that_says_what_to_give(suite):
    result = suite.runpytest_inprocess("test_eval.py")
    assert result.ret == 2
    result.stdout.fnmatch_lines(["*no model was named, and test_claim needs one. Give --model*"])
    assert written(suite) == []


def test_deselecting_the_eval_that_needs_a_model_is_no_mistake(suite):
    suite.makepyfile(test_other="def test_other(): pass")
    result = suite.runpytest_inprocess("test_eval.py", "test_other.py", "-k", "other")
    assert result.ret == 0
    assert written(suite) == []


def test_a_test_over_all_models_needs_one_too(suite):
    suite.makepyfile(
        test_eval="""
        import pytest

        @pytest.fixture
        def models(settings):
            return settings.models

        @pytest.mark.hypothesis("H-037")
        @pytest.mark.prediction
        def test_all(models, record):
            pass
        """
    )
    result = suite.runpytest_inprocess("test_eval.py")
    assert result.ret == 2
    result.stdout.fnmatch_lines(["*no model was named, and test_all needs one*"])


def test_an_unknown_key_of_the_defaults_is_refused_by_name(suite):
    suite.makepyprojecttoml('[tool.evenbits]\nspecs = "int4-g64"\n')
    result = suite.runpytest_inprocess("test_eval.py", "--model", "a/b")
    assert result.ret == 2
    result.stderr.fnmatch_lines(["*pyproject.toml has the unknown key 'specs'; it may have model, spec,*"])


def test_the_command_line_wins_over_the_defaults_which_win_over_what_is_built_in(suite):
    suite.makepyprojecttoml('[tool.evenbits]\nmodel = "a/b"\nspec = ["int3-row"]\nseed = 7\nreport = "mine"\n')
    result = suite.runpytest_inprocess("test_eval.py", "-s", "--seed=8", "--languages=de,sw", "--segments", "9")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*settings a/b *corpus='gettext', languages='de,sw', segments=9, seed=8*"])
    assert (suite.path / "mine" / "report.json").is_file()


def test_specs_and_models_may_be_repeated_and_specs_listed_and_ids_are_what_was_typed(suite):
    suite.makepyfile(
        test_eval="""
        import pytest

        @pytest.fixture(scope="session")
        def model(request):
            return request.param

        @pytest.fixture(scope="session")
        def spec(request):
            return request.param

        @pytest.mark.hypothesis("H-037")
        @pytest.mark.prediction
        def test_claim(model, spec, record):
            pass
        """
    )
    result = suite.runpytest_inprocess(
        "test_eval.py",
        "--collect-only",
        "-q",
        "--model=a/b",
        "--model",
        "wheel:x==1",
        "--model=a/b",
        "--spec=int4-g64,int3-row",
        "--spec",
        "int8-row",
        "--report=out",
    )
    assert result.ret == 0
    specs = ("int4-g64", "int3-row", "int8-row")
    found = [line for line in result.outlines if "::" in line]
    assert found[:3] == [f"test_eval.py::test_claim[a/b-{spec}]" for spec in specs]
    assert sorted(found[3:]) == sorted(f"test_eval.py::test_claim[wheel:x==1-{spec}]" for spec in specs)
    assert written(suite) == []


@pytest.mark.parametrize("option", ["--report", "--model"])
def test_a_path_that_exists_may_stand_after_a_blank(suite, tmp_path_factory, option):
    # pytest takes such a value for a test path when it looks for its rootdir and its configuration.
    folder = tmp_path_factory.mktemp("existing")
    (folder / "pytest.ini").write_text("[pytest]\n")
    given = {"--report": str(suite.path / "out"), "--model": "a/b", option: str(folder)}
    (suite.path / "out").mkdir()
    result = suite.runpytest_subprocess(*[word for pair in given.items() for word in pair], "test_eval.py")
    assert result.ret == 0
    result.stdout.fnmatch_lines([f"rootdir: {folder}"])  # so it is, and nothing of ours depends on it
    report = folder if option == "--report" else suite.path / "out"
    assert {"report.json", "summary.md", "junit.xml"} <= {path.name for path in report.iterdir()}


def test_every_marker_of_the_harness_is_registered(suite):
    result = suite.runpytest_inprocess("--markers")
    for name in (
        "hypothesis(id)",
        "criterion",
        "prediction",
        "robustness(always)",
        "established",
        "gate",
        "control",
        "slow",
        "hub",
    ):
        result.stdout.fnmatch_lines([f"@pytest.mark.{name}:*"])
