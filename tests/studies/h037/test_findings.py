"""H-037 on derived examples: the class by weights and by ablation, super weights, and the correlation over models."""

import math
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
import weight_records
from evenbits.cells import Subject, measure_damage
from evenbits.estimates import Verdict
from evenbits.observe.runs import training_run
from evenbits.observe.weights.superweights import SuperWeightCandidate
from evenbits.records import Corpus
from evenbits.studies.h037 import (
    SHARES,
    Ablation,
    ModelPoint,
    ablate,
    ablation_sample,
    across_models,
    class_by_ablation,
    class_by_weights,
    classes,
    clear_pattern,
    find_super_weights,
    measure_point,
    normal_energy_ratio,
    outliers_by_size,
    super_weights,
)
from evenbits.studies.h037.classes import ablation_stability


def rng(seed=0):
    return np.random.default_rng(seed)


def tensor(place, beyond, *, layer=0, size=(1000, 1000), kurtosis=1.0):
    """A tensor of which `beyond` weights lie beyond five standard deviations."""
    return replace(weight_records.tensor(layer=layer, kurtosis=kurtosis, beyond=beyond, size=size), name=f"t{place}")


def statistics(*beyond, layers=None):
    layers = layers or [0] * len(beyond)
    tensors = tuple(tensor(i, b, layer=layer) for i, (b, layer) in enumerate(zip(beyond, layers, strict=True)))
    return weight_records.of_tensors(tensors)


def ablation(share, top, random, floor=0.01):
    """Excess bits of 4 languages x 5 segments with the given means and no spread."""
    return Ablation(
        share=share,
        languages=("de", "en", "fr", "yo"),
        top=np.full((4, 5), top),
        random=np.full((4, 5), random),
        floor_bits=floor,
    )


def ablations(few, many):
    return dict(zip(SHARES, (ablation(SHARES[0], *few), ablation(SHARES[1], *many)), strict=True))


# -- class by weights --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("beyond", "label"),
    [  # of a million weights: .001 % is 10, .1 % is 1,000
        (9, "no outliers"),
        (10, "sparse"),
        (1000, "sparse"),
        (1001, "dense"),
    ],
)
def test_the_cut_offs_divide_no_outliers_sparse_and_dense(beyond, label):
    assert class_by_weights([tensor(0, beyond)]) == label


def test_the_share_is_pooled_over_weights_not_averaged_over_tensors():
    small = tensor(0, 20, size=(100, 100))  # .2 % on its own: dense
    assert class_by_weights([small]) == "dense"
    assert class_by_weights([small, tensor(1, 0)]) == "sparse"  # 20 of 1,010,000


def test_normal_weights_have_no_outliers():
    weights = rng().standard_normal(1_000_000)
    beyond = int((np.abs(weights - weights.mean()) > 5 * weights.std()).sum())
    assert class_by_weights([tensor(0, beyond)]) == "no outliers"


# -- class by ablation -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", SHARES)
def test_the_energy_of_a_normal_tail_is_that_of_the_integral(share):
    from scipy.integrate import quad

    normal = NormalDist()
    z = normal.inv_cdf(1 - share / 2)
    energy = 2 * quad(lambda x: x * x * normal.pdf(x), z, np.inf)[0]  # of both tails; all of it is 1
    assert normal_energy_ratio(share) == pytest.approx(energy / share, rel=1e-6)


def test_the_energy_of_a_normal_tail_is_that_of_normal_numbers():
    squares = np.sort(rng(1).standard_normal(2_000_000) ** 2)[::-1]
    assert normal_energy_ratio(0.01) == pytest.approx(squares[:20_000].mean() / squares.mean(), rel=0.02)


def test_concentration_is_damage_over_random_over_what_a_normal_tail_explains():
    ratio = normal_energy_ratio(1e-2)
    assert ablation(1e-2, 3 * ratio, 1.0).concentration == pytest.approx(3.0)
    # random damage below the floor counts as the floor; no damage of the largest gives no number
    assert ablation(1e-2, 3 * ratio, -5.0, floor=0.5).concentration == pytest.approx(6.0)
    assert ablation(1e-2, 0.4, 0.1, floor=0.5).concentration is None


