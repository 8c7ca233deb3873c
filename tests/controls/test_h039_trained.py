"""Positive control of H-039 on a trained model: rows of low-exposure languages ruined, and what retention mends."""

import numpy as np
import pytest
from evenbits.estimates import Verdict
from evenbits.store import Store
from evenbits.studies.h039 import study
from evenbits.variants.variant import FULL_PRECISION

from controls.ruined_rows import USUAL, judged, plain_bench, planted_bench, planted_study, texts

pytestmark = pytest.mark.control


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return plain_bench(Store(tmp_path_factory.mktemp("planted") / "store"))


@pytest.fixture(scope="module")
def halves(plain):
    return texts(plain)


@pytest.fixture
def criterion_only(monkeypatch):
    """The criterion reads the damage at each k; what the other claims compare it with costs two fifths of the time."""
    monkeypatch.setattr(study, "CONTROL_PERCENTS", ())
    monkeypatch.setattr(study, "_comparators", lambda _model, _grid: (None, None))


def judged_at(plain, halves, channels, *, directed=True):
    probe, evaluation = halves
    planted = planted_bench(plain, probe, channels=channels, directed=directed)
    found = planted_study(planted, evaluation)
    planted.release()
    return judged(found, rng=np.random.default_rng(0))


def ratios(result):
    return {row["percent"]: row["disparity"]["excess_bits"]["ratio"]["value"] for row in result.data["rows"]}


def test_enough_languages_of_either_tier_and_none_in_between(plain, halves):
    _, evaluation = halves
    exposure = plain.local.exposure
    assert len(evaluation.languages) == 13
    # the tiers are 400,000 and 12,000 bytes
    assert sum(exposure[tag] < 20_000 for tag in evaluation.languages) == 6
    assert sum(exposure[tag] > 300_000 for tag in evaluation.languages) == 7


def test_full_precision_does_not_see_the_ruined_rows(plain, halves):
    probe, evaluation = halves
    few = evaluation.select(indices=tuple(range(4)))
    scores = [planted_bench(plain, probe, channels=channels).losses(FULL_PRECISION, few) for channels in (0, USUAL)]
    for tag in few.languages:
        np.testing.assert_array_equal(scores[0][tag].nll, scores[1][tag].nll)


@pytest.mark.usefixtures("criterion_only")
def test_rows_ruined_for_low_exposure_languages_are_mended_at_the_k_that_holds_them(plain, halves):
    result = judged_at(plain, halves, USUAL)
    # 6 + 7 languages show the ratio, and not that it lies outside the band: so says the verdict, and how many would do.
    # With as many languages as that needs the plant is `supported`: tests/controls/test_h039.py, on drawn studies.
    assert result.verdict is Verdict.UNDERPOWERED, result.explain()
    assert "languages would decide" in result.explain()
    # k = .1 % keeps 49 weights of a matrix and so the 48 planted ones; .03 % keeps 15
    found = ratios(result)
    assert min(found[k] for k in (0, 0.01, 0.03)) > 1.25 > found[0.1]
    assert "keep0.1%" in result.action


@pytest.mark.slow
def test_half_and_a_quarter_of_the_channels_are_supported_too(plain, halves):
    for channels, holds in ((24, 0.1), (12, 0.03)):
        result = judged_at(plain, halves, channels)
        assert result.verdict is Verdict.UNDERPOWERED, result.explain()  # as above: 13 languages are too few to show it
        assert ratios(result)[0] > 1.25 > ratios(result)[holds]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("channels", "directed"),
    [(0, True), (USUAL, False)],
    ids=["dead input without ruined rows", "channels of everybody"],
)
def test_without_rows_of_low_exposure_languages_there_is_nothing_to_support(plain, halves, channels, directed):
    result = judged_at(plain, halves, channels, directed=directed)
    assert result.verdict is Verdict.NOT_APPLICABLE, result.explain()
    assert ratios(result)[0] < 1.25
