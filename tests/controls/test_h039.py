"""Controls of H-039: disparity planted in a built model and in drawn tables, taken away, or never there."""

import sys
from functools import partial

import numpy as np
import pytest
from evenbits.cells import Subject
from evenbits.cells.damage import Damage
from evenbits.estimates import Threshold, Verdict, judge
from evenbits.statistics import binomial_band, disparities
from evenbits.studies.h039 import parity, recommend, study_retention
from evenbits.variants.quantization.spec import parse_spec

from controls.drawn_studies import retention_study
from controls.planted import HIGH, LOW, PlantedModel, planted_corpus, save_planted
from controls.recovery import count_supported, permuted_tiers, replicated, supported, within_band

pytestmark = pytest.mark.control

PARITY = Threshold(metric="disparity_ratio", op="<", bound=1.25, why="as in the eval")
TIER = dict.fromkeys(LOW, "low") | dict.fromkeys(HIGH, "high")
REPLICATES = 100


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch):
    module = sys.modules["evenbits.studies.h039.parity"]  # the package's `parity` is the function, not the module
    monkeypatch.setattr(module, "disparities", partial(disparities, resamples=499))
    monkeypatch.setattr(module, "recommend", partial(recommend, resamples=199))


@pytest.fixture
def only_excess_bits(monkeypatch):
    """Verdicts stand on excess bits; the other metrics cost time only."""
    real = Damage.degradation
    monkeypatch.setattr(Damage, "degradation", lambda table, spec: {"excess_bits": real(table, spec)["excess_bits"]})


# -- a whole model -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def found(tmp_path_factory, tiny_tokenizer):
    """`found(plant)` -> the judged criterion, measured on the model of that plant through the harness' own pipeline."""
    from evenbits.models.references import parse_model
    from evenbits.models.sources import resolve
    from evenbits.store import Store

    base = tmp_path_factory.mktemp("planted")
    text = planted_corpus(segments=64, length=24, rng=np.random.default_rng(1))
    made = {}

    def get(plant):
        if plant not in made:
            folder = save_planted(plant, tiny_tokenizer, base / f"model-{plant.ruined}-{plant.outliers}")
            store = Store(base / "store")
            model = Subject(local=resolve(parse_model(str(folder)), store=store), store=store, dtype="float32")
            study = study_retention(model, parse_spec("int2-row"), text, tier=TIER)
            finding = parity(study, rng=np.random.default_rng(0))
            made[plant] = judge(finding, PARITY, hypothesis="H-039", test="control", role="criterion"), study
        return made[plant]

    return get


def ratio_at(result, percent):
    (row,) = [row for row in result.data["rows"] if row["percent"] == percent]
    return row["disparity"]["excess_bits"]["ratio"]["value"]


@pytest.mark.parametrize("ruined", [1, 2])
def test_sparse_outliers_in_rows_of_chosen_languages_are_supported_at_the_k_that_holds_them(found, ruined):
    plant = PlantedModel(ruined=ruined)
    result, _ = found(plant)
    assert result.verdict is Verdict.SUPPORTED, result.explain()
    # 6 or 12 of 16,384 weights of gate_proj: k = .1 % keeps 16 of them, .03 % keeps 5, .01 % keeps 2
    assert round(0.0003 * 128**2) < plant.planted_share * 128**2 <= round(0.001 * 128**2)
    assert ratio_at(result, 0.01) > 1.25 > ratio_at(result, 0.1)
    assert "keep0.1%" in result.action


def test_damage_follows_the_number_of_ruined_letters(found):
    doses = (0, 1, 2)
    _, plain = found(PlantedModel(ruined=0))
    losses = {}
    for ruined in doses:
        _, study = found(PlantedModel(ruined=ruined))
        means = dict(zip(study.table.languages, study.table.excess_bits("int2-row").mean(axis=1), strict=True))
        losses[ruined] = np.mean([means[tag] for tag in LOW])
        # nothing is planted in the others: to the rounding of sums they lose what they lose in the plain model
        same = dict(zip(plain.table.languages, plain.table.excess_bits("int2-row").mean(axis=1), strict=True))
        assert [means[tag] for tag in HIGH] == pytest.approx([same[tag] for tag in HIGH], abs=1e-3)
    assert losses[0] < losses[1] < losses[2]
    # A shut channel leaves the letter itself and the constant: sqrt(64) = 8 each, so the letter has logit 1.5 x 8 = 12
    # and any other token 0. That costs 12 nats, 17.3 bits, where another letter follows (.92), not the
    # entropy of 1.9 bits: 14 bits more. 23 letters have a follower and one in seven is ruined: 46 bits, less what
    # rounding costs an open channel anyway.
    assert 25 < losses[1] - losses[0] < 50


