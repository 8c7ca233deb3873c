"""H-038, simulated: do features tell resilient from vulnerable languages, are these more distributed, is it training?

Axes: languages, what families have in common (of residual damage and of features alike), segments, whose noise blurs
who is resilient, and their distribution. Small groups, in which no feature of ten can have q < .05, are not decided.
"""

import math
from dataclasses import replace
from functools import cache, partial

import numpy as np
import pytest
from drawn_damage import ALPHA, around, by_family, cells, grid, no_more_often_than, real_languages, replicates, rng
from evenbits.cells.damage import Column, Damage
from evenbits.estimates import Estimate, Threshold, Verdict, judge
from evenbits.statistics import cliffs_delta, nested_selection_auc
from evenbits.studies.h038 import (
    EXPECTED,
    Contrast,
    FeatureTable,
    Refusal,
    ResilienceStudy,
    SettledGroups,
    TrainedModel,
    arrangements,
    contrasted,
    discriminate,
    discriminating_features,
    discrimination,
    distribution,
    more_distributed,
    verdict,
)
from evenbits.studies.h038.contrasts import MIN_PAIRS
from evenbits.studies.h038.groups import divide
from evenbits.text.languages import describe
from retention_tables import losses

LARGE = Threshold(metric="largest_cliffs_delta", op=">=", bound=0.474, why="as in the eval")
ABOVE_ZERO = Threshold(metric="index_delta", op=">", bound=0.0, why="as in the eval")
FINDINGS = {discriminating_features: LARGE, more_distributed: ABOVE_ZERO}


@pytest.fixture(autouse=True)
def _few_arrangements(monkeypatch):
    monkeypatch.setattr(arrangements, "ARRANGEMENTS", 499)
    monkeypatch.setattr(discrimination, "SELECTIONS", 99)
    searched = {}

    def once(groups, features, *, rng):
        """Both findings search the features of the same groups; the prediction shows what was found beside its own."""
        if id(groups) not in searched:
            searched.clear()
            searched[id(groups)] = groups, discriminate(groups, features, rng=rng)
        return searched[id(groups)][1]

    for module in (verdict, distribution):
        monkeypatch.setattr(module, "discriminate", once)
    for module in (discrimination, distribution):
        monkeypatch.setattr(module, "cliffs_delta", partial(cliffs_delta, resamples=100))
    monkeypatch.setattr(discrimination, "nested_selection_auc", partial(nested_selection_auc, resamples=100))


@cache
def full_precision(tags, segments):
    """Return what languages lose at full precision, and its records: given, as residuals and features are drawn."""
    nll = 200 * np.exp(0.2 * rng(60).standard_normal(len(tags)))
    return nll, {tag: losses(tag, np.full(segments, one)) for tag, one in zip(tags, nll, strict=True)}


def study_drawn(draw, sizes, segments, *, icc=0.0, kind="normal", dose=0.0):
    """Return a study in which damage goes with resource class and likelihood, and with a residual of log SD .5.

    The first five features, by their expected signs, fall with the true residual by `dose` beside noise of 1.
    """
    tags, tier = real_languages(sizes)
    residual = 0.5 * by_family(draw, tags, icc)
    nll, full = full_precision(tags, segments)
    classes = np.array([describe(tag).resource_class for tag in tags])
    means = 0.1 * nll * np.exp(residual - 0.1 * classes)
    bits = around(draw, means, segments, cv=0.5, kind=kind)
    column = Column(
        spec="int4-row",
        dtype="float32",
        bits_per_weight=4.25,
        floor_bits=Estimate(value=0.01, n=8, method="given"),
        full=full,
        quantized={tag: losses(tag, one + row, np.abs(row)) for tag, one, row in zip(tags, nll, bits, strict=True)},
    )
    damage = Damage(
        model="m",
        fingerprint="0f",
        corpus_digest="0e",
        languages=tags,
        segment_ids=tuple(f"s{i}" for i in range(segments)),
        columns={"int4-row": column},
    )
    groups = divide(damage, "int4-row", tier=tier)
    features = by_family(draw, tags, icc, times=(len(EXPECTED),))
    features[:, :5] -= dose * 2 * residual[:, None]
    features *= np.array(list(EXPECTED.values()), dtype=float)
    table = FeatureTable(
        values={
            name: dict(zip(tags, column.tolist(), strict=True))
            for name, column in zip(EXPECTED, features.T, strict=True)
        }
    )
    settled = SettledGroups(by_metric={"excess_bits": groups}, without_likelihood=groups)
    return ResilienceStudy(groups=settled, features=table)


def verdicts_of(draw, *cell, **drawing):
    study = study_drawn(draw, *cell, **drawing)
    return [
        (judge(found, threshold, hypothesis="H-038", test="t", role="criterion").verdict, found)
        for finding, threshold in FINDINGS.items()
        for found in (finding(study, rng=draw),)
    ]


