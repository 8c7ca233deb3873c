"""Findings over all models from shards: byte for byte those of an unsharded run, whatever the shards divide."""

import copy
import datetime as dt
import json
from pathlib import Path

import evenbits.text  # noqa: F401 - numpy cannot be imported again in each of pytester's runs
import numpy as np
import pytest
import scipy.stats  # noqa: F401 - pytester's runs must find it imported
import weight_records
from evenbits.errors import ReportError
from evenbits.report.document import dump, load
from evenbits.report.merge import merge
from evenbits.studies.established import ModelDamage, ModelHeads, ModelWeights
from evenbits.studies.h037 import ModelPoint
from evenbits.studies.h038 import TrainedModel
from evenbits.studies.over_models import DECISIONS, KINDS, ModelRecord, Records, decide

EVALS = Path(__file__).resolve().parents[2] / "evals"
FILES = ("test_h037_outlier_sparsity", "test_h038_language_resilience", "test_established_findings")
TESTS = (
    "test_sparse_outliers_are_easier_to_preserve", "test_sparse_outliers_cost_more_when_nothing_is_kept",
    "test_a_training_choice_saves_damage", "test_outliers_explain_disparity",
    "test_outliers_sit_in_attention_projections", "test_outliers_grow_during_training",
    "test_attention_sinks_are_not_outliers", "test_fertility_is_not_degradation",
)  # fmt: skip
NAMES = ("a1-s0020", "a1-s0080", "a1-s0320", "a1", "a1-heavy", "a2", "a2-heavy", "a1-muon", "a2-muon", "a1-qk", "b1",
         "b1-injected")  # fmt: skip
MODELS = tuple(f"reference:{name}" for name in NAMES)
SPECS = ("int3-row", "int4-g64")
LOW = ("am", "ga", "ig", "ug", "yo", "mt")
HIGH = ("de", "en", "es", "fr", "ja", "ru")

SUITE = """
import json
from pathlib import Path
import pytest
from evenbits.errors import ModelError
from evenbits.studies.over_models import ModelRecord, Records
from evenbits.plugins import PLUGINS
pytest_plugins = [name for name in PLUGINS if name != "evenbits.fixtures.preparation"]  # there is no model to prepare

ROWS = json.loads((Path(__file__).parent / "records.json").read_text(encoding="utf-8"))

def records(kind, spec, settings, contribute):
    found = []
    for ref in settings.models:
        rows = [row for row in ROWS if (row["kind"], row["model"], row["spec"]) == (kind, ref.text, spec)]
        if not rows and kind != "training":
            raise ModelError(f"{ref.text} has weights that are not finite")
        contribute("models", {"text": ref.text, "digest": "0f"})
        found += map(ModelRecord.from_json, rows)
    return Records(kind=kind, spec=spec, records=tuple(found))

@pytest.fixture(scope="session")
def model_points(models, settings, contribute):
    return records("sparsity", str(settings.specs[0].base), settings, contribute)

@pytest.fixture(scope="session")
def family_damage(models, settings, contribute):
    return records("damage", str(settings.specs[0].base), settings, contribute)

@pytest.fixture(scope="session")
def family_weights(models, settings, contribute):
    return records("weights", None, settings, contribute)

@pytest.fixture(scope="session")
def family_heads(models, settings, contribute):
    return records("heads", None, settings, contribute)

@pytest.fixture(scope="session")
def trained_models(models, spec, settings, contribute):
    contribute("specs", {"text": str(spec), "digest": "f0"})
    return records("training", str(spec), settings, contribute)
"""


