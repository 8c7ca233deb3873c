"""The first screen: what a reader asks first, answered in sentences."""

import numpy as np
import pytest
import scipy.stats
from evenbits.estimates import Estimate, Finding, Threshold, Verdict, judge
from evenbits.report.glossary import GLOSSARY, METRICS, plain_metric, tooltip
from evenbits.report.opening import headline, levels_note, opening
from evenbits.studies.gate.harm import harms
from report_documents import realistic


def found(value, low=None, high=None, reason=None):
    return {"value": value, "low": low, "high": high, "n": 6, "method": "BCa", "reason": reason}


def row(language, bits, share, *, spec="int3-row", model="m", shown=True, weight=3.11):
    return {
        "model": model,
        "spec": spec,
        "language": language,
        "segments": 6,
        "bits_per_weight": weight,
        "excess_bits": found(bits, bits / 2 if shown else -1.0, bits * 2),
        "relative_increase": found(share, share / 2, share * 2),
    }


def in_segments(rows, *, spread=0.01):
    """The rows with bits of six segments, which differ by a share of their mean."""
    steps = spread * (np.arange(6) - 2.5)
    return [{**one, "excess_bits_by_segment": (one["excess_bits"]["value"] * (1 + steps)).tolist()} for one in rows]


def document(damage, measurements=(), verdicts=None):
    names = {"ko": "Korean", "ja": "Japanese", "de": "German", "fr": "French", "en": "English"}
    return {
        "environment": {"seed": 0},
        "inputs": {
            "models": [{"text": "m"}],
            "specs": [{"text": "int3-row"}],
            "corpus": {
                "text": "gettext",
                "segments": {"evaluation": 6},
                "languages": [{"tag": tag, "name": name} for tag, name in names.items()],
            },
        },
        "damage": list(damage),
        "measurements": list(measurements),
        "verdicts": verdicts or {},
    }


FIVE = [
    row("ko", 12.0, 0.034),
    row("ja", 8.0, 0.024),
    row("de", 3.0, 0.012),
    row("fr", 2.0, 0.007),
    row("en", 1.0, 0.003, shown=False),
]


def said(whole):
    return {answer.label: answer.text.replace("\N{NO-BREAK SPACE}", " ") for answer in opening(whole)}


def test_without_a_gate_it_says_what_it_costs_who_pays_whether_that_is_noise_and_what_to_do():
    answers = said(document(FIVE))
    assert list(answers) == ["cost", "who pays", "noise", "next"]
    # mean of 3.4, 2.4, 1.2, .7 and .3 per cent: 8.0 / 5
    assert answers["cost"] == (
        "int3-row (3.11 bits per weight) makes the model 1.6 % worse at predicting the same text (mean of 5 languages)."
    )
    # the middle of five loses 3 bits, the worst 12
    assert answers["who pays"] == (
        "Korean: 12.0 [6.00, 24.0] bits more per segment, 3.4 % [1.7 to 6.8 %], 4.0 times the middle language "
        "(German, 3.00); then Japanese 8.00 (2.4 %), German 3.00 (1.2 %); least English 1.00 (0.3 %)."
    )
    assert answers["noise"].startswith("4 of 5 languages are shown to lose; 6 segments each leave the others open.")
    assert "evenbits protect m --spec int3-row" in answers["next"]
    assert headline(document(FIVE)) == "Who pays for quantization"


def pooled(**bits):
    return [{**one, "pooled_bits": found(bits[one["language"]])} for one in FIVE]


def test_who_pays_most_is_ordered_by_pooled_values_and_told_as_tables_do_with_these_beside_it():
    who = said(document(pooled(ko=7.0, ja=7.5, de=4.0, fr=3.0, en=1.0)))["who pays"]
    # the middle of the five is de with 4 bits: 7.5 / 4
    assert who == (
        "Japanese: 8.00 [4.00, 16.0] bits more per segment, 2.4 % [1.2 to 4.8 %]; pooled 7.50 (likelier: few segments "
        "overstate differences), 1.9 times the middle language (German, pooled 4.00); then Korean 12.0 (pooled 7.00, "
        "3.4 %), German 3.00 (1.2 %); least English 1.00 (0.3 %)."
    )


