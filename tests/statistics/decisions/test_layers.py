"""H-036, simulated: do languages rely on different layers, and do low-resource ones on outlier layers?

Axes of the criterion: languages, what families have in common (of a segment's noise, and the profiles themselves, which
are a family's under the null hypothesis), segments and their distribution. The prediction compares activations, of
which one number per layer and language is taken: segments mean nothing to it.
"""

from functools import partial

import numpy as np
import pytest
from drawn_damage import (
    ALPHA,
    ICC,
    MANY,
    WORLD,
    by_family,
    cells,
    grid,
    no_more_often_than,
    real_languages,
    rng,
)
from evenbits.estimates import Estimate, Threshold, Verdict, judge
from evenbits.statistics import Interaction, cliffs_delta, layer_language_interaction
from evenbits.studies.h036 import critical, different_layers, overlap_with_outliers, profiles
from evenbits.studies.h036.critical import CriticalLayers, top_layers
from evenbits.studies.h036.study import LayerStudy, Unit
from evenbits.text.languages import families_of
from evenbits.variants.quantization.spec import parse_spec

SIZES = list(WORLD)
ABOVE_ZERO = Threshold(metric="x", op=">", bound=0.0, why="as in the eval")


@pytest.fixture(autouse=True)
def _only_the_verdict(monkeypatch):
    """The verdict stands on shares; what is said beside it costs three times as much."""

    def shares_alone(damage, *, scale="bits", **options):
        if scale == "bits":
            return Interaction.undefined(Estimate.undefined("not asked for"))
        # p < .05 for 9 of 200: 4.5 %
        return layer_language_interaction(damage, scale=scale, **options, resamples=100, permutations=199)

    lies = profiles.where_damage_lies(layers_drawn(rng(0), (11, 11), 6))
    monkeypatch.setattr(profiles, "where_damage_lies", lambda _study: lies)
    monkeypatch.setattr(profiles, "layer_language_interaction", shares_alone)
    monkeypatch.setattr(critical, "cliffs_delta", partial(cliffs_delta, resamples=100, permutations=399))


def verdict_of(finding, role="criterion"):
    return judge(finding, ABOVE_ZERO, hypothesis="H-036", test="t", role=role).verdict


# -- criterion ---------------------------------------------------------------------------------------------------------


def study_of(damage_PLS, languages, tier):
    layers = len(damage_PLS)
    return LayerStudy(
        model="m",
        spec=parse_spec("int4-row"),
        units=tuple(Unit(label=str(i), layer=i, names=(f"layers.{i}",)) for i in range(layers)),
        layers=layers,
        languages=languages,
        tier=tier,
        excess_bits=damage_PLS,
        full_bits=damage_PLS.sum(axis=0),
        nll_bits=np.full(len(languages), 100.0),
        cost=np.ones(layers),
        bits_per_weight=4.25,
        floor=Estimate(value=0.0, n=32, method="given"),
    )


def layers_drawn(draw, sizes, segments, *, icc=0.0, kind="normal", own=0.0, layers=4):
    """Return a study in which languages differ in size, in noise and by family, and each by `own` of its profile.

    Profiles of families differ as much as `icc` says that their languages' noise does.
    """
    languages, tier = real_languages(sizes)
    family = by_family(draw, languages, 1.0, times=(layers,)).T  # the same for all of a family, [P, L]
    profile = (1 + 0.5 * np.arange(layers)[:, None]) * (1 + 0.3 * icc * family)
    profile = profile * (1 + own * draw.standard_normal(profile.shape))
    size, spread = (
        np.exp(0.3 * draw.standard_normal(len(languages))),
        np.exp(0.5 * draw.standard_normal(len(languages))),
    )
    moved = by_family(draw, languages, icc, kind=kind, times=(layers, segments)).transpose(1, 0, 2)
    return study_of(size[:, None] * (profile[:, :, None] + 0.5 * spread[:, None] * moved), languages, tier)


@pytest.mark.parametrize(
    ("sizes", "segments", "icc", "kind", "trials"),
    grid(
        quick=[((11, 11), 6, 0.3, "normal"), ((20, 20), 5, 0.6, "normal"), ((11, 11), 20, 0.3, "lognormal")],
    ),
)
def test_fault_4_languages_that_rely_on_the_same_layers_are_not_told_apart(sizes, segments, icc, kind, trials):
    found = []
    for seed in range(trials):
        draw = rng(14, sizes[0], segments, seed)
        finding = different_layers(layers_drawn(draw, sizes, segments, icc=icc, kind=kind), rng=draw)
        found.append(verdict_of(finding))
    if segments == 5:  # two of 2^5 arrangements: p cannot fall below .0625
        assert set(found) <= {Verdict.UNDERPOWERED}
    assert no_more_often_than(found.count(Verdict.SUPPORTED), trials, ALPHA)
    assert Verdict.ERROR not in found