@pytest.mark.parametrize(
    ("sizes", "segments", "icc", "kind", "trials"),
    grid(quick=[((20, 20), 20, 0.3, "normal"), ((20, 20), 5, 0.3, "lognormal")], trials=15),
)
def test_features_that_say_nothing_are_hardly_ever_said_to_tell_languages_apart(sizes, segments, icc, kind, trials):
    found = [
        verdicts_of(rng(52, sizes[0], segments, seed), sizes, segments, icc=icc, kind=kind) for seed in range(trials)
    ]
    for judged in zip(*found, strict=True):
        verdicts = [one for one, _ in judged]
        assert no_more_often_than(verdicts.count(Verdict.SUPPORTED), trials, ALPHA)
        assert Verdict.ERROR not in verdicts
    significant = [finding.p_value < ALPHA for _, (_, finding) in found if finding.p_value is not None]
    if significant:
        assert no_more_often_than(sum(significant), len(significant), ALPHA)


def test_groups_in_which_nothing_could_be_found_are_not_decided():
    study = study_drawn(rng(53), (5, 5), 20, dose=8.0)
    groups = study.groups.primary
    assert isinstance(groups, Refusal) or min(len(groups.resilient), len(groups.vulnerable)) <= 4
    for finding, threshold in FINDINGS.items():
        row = judge(finding(study, rng=rng(54)), threshold, hypothesis="H-038", test="t", role="criterion")
        assert row.verdict is Verdict.UNDERPOWERED


def test_features_that_follow_resilience_are_found():
    found = [verdicts_of(rng(55, seed), (20, 20), 50, dose=3.0) for seed in range(10)]
    for judged in zip(*found, strict=True):
        assert [one for one, _ in judged].count(Verdict.SUPPORTED) >= 8
    assert math.isfinite(found[0][0][1].p_value)


# -- training recommendations ------------------------------------------------------------------------------------------


def pairs_drawn(draw, pairs, *, between, sides=(11, 11)):
    """Return pairs of runs that lose alike but for their luck, of SD `between`, and who was shown more by lot.

    `sides`: in how many languages it was the one, and in how many the other.
    """
    tags = real_languages((11, 11))[0][: sum(sides)]
    level = 5 + 0.5 * by_family(draw, tags, 0.3)
    models = {}
    for pair in range(pairs):
        much = draw.permutation(len(tags)) < sides[0]
        for name, shown in ((f"with{pair}", much), (f"without{pair}", ~much)):
            lost = level + between * draw.standard_normal() + 0.5 * by_family(draw, tags, 0.3)
            losses_L4 = np.column_stack([lost, np.full(len(tags), 100.0), 100 + lost, lost / 100])
            models[name] = TrainedModel(
                name=name,
                fingerprint=name,
                losses=dict(zip(tags, losses_L4.tolist(), strict=True)),
                exposure=dict(zip(tags, np.where(shown, 100_000, 3_000).tolist(), strict=True)),
            )
    return models


@pytest.mark.parametrize(
    ("pairs", "between", "trials"), cells((2, 4, 8), (0.4, 0.6), quick=[(2, 0.6), (4, 0.4)], trials=60)
)
def test_fault_7_luck_of_the_runs_alone_is_recommended_no_more_often_than_the_level(pairs, between, trials):
    # with languages as units some recommendation came out in half of such families
    names = tuple((f"with{pair}", f"without{pair}") for pair in range(pairs))
    questions = [Contrast(name=by, advice="Do", pairs=names, by=by) for by in ("model", "exposure")]
    recommended = 0
    for seed in range(trials):
        draw = rng(66, pairs, seed)
        choice, exposure = contrasted(pairs_drawn(draw, pairs, between=between), rng=draw, contrasts=questions)
        adjusted = [one.damage.adjusted_p for one in (choice, exposure) if one.damage.adjusted_p is not None]
        recommended += any(p < ALPHA for p in adjusted)
        assert pairs >= MIN_PAIRS or choice.damage.adjusted_p is None
    assert no_more_often_than(recommended, trials, ALPHA)


@pytest.mark.parametrize("trials", replicates(120))
@pytest.mark.parametrize("sides", [(10, 2), (3, 17), (10, 10)])
def test_exposure_without_effect_has_its_level_however_unevenly_it_was_dealt(sides, trials):
    # signs of each language flipped by themselves, p was below .05 in .15 and .18 of such pairs with uneven sides
    question = Contrast(name="e", advice="Do", pairs=(("with0", "without0"), ("with1", "without1")), by="exposure")
    significant = 0
    for seed in range(trials):
        draw = rng(67, *sides, seed)
        much = draw.permutation(sum(sides)) < sides[0]
        models = pairs_drawn(draw, 2, between=0.4, sides=sides)
        for name, one in models.items():
            shown = much if name.startswith("with") and not name.startswith("without") else ~much
            dealt = dict(zip(one.losses, np.where(shown, 100_000, 3_000).tolist(), strict=True))
            models[name] = replace(one, exposure=dealt)
        (found,) = contrasted(models, rng=draw, contrasts=[question])
        significant += found.damage.p_value < ALPHA
    assert no_more_often_than(significant, trials, ALPHA)
