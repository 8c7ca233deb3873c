"""Looking again (`--until-decided`), simulated: error rates are those of one look at all, and less text is needed.

Axes: segments at most and their distribution; of H-039's disparity also what families have in common. A limit of the
gate is decided by itself, or over segments alone.
"""

import datetime as dt
import math
from functools import cache, partial

import numpy as np
import pytest
from drawn_damage import (
    ALPHA,
    MANY,
    NOISES,
    around,
    cells,
    drawn,
    no_more_often_than,
    noise,
    real_languages,
    replicates,
    rng,
)
from evenbits.estimates import Verdict, three_way
from evenbits.statistics import disparity, layer_language_interaction, mean_interval
from evenbits.studies.gate.decision import Outcome, decide_disparity
from evenbits.studies.gate.policy import Policy
from evenbits.studies.h039.parity import start_verdict
from evenbits.studies.sequential import planned_looks

looks_at = cache(partial(planned_looks, None))

# -- limits of the gate ------------------------------------------------------------------------------------------------


def by_one_look(values, draw, *, confidence=0.95):
    """Return whether a language is shown to be below (or above) a limit of 10."""
    return three_way(mean_interval(values, rng=draw, confidence=confidence), below=10.0)


def by_looks(values, draw):
    """Return the same where looks go on until the interval decides or text ends, and the segments that took."""
    planned = looks_at(len(values), by="means")
    for size, confidence in zip(planned.sizes, planned.confidence, strict=True):
        where = by_one_look(values[:size], draw, confidence=confidence)
        if where is not Verdict.UNDERPOWERED:
            break
    return where, size


@pytest.mark.parametrize(
    ("most", "kind", "trials"), cells((40, 100), NOISES, quick=[(100, "lognormal"), (40, "normal")], trials=100)
)
def test_looking_again_passes_or_fails_a_language_at_its_limit_no_more_often_than_one_look(most, kind, trials):
    draw = rng(18, most)
    languages = [10 + 8 * noise(draw, kind, most) for _ in range(trials)]
    again = [by_looks(values, draw)[0] for values in languages]
    once = [by_one_look(values, draw) for values in languages]
    for side in (Verdict.SUPPORTED, Verdict.NOT_SUPPORTED):
        # a tail that the segments do not show is in no interval: one look errs by it as well
        assert no_more_often_than(again.count(side), trials, max(0.025, once.count(side) / trials), confidence=0.95)


@pytest.mark.parametrize("trials", replicates(60))
@pytest.mark.parametrize("kind", ["normal", "lognormal"])
def test_segments_until_decided_are_less_than_half_of_those_that_decide_as_many_languages_at_once(kind, trials):
    draw = rng(19)
    decided, sizes, languages = 0, [], []
    for _ in range(trials):
        mean = 10.0 * math.exp(draw.normal(-1.0, 0.7))  # most below, some close or above
        languages.append(mean * (1 + 1.1 * noise(draw, kind, 100)))
        where, size = by_looks(languages[-1], draw)
        decided += where is not Verdict.UNDERPOWERED
        sizes.append(size)
    twice = math.ceil(2 * np.mean(sizes))
    at_once = sum(by_one_look(values[:twice], draw) is not Verdict.UNDERPOWERED for values in languages)
    assert at_once <= decided + (2 if trials < MANY else 0)


POLICY = Policy.parse({"metric": {"disparity": {"limit": 5.0}}})


@pytest.mark.parametrize(("kind", "trials"), cells(("normal", "lognormal"), quick=[("normal",)], trials=20))
def test_looking_again_at_a_disparity_at_the_limit_of_the_gate_passes_it_as_seldom(kind, trials):
    tags, tier = real_languages((11, 11))
    means = np.array([15.0 if tier[tag] == "low" else 10.0 for tag in tags])
    planned = looks_at(60, by="means")
    found = []
    for seed in range(trials):
        values = dict(zip(tags, around(rng(40, seed), means, 60, kind=kind).tolist(), strict=True))
        for size, confidence in zip(planned.sizes, planned.confidence, strict=True):
            rows = [
                {
                    "language": tag,
                    "segments": size,
                    "confidence": confidence,
                    "excess_bits": {"value": float(np.mean(one[:size]))},
                    "excess_bits_by_segment": one[:size],
                }
                for tag, one in values.items()
            ]
            decision = decide_disparity(
                POLICY, rows, metric="disparity", model="m", spec="s", seed=seed, today=dt.date(2026, 1, 1)
            )
            if decision.outcome is not Outcome.INCONCLUSIVE:
                break
        found.append(decision.outcome)
    assert no_more_often_than(found.count(Outcome.PASS), trials, 0.025 if kind == "normal" else 0.045)
    assert no_more_often_than(found.count(Outcome.FAIL), trials, 0.025)