@pytest.mark.parametrize(
    ("few", "many", "label"),
    [  # concentration at .01 % and at 1 %, cut at 2
        (2.1, 9.0, "sparse"),
        (1.9, 2.1, "dense"),
        (1.9, 1.9, "no outliers"),
        (2.0, 0.1, "sparse"),
    ],
)
def test_the_class_by_ablation_is_cut_at_twice_the_normal_tail(few, many, label):
    given = ablations(
        (few * normal_energy_ratio(SHARES[0]), 1.0), (many * normal_energy_ratio(SHARES[1]) * 1.0000001, 1.0)
    )
    if few == 2.0:
        given[SHARES[0]] = ablation(SHARES[0], 2.0000001 * normal_energy_ratio(SHARES[0]), 1.0)
    assert class_by_ablation(given) == label


def test_without_measurable_damage_there_are_no_outliers():
    assert class_by_ablation(ablations((0.0, 0.0), (0.005, 0.0))) == "no outliers"


def test_a_class_that_hangs_on_few_families_is_less_sure_than_one_of_as_many_languages(monkeypatch):
    tags = ("da", "de", "en", "et", "fi", "fr", "hu", "it", "nl", "sv")
    # what the largest weights cost, by language, around 2.4 times a normal tail's, where 2 is the cut-off
    own = np.exp(np.array([0.0, 0.1, -0.1, 0.4, 0.5, 0.0, 0.45, -0.1, 0.1, 0.05]) - 0.14)[:, None]
    scatter = 1 + 0.02 * rng(5).standard_normal((2, len(tags), 40))
    given = {
        share: Ablation(
            share=share,
            languages=tags,
            top=times * normal_energy_ratio(share) * own * scatter[0],
            random=scatter[1],
            floor_bits=0.01,
        )
        for share, times in zip(SHARES, (2.4, 1.0), strict=True)
    }
    together = ablation_stability(given, "sparse", rng=rng(6))
    monkeypatch.setattr(classes, "families_of", lambda languages: {tag: tag for tag in languages})
    alone = ablation_stability(given, "sparse", rng=rng(6))
    assert 0.5 < together < alone - 0.05
    assert ablation_stability(given, "dense", rng=rng(6)) == 0.0


def test_random_damage_below_its_floor_makes_no_class_unsure():
    scatter = rng(7).standard_normal((4, 5))
    given = {
        share: Ablation(
            share=share,
            languages=("de", "en", "fr", "yo"),
            top=6 * 0.02 * normal_energy_ratio(share) * (1 + 0.02 * scatter),
            random=0.001 + 0.05 * (scatter - scatter.mean()),  # fifty times its mean between languages and segments
            floor_bits=0.02,
        )
        for share in SHARES
    }
    assert ablation_stability(given, "sparse", rng=rng(8)) >= 0.95


# -- criterion ---------------------------------------------------------------------------------------------------------

SPARSE = ablations((5 * normal_energy_ratio(1e-4), 1.0), (1.0, 1.0))
NONE = ablations((1.0, 1.0), (1.0, 1.0))


def test_a_class_far_from_the_cut_offs_is_stable_and_agrees():
    finding = clear_pattern(statistics(*[100] * 20), SPARSE, rng=rng())
    assert finding.estimate.value == 1.0
    assert finding.verdict is None
    assert finding.data["class"] == finding.data["class_by_ablation"] == "sparse"
    assert finding.action.startswith("A few weights carry the outliers: keep them in FP16 (H-039")


def test_a_class_that_hangs_on_one_tensor_is_not_stable():
    # 19 tensors without outliers and one with 30,000 of a million: pooled .15 %, dense; without it nothing is left
    finding = clear_pattern(statistics(*[0] * 19, 30_000), SPARSE, rng=rng())
    # a resample of 20 misses it with chance .95^20 = .36; with it once .15 %: dense. So about .64 of resamples agree
    assert finding.data["class"] == "dense"
    assert finding.estimate.value == pytest.approx(1 - 0.95**20, abs=0.05)
    same = ablations((1.0, 1.0), (5 * normal_energy_ratio(1e-2), 1.0))
    assert clear_pattern(statistics(*[0] * 19, 30_000), same, rng=rng()).action.startswith("Not shown yet")


