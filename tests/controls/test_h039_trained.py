"""Positive control of H-039 on a trained model: rows of half of the languages ruined, and what retention mends."""

import numpy as np
import pytest
from evenbits.estimates import Verdict
from evenbits.store import Store
from evenbits.studies.h039 import study
from evenbits.text.languages import families_of
from evenbits.variants.variant import FULL_PRECISION

from controls.ruined_rows import USUAL, dealt, judged, plain_bench, planted_bench, planted_study, texts

pytestmark = pytest.mark.control


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return plain_bench(Store(tmp_path_factory.mktemp("planted") / "store"))


@pytest.fixture(scope="module")
def halves(plain):
    return texts(plain)


@pytest.fixture
def criterion_only(monkeypatch):
    """The criterion reads the damage at each k; the controls cost a quarter of the time."""
    monkeypatch.setattr(study, "CONTROL_PERCENTS", ())


def judged_at(plain, halves, channels, *, directed=True):
    probe, evaluation = halves
    planted = planted_bench(plain, probe, channels=channels, directed=directed)
    found = planted_study(planted, evaluation)
    planted.release()
    return judged(found, rng=np.random.default_rng(0))


def ratios(result):
    return {row["percent"]: row["disparity"]["excess_bits"]["ratio"]["value"] for row in result.data["rows"]}


def test_each_tier_has_half_of_the_languages_and_of_every_family(halves):
    _, evaluation = halves
    tier, families = dealt(evaluation.languages), families_of(evaluation.languages)
    assert sorted(list(tier.values()).count(name) for name in ("low", "high")) == [16, 17]
    for name in set(families.values()):
        counts = [sum(tier[tag] == side for tag in tier if families[tag] == name) for side in ("low", "high")]
        assert abs(counts[0] - counts[1]) <= 1


def test_full_precision_does_not_see_the_ruined_rows(plain, halves):
    probe, evaluation = halves
    few = evaluation.select(languages=("de", "ja", "sv"), indices=tuple(range(4)))
    scores = [planted_bench(plain, probe, channels=channels).losses(FULL_PRECISION, few) for channels in (0, USUAL)]
    for tag in few.languages:
        np.testing.assert_array_equal(scores[0][tag].nll, scores[1][tag].nll)


@pytest.mark.slow
@pytest.mark.usefixtures("criterion_only")
def test_rows_ruined_for_one_tier_are_mended_at_the_k_that_holds_them(plain, halves):
    result = judged_at(plain, halves, USUAL)
    assert result.verdict is Verdict.SUPPORTED, result.explain()  # at k = 0 1.65 [1.26, 2.14]: 33 languages just do
    rows = {row["percent"]: row["disparity"]["excess_bits"] for row in result.data["rows"]}
    # k = .1 % keeps 66 weights of a matrix and so the 64 planted ones; .03 % keeps 20
    assert rows[0.1]["parity_p"] < 0.05 <= rows[0.03]["parity_p"]
    assert "keep0.1%" in result.action


@pytest.mark.slow
@pytest.mark.usefixtures("criterion_only")
@pytest.mark.parametrize(
    ("channels", "directed"),
    [(0, True), (USUAL, False)],
    ids=["dead input without ruined rows", "channels of everybody"],
)
def test_without_rows_of_one_tier_there_is_nothing_to_support(plain, halves, channels, directed):
    result = judged_at(plain, halves, channels, directed=directed)
    assert result.verdict in {Verdict.NOT_APPLICABLE, Verdict.UNDERPOWERED}, result.explain()
    assert ratios(result)[0] < 1.25
