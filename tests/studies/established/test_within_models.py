"""E-4 and E-5: correlations over heads and over languages within models."""

import numpy as np
import pytest
from evenbits.estimates import Threshold, Verdict, judge
from evenbits.studies.established import ModelDamage, ModelHeads, parity_is_not_degradation, sinks_are_not_outliers
from evenbits.studies.established.records import by_head

SMALL = Threshold(metric="r", op="<", bound=0.3, why="test")
LANGUAGES = (
    "ar",
    "ca",
    "cs",
    "cy",
    "da",
    "de",
    "en",
    "es",
    "et",
    "fi",
    "fr",
    "ga",
    "hu",
    "is",
    "ja",
    "lt",
    "mt",
    "pl",
    "ru",
    "yo",
)


def rng(seed=0):
    return np.random.default_rng(seed)


def heads(name, *, follow=0.0, layers=30, count=9, seed=1, queries=True):
    draws = rng(seed)
    sink = draws.random((layers, count))
    noise = draws.random((2, layers, count))
    kurtosis = follow * sink + (1 - abs(follow)) * noise[0]
    query = noise[1] if queries else None
    return ModelHeads(model=name, run=name, sink=sink, output_kurtosis=kurtosis, query_kurtosis=query)


def languages(name, *, follow=0.0, seed=1, tags=LANGUAGES, common=True):
    draws = rng(seed)
    tokens = rng(99).uniform(20, 60, len(tags)) if common else draws.uniform(20, 60, len(tags))
    excess = 10 + follow * (tokens - 40) + (1 - abs(follow)) * 10 * draws.standard_normal(len(tags))
    return ModelDamage(
        model=name,
        run=name,
        tail=5.0,
        languages=tuple(tags),
        tier={},
        tokens=tokens,
        damage={"excess_bits": excess, "relative_increase": excess / tokens, "kl": excess},
        floor=0.0,
        outliers=tokens,
    )


def judged(finding):
    return judge(finding, SMALL, hypothesis="E-4", test="t", role="established")


def test_the_share_of_a_head_is_the_mean_of_its_channels():
    np.testing.assert_allclose(by_head(np.array([1.0, 3.0, 10.0, 20.0]), 2), [2.0, 15.0])


def test_sinks_apart_from_outliers_are_supported_when_there_are_heads_enough():
    finding = sinks_are_not_outliers([heads("a"), heads("b", seed=2)], margin=0.3, rng=rng())
    row = judged(finding)
    assert row.supported, row.explain()
    assert finding.estimate.n == 60  # layers, which are drawn as a whole
    assert "540 heads of 2 training run(s)" in row.explain()
    assert set(finding.also) == {"query_rows", "rank_correlation"}


def test_sinks_that_follow_outliers_refute_it():
    row = judged(sinks_are_not_outliers([heads("a", follow=0.8)], margin=0.3, rng=rng()))
    assert row.verdict is Verdict.NOT_SUPPORTED
    assert row.estimate.value > 0.5


def test_a_negative_correlation_beyond_the_margin_refutes_it_too():
    row = judged(sinks_are_not_outliers([heads("a", follow=-0.8)], margin=0.3, rng=rng()))
    assert row.verdict is Verdict.NOT_SUPPORTED


def test_few_layers_are_underpowered():
    row = judged(sinks_are_not_outliers([heads("a", layers=4, count=4, queries=False)], margin=0.3, rng=rng()))
    assert row.verdict is Verdict.UNDERPOWERED
    assert "4 layers do not settle it" in row.explain()
    assert "query_rows" not in row.also


def test_parity_that_goes_with_damage_refutes_the_finding_and_says_what_to_do():
    models = [languages(f"m{i}", follow=0.7, seed=i) for i in range(4)]
    finding = parity_is_not_degradation(models, margin=0.3, rng=rng())
    row = judged(finding)
    assert row.verdict is Verdict.NOT_SUPPORTED
    assert finding.estimate.n == 5  # families of its 20 languages
    assert "evenbits diagnose" in row.action
    r = [np.corrcoef(m.tokens, m.damage["excess_bits"])[0, 1] for m in models]
    assert finding.estimate.value == pytest.approx(np.mean(r))
    assert f"{min(r):.2f} to {max(r):.2f}" in row.explain()
    assert {"relative_increase", "kl", "latin_script_alone"} == set(finding.also)


def test_twenty_languages_cannot_show_that_parity_is_nothing():
    row = judged(parity_is_not_degradation([languages("a", seed=3)], margin=0.3, rng=rng()))
    assert row.verdict is Verdict.UNDERPOWERED
    assert "5 families of languages do not settle it" in row.explain()


def test_many_languages_show_it():
    # tags made up: what is looked at is how many there are
    tags = [f"{a}{b}" for a in "abcdefghijklmnopqrst" for b in "abcdefghijklmnopqrst" if _known(f"{a}{b}")]
    row = judged(parity_is_not_degradation([languages("a", tags=tags, seed=1)], margin=0.3, rng=rng()))
    assert len(tags) > 80
    assert row.supported, row.explain()


def _known(tag):
    from evenbits.errors import CorpusError
    from evenbits.text.languages import describe

    try:
        return describe(tag).tag == tag
    except CorpusError:
        return False


def test_nine_languages_are_too_few():
    row = judged(parity_is_not_degradation([languages("a", tags=LANGUAGES[:9])], margin=0.3, rng=rng()))
    assert row.verdict is Verdict.UNDERPOWERED
    assert "9 languages, needed 10" in row.explain()
    assert row.estimate.value is None


def test_the_scatter_is_relative_to_english():
    one = languages("a")
    found = parity_is_not_degradation([one], margin=0.3, rng=rng()).data["scatter"]
    assert found["x"][LANGUAGES.index("en")] == 1.0
    assert found["x_name"] == "tokens relative to English"
    np.testing.assert_allclose(found["y"], one.damage["excess_bits"])