def test_a_class_that_ablation_contradicts_is_not_supported():
    finding = clear_pattern(statistics(*[100] * 20), NONE, rng=rng())
    assert finding.verdict is Verdict.NOT_SUPPORTED
    assert "by ablation no outliers" in finding.because
    assert "disagree" in finding.action


# -- few against many, and layers --------------------------------------------------------------------------------------


def test_the_damage_ratio_is_that_of_the_means():
    finding = outliers_by_size(statistics(60, 30, 10, layers=[0, 1, 2]), ablations((3.0, 0.0), (4.0, 0.0)), rng=rng())
    assert finding.estimate.value == pytest.approx(0.75)
    assert finding.estimate.low == pytest.approx(0.75)  # no spread: every resample gives the same
    assert finding.data["layers_holding_half"] == 1  # 60 of 100 sit in the first
    assert finding.data["layers"] == 3


def test_half_of_the_outliers_are_counted_over_the_fullest_layers():
    finding = outliers_by_size(statistics(10, 40, 30, 20, layers=[0, 1, 2, 3]), SPARSE, rng=rng())
    assert finding.data["layers_holding_half"] == 2  # 40 are not half of 100, 40 + 30 are
    nothing = outliers_by_size(statistics(0, 0), SPARSE, rng=rng())
    assert nothing.data["layers_holding_half"] == 0
    assert "no weight" in nothing.because.lower()


def test_without_damage_at_one_percent_there_is_no_ratio():
    finding = outliers_by_size(statistics(1), ablations((0.0, 0.0), (0.005, 0.0)), rng=rng())
    assert finding.verdict is Verdict.NOT_APPLICABLE


# -- across models -----------------------------------------------------------------------------------------------------


def points(n, *, follow=1.0, seed=2):
    draws = rng(seed)
    sparsity = draws.random(n)
    recovered = follow * sparsity + (1 - abs(follow)) * draws.random(n)
    return [
        ModelPoint(model=f"m{i}", run=f"m{i}", sparsity=float(s), damage=10.0 + i, recovered=float(r))
        for i, (s, r) in enumerate(zip(sparsity, recovered, strict=True))
    ]


@pytest.mark.parametrize("n", [1, 7])
def test_below_eight_models_the_correlation_is_underpowered_and_has_no_number(n):
    finding = across_models(points(n), rng=rng())
    assert finding.verdict is Verdict.UNDERPOWERED
    assert finding.estimate.value is None
    assert "needed 8" in finding.because


def test_a_planted_correlation_over_ten_models_is_found():
    finding = across_models(points(10), rng=rng())
    assert finding.estimate.value == pytest.approx(1.0)
    assert finding.p_value < 0.01
    assert finding.verdict is None


def test_a_correlation_of_the_other_sign_is_not_supported():
    finding = across_models(points(10, follow=-1.0), rng=rng())
    assert finding.estimate.value == pytest.approx(-1.0)
    assert finding.shown is False
    assert finding.estimate.high < 0  # the interval refutes


def test_checkpoints_of_one_run_are_one_unit():
    one_run = [
        ModelPoint(
            model=f"a-s{100 * i}", run=training_run(f"a-s{100 * i}"), sparsity=float(i), damage=5.0, recovered=float(i)
        )
        for i in range(12)
    ]
    finding = across_models(one_run, rng=rng())
    assert finding.verdict is Verdict.UNDERPOWERED
    assert "1 training run, needed 8" in finding.because
    mixed = across_models([*points(9), *one_run[:5]], rng=rng())
    assert mixed.estimate.n == 10


def test_models_without_damage_to_recover_do_not_count_as_models():
    bare = [ModelPoint(model=f"b{i}", run=f"b{i}", sparsity=0.5, damage=0.1) for i in range(5)]
    finding = across_models([*points(6), *bare], rng=rng())
    assert finding.verdict is Verdict.UNDERPOWERED
    assert "6 training runs with damage above the floor, needed 8" in finding.because