def test_the_plant_is_invisible_in_full_precision(found):
    _, plain = found(PlantedModel(ruined=0))
    _, study = found(PlantedModel(ruined=2))
    np.testing.assert_allclose(study.table.nll_full("int2-row"), plain.table.nll_full("int2-row"), rtol=1e-6)


def test_a_model_without_the_plant_is_not_applicable(found):
    result, _ = found(PlantedModel(ruined=0))
    assert result.verdict is Verdict.NOT_APPLICABLE, result.explain()


def test_dense_outliers_in_the_same_rows_are_not_supported(found):
    plant = PlantedModel(ruined=1, outliers=40)
    assert plant.planted_share > 0.01  # no k below 1 % holds them
    result, _ = found(plant)
    assert result.verdict is Verdict.NOT_SUPPORTED, result.explain()


# -- drawn tables ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("only_excess_bits")
def test_power_falls_with_the_disparity_that_retention_leaves():
    left = (1.0, 1.1, 1.2, 1.6)
    power = [
        count_supported(
            lambda rng, ratio=ratio: parity(retention_study((3.0, ratio), rng=rng), rng=rng),
            PARITY,
            hypothesis="H-039",
            replicates=40,
            seed=39,
        )
        for ratio in left
    ]
    # The log ratio has standard error .15 sqrt(2 / 12) = .061; parity needs its 90 % interval, +-.10, inside +-.223:
    # |z| < 2.0 where nothing is left (95 %), z < .4 at 1.1 (66 %), z < -1 at 1.2 (16 %), never at 1.6.
    assert power == sorted(power, reverse=True)
    assert power[0] >= 34
    assert power[-1] == 0


@pytest.mark.usefixtures("only_excess_bits")
def test_at_the_edge_of_parity_the_verdict_errs_at_its_nominal_rate():
    hits = count_supported(
        lambda rng: parity(retention_study((3.0, 1.25), rng=rng, each=16), rng=rng),
        PARITY,
        hypothesis="H-039",
        replicates=REPLICATES,
        seed=40,
    )
    # a ratio of exactly 1.25 is the edge of "no parity": shown to be inside in 5 % of tables
    assert within_band(hits, REPLICATES), hits


@pytest.mark.usefixtures("only_excess_bits")
@pytest.mark.parametrize(
    ("ratios", "permuted"),
    [((1.0, 1.0), False), ((1.6, 1.6), False), ((3.0, 1.0), True)],
    ids=["equal exposure", "k changes nothing", "permuted languages"],
)
def test_without_an_effect_support_is_rare(ratios, permuted):
    def draw(rng):
        study = retention_study(ratios, rng=rng)
        if permuted:
            study = retention_study(ratios, rng=rng, tier=permuted_tiers(study.tier, rng=rng))
        return parity(study, rng=rng)

    found = replicated(draw, replicates=REPLICATES, seed=41)
    # The verdict asks for a disparity at k = 0 and for parity later: where neither is true, both hardly ever show.
    assert sum(supported(one, PARITY, hypothesis="H-039") for one in found) <= binomial_band(REPLICATES, 0.05)[1]
    if ratios == (1.0, 1.0):
        # The first of the two has a level of its own: the 95 % interval at k = 0 leaves 1 out in 5 % of tables. (Dealt
        # anew among languages of two kinds it is left out less often: a deal mixes both kinds in every tier, an
        # interval that draws languages one by one allows for tiers of one kind.)
        shown = sum(interval["low"] > 1 or interval["high"] < 1 for interval in map(at_start, found))
        assert within_band(shown, REPLICATES), shown


def at_start(finding):
    return finding.data["rows"][0]["disparity"]["excess_bits"]["ratio"]
