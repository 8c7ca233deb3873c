"""Groups of H-038: residuals by hand, what refuses to make any, and that no feature can have a say in them."""

import inspect
import math

import evenbits.fixtures.resilience
import numpy as np
import pytest
from evenbits.cells.damage import Column, Damage
from evenbits.estimates import Estimate, Verdict
from evenbits.records import Losses
from evenbits.studies.h038 import Refusal, ResilienceGroups, divide, group_languages
from evenbits.text.languages import tiers

LN2 = math.log(2)
SPEC = "int4-row"
SEGMENTS = 4
# Three families; with the exposure below, thirds of the logarithmic range give four languages each.
LANGUAGES = ("ar", "de", "en", "es", "et", "fi", "fr", "he", "hu", "it", "ja", "ru")
BYTES = dict(zip(LANGUAGES, [1_000] * 4 + [10_000] * 4 + [100_000] * 4, strict=True))
TIER = tiers(LANGUAGES, exposure=BYTES)


def losses(tag, bits, kl=None):
    count = np.full(len(bits), 50, dtype=np.int64)
    return Losses(
        language=tag,
        segment_ids=tuple(f"s{i}" for i in range(len(bits))),
        nll=np.asarray(bits) * LN2,
        tokens=count,
        utf8_bytes=count,
        kl=None if kl is None else np.asarray(kl) * LN2,
    )


def table_of(excess, *, full=None, kl=None, floor=0.001):
    """`excess`, `full`, `kl`: mean bits per segment by language."""
    tags = tuple(sorted(excess))
    full = full or dict.fromkeys(tags, 100.0)
    kl = kl or {tag: abs(value) for tag, value in excess.items()}
    flat = {tag: np.full(SEGMENTS, full[tag]) for tag in tags}
    column = Column(
        spec=SPEC,
        dtype="float32",
        bits_per_weight=4.25,
        floor_bits=Estimate(value=floor, n=8, method="given"),
        full={tag: losses(tag, flat[tag]) for tag in tags},
        quantized={tag: losses(tag, flat[tag] + excess[tag], np.full(SEGMENTS, kl[tag])) for tag in tags},
    )
    return Damage(
        model="m",
        fingerprint="f",
        corpus_digest="c",
        languages=tags,
        segment_ids=tuple(f"s{i}" for i in range(SEGMENTS)),
        columns={SPEC: column},
    )


def expected(tag, *, slope=0.5):
    """Damage that follows exposure: (bytes + 1) to the power of `slope`."""
    return (BYTES[tag] + 1) ** slope / 10


def factors(**changed):
    """Damage by language: what exposure explains, times a factor where one is given."""
    return {tag: expected(tag) * changed.get(tag, 1.0) for tag in LANGUAGES}


def divided(excess, **options):
    return divide(table_of(excess, **options), SPEC, tier=TIER, exposure=BYTES, likelihood=False)


def test_residuals_are_those_of_a_regression_on_log_exposure():
    statsmodels = pytest.importorskip("statsmodels.api")
    excess = factors(ar=0.5, es=2.0, hu=0.7, ru=3.0)
    full = {tag: 80.0 + 7 * place for place, tag in enumerate(LANGUAGES)}
    groups = divide(table_of(excess, full=full), SPEC, tier=TIER, exposure=BYTES)
    design = statsmodels.add_constant(
        np.column_stack([[math.log(BYTES[t] + 1) for t in LANGUAGES], [math.log(full[t]) for t in LANGUAGES]])
    )
    fit = statsmodels.OLS([math.log(excess[tag]) for tag in LANGUAGES], design).fit()
    assert groups.residual == pytest.approx(fit.resid, abs=1e-9)
    assert list(groups.coefficients.values()) == pytest.approx(fit.params, abs=1e-9)
    assert list(groups.coefficients) == ["constant", "ln training bytes", "ln NLL"]


def test_groups_are_low_below_and_high_above_what_was_expected():
    # Factors that cancel inside every level of exposure: the fit stays what it was, a factor f gives residual ln f.
    groups = divided(factors(ar=0.5, de=2.0, et=0.5, fi=2.0, hu=0.25, it=4.0))
    residual = dict(zip(groups.languages, groups.residual, strict=True))
    assert residual["ar"] == pytest.approx(-LN2)
    assert residual["it"] == pytest.approx(2 * LN2)
    assert groups.resilient == ("ar",)  # de is low-resource and loses more; en and es lose what was expected
    assert groups.vulnerable == ("it",)
    assert groups.tier == ("low",) * 4 + ("between",) * 4 + ("high",) * 4