def test_models_that_are_all_alike_give_no_coefficient_and_no_crash():
    alike = [ModelPoint(model=f"m{i}", run=f"m{i}", sparsity=0.5, damage=9.0, recovered=i / 10) for i in range(9)]
    finding = across_models(alike, rng=rng())
    assert finding.estimate.value is None
    assert finding.verdict is Verdict.NOT_APPLICABLE


@pytest.mark.parametrize(
    ("text", "run"),
    [
        ("reference:eb-small-s400", "reference:eb-small"),
        ("EleutherAI/pythia-70m@step1000", "EleutherAI/pythia-70m"),
        ("org/model-s", "org/model-s"),
        ("folder/m-s12/x", "folder/m-s12/x"),
    ],
)
def test_the_training_run_is_the_name_without_its_step(text, run):
    assert training_run(text) == run


# -- on a model --------------------------------------------------------------------------------------------------------


def corpus_of(languages=("de", "fr"), segments=2):
    texts = {tag: tuple(f"{tag} {i}: the inner an the {i * 31}" for i in range(segments)) for tag in languages}
    return Corpus(
        name="hand",
        source="test",
        languages=languages,
        segment_ids=tuple(f"s{i}" for i in range(segments)),
        texts=texts,
    )


def bench(folder, store, **options):
    from evenbits.models.references import parse_model
    from evenbits.models.sources import resolve

    local = resolve(parse_model(str(folder)), store=store)
    return Subject(local=local, store=store, dtype="float32", **options)


def test_ablation_measures_a_spread_of_languages_and_segments():
    corpus = corpus_of(tuple(sorted(f"{a}{b}" for a in "abde" for b in "fgi")), segments=20)
    sample = ablation_sample(corpus)
    assert len(sample.languages) == 10
    assert (sample.languages[0], sample.languages[-1]) == (corpus.languages[0], corpus.languages[-1])
    assert len(sample) == 8


def test_ablation_zeroes_the_largest_and_three_random_draws_and_stores_them(tiny_llama, store):
    model = bench(tiny_llama, store)
    found = ablate(model, corpus_of())
    assert set(found) == set(SHARES)
    assert found[1e-2].top.shape == (2, 2)
    # the model is random, so a change may also help it; but the largest 1 % change it more than as many random ones
    assert abs(found[1e-2].top.mean()) > abs(found[1e-2].random.mean())
    assert not np.array_equal(found[1e-2].top, found[1e-4].top)
    second = bench(tiny_llama, store)  # files that rest by now are remembered
    misses = store.misses
    again = ablate(second, corpus_of())
    assert store.misses == misses
    np.testing.assert_array_equal(again[1e-2].random, found[1e-2].random)


def planted(folder, target, texts, *, row=5, column=9):
    """Copy the tiny llama and let a single weight of its first down projection carry what it knows about `texts`.

    Every token makes the hidden channel `column` large, and one weight turns it into a spike at `row` of the residual
    stream, which outshines the rest. The tied embedding's column `row` tells the tokens of `texts` from all others, so
    that the spike is a unigram model; without the weight the model is random.
    """
    import shutil

    from safetensors.numpy import load_file, save_file
    from transformers import AutoTokenizer

    shutil.copytree(folder, target)
    tokenizer = AutoTokenizer.from_pretrained(target)
    used = sorted({token for text in texts for token in tokenizer(text, add_special_tokens=False)["input_ids"]})
    tensors = load_file(target / "model.safetensors")
    mlp = "model.layers.0.mlp"
    embedding = tensors["model.embed_tokens.weight"]
    embedding[:, 3] = 4.0  # the same in every token: it opens the channel, and adds a constant to all logits
    embedding[:, row] = 0.3
    embedding[used, row] = -0.3
    tensors["model.layers.0.post_attention_layernorm.weight"][3] = 1.0
    for name in ("gate_proj", "up_proj"):
        tensors[f"{mlp}.{name}.weight"][column] = 0
        tensors[f"{mlp}.{name}.weight"][column, 3] = 8.0
    tensors[f"{mlp}.down_proj.weight"][row] = 0
    tensors[f"{mlp}.down_proj.weight"][row, column] = -40.0
    for layer in range(3):  # nothing else writes much
        others = tensors[f"model.layers.{layer}.mlp.down_proj.weight"]
        others[np.abs(others) < 40] *= 0.05
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    return target


