"""Users' text is text: one list of nasty strings, put into every free field at once, through every output."""

import csv
import io
import json
import re
import xml.etree.ElementTree as ET
from functools import cache
from html.parser import HTMLParser

import nasty_texts
import pytest
from evenbits.estimates import Estimate, Finding, Threshold, judge
from evenbits.printable import printable
from evenbits.report.compare import compare, comparison_markdown
from evenbits.report.comparison_page import comparison_html
from evenbits.report.document import dump, load, validate, write
from evenbits.report.escaping import csv_text, markdown_code, markdown_prose, markdown_text
from evenbits.report.html import html
from evenbits.report.junit import junit_xml
from evenbits.report.markdown import markdown
from evenbits.report.model_card import model_card
from evenbits.report.policy_draft import policy_draft
from evenbits.report.summary import summary
from evenbits.report.tables import damage_table, measurement_table
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from report_documents import realistic

WORDS_OF_OURS = {
    "verdict",
    "op",
    "role",
    "language",
    "languages",
    "tag",
    "tier",
    "started",
    "outcome",
    "class",
    "kind",
    "kurtosis_class",
    "part",
    "as",
    "labels",
}
"""Keys whose texts are ours or a schema's: everything else in a report may have come from anybody."""

nasty = pytest.mark.parametrize("text", nasty_texts.NASTY.values(), ids=nasty_texts.NASTY.keys())


@cache
def clean():
    whole = realistic(kept=(0.0,), layers=2)
    whole["damage"] = [row for row in whole["damage"] if row["language"] in {"de", "en", "sw"}]
    for row in whole["damage"]:
        row["excess_bits_by_segment"] = [1.0, 2.5, 4.0]
    for outcome, language in (("fail", "sw"), ("excused", "de"), ("missing", "en")):
        finding = Finding(
            estimate=Estimate(value=12.0, low=11.0, high=13.0, n=3, method="BCa"),
            data={"outcome": outcome, "language": language, "because": "waiver: accepted for the pilot"},
        )
        row = judge(
            finding,
            Threshold(metric="excess_bits", op="<", bound=9.0, why="policy"),
            hypothesis="gate",
            role="gate",
            test=f"test_language_stays_within_the_policy[{language}]",
            model="reference:b3",
            spec="int4-g64",
        )
        whole["measurements"].append(row.to_json())
    whole["sections"] = [{"title": "Energy", "text": "Joule", "columns": ["of"], "rows": [["gpu"], [None]]}]
    validate(whole)
    return json.dumps(whole)


def filled(text):
    """Return the report with `text` around every free text of it."""

    def put(value, key=""):
        if isinstance(value, dict):
            return {name: put(inner, name) for name, inner in value.items()}
        if isinstance(value, list):
            return [put(inner, key) for inner in value]
        free = isinstance(value, str) and key not in WORDS_OF_OURS
        return f"{text} {value} {text}" if free else value

    whole = put(json.loads(clean()))
    validate(whole)
    return whole


def tokens(text):
    """Return the kinds of what Markdown makes of `text`, and its HTML, in GitHub's flavour."""
    parsed = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(text)
    every = [one for block in parsed for one in (block, *(block.children or []))]
    marks = {
        name for one in every if one.type.startswith("html") for name in re.findall(r"</?\w+[^>]*>|<!", one.content)
    }
    return {one.type for one in every} - {"text", "inline"}, marks


OURS = {f"<{slash}{name}>" for name in ("details", "summary", "sub", "span", "code") for slash in ("", "/")}


def check_markdown(text, kinds):
    found, marks = tokens(text)
    assert found <= kinds | {"code_inline", "html_inline", "text_special"}  # `OURS` below
    assert marks <= OURS
    assert nasty_texts.obeyed(text) == []
    loose = re.sub(r"`[^`\n]*`", "", text)
    assert not re.search(r"://|www\.|(?<!>)\$|(?<!>)@\w", loose), (
        "GitHub would make a link, a formula or a mention of it"
    )


@nasty
def test_the_summary_for_github_gains_no_markup(text):
    kinds, _ = tokens(markdown(json.loads(clean())))
    check_markdown(markdown(filled(text)), kinds)


@nasty
def test_a_model_card_gains_no_markup(text):
    whole = filled(text)
    model = whole["damage"][0]["model"]
    first, second = (model_card(one, one["damage"][0]["model"]) for one in (json.loads(clean()), whole))
    kinds, _ = tokens(first.rpartition("\n---\n")[2])
    check_markdown(second.rpartition("\n---\n")[2], kinds)
    assert model.strip()


@nasty
def test_a_comparison_gains_no_markup(text):
    def compared(whole):
        found = compare(whole, {**whole, "environment": {**whole["environment"], "dtype": f"{text} float32"}})
        return comparison_markdown(found), comparison_html(found, after=text, before=text)

    (first, page), (second, other_page) = compared(json.loads(clean())), compared(filled(text))
    check_markdown(second, tokens(first)[0])
    assert elements(other_page) <= elements(page)
    assert nasty_texts.obeyed(other_page) == []