def test_exchanged_residuals_move_members_and_leave_tiers():
    groups = divided(factors(ar=0.5, de=2.0, hu=0.5, it=2.0))
    turned = np.stack([groups.residual, -groups.residual])
    resilient, vulnerable = groups.masks(turned)
    assert next(tag for tag, inside in zip(LANGUAGES, resilient[1], strict=True) if inside) == "de"
    assert not (resilient & np.array([tier != "low" for tier in groups.tier])).any()
    assert not (vulnerable & np.array([tier != "high" for tier in groups.tier])).any()


def test_languages_alone_in_family_and_script_form_one_stratum():
    groups = divided(factors(ar=0.5, it=2.0))
    strata = dict(zip(groups.languages, groups.strata, strict=True))
    # Arabic and Hebrew are one family in two scripts; Japanese and Russian (Cyrillic) stand alone here.
    assert {strata[tag] for tag in ("ar", "he", "ja", "ru")} == {"alone"}
    assert strata["de"] == strata["fr"] != strata["fi"] == strata["hu"]


def test_nothing_that_makes_groups_can_see_a_feature():
    # Neither the functions nor the fixture have a parameter through which a feature could come.
    assert set(inspect.signature(divide).parameters) == {"table", "spec", "tier", "exposure", "metric", "likelihood"}
    assert set(inspect.signature(group_languages).parameters) == {"table", "spec", "tier", "exposure"}
    asked = set(inspect.signature(evenbits.fixtures.resilience.resilience_groups.__wrapped__).parameters)
    assert asked == {"model", "spec", "damage", "tier"}
    assert not {"feature", "value", "statistics"} & set(ResilienceGroups.__dataclass_fields__)


def test_each_metric_gives_groups_of_its_own():
    excess = factors(ar=0.5, de=2.0, hu=0.5, it=2.0)
    kl = factors(ar=2.0, de=0.5, hu=2.0, it=0.5)
    settled = group_languages(table_of(excess, kl=kl), SPEC, tier=TIER, exposure=BYTES)
    assert settled.primary.resilient[0] == "ar"
    assert settled.by_metric["kl"].resilient[0] == "de"
    assert settled.by_metric["relative_increase"].resilient[0] == "ar"  # full precision is the same everywhere
    assert list(settled.without_likelihood.coefficients) == ["constant", "ln training bytes"]


def test_a_public_model_is_divided_by_resource_class():
    tags = ("am", "de", "en", "fr", "ga", "he", "ig", "ja", "ms", "sw", "th", "yo")
    excess = {tag: 1.0 + 0.3 * place for place, tag in enumerate(tags)}
    groups = divide(table_of(excess), SPEC, tier=tiers(tags))
    assert groups.resource_name == "resource class"
    assert set(groups.resilient) | set(groups.vulnerable)


def test_languages_without_damage_or_resource_level_take_no_part_and_are_named():
    excess = factors(ar=2.0, it=2.0) | {"de": -0.5, "he": 0.002}
    without = {tag: amount for tag, amount in BYTES.items() if tag != "hu"}
    groups = divide(
        table_of(excess | {"sv": 3.0, "fa": 2.0}),
        SPEC,
        tier=TIER,
        exposure=without | {"sv": 20_000, "fa": 900},
        likelihood=False,
    )
    assert groups.left_out == {
        "de": "no damage above three noise floors",  # the model became better there
        "he": "no damage above three noise floors",  # .002 bits, the floor is .001
        "hu": "resource level unknown",
    }
    assert not set(groups.left_out) & set(groups.languages)


@pytest.mark.parametrize(
    ("languages", "exposure", "verdict", "sentence"),
    [
        (LANGUAGES[:9], BYTES, Verdict.UNDERPOWERED, "9 languages, needed 10"),
        (("da", "de", "en", "es", "fr", "ga", "it", "lt", "pt", "ro"), None, Verdict.UNDERPOWERED, "of one family"),
        (
            LANGUAGES,
            dict.fromkeys(LANGUAGES, 5000) | {"de": 5300},
            Verdict.NOT_APPLICABLE,
            "equal exposure: the most trained language has 1.06 times",
        ),
        (LANGUAGES, BYTES, Verdict.NOT_APPLICABLE, "explain damage completely"),
    ],
)
def test_what_cannot_be_divided_says_so_in_a_sentence(languages, exposure, verdict, sentence):
    excess = {tag: expected(tag) if tag in BYTES else 1.0 for tag in languages}
    found = divide(table_of(excess), SPEC, tier=TIER, exposure=exposure, likelihood=False)
    assert isinstance(found, Refusal)
    assert found.verdict is verdict
    assert sentence in found.because


def test_no_damage_at_all_is_underpowered_and_names_the_remedy():
    found = divided(dict.fromkeys(LANGUAGES, 0.001))
    assert found.verdict is Verdict.UNDERPOWERED
    assert "0 languages, needed 10" in found.because
    assert "lower precision" in found.because
