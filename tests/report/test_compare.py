"""Two reports compared: paired over segments, tested over all languages at once; and what is refused."""

import copy

import chromium
import numpy as np
import pytest
from evenbits.errors import ReportError
from evenbits.report.compare import compare, comparison_markdown, word
from evenbits.report.comparison_page import comparison_html
from report_documents import realistic

TAGS = ("de", "en", "sw")
SEGMENTS = 40


def document(shift=None, **environment):
    """A report with values by segment; `shift`: bits that a language loses more on every segment, by tag."""
    whole = realistic(kept=(0.0,), layers=2)
    whole["environment"].update(environment)
    whole["damage"] = [row for row in whole["damage"] if row["language"] in TAGS]
    rng = np.random.default_rng(1)
    noise = np.random.default_rng(2 if shift else 1)
    for row in whole["damage"]:
        base = rng.normal(row["excess_bits"]["value"], 9.0, SEGMENTS)  # segments differ far more than the runs do
        values = base + (shift or {}).get(row["language"], 0.0) + (noise.normal(0, 0.3, SEGMENTS) if shift else 0.0)
        row["excess_bits_by_segment"] = [float(value) for value in values]
        row["segments"] = SEGMENTS
    return whole


@pytest.fixture(scope="module")
def worse():
    return compare(document({"sw": 1.0, "de": -1.0, "en": 0.0}), document())


def test_pairing_shows_a_change_far_smaller_than_the_scatter_of_segments(worse):
    found = {one.language: one for one in worse.changes if one.spec == "int4-g64"}
    # The difference of each pair is the shift with a scatter of .3: its mean is within 3 x .3 / sqrt(40) = .14 of it,
    # while a mean over segments scatters by 9 / sqrt(40) = 1.4, more than the shift.
    assert found["sw"].difference.value == pytest.approx(1.0, abs=0.15)
    assert found["sw"].difference.low > 0.7
    assert [word(found[tag]) for tag in ("sw", "de")] == ["worse", "better"]
    assert word(found["en"]) == "not shown"
    assert found["en"].difference.low < 0 < found["en"].difference.high


def test_p_values_are_those_of_joint_flips_over_the_languages_of_a_model_and_spec(worse):
    for spec in ("int4-g64", "int3-row"):
        found = sorted((one.p_value, one.adjusted_p) for one in worse.changes if one.spec == spec)
        assert all(p <= adjusted <= min(1.0, len(TAGS) * p) for p, adjusted in found)
        assert [adjusted for _, adjusted in found] == sorted(adjusted for _, adjusted in found)
    least = {one.least_p for one in worse.changes}
    assert least == {1 / 10_000}  # 9,999 random flips of 40 segments
    sw = next(one for one in worse.changes if one.language == "sw")
    assert sw.worse_p == pytest.approx(1 / 10_000)


def test_what_became_worst_stands_first_within_each_spec(worse):
    for spec in ("int4-g64", "int3-row"):
        assert [one.language for one in worse.changes if one.spec == spec] == ["sw", "en", "de"]


def test_a_report_compared_with_itself_differs_nowhere():
    whole = document()
    found = compare(whole, copy.deepcopy(whole))
    assert {one.difference.value for one in found.changes} == {0.0}
    assert {word(one) for one in found.changes} == {"no difference"}
    assert found.warnings == ()


def test_another_corpus_is_refused_and_another_environment_named():
    other = document()
    other["inputs"]["corpus"]["digest"] = "ee" * 32
    with pytest.raises(
        ReportError, match=r"the baseline measured other text \(gettext, digest eeeeeeeeeeee, here c0c0"
    ):
        compare(document(), other)
    found = compare(document(dtype="float32"), document())
    assert found.warnings == ("dtype bfloat16 -> float32",)
    assert "the environments differ: dtype bfloat16" in comparison_markdown(found)


def test_a_report_without_segments_and_one_with_others_are_refused():
    bare = document()
    del bare["damage"][0]["excess_bits_by_segment"]
    with pytest.raises(ReportError, match="the baseline has no `excess_bits_by_segment` for de"):
        compare(document(), bare)
    short = document()
    for row in short["damage"]:
        row["excess_bits_by_segment"].pop()
    with pytest.raises(ReportError, match="different numbers of segments"):
        compare(document(), short)


def test_a_candidate_is_compared_with_the_model_it_replaces_and_what_has_no_partner_is_named():
    now = document({"sw": 1.0})
    for row in now["damage"]:
        row["model"] = "candidate"
    found = compare(now, document())
    assert found.pairs == {("candidate", spec): ("reference:b3", spec) for spec in ("int3-row", "int4-g64")}
    then = document()
    then["damage"] = [row for row in then["damage"] if row["spec"] == "int4-g64"]
    assert compare(document(), then).unmatched == ("reference:b3 int3-row only here",)


def test_languages_that_only_one_report_has_are_named():
    then = document()
    first = then["damage"][0]
    then["damage"] = [row for row in then["damage"] if row["language"] != first["language"]]
    pairs = {f"{row['model']} {row['spec']}" for row in document()["damage"] if row["language"] == first["language"]}
    now, before = compare(document(), then), compare(then, document())
    assert set(now.unmatched) == {f"{pair} in {first['language']} only here" for pair in pairs}
    assert set(before.unmatched) == {f"{pair} in {first['language']} only in the baseline" for pair in pairs}


def test_all_forms_give_every_language_the_same_numbers(worse):
    markdown, page = comparison_markdown(worse), comparison_html(worse, after="new.json", before="old.json")
    sw = next(one for one in worse.changes if one.language == "sw" and one.spec == "int4-g64")
    shown = f"{sw.difference.value:+.2f}"
    assert f"| {shown} [" in markdown
    assert f">{shown} [" in page
    assert (
        markdown.count("| worse |") == page.count('v-not_supported">worse</span>') == 2
    )  # one of three languages, two specs
    assert "Swahili" in page
    assert page.count('<svg class="change"') == len(worse.changes)


def test_what_goes_by_another_name_in_the_baseline_is_named_in_markdown():
    before, after = document(), document()
    for row in after["damage"]:
        row["model"] = "mine"
    text = comparison_markdown(compare(after, before))
    assert "\n- mine int4-g64 is compared with reference:b3 int4-g64\n" in text
    assert "is compared with" not in comparison_markdown(compare(before, before))


def test_the_page_counts_its_words_first(worse):
    page = comparison_html(worse, after="a", before="b")
    (counts,) = [line for line in page.splitlines() if 'class="tallies"' in line]
    words = [f"<b>{sum(word(one) == name for one in worse.changes)}</b> {name}</span>" for name in ("better", "worse")]
    assert all(one in counts for one in words)
    assert counts.endswith(f"of {len(worse.changes)} cases</p>")


def test_names_in_the_page_are_text_and_never_markup(worse):
    page = comparison_html(worse, after="<script>alert(1)</script>", before="a&b")
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "a&amp;b" in page


@pytest.mark.skipif(chromium.find() is None, reason="needs Chromium")
def test_the_page_fits_a_phone_and_loads_nothing(worse, tmp_path):
    file = tmp_path / "comparison.html"
    file.write_text(comparison_html(worse, after="new.json", before="old.json"), encoding="utf-8")
    with chromium.browser() as tab:
        tab.open(file, width=390, height=800)
        assert tab.run("document.documentElement.scrollWidth") <= 390
        assert tab.errors == []
        assert all(address.startswith(("file:", "data:")) for address in tab.requests)