def test_no_language_is_the_worst_where_pooled_values_are_shown_alike():
    all_alike = document(pooled(ko=5.2, ja=5.2, de=5.2, fr=5.2, en=5.2))
    assert said(all_alike)["who pays"] == (
        "The 5 languages cannot be told apart: pooled 5.20 bits more per segment, measured 1.00 to 12.0."
    )
    # 7.001 and 7.002 are shown as the same number; order of the alphabet or of floating point names nobody
    two_alike = document(pooled(ko=7.001, ja=7.002, de=4.0, fr=3.0, en=1.0))
    assert said(two_alike)["who pays"] == (
        "Japanese, Korean cannot be told apart: pooled 7.00 bits more per segment, measured 8.00 to 12.0; "
        "least English 1.00 (0.3 %)."
    )
    without_damage = [row(tag, 0.0, 0.0) for tag in ("ko", "ja")]
    assert said(document(without_damage))["who pays"] == (
        "The 2 languages cannot be told apart: 0 bits more per segment."
    )


def test_languages_that_are_pooled_alike_stand_in_the_order_measured():
    (harm,) = harms(document(reversed(pooled(ko=5.2, ja=5.2, de=5.2, fr=5.2, en=5.2))))
    assert [one["language"] for one in harm.ranked] == ["ko", "ja", "de", "fr", "en"]


def test_a_model_that_came_quantized_is_named_with_its_precision():
    whole = document(FIVE)
    whole["inputs"]["models"] = [{"text": "m", "precision": "Q4_K_M: 81 x Q5_0; 5.5 bits per weight"}, {"text": "n"}]
    assert said(whole)["original"] == (
        "m was in Q4_K_M (5.5 bits per weight) already: what is measured comes on top of that."
    )


def test_several_specs_stand_side_by_side():
    finer = [
        row(
            one["language"],
            one["excess_bits"]["value"] / 10,
            one["relative_increase"]["value"] / 10,
            spec="int4-g64",
            weight=4.25,
        )
        for one in FIVE
    ]
    assert said(document([*finer, *FIVE]))["cost"] == (
        "At predicting the same text (mean of 5 languages) the model gets worse with int4-g64 (4.25 bits per weight) "
        "by 0.2 %, int3-row (3.11 bits per weight) by 1.6 %."
    )


def test_what_comes_next_is_the_best_that_was_measured_at_about_the_same_size():
    def kept(spec, factor, weight):
        return [
            row(
                one["language"],
                one["excess_bits"]["value"] * factor,
                one["relative_increase"]["value"] * factor,
                spec=spec,
                weight=weight,
            )
            for one in FIVE
        ]

    rows = [
        *FIVE,
        *kept("int3-row+keep1%:magnitude", 0.25, 3.42),
        *kept("int8-g16", 0.0, 9.0),
        *kept("int3-row+keep1%:random", 0.2, 3.42),
        *kept("int3-row+keep0.1%:magnitude", 0.9, 3.2),
    ]
    whole = document(in_segments(rows), measurements=[{"spec": "int3-row", "role": "criterion", "action": None}])
    # int8-g16 takes almost three times the bits, random is a control, and a tenth less is not worth a sentence
    assert said(whole)["next"] == (
        "Use int3-row+keep1%:magnitude: 75 % less loss (Korean from 3.4 % to 0.9 %) for +0.31 bits per weight, "
        "the best measured at about that size."
    )


def test_a_remedy_that_is_not_shown_to_spare_anything_is_not_advised():
    rows = [row(one["language"], one["excess_bits"]["value"] * 0.7, 0.001, spec="int3-g64", weight=3.3) for one in FIVE]
    asked = [{"hypothesis": "H-039", "test": "t", "spec": "int3-row", "role": "criterion", "action": None}]

    def advised(damage):
        return "Use int3-g64" in said(document([*in_segments(FIVE), *damage], measurements=asked))["next"]

    assert advised(in_segments(rows))
    # .3 of the loss is spared on average, but three segments of six lose more: p is far above .05
    uneven = [{**one, "excess_bits_by_segment": [0.0] * 6} for one in rows]
    for one in uneven:
        one["excess_bits_by_segment"] = [one["excess_bits"]["value"] * by for by in (0.1, 2.0, 0.1, 1.8, 0.1, 1.9)]
    assert not advised(uneven)
    assert not advised(rows)  # without values by segment nothing is paired


