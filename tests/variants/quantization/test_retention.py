"""Which weights are kept, and what keeping them does to the grid."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest
import torch
from evenbits.errors import NonFiniteError, SpecError
from evenbits.variants.quantization.importance import MeasuredImportance
from evenbits.variants.quantization.matrices import quantize_matrix
from evenbits.variants.quantization.retention import GlobalChoice, largest, random_scores, retention_scores
from evenbits.variants.quantization.spec import Keep, parse_spec
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

SCORES = arrays(np.float32, st.integers(1, 200), elements=st.integers(0, 9).map(float))


def keep(text):
    return parse_spec(f"int4-row+keep{text}").keep


def scores(w_OI, text, *, importance=None, rounded=None, seed=0, name="layer"):
    return retention_scores(
        torch.tensor(w_OI, dtype=torch.float32),
        keep(text),
        name=name,
        rounded=rounded,
        importance=importance,
        seed=seed,
    ).tolist()


def expected(flat, count):
    """Largest first, ties to the lowest index, in plain Python."""
    return sorted(sorted(range(len(flat)), key=lambda i: (-flat[i], i))[:count])


OUTLIERS = torch.tensor([[100.0, 1, 2, 3], [-1, 2, 100, 3]])
"""keep25% keeps 2 of 8 weights: the two of 100."""


def squared_error(refit):
    grid = parse_spec("int4-row").grid
    kept_K = largest(OUTLIERS.abs(), 2)
    values = quantize_matrix(OUTLIERS, grid, kept_K=kept_K, refit=refit).values
    return float((values - OUTLIERS).double().square().sum())


def test_keeping_outliers_without_refitting_the_grid_saves_nothing_else():
    # scale FP16(100 / 7) = 14.289...: 1, 2, 3 are below half a step and become 0. Only the 100s are exact.
    # Per row 1 + 4 + 9 = 14, two rows.
    assert squared_error(refit=False) == 28


def test_keeping_outliers_takes_them_out_before_the_grid_is_fitted():
    # scale FP16(3 / 7) = 1755 / 4096. 1, 2, 3 are 2.33, 4.67, 7.002 steps and become 2, 5, 7 steps, off by
    # (4096 - 2 * 1755) / 4096 = 586 / 4096, (8192 - 5 * 1755) / 4096 = -583 / 4096 and
    # (12288 - 7 * 1755) / 4096 = 3 / 4096
    per_row = (586**2 + 583**2 + 3**2) / 4096**2
    assert squared_error(refit=True) == pytest.approx(2 * per_row, rel=1e-6)


def test_the_planned_way_refits_the_grid():
    from evenbits.variants.quantization.matrices import quantize_planned
    from evenbits.variants.quantization.planning import Plan, PlannedTensor

    spec = parse_spec("int4-row+keep25%:magnitude")
    tensor = PlannedTensor(name="a", part="mlp", shape=(2, 4), status="quantized", grid=spec.grid, kept=2)
    (matrix,) = quantize_planned(Plan(spec=spec, tensors=(tensor,)), lambda _name: OUTLIERS)
    assert matrix.kept.tolist() == [0, 6]
    assert matrix.kept_values.tolist() == [100, 100]
    assert matrix.scales.scale.tolist() == [[1755 / 4096]] * 2


def test_measurements_are_taken_before_the_first_tensor_is_given_also_where_it_keeps_nothing():
    from evenbits.variants.quantization.matrices import quantize_planned
    from evenbits.variants.quantization.planning import Plan, PlannedTensor

    asked = []

    class Watched(MeasuredImportance):
        def input_rms(self, name, languages):
            asked.append((name, languages))
            return super().input_rms(name, languages)

    spec = parse_spec("int4-row+keep1%:activation[de]+clip:mse[ka]")
    tensors = tuple(
        PlannedTensor(name=name, part="mlp", shape=(2, 4), status="quantized", grid=spec.grid, kept=kept)
        for name, kept in (("first", 0), ("second", 1))
    )
    moments = {tag: dict.fromkeys(("first", "second"), np.ones(4)) for tag in ("de", "ka")}
    made = quantize_planned(
        Plan(spec=spec, tensors=tensors), lambda _name: OUTLIERS, importance=Watched(second_moment=moments)
    )
    next(made)
    assert {languages for _, languages in asked} == {("de",), ("ka",)}
    assert [matrix.kept.tolist() for matrix in made] == [[0]]


def test_kept_weights_are_fp16_numbers():
    # 0.1 in FP16 is 0.0999755859375; 1e9 is beyond FP16 and is saturated
    w = torch.tensor([[0.1, 1e9, 0.5, 0.25]])
    matrix = quantize_matrix(w, parse_spec("int4-row").grid, kept_K=torch.tensor([0, 1]))
    assert matrix.values[0, :2].tolist() == [0.0999755859375, 65504]
    assert matrix.kept_values.dtype == torch.float16


def test_keeping_everything_gives_the_weights_back():
    w = torch.tensor([[1.5, -2.0, 0.25, 8.0]])
    matrix = quantize_matrix(w, parse_spec("int2-row-asym").grid, kept_K=torch.arange(4))
    assert torch.equal(matrix.values, w)


def test_the_kept_weights_leave_an_asymmetric_range_too():
    # without the 100 the range is [-1, 2]: scale 1, zero 1
    w = torch.tensor([[100.0, -1, 1, 2]])
    matrix = quantize_matrix(w, parse_spec("int2-row-asym").grid, kept_K=torch.tensor([0]))
    assert torch.equal(matrix.values, w)


def test_clipping_does_not_see_the_kept_weights():
    w = torch.tensor([[100.0, 7, -6, 5]])
    matrix = quantize_matrix(w, parse_spec("int4-row").grid, kept_K=torch.tensor([0]), clip=True)
    assert torch.equal(matrix.values, w)


@given(flat=SCORES, data=st.data())
@settings(deadline=None, max_examples=50)
def test_exactly_the_largest_are_kept_and_ties_go_to_the_lowest_index(flat, data):
    count = data.draw(st.integers(0, len(flat)))
    assert largest(torch.from_numpy(flat), count).tolist() == expected(flat.tolist(), count)


@pytest.mark.parametrize("shape", ["spread", "ties", "late", "constant"])
@pytest.mark.parametrize("count", [1, 40, 4000, 39_999])
def test_the_choice_among_many_is_exact(shape, count):
    rng = np.random.default_rng(0)
    flat = {
        "spread": rng.standard_normal(40_000),
        "ties": rng.integers(0, 20, 40_000),
        "late": np.r_[np.zeros(39_000), np.arange(1000)],  # the sample misreads this one
        "constant": np.ones(40_000),
    }[shape].astype(np.float32)
    assert largest(torch.from_numpy(flat), count).tolist() == expected(flat.tolist(), count)


def test_a_misleading_sample_does_not_change_the_choice():
    flat = torch.zeros(61 * 1000)
    flat[::61] = 1  # everything that is sampled is large, and there are fewer of them than are kept
    kept = largest(flat, 5000)
    assert len(kept) == 5000
    assert set(range(0, 61_000, 61)) <= set(kept.tolist())


def test_scores_that_are_no_numbers_are_refused():
    with pytest.raises(NonFiniteError, match="NaN"):
        largest(torch.tensor([1.0, float("nan")]), 1)


@given(parts=st.lists(SCORES, min_size=1, max_size=4), data=st.data())
@settings(deadline=None, max_examples=50)
def test_the_global_choice_equals_sorting_everything_at_once(parts, data):
    count = data.draw(st.integers(0, sum(map(len, parts))))
    choice = GlobalChoice(count)
    for number, part in enumerate(parts):
        choice.offer(f"t{number}", torch.from_numpy(part))
    starts = np.cumsum([0, *map(len, parts)])
    kept = [int(start) + i for number, start in enumerate(starts[:-1]) for i in choice.kept(f"t{number}").tolist()]
    assert kept == expected(np.concatenate(parts).tolist(), count)


def test_magnitude_is_the_absolute_weight():
    assert scores([[1, -3], [2, 0]], "1%:magnitude") == [[1, 3], [2, 0]]


def test_activation_weighs_by_the_inputs_of_the_chosen_languages():
    importance = MeasuredImportance(
        second_moment={"de": {"layer": np.array([1.0, 4.0])}, "ka": {"layer": np.array([7.0, 0.0])}}
    )
    # rms over both: sqrt((1 + 7) / 2) = 2 and sqrt((4 + 0) / 2); over German alone 1 and 2
    assert scores([[1, -3]], "1%:activation", importance=importance) == [[2, pytest.approx(3 * 2**0.5)]]
    assert scores([[1, -3]], "1%:activation[de]", importance=importance) == [[1, 6]]


def test_super_weight_scores_join_input_and_output_peaks():
    importance = MeasuredImportance(peak={"layer": (np.array([1.0, 10.0]), np.array([2.0, 5.0]))})
    assert scores([[1, -1], [3, 0]], "1%:superweight", importance=importance) == [[2, 20], [15, 0]]


def test_sensitivity_is_gradient_weighted_squared_error_of_rounding():
    importance = MeasuredImportance(gradient_second_moment={"de": {"layer": np.array([[4.0, 1.0]])}})
    rounded = torch.tensor([[0.5, 4.0]])
    # (1 - .5)^2 * 4 = 1 and (2 - 4)^2 * 1 = 4
    assert scores([[1, 2]], "1%:sensitivity", importance=importance, rounded=lambda: rounded) == [[1, 4]]


def test_random_scores_depend_on_seed_and_name_only():
    first = random_scores("a", (3, 4), seed=0)
    random_scores("b", (30, 4), seed=0)
    assert torch.equal(random_scores("a", (3, 4), seed=0), first)
    assert not torch.equal(random_scores("b", (3, 4), seed=0), first)
    assert not torch.equal(random_scores("a", (3, 4), seed=1), first)
    assert 0 <= float(first.min()) <= float(first.max()) < 1


@pytest.mark.parametrize(
    ("text", "importance", "message"),
    [
        ("1%:activation", None, "none were given"),
        ("1%:activation", MeasuredImportance(), "layer: no input second moments"),
        ("1%:sensitivity", MeasuredImportance(), "layer: no squared gradients"),
        ("1%:superweight", MeasuredImportance(), "layer: no activation peaks"),
        ("1%:activation[ka]", MeasuredImportance(second_moment={"de": {"layer": [1.0, 1.0]}}), "in ka; there are de"),
        ("1%:activation[de]", MeasuredImportance(second_moment={"de": {"other": [1.0, 1.0]}}), "layer: no input"),
        ("1%:activation", MeasuredImportance(second_moment={"de": {"layer": [1.0]}}), r"shape \(1,\).*\(2,\)"),
        ("1%:superweight", MeasuredImportance(peak={"layer": ([1.0, 1.0], [1.0, 1.0])}), r"output peaks.*\(1,\)"),
    ],
)
def test_a_missing_or_misshapen_measurement_is_named(text, importance, message):
    with pytest.raises(SpecError, match=message):
        scores([[1, 2]], text, importance=importance)


def test_kept_counts_are_exact_for_every_criterion():
    rng = np.random.default_rng(0)
    w = torch.from_numpy(rng.standard_normal((30, 40)).astype(np.float32))
    importance = MeasuredImportance(
        second_moment={"de": {"layer": rng.random(40)}},
        gradient_second_moment={"de": {"layer": rng.random((30, 40))}},
        peak={"layer": (rng.random(40), rng.random(30))},
    )
    for criterion in ("magnitude", "activation", "sensitivity", "superweight", "random"):
        rule = Keep(percent=Decimal("1.5"), criterion=criterion)
        found = retention_scores(
            w, rule, name="layer", rounded=lambda: torch.zeros_like(w), importance=importance, seed=0
        )
        assert len(largest(found, rule.count(w.numel()))) == 18  # 1.5 % of 1200