def profiles_drawn(draw, *, segments, layers=4, languages=11, sizes=0.0, noises=0.0, interaction=0.0, first=1.0):
    """The same profile over layers in every language, times its size; noise differs between languages.

    `first`: times the first layer does more than it would; segments then differ by a log SD of .7 in all cells.
    """
    profile = 1 + 0.5 * np.arange(layers)[:, None]
    profile[0] *= first
    size = np.exp(sizes * draw.standard_normal(languages))
    own = 1 + interaction * draw.standard_normal((layers, languages))
    spread = np.exp(noises * draw.standard_normal(languages))[None, :, None]
    table = (profile * size * own)[:, :, None] * np.ones(segments)
    table = table + 0.5 * size[None, :, None] * spread * draw.standard_normal(table.shape)
    return table * np.exp(0.7 * draw.standard_normal(segments)) if first > 1 else table


def told_apart(draw, table):
    found = layer_language_interaction(table, rng=draw, scale="share", scheme="signs", resamples=100, permutations=499)
    return found.p_value < ALPHA


@pytest.mark.parametrize(
    ("sizes", "noises", "first", "segments", "trials"),
    [
        pytest.param(*cell, segments, *run.values, id=f"{cell}-{segments}-{run.id}", marks=run.marks)
        for cell in ((0.3, 0.0, 1.0), (0.0, 0.5, 1.0), (0.3, 1.0, 1.0), (0.3, 0.5, 20.0))
        for segments in (6, 20)
        for run in (pytest.param(30, id="quick"), pytest.param(MANY, id="many", marks=pytest.mark.slow))
    ],
)
def test_fault_4_size_noise_and_a_dominant_layer_are_no_difference_in_layers(sizes, noises, first, segments, trials):
    hits = 0
    for seed in range(trials):
        draw = rng(14, segments, int(10 * sizes), int(10 * noises), seed)
        table = profiles_drawn(draw, segments=segments, sizes=sizes, noises=noises, first=first)
        if (table.mean(axis=(0, 2)) > 0).all():
            hits += told_apart(draw, table)
    assert no_more_often_than(hits, trials, ALPHA)


def test_fault_4_a_difference_in_layers_is_found():
    tables = ((draw, profiles_drawn(draw, segments=24, interaction=0.3, sizes=0.3)) for draw in map(rng, range(20)))
    assert sum(told_apart(*one) for one in tables) >= 19


@pytest.mark.parametrize("segments", [6, 24])
def test_a_layer_that_does_nearly_all_the_damage_hides_no_difference_in_layers(segments):
    found = 0
    for seed in range(20):
        draw = rng(24, segments, seed)
        found += told_apart(draw, profiles_drawn(draw, segments=segments, interaction=0.4, sizes=0.3, first=20.0))
    assert found >= 19


# -- prediction --------------------------------------------------------------------------------------------------------


def writes_drawn(draw, sizes, *, icc=0.0, dose=0.0, layers=20):
    """Return the critical layers of every language, the kurtosis of layers, and tiers; four layers have outliers.

    Log writes are normal, a share `icc` of a family's; low-resource languages write exp(`dose`) times as much there.
    """
    tags, tier = real_languages(sizes)
    writes = by_family(draw, tags, icc, times=(layers,))
    writes[:, :4] += dose * np.array([tier[tag] == "low" for tag in tags])[:, None]
    found = [
        CriticalLayers(language=tag, write=write, raw=write, layers=top_layers(write))
        for tag, write in zip(tags, np.exp(writes), strict=True)
    ]
    return tuple(found), {layer: 60.0 if layer < 4 else 1.0 for layer in range(layers)}, tier


@pytest.mark.parametrize(("sizes", "icc", "trials"), cells(SIZES, ICC, quick=[((11, 11), 0.3), ((20, 20), 0.6)]))
def test_low_resource_languages_that_write_like_others_are_not_said_to_rely_on_outlier_layers(sizes, icc, trials):
    found = []
    for seed in range(trials):
        draw = rng(36, sizes[0], seed)
        critical_ones, kurtosis, tier = writes_drawn(draw, sizes, icc=icc)
        finding = overlap_with_outliers(critical_ones, kurtosis, tier=tier, rng=draw)
        found.append(verdict_of(finding, "prediction"))
    for verdict in (Verdict.SUPPORTED, Verdict.NOT_SUPPORTED):
        assert no_more_often_than(found.count(verdict), trials, ALPHA)


def test_tiers_without_related_languages_in_the_other_are_not_decided():
    draw = rng(37)
    critical_ones, kurtosis, tier = writes_drawn(draw, (11, 11), dose=8.0)
    families = families_of(tier)
    apart = {tag for tag in tier if tier[tag] == "low" and families[tag] == "Indo-European"}
    kept = tuple(one for one in critical_ones if one.language not in apart)
    finding = overlap_with_outliers(kept, kurtosis, tier=tier, rng=draw)
    assert verdict_of(finding, "prediction") is Verdict.UNDERPOWERED


def test_low_resource_languages_that_write_into_outlier_layers_are_said_to():
    found = []
    for seed in range(20):
        draw = rng(38, seed)
        critical_ones, kurtosis, tier = writes_drawn(draw, (20, 20), dose=2.0)
        found.append(verdict_of(overlap_with_outliers(critical_ones, kurtosis, tier=tier, rng=draw), "prediction"))
    assert found.count(Verdict.SUPPORTED) >= 15