# -- H-039 -------------------------------------------------------------------------------------------------------------

RESAMPLED = looks_at(100, by="resamples")


def tiers_at_looks(draw, *, ratio, icc=0.0, kind="normal"):
    """Return what is said of a disparity where nothing is kept, and the segments that took."""
    table, low, high, families = drawn(
        draw, (20, 20), RESAMPLED.sizes[-1], ratio=ratio, spread=0.15, icc=icc, mixed=True, kind=kind
    )
    for size, confidence in zip(RESAMPLED.sizes, RESAMPLED.confidence, strict=True):
        found = disparity(
            {tag: values[:size] for tag, values in table.items()},
            low=low,
            high=high,
            families=families,
            rng=draw,
            alpha=1 - confidence,
            confidence=confidence,
            resamples=1000,
        )
        verdict, _ = start_verdict(found) or (Verdict.SUPPORTED, "")
        if verdict is not Verdict.UNDERPOWERED:
            break
    return verdict, size


@pytest.mark.parametrize(
    ("icc", "kind", "trials"),
    cells((0.0, 0.6), ("normal", "lognormal"), quick=[(0.0, "normal"), (0.6, "lognormal")], trials=20),
)
def test_looking_again_at_a_disparity_at_the_margin_shows_neither_it_nor_parity_too_often(icc, kind, trials):
    found = [tiers_at_looks(rng(25, seed), ratio=1.25, icc=icc, kind=kind)[0] for seed in range(trials)]
    assert no_more_often_than(found.count(Verdict.SUPPORTED), trials, 0.025)
    assert no_more_often_than(found.count(Verdict.NOT_APPLICABLE), trials, ALPHA)


@pytest.mark.parametrize(
    ("ratio", "verdict", "most"), [(2.0, Verdict.SUPPORTED, 25), (1.0, Verdict.NOT_APPLICABLE, 75)]
)
def test_looking_again_at_tiers_that_differ_clearly_or_not_at_all_ends_early(ratio, verdict, most):
    found = [tiers_at_looks(rng(26, seed), ratio=ratio) for seed in range(20)]
    assert [one for one, _ in found].count(verdict) >= 18
    assert np.mean([size for _, size in found]) <= most  # of 100


# -- H-036 -------------------------------------------------------------------------------------------------------------


def layers_at_looks(draw, *, interaction, most=48, layers=4, languages=11, kind="normal"):
    """Return whether languages are told apart by layers, and the segments that took."""
    planned = looks_at(most, by="squares")
    profile = 1 + 0.5 * np.arange(layers)[:, None] * np.ones(languages)
    own = profile * (1 + interaction * draw.standard_normal(profile.shape))
    size = np.exp(0.3 * draw.standard_normal(languages))[:, None]
    table = size * (own[:, :, None] + 0.5 * noise(draw, kind, (layers, languages, most)))
    for count, confidence in zip(planned.sizes, planned.confidence, strict=True):
        found = layer_language_interaction(
            table[:, :, :count], rng=draw, scale="share", scheme="signs", resamples=100, permutations=999
        )
        if found.p_value < 1 - confidence:
            return True, count
    return False, most


@pytest.mark.parametrize(("most", "kind", "trials"), cells((24, 48), NOISES, quick=[(48, "normal")], trials=15))
def test_looking_again_at_layers_finds_no_more_where_there_is_nothing(most, kind, trials):
    found = [layers_at_looks(rng(27, seed), interaction=0.0, most=most, kind=kind)[0] for seed in range(trials)]
    assert no_more_often_than(sum(found), trials, ALPHA)


@pytest.mark.parametrize(
    ("interaction", "most", "least", "segments", "trials"),
    [
        pytest.param(0.1, 48, 0.9, 20, 10, id="quick"),
        pytest.param(0.1, 24, 0.97, 15, 200, id="24", marks=pytest.mark.slow),
        pytest.param(0.05, 48, 0.85, 36, 200, id="weak", marks=pytest.mark.slow),
    ],
)
def test_looking_again_at_layers_finds_a_difference_sooner(interaction, most, least, segments, trials):
    found = [layers_at_looks(rng(28, seed), interaction=interaction, most=most) for seed in range(trials)]
    assert sum(shown for shown, _ in found) >= least * trials
    assert np.mean([size for _, size in found]) <= segments
