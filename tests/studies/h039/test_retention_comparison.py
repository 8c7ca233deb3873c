"""Other choices of the weights to keep, on tables made by hand."""

import math
import sys
from functools import partial

import pytest
from evenbits.estimates import Threshold, Verdict, judge
from evenbits.statistics import disparities
from evenbits.studies.h039 import (
    ComparatorStudy,
    against_protection,
    better_choice,
    language_awareness,
    nothing_to_compare,
    parity_elsewhere,
    unmeasured,
)
from evenbits.studies.h039.comparators import AWARE, comparator_specs
from evenbits.variants.quantization.spec import parse_spec
from retention_tables import HIGH, LOW, MATCHED, REMOVED, RIVAL, STAYS, means_of, rng, study_of

REFERENCE = "int4-row+keep0.1%:magnitude"
SPECS = {
    "activation": "int4-row+keep0.1%:activation",
    "activation, low-resource": "int4-row+keep0.1%:activation[yo]",
    "super weights": "int4-row+keep0.1%:superweight",
}


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch):
    module = sys.modules["evenbits.studies.h039.parity"]
    monkeypatch.setattr(module, "disparities", partial(disparities, resamples=199))


def contest(ratios=STAYS, *, leaves, **changes):
    """`leaves[name]`: factor on what the reference leaves to (low, high) under the comparator."""
    means = means_of(ratios)
    at_reference = means[3]
    extra = {
        SPECS[name]: {tag: value * (low if tag in LOW else high) for tag, value in at_reference.items()}
        for name, (low, high) in leaves.items()
    }
    study = study_of(means, extra=extra, **changes)
    return ComparatorStudy(retention=study, reference=REFERENCE, specs={name: SPECS[name] for name in leaves})


EVEN = (1.0, 1.0)
SAVES = Threshold(metric="saved_bits", op=">", bound=0.0, why="as in the eval")


def verdict_of(finding):
    return judge(finding, SAVES, hypothesis="H-039", test="t", role="robustness").verdict


def test_another_choice_that_reaches_parity_is_found_and_named():
    study = contest(leaves={"activation": EVEN, "super weights": (1 / 3, 1.0)})
    found = parity_elsewhere(study, rng=rng())
    assert found.verdict is None
    assert found.p_value < 0.05
    assert found.estimate.value == pytest.approx(1.0, abs=0.1)  # the ratio of 3 divided by three
    assert "super weights" in found.summary
    assert SPECS["super weights"] in found.action
    change = {row["name"]: row["log_disparity_change"].value for row in found.data["changes"]}
    assert change["super weights"] == pytest.approx(-math.log(3), abs=0.1)


def test_choices_that_leave_the_disparity_are_not_supported():
    found = parity_elsewhere(contest(leaves={"activation": EVEN, "super weights": (0.9, 0.9)}), rng=rng())
    assert found.verdict is Verdict.NOT_SUPPORTED
    assert "Parity is ruled out for every other choice of 0.1 %" in found.because


def test_parity_of_the_largest_magnitudes_leaves_nothing_to_ask():
    found = parity_elsewhere(contest(REMOVED, leaves={"activation": EVEN}), rng=rng())
    assert found.verdict is Verdict.NOT_APPLICABLE
    assert "at parity itself" in found.because


def test_the_front_holds_every_measured_spec_that_none_betters():
    study = contest(leaves={"activation": (1.2, 1.2), "super weights": (1 / 3, 0.9)}, spread=0.0)
    data = parity_elsewhere(study, rng=rng()).data
    rows = {row["spec"]: row for row in data["rows"]}
    assert len(rows) == 6 + 1 + 2  # k, random, comparators
    assert set(data["front"]) == {spec for spec, row in rows.items() if row["on_front"]}
    # nothing kept is the cheapest; the super weights leave least damage and disparity. 1 % kept leaves more of both
    # than they do, but costs less in this table, where a spec costs more the later it stands
    assert {"int4-row", SPECS["super weights"]} <= set(data["front"])
    assert SPECS["activation"] not in data["front"]
    assert rows["int4-row"]["label"] is None
    assert rows[SPECS["super weights"]]["label"] == "super weights"
    assert rows["int4-row+keep1%:random"]["label"] == "random, k 1 %"


