"""Findings on synthetic damage: planted interaction, depth, additivity and overlap are found, absent ones are not."""

from __future__ import annotations

import numpy as np
import pytest
from evenbits.estimates import Estimate, Threshold, Verdict, judge
from evenbits.studies.h036.additivity import additivity
from evenbits.studies.h036.critical import CriticalLayers, overlap_with_outliers, top_layers
from evenbits.studies.h036.depth import where_damage_lies
from evenbits.studies.h036.profiles import different_layers
from evenbits.studies.h036.study import LayerStudy, Unit
from evenbits.variants.quantization.spec import parse_spec

LANGUAGES = ("ca", "de", "en", "es", "et", "fi", "fr", "hu", "it", "nl", "pt", "sv")
TIER = dict(zip(LANGUAGES, ["low", "high"] * 6, strict=True))
ABOVE_ZERO = Threshold(metric="x", op=">", bound=0.0, why="test")


def study_of(damage_PLS, *, full_LS=None, languages=LANGUAGES, floor=0.0):
    layers = len(damage_PLS)
    return LayerStudy(
        model="synthetic",
        spec=parse_spec("int4-row"),
        units=tuple(Unit(label=str(i), layer=i, names=(f"layers.{i}",)) for i in range(layers)),
        layers=layers,
        languages=tuple(languages),
        tier=TIER,
        excess_bits=damage_PLS,
        full_bits=damage_PLS.sum(axis=0) if full_LS is None else full_LS,
        nll_bits=np.full(len(languages), 100.0),
        cost=np.full(layers, 1.0),
        bits_per_weight=4.25,
        floor=Estimate(value=floor, n=32, method="test"),
    )


def damage(rng, *, interaction=0.0, size=None, layers=6, languages=12, segments=20, noise=1.0):
    """Layer profile + language level + what they do together + noise; `size` scales languages."""
    base = np.linspace(6, 3, layers)[:, None] + np.zeros(languages)
    plant = interaction * rng.normal(size=(layers, languages))
    if size is not None:
        base = base * size
    level = 0 if size is not None else np.linspace(0, 1, languages)
    return (base + level + plant)[:, :, None] + noise * rng.normal(size=(layers, languages, segments))


def verdict_of(finding):
    return judge(finding, ABOVE_ZERO, hypothesis="H-036", test="t", role="criterion").verdict


def rng():
    return np.random.default_rng(5)


def test_a_planted_interaction_is_found():
    found = different_layers(study_of(damage(rng(), interaction=1.0)), rng=rng())
    assert verdict_of(found) is Verdict.SUPPORTED
    assert found.action.startswith("Protect the ")
    assert found.p_value < 0.01
    # effect variance 1 and error variance 1: partial omega squared is s / (s + e) = .5, in bits and, as damage is about
    # 5 in every language, in shares
    assert found.also["bits"].value == pytest.approx(0.5, abs=0.15)
    assert found.estimate.value == pytest.approx(0.5, abs=0.15)
    table = found.data["layer_language"]
    assert np.shape(table["excess_bits"]) == (len(table["layers"]), len(table["languages"])) == (6, 12)


def test_the_same_shares_everywhere_are_not_found_and_refuted_with_enough_segments():
    found = different_layers(study_of(damage(rng(), size=np.ones(12))), rng=rng())
    assert verdict_of(found) in {Verdict.UNDERPOWERED, Verdict.NOT_SUPPORTED}
    assert found.p_value > 0.05
    assert found.estimate.value == pytest.approx(0, abs=0.03)
    many = different_layers(study_of(damage(rng(), size=np.ones(12), segments=200)), rng=rng())
    assert many.estimate.high < 0.06
    assert verdict_of(many) is Verdict.NOT_SUPPORTED
    assert many.action.startswith("Protect the ")


def test_five_segments_cannot_show_an_interaction_and_say_so():
    found = different_layers(study_of(damage(rng(), interaction=1.0, segments=5)), rng=rng())
    assert verdict_of(found) is Verdict.UNDERPOWERED
    assert "p cannot fall below 0.062 with 5 segments" in found.because  # two of 2^5 arrangements
    assert found.action.startswith("Not shown yet, a first look: the ")


def test_twice_the_damage_everywhere_is_an_interaction_in_bits_but_not_in_shape():
    study = study_of(damage(rng(), size=np.linspace(0.5, 3, 12), noise=0.3))
    found = different_layers(study, rng=rng())
    assert verdict_of(found) is not Verdict.SUPPORTED
    assert found.data["interaction"]["bits"]["p_value"] < 0.05
    assert "what is shown is difference in size" in found.because


def test_a_planted_difference_of_shape_survives_shares():
    study = study_of(damage(rng(), interaction=1.0, noise=0.5, size=np.linspace(0.5, 3, 12)))
    assert verdict_of(different_layers(study, rng=rng())) is Verdict.SUPPORTED


@pytest.mark.parametrize(
    ("languages", "sentence"),
    [
        (LANGUAGES[:9], "9 languages, needed 10"),
        (("ca", "de", "en", "es", "fr", "it", "nl", "pt", "ro", "sv"), "one family"),
    ],
)
def test_few_languages_or_one_family_are_underpowered(languages, sentence):
    study = study_of(damage(rng(), interaction=1.0, languages=len(languages)), languages=languages)
    finding = different_layers(study, rng=rng())
    assert finding.verdict is Verdict.UNDERPOWERED
    assert finding.estimate.value is None
    assert sentence in finding.because


def test_shares_leave_out_languages_without_damage_and_say_so():
    cells = damage(rng(), interaction=1.0, noise=0.5)
    cells[:, 0] = 0.01  # ca loses nothing
    found = different_layers(study_of(cells, floor=0.1), rng=rng())
    assert "below three noise floors: ca." in found.because