def test_a_planted_super_weight_is_found_and_multiplies_perplexity(tiny_llama, store, tmp_path):
    texts = corpus_of()
    folder = planted(tiny_llama, tmp_path / "planted", [text for tag in texts.languages for text in texts.texts[tag]])
    model = bench(folder, store, probe=corpus_of(("de", "fr"), segments=1))
    candidates = model.super_weight_candidates()
    assert (candidates[0].name, candidates[0].row, candidates[0].column) == ("model.layers.0.mlp.down_proj", 5, 9)
    assert candidates[0].explained == pytest.approx(1.0, abs=0.05)
    found = find_super_weights(model, candidates, texts)
    assert (found[0].candidate.row, found[0].candidate.column) == (5, 9)
    assert found[0].factor > 2
    finding = super_weights(found)
    assert finding.estimate.value == found[0].factor
    for low, start in ((1.9, "Not shown yet, a first look: "), (2.1, "Keep ")):
        action = super_weights([replace(found[0], low=low)]).action
        assert action.startswith(f"{start}model.layers.0.mlp.down_proj[5, 9]")


def test_a_model_without_a_planted_weight_has_no_super_weight(tiny_llama, store):
    model = bench(tiny_llama, store, probe=corpus_of(("de", "fr"), segments=1))
    found = find_super_weights(model, model.super_weight_candidates(), corpus_of())
    assert len(found) == 3  # a candidate for each layer
    assert all(0.5 < one.factor < 2 for one in found)
    finding = super_weights(found)
    assert finding.action is None
    assert finding.summary.startswith("no super weights")


def test_the_factor_is_that_of_perplexity_per_token(tiny_llama, store, monkeypatch):
    from evenbits.records import Losses

    model = bench(tiny_llama, store)
    given = iter([10.0, 10.0 + 6 * math.log(3)])  # over two languages x three tokens

    def losses(_variant, sample):
        nll = next(given) / 2
        return {
            tag: Losses(
                language=tag, segment_ids=("s0",), nll=np.array([nll]), tokens=np.array([3]), utf8_bytes=np.array([3])
            )
            for tag in sample.languages
        }

    monkeypatch.setattr(model, "losses", losses)
    one = SuperWeightCandidate(
        name="model.layers.0.mlp.down_proj",
        layer=0,
        row=1,
        column=2,
        weight=1.0,
        input_peak=1.0,
        output_peak=1.0,
        input_ratio=1.0,
        output_ratio=1.0,
        explained=1.0,
    )
    (found,) = find_super_weights(model, [one], corpus_of(segments=1))
    assert found.factor == pytest.approx(3.0)


def test_no_down_projections_leave_nothing_to_search():
    assert super_weights(()).verdict is Verdict.NOT_APPLICABLE


def test_a_point_has_the_damage_with_and_without_kept_outliers(tiny_llama, store):
    from evenbits.variants.quantization.spec import parse_spec, parse_specs

    model = bench(tiny_llama, store)
    found = measure_point(model, parse_spec("int3-row+keep5%:random"), corpus_of())  # its keep is ignored
    table = measure_damage(model, parse_specs("int3-row,int3-row+keep0.1%:magnitude"), corpus_of())
    bare, kept = (table.excess_bits(spec).mean() for spec in table.specs)
    measurable = bare > 3 * table.columns["int3-row"].floor_bits.value  # a random model may gain from rounding
    assert found.damage == (pytest.approx(bare) if measurable else None)
    assert found.recovered == (pytest.approx(1 - kept / bare) if measurable else None)
    assert found.sparsity == model.weight_statistics().weighted("concentration")
