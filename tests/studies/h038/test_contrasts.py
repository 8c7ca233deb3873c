"""Contrasts of trained models, and the recommendations they support or do not."""

import math
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from evenbits.cells.damage import Column, Damage
from evenbits.estimates import Estimate, Threshold, Verdict, judge
from evenbits.fixtures.reference.training.recipes import RECIPES
from evenbits.records import Losses
from evenbits.studies.h038 import (
    CONTRASTS,
    Contrast,
    TrainedModel,
    contrasted,
    name_in_contrasts,
    recommend,
    training_choices,
    training_recipes,
)
from scipy import stats

LN2 = math.log(2)
SPEC = "int4-row"
TAGS = ("de", "en", "es", "et", "fi", "fr", "hu", "it", "lt", "pl", "ro", "sv")
SAVES = Threshold(metric="damage_difference", op="<", bound=0.0, why="as in the eval")


def rng(seed=0):
    return np.random.default_rng(seed)


def losses(tag, bits):
    count = np.full(len(bits), 50, dtype=np.int64)
    return Losses(language=tag, segment_ids=("a", "b"), nll=np.asarray(bits) * LN2, tokens=count, utf8_bytes=count)


def trained(name, damage, *, full=100.0, exposure=None, tags=TAGS):
    """A model whose languages lose `damage` bits per segment (a number, or one per language)."""
    excess = dict(zip(tags, np.broadcast_to(damage, len(tags)).tolist(), strict=True))
    column = Column(
        spec=SPEC,
        dtype="float32",
        bits_per_weight=4.25,
        floor_bits=Estimate(value=0.01, n=8, method="given"),
        full={tag: losses(tag, [full, full]) for tag in tags},
        quantized={tag: losses(tag, [full + excess[tag]] * 2) for tag in tags},
    )
    table = Damage(
        model=name,
        fingerprint=f"{name} {sorted(excess.items())} {full}",
        corpus_digest="c",
        languages=tuple(tags),
        segment_ids=("a", "b"),
        columns={SPEC: column},
    )
    return TrainedModel.of(name, table, SPEC, exposure=exposure)


def family(*models):
    return {model.name: model for model in models}


def spread(mean, seed):
    return mean + 0.5 * rng(seed).normal(size=len(TAGS))


def test_every_model_that_a_contrast_names_is_one_that_the_family_trains():
    named = {name for contrast in CONTRASTS for pair in contrast.pairs for name in pair}
    assert named <= set(RECIPES)
    assert {name_in_contrasts(f"reference:{name}") for name in named} == named
    assert [name_in_contrasts(model) for model in ("reference:other", *named)] == [None] * (1 + len(named))
    for contrast in CONTRASTS:
        for first, second in contrast.pairs:
            if contrast.by == "model":  # the same languages get the same text on both sides
                assert RECIPES[first].assignment == RECIPES[second].assignment
            else:
                assert RECIPES[second].assignment == f"{RECIPES[first].assignment}r"
    assert len({contrast.name for contrast in CONTRASTS}) == len(CONTRASTS)


EIGHT = Contrast(name="c", advice="Do c", pairs=tuple((f"w{i}", f"o{i}") for i in range(8)))
"""Eight pairs of training runs: enough for a test."""


def runs(effect, *, pairs=8, between=0.1, full=0.0, seed=0):
    """Pairs of models: the first of each loses `effect` more, and runs differ by `between` in all languages alike."""
    draw = rng(seed)
    models = []
    for i in range(pairs):
        luck = between * draw.normal(size=2)
        models += [
            trained(f"w{i}", spread(5.0 + effect + luck[0], 2 * i), full=100.0 + full),
            trained(f"o{i}", spread(5.0 + luck[1], 2 * i + 1)),
        ]
    return family(*models)


def test_the_unit_is_the_pair_of_training_runs_whatever_the_number_of_languages():
    models = runs(-1.0)
    (found,) = contrasted(models, rng=rng(), contrasts=(EIGHT,))
    means = np.array(list(found.by_pair.values()))
    assert found.damage.estimate.value == pytest.approx(means.mean())
    assert found.damage.estimate.n == len(means) == 8
    assert found.damage.p_value == pytest.approx(stats.ttest_1samp(means, 0).pvalue)
    assert found.quantized.value == pytest.approx(means.mean())  # full precision is the same
    assert found.relative.value == pytest.approx(means.mean() / 100)
    assert found.damage.estimate.low < found.damage.estimate.value < found.damage.estimate.high


def test_fewer_than_four_pairs_have_no_test_however_clear_their_languages_are():
    models = family(trained("a1", 5.0), trained("a1-heavy", 8.0), trained("a1r", 6.0), trained("a1r-heavy", 7.0))
    (found,) = contrasted(models, rng=rng())
    assert found.damage.p_value is None
    assert "2 pairs of runs, needed 4" in found.damage.p_method
    assert found.damage.estimate.n == 2
    assert found.damage.estimate.value == pytest.approx((-3 - 1) / 2)
    assert found.by_pair == pytest.approx({"a1 against a1-heavy": -3.0, "a1r against a1r-heavy": -1.0})
    assert found.agreeing == 2
    (said,) = recommend(models, SPEC, rng=rng())
    assert not said.supported
    assert said.paragraph.startswith("Not decided: train with Adam's small epsilon")
    finding = training_choices((said,))
    assert judge(finding, SAVES, hypothesis="H-038", test="t", role="robustness").verdict is Verdict.UNDERPOWERED


