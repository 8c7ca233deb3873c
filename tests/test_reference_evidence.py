"""Effects of exposure planted in damage tables by hand must come back; without one there is none."""

import numpy as np
import pytest

from fixtures.reference.evidence import damage_by_tier, exposure_effect, naive_correlation
from harness.damage_table import DamageTable, SpecDamage
from harness.estimates import Estimate
from harness.records import Losses

SPEC, SEGMENTS = "int3-row", 12
LANGUAGES = tuple(f"x{letter}" for letter in "abcdefghij")
TURNED = {
    "one": dict.fromkeys(LANGUAGES[:5], "high") | dict.fromkeys(LANGUAGES[5:], "low"),
    "two": dict.fromkeys(LANGUAGES[:5], "low") | dict.fromkeys(LANGUAGES[5:], "high"),
}


def table(excess, *, full=100.0):
    """A damage table with `excess[language]` mean bits; segments differ by the same shift everywhere."""
    shift = np.linspace(-1, 1, SEGMENTS)
    ids = tuple(f"s{at}" for at in range(SEGMENTS))
    whole = np.ones(SEGMENTS, dtype=np.int64)

    def losses(tag, bits, kl):
        return Losses(
            language=tag,
            segment_ids=ids,
            nll=(full + bits) * np.log(2),
            tokens=10 * whole,
            utf8_bytes=40 * whole,
            kl=kl,
        )

    column = SpecDamage(
        spec=SPEC, dtype="float32", bits_per_weight=3.0, floor_bits=Estimate(value=0.0, n=1, method="none"),
        full={tag: losses(tag, 0 * shift, None) for tag in excess},
        quantized={tag: losses(tag, b + shift, np.abs(b) * np.log(2) + 0 * shift) for tag, b in excess.items()},
    )  # fmt: skip
    return DamageTable(
        model="m", fingerprint="0", corpus_digest="0", languages=tuple(excess), segment_ids=ids, columns={SPEC: column}
    )


def of_language(place):
    """What makes languages differ whatever they were shown: 10 to 28 bits."""
    return 10.0 + 2 * place


def tables(low_adds):
    return {
        name: table({
            tag: of_language(place) + (low_adds if tier[tag] == "low" else 0.0) for place, tag in enumerate(LANGUAGES)
        })
        for name, tier in TURNED.items()
    }  # fmt: skip


@pytest.mark.parametrize("adds", [-3.0, 0.0, 5.0])
def test_the_effect_of_exposure_is_found_whatever_the_languages_are_like(adds):
    found = exposure_effect(tables(adds), SPEC, TURNED, rng=np.random.default_rng(0))
    assert found.excess_bits.value == pytest.approx(adds)
    assert found.excess_bits.n == len(LANGUAGES)
    # bits over 100 bits of full precision are percentage points
    assert found.relative_increase.value == pytest.approx(adds)
    assert found.kl_bits.value == pytest.approx(adds)
    ratios = [(of_language(at) + adds) / of_language(at) for at in range(len(LANGUAGES))]
    assert found.excess_ratio.value == pytest.approx(np.exp(np.mean(np.log(ratios))))


def test_a_language_that_never_changes_its_tier_takes_no_part():
    tiers = {name: tier | {LANGUAGES[0]: "high"} for name, tier in TURNED.items()}
    found = exposure_effect(tables(5.0), SPEC, tiers, rng=np.random.default_rng(0))
    assert found.excess_bits.n == len(LANGUAGES) - 1
    with pytest.raises(ValueError, match="no language is low in one"):
        exposure_effect(tables(5.0), SPEC, {"one": TURNED["one"], "two": TURNED["one"]}, rng=np.random.default_rng(0))


def test_damage_by_tier_is_the_mean_over_its_languages():
    found = damage_by_tier(tables(5.0)["one"], SPEC, TURNED["one"], rng=np.random.default_rng(0))
    assert {level: one.value for level, one in found.items()} == pytest.approx(
        {
            "high": np.mean([of_language(at) for at in range(5)]),
            "low": 5 + np.mean([of_language(at) for at in range(5, 10)]),
        }
    )
    assert {level: one.n for level, one in found.items()} == {"high": 5, "low": 5}
    assert all(one.low < one.value < one.high for one in found.values())


def test_the_naive_correlation_mistakes_the_language_for_exposure():
    # No effect of exposure at all, but the languages with little text happen to be the fragile ones.
    exposure = {tag: 10 ** (6 - at // 3) for at, tag in enumerate(LANGUAGES)}
    found = naive_correlation(tables(0.0)["one"], SPEC, exposure, rng=np.random.default_rng(0))
    assert found.estimate.value < -0.9