def members(name, place, rng):
    """Yield (kind, spec, what was measured) of a model by hand; numbers with all their digits."""
    text, tags = f"reference:{name}", (*LOW, *HIGH)
    tail = 2.0 + 9.0 * place + rng.random()
    tokens = rng.uniform(50, 200, len(tags))
    for spec in SPECS:
        bits = rng.gamma(5.0, 1.0 + 0.1 * place, len(tags))
        yield "sparsity", spec, ModelPoint(
            model=text, cluster=name, sparsity=0.1 + 0.01 * place + 0.02 * rng.random(), damage=bits.mean(),
            relative=bits.mean() / 90, recovered=0.05 * place + rng.random(),
        )  # fmt: skip
        yield "damage", spec, ModelDamage(
            model=text, run=name, tail=tail, languages=tags, tokens=tokens, floor=0.01, outliers=rng.random(len(tags)),
            tier=dict.fromkeys(LOW, "low") | dict.fromkeys(HIGH, "high"),
            damage={metric: bits * rng.uniform(0.9, 1.1, len(tags)) for metric in ("excess_bits", "relative_increase",
                                                                                  "kl")},
        )  # fmt: skip
        losses = np.stack([bits - 4.0 * ("heavy" not in name), 0 * bits + 90, 0 * bits + 90 + place, bits / 90], axis=1)
        yield "training", spec, TrainedModel(
            name=name, fingerprint=f"{place}", losses=dict(zip(tags, losses.tolist(), strict=True)),
            exposure=dict.fromkeys(LOW, 3_000) | dict.fromkeys(HIGH, 90_000),
        )  # fmt: skip
    role = ("q_proj", "o_proj", "down_proj")[place % 3]
    statistics = weight_records.model({(1, role): tail}, {(1, role): place, (0, "up_proj"): 1})
    yield "weights", None, ModelWeights(model=text, run=name, statistics=statistics, trained_bytes=1000 * (place + 1))
    sink, kurtosis, query = rng.random((3, 2, 4))
    yield "heads", None, ModelHeads(model=text, run=name, sink=sink, output_kurtosis=kurtosis, query_kurtosis=query)


@pytest.fixture(scope="module")
def measured():
    rng = np.random.default_rng(1)
    return [
        ModelRecord.of(kind, one, model=f"reference:{name}", spec=spec, origin="shared" if name[0] == "b" else None)
        for place, name in enumerate(NAMES)
        for kind, spec, one in members(name, place, rng)
    ]


@pytest.fixture
def suite(pytester, monkeypatch, measured):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makeconftest(SUITE)
    pytester.makepyprojecttoml('[tool.evenbits]\nreport = "out"\n')
    pytester.makepyfile(**{name: (EVALS / f"{name}.py").read_text(encoding="utf-8") for name in FILES})
    write(pytester, measured)
    return pytester


def write(suite, records):
    rows = [record.to_json() for record in records]
    (suite.path / "records.json").write_text(json.dumps(rows), encoding="utf-8")


def measure(suite, name, *, models=MODELS, specs=SPECS, tests=TESTS, workers=False):
    command = ["-k", " or ".join(tests), f"--spec={','.join(specs)}", f"--report={name}", "--languages=de",
               *(f"--model={model}" for model in models)]  # fmt: skip
    if workers:
        suite.runpytest_subprocess(*command, "-p", "xdist", "-n", "2")
    else:
        suite.runpytest_inprocess(*command)
    return load(suite.path / name / "report.json")


def joined(shards):
    documents = {f"shard {place}": one for place, one in enumerate(shards, start=1)}
    return merge(documents, today=dt.datetime.now(dt.UTC).date())


def text(document):
    """The document as it is written, without what may differ between runs."""
    return dump({key: value for key, value in document.items() if key not in {"timing", "environment"}})


def parts(*, size=4, **options):
    starts = range(0, len(MODELS), size)
    return [(f"part{start}", {"models": MODELS[start : start + size], **options}) for start in starts]


@pytest.mark.parametrize("workers", [False, True])
def test_shards_by_model_give_the_bytes_of_the_unsharded_run(suite, workers):
    whole = measure(suite, "whole")
    shards = [measure(suite, name, workers=workers, **options) for name, options in parts(size=6 if workers else 4)]
    merged = joined(shards)
    assert text(merged) == text(whole)
    # no shard could say anything of this, and the whole run does: 8 training runs, of which no shard has all
    rows = {row["test"]: row for row in merged["measurements"]}
    assert set(rows) == set(TESTS)
    assert rows["test_outliers_explain_disparity"]["estimate"]["n"] == 8
    assert rows["test_sparse_outliers_are_easier_to_preserve"]["estimate"]["n"] == 8
    assert rows["test_outliers_grow_during_training"]["data"]["courses"][0]["run"] == "reference:a1"
    verdicts = {row["verdict"] for row in shards[0]["measurements"] if row["hypothesis"] in {"E-1", "H-037"}}
    assert verdicts == {"underpowered"}
    assert [recipe["kind"] for recipe in merged["recipes"]] == ["training"] * len(merged["recipes"]) != []