def test_p_values_are_adjusted_over_the_contrasts_that_were_made():
    other = Contrast(name="d", advice="Do d", pairs=tuple((f"o{i}", f"w{i}") for i in range(7)))
    found = contrasted(runs(-0.5), rng=rng(), contrasts=(EIGHT, other))
    small, large = sorted(found, key=lambda one: one.damage.p_value)
    assert small.damage.adjusted_p == pytest.approx(2 * small.damage.p_value)  # Holm: the smallest of two, times two
    assert large.damage.adjusted_p == pytest.approx(max(large.damage.p_value, small.damage.adjusted_p))


def test_by_exposure_each_language_is_taken_where_it_was_shown_more():
    half = len(TAGS) // 2
    shown = dict(zip(TAGS, [100_000] * half + [3_000] * half, strict=True))
    turned = dict(zip(TAGS, [3_000] * half + [100_000] * half, strict=True)) | {"de": 100_000}
    # more text, more damage: 9 bits against 4
    damage = [9.0] * half + [4.0] * half
    models = family(trained("a1", damage, exposure=shown), trained("a1r", damage[::-1], exposure=turned))
    (found,) = contrasted(models, rng=rng())
    assert found.damage.estimate.value == pytest.approx(5.0)
    assert "de" not in found.languages  # both models were shown the same of it
    assert len(found.languages) == len(TAGS) - 1
    (said,) = recommend(models, SPEC, rng=rng())
    assert not said.supported
    assert "It costs damage" in said.paragraph


@pytest.fixture
def eight(monkeypatch):
    """The family's contrasts have two pairs at most: one with eight in their place."""
    monkeypatch.setattr(sys.modules["evenbits.studies.h038.contrasts"], "CONTRASTS", (EIGHT,))
    monkeypatch.setattr(
        sys.modules["evenbits.studies.h038.recommendations"], "contrasted", partial(contrasted, contrasts=(EIGHT,))
    )


@pytest.mark.usefixtures("eight")
@pytest.mark.parametrize(
    ("models", "words"),
    [
        (runs(0.0, between=0.6), "not significant"),
        (runs(3.0), "It costs damage"),
        (runs(-1.0, between=0.9, seed=1), "disagree on its sign"),
        (runs(-3.0, full=20.0), "costs more likelihood than it saves"),
    ],
)
def test_a_contrast_that_does_not_support_its_advice_says_why(models, words):
    (said,) = recommend(models, SPEC, rng=rng())
    assert not said.supported
    assert words in said.paragraph
    finding = training_choices((said,))
    assert finding.verdict in {Verdict.NOT_SUPPORTED, Verdict.UNDERPOWERED}
    # refuted where the whole interval says that damage grows, else open
    assert (finding.verdict is Verdict.NOT_SUPPORTED) == (words == "It costs damage")
    assert finding.action == "None of 1 training choices is supported by a contrast of this run."
    (recipe,) = training_recipes((said,), SPEC)
    assert recipe["title"] == "Training: no choice is supported"
    assert recipe["paragraphs"] == [said.paragraph]


@pytest.mark.usefixtures("eight")
def test_a_supported_recommendation_is_a_paragraph_with_its_contrast():
    said = recommend(runs(-3.0), SPEC, rng=rng())
    finding = training_choices(said)
    row = judge(finding, SAVES, hypothesis="H-038", test="t", role="robustness")
    assert row.verdict is Verdict.SUPPORTED
    assert row.p_value < 0.05
    assert finding.action == "Do c."
    (recipe,) = training_recipes(said, SPEC)
    assert recipe["paragraph"].startswith("Do c.")
    assert "w0 against o0" in recipe["paragraph"]
    assert "8 pairs of training runs stand behind them" in recipe["paragraph"]
    assert recipe["damage"]["estimate"]["value"] == finding.estimate.value
    row.to_json()


def test_without_two_models_that_differ_in_one_choice_nothing_is_recommended_and_the_sentence_says_what_to_give():
    for models in ({}, family(trained("a1", 5.0)), family(trained("a1", 5.0), trained("a2", 6.0))):
        said = recommend(models, SPEC, rng=rng())
        finding = training_choices(said)
        assert said == ()
        assert finding.verdict is Verdict.NOT_APPLICABLE
        assert "Give --model reference" in finding.because
        assert training_recipes(said, SPEC) == []


def test_identical_models_are_no_contrast():
    first = trained("a1", 5.0)
    twin = replace(first, name="a1-heavy")
    assert contrasted(family(first, twin), rng=rng()) == ()


def test_models_without_a_language_in_common_are_no_contrast():
    models = family(trained("x", 5.0, tags=("de", "en")), trained("y", 6.0, tags=("fr", "it")))
    contrast = Contrast(name="c", advice="Do c", pairs=(("x", "y"),))
    assert contrasted(models, rng=rng(), contrasts=(contrast,)) == ()
