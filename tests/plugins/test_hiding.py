"""A project's fixture that has the name of one of ours."""

import pytest
import scipy.stats  # noqa: F401 - pytester's runs must find all of this imported
import torch  # noqa: F401
import transformers  # noqa: F401

EVAL = """
import pytest

@pytest.mark.hypothesis("H-100")
@pytest.mark.criterion
def test_claim(damage, record):
    pytest.skip("not here")
"""

THEIRS = """
from evenbits.plugins import PLUGINS
pytest_plugins = list(PLUGINS)
import pytest

@pytest.fixture{scope}
def model(){gives}:
    return "gpt2"
"""


@pytest.fixture
def run(pytester, monkeypatch, tiny_llama, text_folder):
    """`run(scope, gives)` -> the collection of an eval beside a `model` of that scope, annotated like that."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("EVENBITS_STORE", str(pytester.path / "store"))
    pytester.makepyfile(test_mine=EVAL)
    what = (f"--model={tiny_llama}", "--spec=int4-g64", f"--corpus=dir:{text_folder(['de', 'en'])}", "--languages=all")

    def collect(scope, gives="", *options):
        pytester.makeconftest(THEIRS.format(scope=scope, gives=gives))
        return pytester.runpytest_inprocess(*what, *options)

    return collect


@pytest.mark.parametrize("scope", ["", '(scope="session")'])
def test_a_fixture_that_hides_one_of_ours_is_named_with_its_file_before_anything_runs(run, scope):
    result = run(scope)
    assert result.ret == 2
    result.stdout.fnmatch_lines(["*evenbits: the fixture `model` of conftest.py hides the one of evenbits that `*"])
    result.stdout.fnmatch_lines(["*: rename it. If it is to stand for ours, write what it gives: *-> Subject`.*"])
    assert "Error" not in result.stdout.str()


def test_one_that_says_it_gives_the_same_stands_for_ours(run):
    result = run('(scope="session")', ' -> "Subject"', "--collect-only")
    assert result.ret == 0
    assert "hides" not in result.stdout.str()


def test_other_peoples_tests_have_fixtures_of_any_name(run, pytester):
    pytester.makepyfile(test_mine="def test_theirs(model): assert model == 'gpt2'\n")
    assert run("").ret == 0