def test_shards_by_spec_keep_what_is_said_under_the_first_spec(suite):
    whole = measure(suite, "whole")
    shards = [measure(suite, spec, specs=(spec,)) for spec in SPECS]
    assert text(joined(shards)) == text(whole)
    assert text(joined(shards[::-1])) == text(measure(suite, "turned", specs=SPECS[::-1]))


def test_shards_by_model_and_spec_at_once_give_the_bytes_of_the_unsharded_run(suite):
    whole = measure(suite, "whole")
    shards = [measure(suite, f"{name}-{spec}", **options) for spec in SPECS for name, options in parts(specs=(spec,))]
    assert text(joined(shards)) == text(whole)


def test_a_model_that_cannot_be_measured_ends_a_finding_as_it_ends_the_unsharded_run(suite, measured):
    write(suite, [one for one in measured if (one.kind, one.model) != ("damage", MODELS[5])])
    whole = measure(suite, "whole")
    merged = joined([measure(suite, name, **options) for name, options in parts()])
    assert text(merged) == text(whole)
    found = {row["test"]: row["explain"] for row in merged["measurements"] if row["verdict"] == "error"}
    assert set(found) == {"test_outliers_explain_disparity", "test_fertility_is_not_degradation"}
    assert "reference:a2 has weights that are not finite" in found["test_fertility_is_not_degradation"]


def test_a_finding_that_was_not_asked_of_every_model_is_refused(suite):
    shards = [
        measure(suite, name, tests=TESTS[: 8 - place], **options) for place, (name, options) in enumerate(parts())
    ]
    with pytest.raises(
        ReportError, match=r"test_fertility.* under int3-row .* was not run for reference:a1-heavy, .*same selection"
    ):
        joined(shards)


def test_records_that_contradict_each_other_and_unknown_decisions_are_refused(suite):
    shards = [measure(suite, name, **options) for name, options in parts()]
    other = copy.deepcopy(shards[0])
    next(one for one in other["over_models"]["records"] if one["kind"] == "heads")["values"]["run"] = "x"
    with pytest.raises(ReportError, match=r"shard 4 contradicts the reports before it: .*records .*different values"):
        joined([*shards, other])
    shards[0]["over_models"]["decisions"][0]["decision"] = "of a later version"
    with pytest.raises(ReportError, match="decided by of a later version, which this evenbits lacks"):
        joined(shards)


def test_a_report_without_records_leaves_its_findings_over_models_unmeasured(suite):
    shards = [measure(suite, name, tests=TESTS[:1], **options) for name, options in parts()]
    for shard in shards:
        del shard["over_models"]  # as an older version, or somebody else's test, wrote it
    (row,) = joined(shards)["measurements"]
    assert row["verdict"] == "not_applicable"
    assert "it needs all models in one run, and the shards have only some" in row["explain"]


def test_what_a_record_says_survives_json_to_the_last_digit(measured):
    for record in measured:
        again = ModelRecord.from_json(json.loads(json.dumps(record.to_json())))
        assert again == record
        read = KINDS[record.kind].read(again.values, "run")
        assert json.dumps({**read.to_json(), "run": 0, "cluster": 0}) == json.dumps(
            {**record.values, "run": 0, "cluster": 0}
        )


def test_a_decision_refuses_records_of_another_kind():
    with pytest.raises(ValueError, match="outliers_grow is decided from records of weights, not of heads"):
        decide("outliers_grow", Records(kind="heads", spec=None, records=()), None, seed=0)
    assert {decision.kind for decision in DECISIONS.values()} == set(KINDS)
