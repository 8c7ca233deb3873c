"""What --collect-only shows: what would be measured, of what, and about how long it would take."""

import re

import pytest

import harness.corpora  # noqa: F401 - numpy cannot be imported again in each of pytester's runs
from fixtures.cost import seconds_of

EVALS = """
import pytest

@pytest.mark.hypothesis("H-039")
@pytest.mark.criterion
def test_parity(damage, retention, record): pass

@pytest.mark.hypothesis("H-037")
@pytest.mark.criterion
def test_pattern(model, ablations, record): pass

@pytest.mark.hypothesis("H-037")
@pytest.mark.prediction
def test_over_models(models, family_damage, record): pass
"""


@pytest.fixture
def suite(pytester, monkeypatch):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("EVENBITS_STORE", str(pytester.path / "store"))
    pytester.makeconftest("from plugins.loading import PLUGINS\npytest_plugins = list(PLUGINS)\n")
    pytester.makepyprojecttoml("[tool.evenbits]\nseed = 0\n")
    pytester.makepyfile(EVALS)
    (pytester.path / "texts").mkdir()
    for tag in ("de", "sw"):
        (pytester.path / "texts" / f"{tag}.txt").write_text("0123456789\n" * 8)
    return pytester


def collect(suite, *options):
    return suite.runpytest_inprocess("--collect-only", "--corpus=dir:texts", "--languages=all", *options)


def test_models_specs_text_passes_and_cost_are_shown_and_nothing_is_written(suite, tiny_llama):
    result = collect(suite, f"--model={tiny_llama}", "--model=org/elsewhere", "--spec=int4-g64,int3-g64")
    assert result.ret == 0
    # 8 lines, half of them for scores, 10 bytes each, in two languages
    result.stdout.fnmatch_lines([
        "*evenbits would measure*",
        "text      dir:texts: 2 languages, 4 + 4 segments (probe + evaluation), 80 bytes to score",
        # per spec damage 2 and retention 12; per model ablations 4, and 3 for the damage of all models: 2 x 14 + 7
        f"model     {tiny_llama}: 0.* M parameters, int4-g64, int3-g64; 4 tests, about 35 passes: about 1 s",
        "model     org/elsewhere: not on this machine yet, int4-g64, int3-g64; 4 tests, about 35 passes: unknown time",
        "cost      unknown time on this machine, less what is stored already",
    ])  # fmt: skip
    assert not (suite.path / "reports").exists()


def test_the_list_for_programs_and_other_peoples_suites_stay_as_they_are(suite, tiny_llama):
    assert "would measure" not in collect(suite, f"--model={tiny_llama}", "-q").stdout.str()
    suite.makepyfile(test_theirs="def test_theirs(): pass")
    assert "would measure" not in suite.runpytest_inprocess("--collect-only", "test_theirs.py").stdout.str()


def test_text_that_is_not_there_leaves_the_cost_open_with_its_reason(suite, tiny_llama):
    result = suite.runpytest_inprocess("--collect-only", "--corpus=dir:absent", f"--model={tiny_llama}")
    assert re.search(r"text      no text: .*absent.*does not exist", result.stdout.str())
    assert "unknown time" in result.stdout.str()


def test_the_estimate_is_products_times_what_scoring_may_take():
    # 300 bytes are 100 tokens; 2 operations per parameter and token, 10 passes, 3 times the products:
    # 3 x 10 x 2 x 1e6 x 100 / 6e9 = 1 s
    assert seconds_of(passes=10, parameters=1e6, utf8_bytes=300, products_per_second=6e9) == pytest.approx(1.0)