def test_long_lists_of_languages_are_counted_in_a_sentence():
    listed = f"int3-row+keep1%:activation[{','.join(one['language'] for one in FIVE)}]"
    rows = [row(one["language"], one["excess_bits"]["value"] / 4, 0.001, spec=listed, weight=3.2) for one in FIVE]
    whole = document(
        in_segments([*FIVE, *rows]), measurements=[{"spec": "int3-row", "role": "criterion", "action": None}]
    )
    assert "Use int3-row+keep1%:activation[5 languages]: 75 % less" in said(whole)["next"]


def test_where_no_language_is_shown_to_lose_nothing_is_to_be_done():
    none = [row(tag, 1.0, 0.001, shown=False) for tag in ("ko", "ja", "de")]
    answers = said(document(none))
    assert answers["noise"].startswith("0 of 3 languages are shown to lose")
    assert answers["next"].startswith("Nothing has to be mended as far as this text shows")


def test_languages_are_shown_to_lose_over_all_of_them_at_once():
    """Without any damage each interval lies above 0 in one of forty: some did in half of such reports."""
    times = 0
    for trial in range(30):
        draw = np.random.default_rng([1, trial])
        none = []
        for place in range(40):
            values = draw.standard_normal(20)
            half = scipy.stats.t.ppf(0.975, 19) * values.std(ddof=1) / np.sqrt(20)
            one = row(f"l{place:02d}", 1.0, 0.001) | {"excess_bits_by_segment": values.tolist()}
            none.append(one | {"excess_bits": found(values.mean(), values.mean() - half, values.mean() + half)})
        times += not said(document(none))["noise"].startswith("0 of 40 languages are shown to lose")
    assert times <= 5  # of 30 at .05: more in .3 %


def test_what_lies_below_the_noise_floor_is_not_shown_to_lose():
    below = [one | {"excess_bits": one["excess_bits"] | {"reason": "below_floor: less than 3 times"}} for one in FIVE]
    noise = said(document(below))["noise"]
    assert noise.startswith("0 of 5 languages are shown to lose. 5 lie within what the arithmetic itself scatters.")


def test_a_language_without_a_result_is_named_with_its_reason():
    lost = row("fr", 1.0, 0.1) | {"excess_bits": found(None, reason="no segments")}
    assert "Without a result: fr (no segments)." in said(document([*FIVE[:3], lost]))["noise"]


def gate(
    language, outcome, verdict, *, value=12.0, because="The whole interval lies above the limit.", spec="int3-row"
):
    estimate = (
        Estimate.undefined(f"there is no result for {language}")
        if value is None
        else Estimate(value=value, low=value - 1, high=value + 1, n=6, method="t")
    )
    finding = Finding(
        estimate=estimate,
        verdict=verdict,
        because=because,
        data={"outcome": outcome, "language": language, "because": because},
    )
    return judge(
        finding,
        Threshold(metric="excess_bits", op="<", bound=9.0, why="policy"),
        hypothesis="gate",
        role="gate",
        test=f"test_language_stays_within_the_policy[{language}]",
        model="m",
        spec=spec,
    ).to_json()


def refused(rows):
    return document(FIVE, rows, {"gate": {"verdict": "not_supported", "by_case": []}})


def test_a_gate_that_lets_through_says_so_first():
    rows = [gate("ko", "pass", None, value=1.0, because=None)]
    whole = document(FIVE, rows, {"gate": {"verdict": "supported", "by_case": []}})
    assert headline(whole) == "May ship."
    assert said(whole)["may it ship"] == "May ship: 1 of 1 checks are shown to be within the policy."


def test_without_a_policy_nothing_is_said_of_one_and_what_is_open_is_counted():
    undecided = [gate(tag, "inconclusive", Verdict.NOT_APPLICABLE) for tag in ("ko", "de")]
    rows = [row | {"metric": "excess_bits_increase"} for row in undecided]
    passed = {"gate": {"verdict": "supported", "by_case": []}}
    open_ = "no comparison with the baseline shows a language to be worse, 2 of 2 undecided (ko, de)."
    assert said(document(FIVE, rows, passed))["may it ship"] == f"May ship: {open_}"
    rows.append(gate("ko", "pass", None, value=1.0, because=None))
    assert said(document(FIVE, rows, passed))["may it ship"] == (
        f"May ship: 1 of 1 checks are shown to be within the policy; {open_}"
    )


