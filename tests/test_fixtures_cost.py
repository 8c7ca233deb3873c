"""What --collect-only shows: what would be measured, of what, and about how long it would take."""

import re

import pytest

import harness.corpora  # numpy cannot be imported again in each of pytester's runs
import harness.models.loading  # noqa: F401 - nor torch
from fixtures.cost import NEEDS, Need, Size, seconds_of

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
        # per spec damage 2 and retention 12; per model ablations 9, and 3.5 for the damage of all models: 2 x 14 + 12.5
        f"model     {tiny_llama}: 0.* M parameters, int4-g64, int3-g64; 4 tests, about 40 passes: about 1 s",
        "model     org/elsewhere: not on this machine yet, int4-g64, int3-g64; 4 tests, about 40 passes: unknown time",
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


def test_a_fixture_that_looks_at_a_part_of_the_text_or_at_every_layer_costs_so():
    size = Size(languages=20, segments=80, layers=30)
    assert Need(passes=2).of(size) == 2
    assert Need(passes=4, per_layer=0.5).of(size) == 19  # 4 + 30 / 2
    assert Need(passes=9, languages=10, segments=8).of(size) == pytest.approx(0.45)  # 80 of 1,600 texts
    assert Need(passes=9, languages=50, segments=100).of(size) == 9  # there are no more


COUNTED = """
import pytest
from torch.utils.flop_counter import FlopCounterMode
from harness.damage import ModelUnderTest
from harness.estimates import Estimate
from plugins.loading import PLUGINS
pytest_plugins = list(PLUGINS)

counter, counted = FlopCounterMode(display=False), {}

@pytest.fixture(autouse=True, scope="session")
def without_floor():
    # the noise floor takes a few segments only; of a text as small as this it would be most of the work
    original, none = ModelUnderTest.noise_floor, Estimate(value=0.0, n=1, method="none")
    ModelUnderTest.noise_floor = lambda *_: none
    yield
    ModelUnderTest.noise_floor = original

@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef):
    before = counter.get_total_flops()
    try:
        return (yield)
    finally:
        counted[fixturedef.argname] = counter.get_total_flops() - before

@pytest.fixture
def one_pass(model, corpus):
    from harness.scoring import score
    before = counter.get_total_flops()
    for tag in corpus.languages:
        score(model.loaded(), tag, corpus.segment_ids, corpus.texts[tag])
    return counter.get_total_flops() - before

@pytest.hookimpl(wrapper=True)
def pytest_runtestloop():
    with counter:
        return (yield)

@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    try:
        return (yield)
    finally:
        name = item.name.partition("[")[0].removeprefix("test_")
        print("counted", name, counted[name] / item.funcargs["one_pass"])
"""

EACH = """
import pytest

@pytest.mark.hypothesis("H-000")
@pytest.mark.criterion
def test_{name}(model, spec, models, {name}, one_pass, record): pass
"""


@pytest.mark.parametrize(
    "name",
    ["damage", "layer_study", "activations", "model_points", "family_damage",
     *(pytest.param(name, marks=pytest.mark.slow)
       for name in ("retention", "ablations", "placements", "protection", "layer_writes", "predictors",
                    "language_features", "family_heads"))],
)  # fmt: skip
def test_the_estimate_of_a_fixture_is_within_a_factor_of_two_of_the_products_it_makes(
    pytester, monkeypatch, tiny_model, name
):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makeconftest(COUNTED)
    pytester.makepyfile(EACH.format(name=name))
    (pytester.path / "texts").mkdir()
    tags = ("am", "de", "en", "fr", "ig", "yo")
    for tag in tags:
        lines = [f"{tag} the inner thing an {number} says {tag * (1 + number % 5)}" for number in range(8)]
        (pytester.path / "texts" / f"{tag}.txt").write_text("\n".join(lines))
    result = pytester.runpytest_inprocess(
        "-s", "--tb=short", "--corpus=dir:texts", "--languages=all", "--dtype=float32", "--spec=int3-row",
        "--store=store", f"--model={tiny_model('llama', layers=4, hidden=32)}",
    )  # fmt: skip
    found = re.search(rf"counted {name} (\S+)", result.stdout.str())
    assert found is not None, result.stdout.str()
    estimate = NEEDS[name].of(Size(languages=len(tags), segments=4, layers=4))
    assert estimate / 2 <= float(found.group(1)) <= 2 * estimate, f"counted {found.group(1)}, estimated {estimate}"