class Elements(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = set()

    def handle_starttag(self, tag, attributes):
        self.found.add((tag, tuple(sorted(name for name, _ in attributes))))


def elements(page):
    parser = Elements()
    parser.feed(page)
    return parser.found


@nasty
def test_the_page_gains_no_element_and_no_attribute(text):
    page = html(filled(text))
    assert elements(page) <= elements(html(json.loads(clean())))
    assert nasty_texts.obeyed(re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)) == []
    data = re.search(r'<script type="application/json"[^>]*>(.*?)</script>', page, re.DOTALL)
    assert nasty_texts.obeyed(json.dumps(json.loads(data[1]), ensure_ascii=False)) == []


@nasty
@pytest.mark.parametrize("verbose", [False, True])
def test_the_terminal_gets_no_code_and_every_line_stays_one(text, verbose):
    lines = ["".join(span.text for span in line) for line in summary(filled(text), verbose=verbose)]
    assert nasty_texts.obeyed("".join(lines)) == []
    assert not any("\n" in line for line in lines)


@nasty
def test_no_cell_of_a_table_runs_as_a_formula(text):
    whole = filled(text)
    for table in (damage_table(whole), measurement_table(whole)):
        for cells in csv.reader(io.StringIO(table.to_csv())):
            assert nasty_texts.obeyed("".join(cells)) == []
            for cell in cells:
                number = re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?", cell)
                assert number or not cell.lstrip(" ").startswith(("=", "+", "-", "@"))


@nasty
def test_junit_can_be_read_and_holds_no_code(text):
    written = junit_xml(filled(text))
    for element in ET.fromstring(written).iter():  # noqa: S314 - our own
        assert nasty_texts.obeyed("".join(element.attrib.values())) == []


@nasty
def test_a_policy_draft_is_toml_of_limits_alone(text):
    import tomllib

    drafted = [tomllib.loads(policy_draft(whole)) for whole in (json.loads(clean()), filled(text))]
    assert drafted[0] == drafted[1]


@nasty
def test_a_report_is_written_and_read_back_as_it_was(text, tmp_path):
    whole = filled(text)
    write(tmp_path / "report.json", dump(whole))
    shown = re.sub("[\ud800-\udfff]", lambda half: f"\\u{ord(half[0]):04x}", text)  # what has no UTF-8 is written out
    assert load(tmp_path / "report.json") == filled(shown)


@nasty
def test_what_is_shown_says_what_was_there(text):
    """Escaping hides nothing: letters and signs stay, codes are written out by their number."""
    shown = printable(text)
    assert [one for one in shown if one.isalpha()][:1] == [one for one in text if one.isalpha()][:1] or "\\" in shown
    rendered = MarkdownIt("commonmark", {"html": True}).enable("table").renderInline(markdown_text(text))
    plain = re.sub(r"<[^>]*>", "", rendered)
    for entity, character in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&amp;", "&")):
        plain = plain.replace(entity, character)
    assert plain == " ".join(shown.split())


@nasty
def test_commands_in_a_sentence_are_code_whatever_stands_beside_them(text):
    """The report's own sentences name commands between backticks, and hold names of users."""
    rendered = MarkdownIt("commonmark", {"html": True}).renderInline(markdown_prose(f"`evenbits protect` for {text}"))
    if "`" not in text:
        assert rendered.startswith("<code>evenbits protect</code> for ")
    assert not re.search(r"<(?!/?(code|span)>)", rendered)


@given(st.text())
def test_printable_text_has_no_codes_and_stays_as_it_is_the_second_time(text):
    once = printable(text)
    assert nasty_texts.obeyed(once) == []
    assert printable(once) == once
    assert csv_text(text).isprintable() or nasty_texts.obeyed(csv_text(text)) == []


def test_letters_of_any_script_joiners_and_emoji_stay():
    text = "हिन्दी فارسی‌زبان 日本語 ქართული 👩‍👩‍👧 ✅️"
    assert printable(text) == text
    assert printable("one\ntwo", lines=True) == "one\ntwo"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("reference:a1", "`reference:a1`"),
        ("int4-g64+keep0.1%:magnitude", "`int4-g64+keep0.1%:magnitude`"),
        ("a`b", r"<code>a\`b</code>"),
        ("a | b", r"<code>a \| b</code>"),
    ],
)
def test_tame_names_are_code_between_backticks_and_others_are_an_element(text, shown):
    assert markdown_code(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("1.4 [1.2, 1.6], needed < 1.25", "1.4 [1.2, 1.6], needed &lt; 1.25"),
        ("class_stability", "class_stability"),
        ("1. first", r"1\. first"),
        ("0.017", "0.017"),
        ("# heading", r"\# heading"),
        ("> quote", r"\> quote"),
        ("a:b c", "a:b c"),
    ],
)
def test_ordinary_text_is_left_as_it_is_in_markdown(text, shown):
    assert markdown_text(text) == shown


def test_a_lone_backtick_is_a_character():
    assert markdown_prose("a`b") == r"a\`b"
    assert markdown_prose("use `evenbits rank`") == "use `evenbits rank`"
