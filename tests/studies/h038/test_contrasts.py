"""Contrasts of trained models, and the recommendations they support or do not."""

import math
from dataclasses import replace

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
    needed_models,
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
        spec=SPEC, dtype="float32", bits_per_weight=4.25, floor_bits=Estimate(value=0.01, n=8, method="given"),
        full={tag: losses(tag, [full, full]) for tag in tags},
        quantized={tag: losses(tag, [full + excess[tag]] * 2) for tag in tags},
    )  # fmt: skip
    table = Damage(
        model=name, fingerprint=f"{name} {sorted(excess.items())} {full}", corpus_digest="c", languages=tuple(tags),
        segment_ids=("a", "b"), columns={SPEC: column},
    )  # fmt: skip
    return TrainedModel.of(name, table, SPEC, exposure=exposure)


def family(*models):
    return {model.name: model for model in models}


def spread(mean, seed):
    return mean + 0.5 * rng(seed).normal(size=len(TAGS))


def test_every_model_that_a_contrast_names_is_one_that_the_family_trains():
    assert set(needed_models()) <= set(RECIPES)
    for contrast in CONTRASTS:
        for first, second in contrast.pairs:
            if contrast.by == "model":  # the same languages get the same text on both sides
                assert RECIPES[first].assignment == RECIPES[second].assignment
            else:
                assert RECIPES[second].assignment == f"{RECIPES[first].assignment}r"
    assert len({contrast.name for contrast in CONTRASTS}) == len(CONTRASTS)


def test_the_difference_is_paired_over_languages_with_the_exact_p_of_random_signs():
    a, b = spread(5.0, 1), spread(7.0, 2)
    (found,) = contrasted(family(trained("a1", a), trained("a1-heavy", b)), rng=rng())
    assert found.damage.estimate.value == pytest.approx((a - b).mean())
    theirs = stats.permutation_test((a - b,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert found.damage.p_value == pytest.approx(theirs.pvalue)
    assert found.damage.estimate.n == len(TAGS)
    assert found.quantized.value == pytest.approx((a - b).mean())  # full precision is the same
    assert found.relative.value == pytest.approx((a - b).mean() / 100)
    assert found.damage.estimate.low < found.damage.estimate.value < found.damage.estimate.high


def test_a_language_counts_once_however_many_pairs_it_was_measured_in():
    models = family(trained("a1", 5.0), trained("a1-heavy", 8.0), trained("a2", 6.0), trained("a2-heavy", 7.0))
    (found,) = contrasted(models, rng=rng())
    assert found.damage.estimate.n == len(TAGS)
    assert found.damage.estimate.value == pytest.approx((-3 - 1) / 2)
    assert found.by_pair == pytest.approx({"a1 against a1-heavy": -3.0, "a2 against a2-heavy": -1.0})
    assert found.agreeing == 2


def test_p_values_are_adjusted_over_the_contrasts_that_were_made():
    models = family(
        trained("a1", spread(5.0, 1)), trained("a1-heavy", spread(8.0, 2)), trained("a1-qk", spread(5.0, 3))
    )
    found = contrasted(models, rng=rng())
    assert [one.contrast.name for one in found] == [
        "moderate learning rate with weight decay", "normalised queries and keys",
    ]  # fmt: skip
    small, large = sorted(found, key=lambda one: one.damage.p_value)
    assert small.damage.adjusted_p == pytest.approx(2 * small.damage.p_value)  # Holm: the smallest of two, times two
    assert large.damage.adjusted_p == pytest.approx(max(large.damage.p_value, small.damage.adjusted_p))


def test_by_exposure_each_language_is_taken_where_it_was_shown_more():
    half = len(TAGS) // 2
    shown = dict(zip(TAGS, [100_000] * half + [3_000] * half, strict=True))
    turned = dict(zip(TAGS, [3_000] * half + [100_000] * half, strict=True)) | {"de": 100_000}
    # more text, more damage: 9 bits against 4
    damage = [9.0] * half + [4.0] * half
    models = family(
        trained("a1", damage, exposure=shown), trained("a1r", damage[::-1], exposure=turned)
    )  # fmt: skip
    (found,) = contrasted(models, rng=rng())
    assert found.damage.estimate.value == pytest.approx(5.0)
    assert "de" not in found.languages  # both models were shown the same of it
    assert len(found.languages) == len(TAGS) - 1
    (said,) = recommend(models, SPEC, rng=rng())
    assert not said.supported
    assert "It costs damage" in said.paragraph


@pytest.mark.parametrize(
    ("models", "words"),
    [
        (family(trained("a1", spread(5.0, 1)), trained("a1-heavy", spread(5.0, 2))), "not significant"),
        (family(trained("a1", spread(8.0, 1)), trained("a1-heavy", spread(5.0, 2))), "It costs damage"),
        (family(trained("a1", spread(3.0, 1)), trained("a1-heavy", spread(8.0, 2)), trained("a2", spread(6.0, 3)),
                trained("a2-heavy", spread(5.0, 4))), "disagree on its sign"),
        (family(trained("a1", spread(5.0, 1), full=120.0), trained("a1-heavy", spread(8.0, 2))),
         "costs more likelihood than it saves"),
    ],
)  # fmt: skip
def test_a_contrast_that_does_not_support_its_advice_says_why(models, words):
    (said,) = recommend(models, SPEC, rng=rng())
    assert not said.supported
    assert words in said.paragraph
    finding = training_choices((said,))
    assert finding.verdict is Verdict.NOT_SUPPORTED
    assert finding.action == "None of 1 training choices is supported by a contrast of this run."
    (recipe,) = training_recipes((said,), SPEC)
    assert recipe["title"] == "Training: no choice is supported"
    assert recipe["paragraphs"] == [said.paragraph]


def test_a_supported_recommendation_is_a_paragraph_with_its_contrast():
    models = family(
        trained("a1", spread(5.0, 1)), trained("a1-heavy", spread(8.0, 2)), trained("a1-qk", spread(5.1, 3))
    )
    said = recommend(models, SPEC, rng=rng())
    finding = training_choices(said)
    row = judge(finding, SAVES, hypothesis="H-038", test="t", role="robustness")
    assert row.verdict is Verdict.SUPPORTED
    assert row.p_value < 0.05
    assert finding.action == f"{CONTRASTS[0].advice}."
    (recipe,) = training_recipes(said, SPEC)
    assert recipe["paragraph"].startswith("Train with a moderate learning rate and weight decay")
    assert "a1 against a1-heavy" in recipe["paragraph"]
    assert "over 12 languages" in recipe["paragraph"]
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