def test_a_choice_that_leaves_less_damage_is_better():
    found = better_choice(contest(leaves={"activation": (0.5, 0.5), "super weights": (1.1, 1.1)}), rng=rng())
    assert verdict_of(found) is Verdict.SUPPORTED
    assert found.p_value < 0.05
    assert found.action.startswith("Choose the 0.1 % by activation")
    rows = {row["name"]: row for row in found.data["comparators"]}
    assert rows["super weights"]["saved_bits"].value < 0 < rows["activation"]["saved_bits"].value
    assert rows["activation"]["adjusted_p"] >= rows["activation"]["p_value"]


def test_choices_that_are_no_better_are_not_supported():
    found = better_choice(contest(leaves={"activation": (1.1, 1.1), "super weights": (1.2, 1.2)}), rng=rng())
    assert verdict_of(found) is Verdict.NOT_SUPPORTED  # the interval of the best one lies below zero
    assert "Strongest: " in found.because


def test_statistics_of_low_resource_languages_are_judged_by_what_these_save():
    leaves = {"activation": EVEN, "activation, low-resource": (0.6, 1.3)}
    study = contest(leaves=leaves, spread=0.0)
    found = language_awareness(study, rng=rng())
    assert verdict_of(found) is Verdict.SUPPORTED
    means = means_of(STAYS)[3]
    assert found.estimate.value == pytest.approx(sum(0.4 * means[tag] for tag in LOW) / 8)
    assert found.estimate.n == len(LOW)
    (row,) = found.data["statistics"]
    assert row["high_saved_bits"].value == pytest.approx(-sum(0.3 * means[tag] for tag in HIGH) / 8)
    same = language_awareness(contest(leaves={**leaves, "activation, low-resource": (1.1, 0.5)}), rng=rng())
    assert verdict_of(same) is Verdict.NOT_SUPPORTED


def test_without_text_to_take_statistics_on_awareness_does_not_apply():
    found = language_awareness(contest(leaves={"super weights": EVEN}), rng=rng())
    assert found.verdict is Verdict.NOT_APPLICABLE


def test_protection_is_compared_at_equal_bits_or_not_at_all():
    wide = {tag: 12.0 if tag in LOW else 6.0 for tag in LOW + HIGH}
    study = study_of(means_of(REMOVED, scatter=0.0), comparator=wide, spread=0.0)
    both = ComparatorStudy(retention=study, reference=REFERENCE, protected=RIVAL, matched=MATCHED)
    found = against_protection(both, rng=rng())
    assert found.estimate.value == pytest.approx(math.log(1.0 / 2.0))
    assert "layer protection" in found.summary
    none = against_protection(ComparatorStudy(retention=study, reference=REFERENCE), rng=rng())
    assert none.verdict is Verdict.NOT_APPLICABLE
    assert "buy no matrix" in none.because


FINDINGS = (parity_elsewhere, better_choice, language_awareness, against_protection)


def test_no_disparity_settles_all_comparisons_without_measuring():
    study = study_of(means_of((1.0,) * 6))
    settled = nothing_to_compare(study, rng=rng())
    assert settled.verdict is Verdict.NOT_APPLICABLE
    for finding in FINDINGS:
        found = finding(unmeasured(study, settled), rng=rng())
        assert found.verdict is Verdict.NOT_APPLICABLE
        assert found.estimate.value is None
        assert "nothing to remove" in found.because
    assert len(parity_elsewhere(unmeasured(study, settled), rng=rng()).data["rows"]) == 6 + 1
    assert nothing_to_compare(study_of(means_of(STAYS)), rng=rng()) is None


def test_too_few_languages_settle_all_comparisons_too():
    few = study_of(means_of(STAYS), languages=tuple(sorted(LOW[:4] + HIGH)), low=LOW[:4])
    for finding in FINDINGS:
        found = finding(unmeasured(few, nothing_to_compare(few, rng=rng())), rng=rng())
        assert found.verdict is Verdict.UNDERPOWERED
        assert "needed 5 of each" in found.because