def test_only_what_broke_is_said_to_be_an_error():
    undecided = gate("ko", "inconclusive", Verdict.UNDERPOWERED)
    assert "next" not in said(refused([undecided]))
    broken = gate("ko", "error", Verdict.ERROR, value=None)
    assert said(refused([undecided, broken]))["next"].startswith("See the error in the report")


def test_a_gate_that_refuses_names_the_languages_the_reasons_each_once_and_what_to_do():
    rows = [
        gate("sw", "fail", Verdict.NOT_SUPPORTED),
        gate("yo", "missing", Verdict.ERROR, value=None),
        gate("yo", "missing", Verdict.ERROR, value=None),
        gate("de", "pass", None, value=1.0),
    ]
    whole = refused(rows)
    assert headline(whole) == "May not ship: yo, sw."
    answers = [answer.text for answer in opening(whole)]
    assert "May not ship: yo, sw. 3 of 4 checks stand in the way: 2 without a result, 1 above the limit." in answers
    assert sum("there is no result for yo" in text for text in answers) == 1
    assert (
        "Extra loss in bits per segment: sw 12.0 [11.0, 13.0], allowed < 9 (m int3-row). "
        "The whole interval lies above the limit." in answers
    )
    assert any("Measure the languages that are missing" in text for text in answers)


def test_languages_refused_for_the_same_reason_are_told_in_one_sentence_and_many_are_counted():
    few = "6 segments pass nothing."
    rows = [gate(f"x{place}", "fail", Verdict.UNDERPOWERED, value=place + 2.0, because=few) for place in range(10)]
    answers = list(opening(refused(rows)))
    reasons = [answer.text for answer in answers if answer.label == "why not"]
    assert len(reasons) == 1
    assert reasons[0].startswith("Extra loss in bits per segment: x0 2.00 [1.00, 3.00], x1 3.00 [2.00, 4.00], ")
    assert reasons[0].endswith("x7 9.00 [8.00, 10.0] and 2 more, allowed < 9 (m int3-row). 6 segments pass nothing.")
    assert headline(refused(rows)) == "May not ship: x0, x1, x2, x3, x4, x5, x6, x7 and 2 more."


def test_an_advice_that_differs_by_its_number_alone_is_given_once():
    rows = [gate(f"x{place}", "inconclusive", Verdict.UNDERPOWERED, because="few") for place in range(3)]
    for row, count in zip(rows, (83, 41759, 25), strict=True):
        row["action"] = f"Measure more segments (about {count} would decide), or set `inconclusive` in the policy."
    assert said(refused(rows))["next"] == (
        "Measure more segments (about 25 to 41759 would decide), or set inconclusive in the policy."
    )


def test_of_several_specs_the_one_that_may_not_ship_is_named():
    rows = [gate("sw", "fail", Verdict.NOT_SUPPORTED), gate("sw", "fail", Verdict.NOT_SUPPORTED, spec="int2-row")]
    assert headline(refused(rows)) == "May not ship: m int3-row: sw; m int2-row: sw."


def test_levels_are_explained_where_a_model_was_trained_by_lot():
    whole = document(FIVE)
    assert "in the world" in levels_note(whole, "m")
    whole["inputs"]["models"] = [{"text": "reference:a1", "exposure": {"ko": 5, "de": 9}}]
    assert "drawn by lot" in levels_note(whole, "reference:a1")


def test_a_realistic_report_opens_with_four_answers():
    assert [answer.label for answer in opening(realistic(layers=2))] == ["cost", "who pays", "noise", "next"]


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_with_a_plain_name_says_its_own_behind_it(name):
    assert tooltip(plain_metric(name))


def test_terms_are_found_by_their_plain_names_and_others_stay_words():
    assert tooltip("Extra loss, bits [95 %]").startswith("excess bits: ")
    assert plain_metric("a_new_metric") == "a new metric"
    assert len({term.plain for term in GLOSSARY}) == len(GLOSSARY)