def test_depth_says_where_damage_lies_and_for_how_many_languages():
    # four layers: one early, two in the middle, one late. Eleven languages lose 6, 1, 1, 2; ca loses 1, 1, 1, 7.
    cells = np.tile(np.array([6.0, 1, 1, 2])[:, None, None], (1, 12, 3))
    cells[:, 0] = np.array([1.0, 1, 1, 7])[:, None]
    depth = where_damage_lies(study_of(cells))
    assert depth.shares == pytest.approx({"early": 67 / 120, "middle": 24 / 120, "late": 29 / 120})
    assert (depth.agreeing, depth.languages, depth.same_for_all) == (11, 12, True)
    assert depth.top[0] == ("0", pytest.approx(67 / 120))
    assert "11 of 12 languages lose most in the early third" in depth.sentence
    assert "one plan can serve all" in depth.sentence


def test_one_plan_is_not_said_to_serve_languages_whose_profiles_differ():
    # all three lose most in the early third, and order the other layers each in its own way
    profiles = np.array([[9.0, 8, 1, 2, 3, 4], [9.0, 8, 4, 3, 2, 1], [8.0, 9, 2, 4, 1, 3]]).T
    profiles = np.concatenate([profiles, profiles[2:]])
    depth = where_damage_lies(study_of(np.repeat(profiles[:, :, None], 3, axis=2), languages=("ca", "de", "en")))
    assert depth.agreeing == depth.languages == 3
    assert depth.correlation < 0.5
    assert "one plan" not in depth.sentence + depth.advice(shown=True)


def test_damage_that_adds_up_is_explained_in_full_and_its_opposite_is_not():
    spread = np.linspace(1, 4, 12)
    cells = damage(rng(), size=spread, noise=0.01)
    explained = additivity(study_of(cells), rng=rng())
    assert explained.estimate.value == pytest.approx(1.0)
    assert explained.also["ratio"].value == pytest.approx(1.0)
    doubled = additivity(study_of(cells, full_LS=2 * cells.sum(axis=0)), rng=rng())
    assert doubled.also["ratio"].value == pytest.approx(0.5)
    assert doubled.also["r_squared"].value == pytest.approx(1.0)
    assert doubled.estimate.value < 0.5  # the right order, the wrong size
    turned = additivity(study_of(cells, full_LS=cells.sum(axis=0)[::-1]), rng=rng())
    assert turned.estimate.value < 0


def test_top_layers_are_a_fifth_and_at_least_one():
    assert top_layers(np.array([1.0, 5, 2, 4, 3, 0, 0, 0, 0, 0])) == (1, 3)
    assert top_layers(np.array([1.0, 3, 2])) == (1,)
    assert top_layers(np.zeros(10)) == (0, 1)  # ties go to the earlier layers


def critical_of(tag, layer, layers=5):
    write = np.full(layers, 0.1)
    write[layer] = 1.0
    return CriticalLayers(language=tag, write=write, raw=np.arange(layers, dtype=float), layers=top_layers(write))


def test_low_resource_languages_that_write_into_the_outlier_layer_overlap_more():
    # alternating tiers: within the family x script stratum Indo-European Latin both tiers occur
    critical = tuple(critical_of(tag, 3 if TIER[tag] == "low" else 1) for tag in LANGUAGES)
    finding = overlap_with_outliers(critical, {0: 1.0, 1: 2.0, 2: 0.0, 3: 60.0, 4: 5.0}, tier=TIER, rng=rng())
    assert finding.estimate.value == pytest.approx(1.0)
    assert finding.p_value < 0.05
    assert finding.also["write_share"].value == pytest.approx(1.0)
    assert finding.data["outlier_layers"] == [3]


def test_the_same_critical_layers_everywhere_leave_nothing_to_compare():
    critical = tuple(critical_of(tag, 2) for tag in LANGUAGES)
    finding = overlap_with_outliers(critical, dict.fromkeys(range(5), 1.0), tier=TIER, rng=rng())
    assert finding.verdict is Verdict.NOT_APPLICABLE
    assert finding.estimate.value is None


def test_tiers_that_share_no_family_and_script_leave_no_p_below_the_level():
    tier = dict.fromkeys(("et", "eu", "fi", "hu", "tr"), "low") | dict.fromkeys(("de", "en", "es", "fr", "it"), "high")
    critical = tuple(critical_of(tag, 3 if tier[tag] == "low" else 1) for tag in sorted(tier))
    finding = overlap_with_outliers(critical, {0: 1.0, 1: 2.0, 2: 0.0, 3: 60.0, 4: 5.0}, tier=tier, rng=rng())
    assert finding.verdict is Verdict.UNDERPOWERED
    assert "cannot fall below 1;" in finding.because  # a single labelling
    tier["sv"] = "low"  # one of 6 Indo-European languages in Latin script: 6 labellings
    critical = tuple(critical_of(tag, 3 if tier[tag] == "low" else 1) for tag in sorted(tier))
    finding = overlap_with_outliers(critical, {0: 1.0, 1: 2.0, 2: 0.0, 3: 60.0, 4: 5.0}, tier=tier, rng=rng())
    assert finding.verdict is Verdict.UNDERPOWERED
    assert "cannot fall below 0.17;" in finding.because


def test_too_few_languages_in_a_tier_are_underpowered():
    critical = tuple(critical_of(tag, 2) for tag in LANGUAGES[:6])
    finding = overlap_with_outliers(critical, dict.fromkeys(range(5), 1.0), tier=TIER, rng=rng())
    assert finding.verdict is Verdict.UNDERPOWERED
    assert "3 low-resource and 3 high-resource" in finding.because