def test_equal_exposure_is_not_applicable():
    settled = nothing_to_compare(study_of(means_of(STAYS), languages=LOW + HIGH, low=(), high=()), rng=rng())
    assert settled.verdict is Verdict.NOT_APPLICABLE
    assert "about as much training text" in settled.because


def test_comparators_keep_as_many_weights_and_change_one_thing_each():
    specs = comparator_specs(parse_spec("int3-row"), low=("ig", "yo"), languages=("de", "ig", "yo"))
    assert {name: str(spec) for name, spec in specs.items()} == {
        "magnitude, all tensors together": "int3-row+keep0.1%:magnitude@global",
        "magnitude, clipped": "int3-row+keep0.1%:magnitude+clip:mse",
        "super weights": "int3-row+keep0.1%:superweight",
        "activation": "int3-row+keep0.1%:activation",
        "activation, low-resource": "int3-row+keep0.1%:activation[ig,yo]",
        "sensitivity": "int3-row+keep0.1%:sensitivity",
        "sensitivity, low-resource": "int3-row+keep0.1%:sensitivity[ig,yo]",
        "magnitude, clipped by activations": "int3-row+keep0.1%:magnitude+clip:mse[de,ig,yo]",
        "magnitude, clipped for low-resource": "int3-row+keep0.1%:magnitude+clip:mse[ig,yo]",
    }
    assert {name for pair in AWARE.values() for name in pair} <= set(specs)
    assert set(comparator_specs(parse_spec("int3-row"), low=(), languages=(), statistics=False)) == {
        "magnitude, all tensors together",
        "magnitude, clipped",
    }


def test_comparators_are_measured_beside_the_study_over_k(tiny_llama, store):
    from evenbits.cells import Subject
    from evenbits.models.references import parse_model
    from evenbits.models.sources import resolve
    from evenbits.records import Corpus
    from evenbits.studies.h036.budgeted import protected_within
    from evenbits.studies.h039 import reference_budget, study_comparators, study_retention

    def corpus(words, ids):
        texts = {tag: tuple(f"{tag} says the {word} an inner" for word in words) for tag in ("de", "ig")}
        return Corpus(name="c", source="test", languages=("de", "ig"), segment_ids=ids, texts=texts)

    probe, text = corpus(("three", "four"), ("c", "d")), corpus(("one", "two"), ("a", "b"))
    local = resolve(parse_model(str(tiny_llama)), store=store)
    model = Subject(local=local, store=store, dtype="float32", probe=probe)
    grid, tier = parse_spec("int4-g64"), {"de": "high", "ig": "low"}
    study = study_retention(model, grid, text, tier=tier)
    budget = reference_budget(model, grid)
    assert protected_within(model, grid, probe, budget=budget / 10, tier=tier) is None  # less than a matrix costs
    protected = protected_within(model, grid, probe, budget=budget, tier=tier)
    assert protected.protect
    found = study_comparators(model, study, text, protected=protected)
    columns = found.retention.table.columns
    assert set(study.table.columns) < set(columns)
    assert len(found.specs) == 9
    assert found.specs["activation, low-resource"] == "int4-g64+keep0.1%:activation[ig]"
    # as many weights in all of them; an index over all tensors is a few bits longer
    bits = {name: columns[spec].bits_per_weight for name, spec in found.specs.items()}
    together = bits.pop("magnitude, all tensors together")
    assert set(bits.values()) == {columns[found.reference].bits_per_weight}
    assert together == pytest.approx(columns[found.reference].bits_per_weight, rel=0.01)
    dear, kept = columns[found.protected].bits_per_weight, columns[found.matched].bits_per_weight
    assert dear - columns[study.base].bits_per_weight <= budget * (1 + 1e-6)
    assert kept == pytest.approx(dear, abs=0.01)
    assert set(found.named()) == set(columns)
