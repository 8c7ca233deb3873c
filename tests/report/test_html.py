"""The HTML report: what it says without a browser, and what it does in one."""

import builtins
import copy
import hashlib
import json
import os
import re
from html.parser import HTMLParser
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import chromium
import pytest
from evenbits.printable import printable
from evenbits.report import html as module
from evenbits.report.cards import cards, claims
from evenbits.report.document import validate
from evenbits.report.figures import figures
from evenbits.report.html import LIMIT, MissingTemplatesError, html
from evenbits.report.verdicts import hypotheses
from evenbits.statistics import pareto
from report_documents import LANGUAGES, TAGS, realistic

pytest.importorskip("jinja2", reason="the page needs jinja2; install evenbits[report]")

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'`{{7*7}}\u2028"


@pytest.fixture(scope="module")
def document():
    return realistic()


@pytest.fixture(scope="module")
def page(document):
    return html(document)


class Elements(HTMLParser):
    """Collects elements with their attributes, and the text outside scripts and styles."""

    def __init__(self, text):
        super().__init__()
        self.found, self.text, self._inside = [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        self._inside = tag if tag in {"script", "style"} else None

    def handle_endtag(self, _tag):
        self._inside = None

    def handle_data(self, data):
        if self._inside is None:
            self.text.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


def embedded(page):
    return json.loads(re.search(r'id="page-data">(.*?)</script>', page, re.DOTALL)[1])


# -- without a browser ------------------------------------------------------------------------------------------------


def test_the_page_loads_nothing_from_anywhere(page):
    elements = Elements(page)
    loading = [
        (tag, name, value)
        for tag, attributes in elements.found
        for name, value in attributes.items()
        if name in {"src", "srcset", "action", "poster", "data", "formaction", "background"}
    ]
    assert loading == []
    assert all(link["href"].startswith(("#", "data:")) for link in elements.all("a") + elements.all("link"))
    assert not re.search(r"@import|url\(", page.split("</style>")[0])
    policy = next(meta["content"] for meta in elements.all("meta") if "http-equiv" in meta)
    assert policy.startswith("default-src 'none';")
    assert policy.count("sha256-") == len([one for one in elements.all("script") if "type" not in one]) == 4


def test_forty_languages_and_twelve_models_stay_below_the_limit():
    big = realistic(models=[f"organisation/model-number-{place}" for place in range(12)], layers=32)
    assert len(big["damage"]) == 40 * 12 * 2 * 6  # two specs, six shares kept
    assert len(html(big).encode()) <= LIMIT == 6 * 1024**2


def test_equal_documents_give_equal_pages(document, page):
    assert html(copy.deepcopy(document)) == page


def test_every_hypothesis_has_a_card_with_verdict_effect_size_interval_need_n_and_p(document, page):
    text = " ".join(" ".join(Elements(page).text).split())
    for name in hypotheses():
        assert claims()[name] in text
    for words in ("r 0.310 [0.020, 0.550]", "> 0.5", "0.051", "Metric-sensitive", "4 resilient low-resource languages"):
        assert words in text, words
    shown = {card.name: card for card in cards(document)}
    assert {name: shown[name].verdict for name in hypotheses()} == {
        name: document["verdicts"][name]["verdict"] for name in hypotheses()
    }
    assert dict(shown["H-035"].facts) == {
        "measured": "r 0.310 [0.020, 0.550]",
        "needed": "> 0.5",
        "n": "40",
        "p": "0.051",
        "by drift (KL)": "0.550",
    }
    assert list(shown)[5:] == ["E-3", "E-5"]
    assert all(claims()[name] in text for name in ("E-3", "E-5"))


def test_a_card_over_several_cases_counts_them_and_says_whose_numbers_it_shows(document):
    card = next(card for card in cards(document) if card.name == "H-039")
    assert (card.tally, card.subject) == ((("not_supported", 2),), "reference:b3 · int3-row")
    # Both specs have the ratio 1.15 + 1.1 exp(-1.5) = 1.395 at k 0.5 %: the other case lies on the value shown.
    assert card.glyph.others == ((card.glyph.value, "not_supported"),)
    alone = next(card for card in cards(document) if card.name == "H-036")
    assert (alone.tally, alone.subject, alone.glyph.others) == ((), "", ())


def test_a_hypothesis_that_was_not_run_says_so(document):
    less = copy.deepcopy(document)
    less["measurements"] = [row for row in less["measurements"] if row["hypothesis"] != "H-036"]
    del less["verdicts"]["H-036"]
    card = next(card for card in cards(less) if card.name == "H-036")
    assert card.words == "not run"
    assert 'class="badge v-not_run">not run' in html(less)


def test_the_interval_of_a_card_is_drawn_to_scale(document):
    mark = next(card for card in cards(document) if card.name == "H-036").glyph
    # 0 (needed) to 0.15 (high) span 240 pixels from 10: 0.11 lies at 10 + 0.11 / 0.15 * 240 = 186, 0.07 at 122.
    assert (mark.bound, mark.low, mark.value, mark.high) == (10.0, 122.0, 186.0, 250.0)
    assert (mark.left, mark.right) == ("0", "0.150")


def test_huge_numbers_do_not_break_the_drawing_of_an_interval(document):
    far = copy.deepcopy(document)
    far["verdicts"]["H-036"]["estimate"] |= {"value": 1e308, "low": -1e308, "high": 1.7e308}
    mark = next(card for card in cards(far) if card.name == "H-036").glyph
    assert 10 <= mark.low < mark.value < mark.high <= 250


def test_languages_stand_most_harmed_first_with_their_numbers(document, page):
    rows = re.findall(r'<tr><th scope="row"><bdi>(.*?)</bdi> <span class="tag">(.*?)</span>', page)
    first = [row for row in document["damage"] if row["spec"] == "int3-row"]
    first.sort(key=lambda row: -row["excess_bits"]["value"])
    assert [tag for _, tag in rows[:40]] == [row["language"] for row in first]
    assert ("Uyghur", "ug") in rows


def test_all_damage_rows_travel_with_the_page(document, page):
    data = embedded(page)["damage"]
    assert len(data["rows"]) == len(document["damage"])
    row, source = data["rows"][17], document["damage"][17]
    assert data["languages"][row[2]]["tag"] == source["language"]
    assert data["specs"][row[1]] == source["spec"]
    assert row[3] == pytest.approx(source["excess_bits"]["value"], rel=1e-4)  # five significant digits
    assert row[6] == pytest.approx(100 * source["relative_increase"]["value"], rel=1e-4)  # in per cent


def test_hostile_texts_stay_texts(document):
    bad = copy.deepcopy(document)
    place, spec = HOSTILE + "model", "int3-row"
    bad["inputs"]["models"][0]["text"] = place
    bad["inputs"]["corpus"]["languages"][0]["name"] = HOSTILE
    bad["inputs"]["corpus"]["left_out"][0]["reason"] = HOSTILE
    bad["recipes"] = [{"title": HOSTILE, "command": HOSTILE}]
    bad["environment"]["packages"] = {HOSTILE: HOSTILE}
    for row in bad["damage"]:
        row["model"] = place
    for row in bad["measurements"]:
        row |= {
            "model": place,
            "spec": spec,
            "summary": HOSTILE,
            "explain": HOSTILE,
            "action": HOSTILE,
            "test": HOSTILE,
        }
        row["data"] = json.loads(json.dumps(row["data"]).replace("kurtosis overlap", "XX"))
    for found in bad["verdicts"].values():
        found |= {"summary": HOSTILE, "explain": HOSTILE, "action": HOSTILE}
    validate(bad)
    text = html(bad)
    elements = Elements(text)
    assert elements.all("img") == []
    assert len(elements.all("script")) == 5
    assert "49" not in re.findall(r"`(.*?)\u2028", text)  # the template language does not run in values
    assert not any(name.startswith("on") for _, attributes in elements.found for name in attributes)
    assert embedded(text)["damage"]["models"] == [printable(place)]
    assert any(HOSTILE.partition("\u2028")[0] in part for part in elements.text)


def test_figures_are_drawn_for_the_data_there_is_and_left_out_without(document):
    drawn, problems = figures(document)
    assert [figure.id for figure in drawn] == [
        "tradeoff",
        "layers",
        "plans",
        "overlap",
        "comparators",
        "sparsity",
        "models",
        "growth",
    ]
    assert problems == ()
    assert [case.label for case in drawn[0].cases] == [
        "H-039 · reference:b3 · int3-row",
        "H-039 · reference:b3 · int4-g64",
    ]
    bare = {**document, "measurements": [row | {"data": {}} for row in document["measurements"]]}
    assert figures(bare) == ((), ())
    assert 'id="figures"' not in html(bare)


def test_a_layer_map_is_read_in_either_direction_and_ordered_by_damage(document):
    case = next(figure for figure in figures(document)[0] if figure.id == "layers").cases[0]
    turned = copy.deepcopy(document)
    found = next(row for row in turned["measurements"] if "layer_language" in row["data"])["data"]["layer_language"]
    found["excess_bits"] = [list(line) for line in zip(*found["excess_bits"], strict=True)]
    assert next(figure for figure in figures(turned)[0] if figure.id == "layers").cases[0].data == case.data
    totals = [sum(line) for line in case.data["metrics"][0]["values"]]
    assert totals == sorted(totals, reverse=True)


def test_the_pareto_front_keeps_what_nothing_else_betters():
    # (disparity, damage, bits): 1 is better than 0 in damage at equal cost; 2 costs more but helps; 3 is undefined.
    points = [(2.0, 10.0, 4.0), (2.0, 9.0, 4.0), (1.0, 5.0, 4.5), None, (1.0, 5.0, 4.6)]
    assert pareto(points) == {1, 2}


def test_other_specs_follow_those_over_k_in_the_trade_off(document):
    changed = copy.deepcopy(document)
    row = next(row for row in changed["measurements"] if "rows" in row["data"])
    other = copy.deepcopy(row["data"]["rows"][0]) | {"label": "activation", "percent": 0.1, "spec": "other"}
    row["data"]["rows"].insert(0, other)
    before, after = (figures(one)[0][0].cases[0] for one in (document, changed))
    assert [point["name"] for point in after.data["points"]] == [""] * len(before.data["points"]) + ["activation"]
    assert after.data["recommended"] == before.data["recommended"]
    assert after.alternative == before.alternative  # what the first and the last k leave
    assert after.rows[-1][0] == "activation"


def test_the_recommended_share_is_that_of_the_action(document):
    case = figures(document)[0][0].cases[0]
    assert case.data["points"][case.data["recommended"]]["k"] == 0.5


def test_models_stand_side_by_side_the_heaviest_outliers_first():
    drawn, problems = figures(realistic(models=["a", "b", "c"], kept=(0.0,)))
    assert problems == ()
    case = next(figure for figure in drawn if figure.id == "by-model").cases[0]
    kurtosis = [one[0] for one in case.data["metrics"][0]["values"]]
    assert sorted(case.data["y"]) == ["a", "b", "c"]
    assert kurtosis == sorted(kurtosis, reverse=True)
    assert case.data["notes"] == ["HEAVY, sparse"] * 3


def test_plans_and_comparators_stand_least_damage_first_with_what_they_cost(document):
    case = next(figure for figure in figures(document)[0] if figure.id == "plans").cases[0]
    assert case.data["y"][0] == "plan:worst  +0.21"
    assert case.data["marks"] == ["strong", None, "faint", None]  # the third costs more than the budget
    assert case.alternative.startswith("The worst language loses least with plan:worst: 114 excess bits")


def test_every_predictor_can_be_held_against_damage(document):
    drawn = {figure.id: figure for figure in figures(document)[0]}
    case = drawn["overlap"].cases[0]
    assert [metric["name"] for metric in case.data["metrics"]] == ["kurtosis overlap", "token parity"]
    parity = case.data["metrics"][1]["points"][3]
    assert parity[2:] == ["bn", "middle"]
    assert parity[0] == pytest.approx(1 + case.data["metrics"][0]["points"][3][0], rel=1e-4)
    assert [one.label for one in drawn["overlap"].cases][1] == "E-5 · reference:b3 · int3-row"
    ranked = drawn["comparators"].cases[0]
    assert ranked.data["y"] == ["token parity", "kurtosis overlap"]  # the strongest correlation first
    assert ranked.data["marks"] == [None, "strong"]
    assert ranked.data["metrics"][3]["values"] == [[None, None, None]] * 2


def test_data_in_another_form_is_named_and_the_rest_drawn(document):
    bad = copy.deepcopy(document)
    found = next(row for row in bad["measurements"] if "layer_language" in row["data"])
    found["data"]["layer_language"]["excess_bits"] = [[1.0]]
    drawn, problems = figures(bad)
    assert "layers" not in [figure.id for figure in drawn]
    sentence = (
        "Where each language is hurt: the data of test_layer_and_language_interact cannot be drawn "
        "(Wrong: excess_bits is not 12 layers x 40 languages)."
    )
    assert problems == (sentence,)
    assert sentence in " ".join(Elements(html(bad)).text)


def test_the_page_opens_with_a_spec_that_was_asked_about_and_the_levels_of_its_model(document):
    trained = copy.deepcopy(document)
    # Welsh was trained on most, English least: by training bytes their levels are the reverse of the public proxy's.
    trained["inputs"]["models"][0]["exposure"] = {"cy": 10**7, "en": 10**4, "de": 10**6}
    for row in trained["damage"]:
        row["spec"] = row["spec"].replace("int4-g64", "a-comparator")  # alphabetically first, but nobody asked for it
    page = html(trained)
    data = embedded(page)["damage"]
    assert data["specs"][data["start"][1]] == "int3-row"
    levels = {data["languages"][row[2]]["tag"]: data["tiers"][row[13]] for row in data["rows"]}
    assert (levels["cy"], levels["en"], levels["am"]) == ("high", "low", "unknown")
    key = page.split('<figcaption class="key">')[1].split("</figcaption>")[0]
    assert set(re.findall(r'class="tier tier-(\w+)"', key)) == set(levels.values())


def test_a_document_with_nothing_but_the_required_keys_gives_a_page():
    empty = {
        "schema_version": 1,
        "environment": {
            "code": {"version": None, "commit": None, "dirty": None},
            "packages": {},
            "device": None,
            "dtype": "bfloat16",
            "seed": 0,
        },
        "inputs": {"models": [], "corpus": {"text": "gettext", "digest": None}, "specs": []},
        "damage": [],
        "measurements": [],
        "verdicts": {},
        "recipes": [],
        "timing": {"tests": {}},
    }
    validate(empty)
    text = html(empty)
    assert text.count('class="badge v-not_run"') == 5
    assert 'id="languages"' not in text
    assert 'id="actions"' not in text


def test_without_jinja2_a_sentence_says_what_to_install(monkeypatch, document):
    real = builtins.__import__

    def refuse(name, *arguments, **keywords):
        if name.partition(".")[0] == "jinja2":
            raise ModuleNotFoundError(name)
        return real(name, *arguments, **keywords)

    module.templates.cache_clear()
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingTemplatesError, match=r"install evenbits\[report\]"):
        html(document)


def test_the_charting_library_is_the_one_its_readme_names():
    folder = files("evenbits.report") / "vendor"
    digest = hashlib.sha256((folder / "echarts" / "echarts.min.js").read_bytes()).hexdigest()
    assert digest in (folder / "README.md").read_text(encoding="utf-8")
    assert "Apache License" in (folder / "echarts" / "LICENSE").read_text(encoding="utf-8")
    assert "Apache Software Foundation" in (folder / "echarts" / "NOTICE").read_text(encoding="utf-8")


# -- in a browser -----------------------------------------------------------------------------------------------------

needs_chromium = pytest.mark.skipif(chromium.find() is None, reason="needs Chromium; install the package `chromium`")

AXE = Path(os.environ["EVENBITS_AXE"]) if "EVENBITS_AXE" in os.environ else None
if AXE is None and find_spec("axe_core_python") is not None:
    AXE = Path(find_spec("axe_core_python").origin).with_name("axe.min.js")


@pytest.fixture(scope="module")
def opened(page, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    file = folder / "index.html"
    file.write_text(page, encoding="utf-8")
    with chromium.browser() as browser:
        browser.file = file
        browser.scheme("light")
        yield browser


def column(browser, table, place):
    rows = f"[...document.querySelectorAll('#{table} tbody tr')].filter(row => !row.hidden)"
    return browser.run(f"{rows}.map(row => row.cells[{place}].innerText.trim())")


@pytest.mark.slow
@needs_chromium
class TestInABrowser:
    def test_nothing_is_asked_for_and_nothing_complains(self, opened):
        opened.open(opened.file)
        assert opened.errors == []
        assert opened.requests == [opened.file.resolve().as_uri()]
        assert opened.run("document.querySelectorAll('.chart svg').length") == 10  # languages, 2, and 1 of 7 more

    def test_scripts_show_the_rows_that_stood_in_the_page(self, opened, page):
        opened.open(opened.file)
        body = page.split('id="language-table"')[1].split("</tbody>")[0]
        cells = re.findall(r'<td class="num">(.*?)</td>', body)
        stood = [cells[place : place + 6] for place in range(0, len(cells), 6)]
        shown = list(zip(*(column(opened, "language-table", place) for place in range(5, 11)), strict=True))
        assert [list(row) for row in shown] == stood

    def test_a_heading_sorts_its_column_in_both_directions_with_the_keyboard(self, opened):
        opened.open(opened.file)
        heading = "document.querySelectorAll('#language-table th button')[0]"
        opened.run(f"{heading}.focus()")
        opened.key("Enter")
        names = [text.split("\n")[0] for text in column(opened, "language-table", 0)]
        expected = sorted((f"{name} {tag}" for tag, name, *_ in LANGUAGES), key=str.lower)
        assert names == expected
        assert opened.run(f"{heading}.parentElement.getAttribute('aria-sort')") == "ascending"
        opened.key("Enter")
        assert column(opened, "language-table", 0)[0].startswith("Welsh")
        assert opened.run("document.querySelectorAll('#language-table [aria-sort]').length") == 1

    def test_numbers_sort_as_numbers_and_what_is_missing_stays_last(self, opened):
        opened.open(opened.file)
        for expected in (lambda found: sorted(found, reverse=True), sorted):
            opened.run("document.querySelectorAll('#measurement-table th button')[8].click()")  # p
            texts = column(opened, "measurement-table", 8)
            defined = [0.0002 if text == "< 0.001" else float(text) for text in texts if text]
            assert defined == expected(defined)
            assert texts[len(defined) :] == [""] * (len(texts) - len(defined))

    def test_filters_narrow_table_and_figure(self, opened):
        opened.open(opened.file)
        opened.run("""(() => { const field = document.querySelector('#language-filters [data-column=tier]');
            field.value = 'low'; field.dispatchEvent(new Event('input', {bubbles: true})); })()""")
        low = [tag for tag, *_, tier in LANGUAGES if tier == "low"]
        assert len(column(opened, "language-table", 0)) == len(low)
        assert opened.run("document.getElementById('language-status').textContent").startswith(
            f"{len(low)} of 480 rows"
        )
        opened.run("""(() => { const field = document.querySelector('#language-filters [data-column=search]');
            field.value = 'uyghur'; field.dispatchEvent(new Event('input', {bubbles: true})); })()""")
        assert [text.split("\n")[0] for text in column(opened, "language-table", 0)] == ["Uyghur ug"]
        assert "Uyghur" in opened.run("document.getElementById('language-chart').getAttribute('aria-label')")
        opened.run("""(() => { for (const name of ['model', 'spec', 'tier', 'search']) {
            const field = document.querySelector(`#language-filters [data-column=${name}]`); field.value = '';
            field.dispatchEvent(new Event('input', {bubbles: true})); } })()""")
        assert len(column(opened, "language-table", 0)) == 480
        assert "60 most harmed are drawn" in opened.run("document.getElementById('language-status').textContent")
        opened.run("""(() => { const field = document.querySelector('[data-filters] [data-column="2"]');
            field.value = 'underpowered'; field.dispatchEvent(new Event('input', {bubbles: true})); })()""")
        assert set(column(opened, "measurement-table", 2)) == {"underpowered"}
        assert opened.errors == []

    def test_languages_can_be_ordered_by_level_or_script_with_the_mean_of_each(self, opened, document):
        opened.open(opened.file)
        caption = "[...document.querySelectorAll('#language-groups caption')].map(one => one.innerText)"
        assert opened.run(caption) == ["By resource level", "By script"]
        low = [
            row["excess_bits"]["value"]
            for row in document["damage"]
            if row["spec"] == "int3-row" and row["language"] in {tag for tag, *_, tier in LANGUAGES if tier == "low"}
        ]
        first = opened.run("document.querySelector('#language-groups tbody tr').innerText").split()
        assert first[:3] == ["low", "11", f"+{sum(low) / len(low):.0f}"]
        opened.run("""(() => { const field = document.querySelector('#language-filters [data-column=order]');
            field.value = 'script'; field.dispatchEvent(new Event('input', {bubbles: true})); })()""")
        scripts = column(opened, "language-table", 3)
        assert len(set(scripts)) == sum(a != b for a, b in zip([None, *scripts], scripts, strict=False))  # in blocks
        assert "Latn: mean" in opened.run("document.getElementById('language-chart').textContent")
        assert opened.errors == []

    def test_names_of_languages_say_their_language_and_direction(self, opened):
        opened.open(opened.file)
        found = opened.run("[...document.querySelectorAll('bdi.native')].map(one => [one.lang, one.dir])")
        assert {tag for tag, _ in found} <= set(TAGS)
        assert {direction for _, direction in found} == {"auto"}
        direction = "getComputedStyle(document.querySelector('bdi.native[lang=ar]')).direction"
        assert opened.run(direction) == "rtl"

    def test_the_theme_follows_the_system_and_a_choice_is_kept(self, opened):
        ground = "getComputedStyle(document.body).backgroundColor"
        opened.scheme("dark")
        opened.open(opened.file)
        dark = opened.run(ground)
        opened.scheme("light")
        opened.settle()
        light = opened.run(ground)
        assert light != dark
        opened.run("document.getElementById('theme').click()")
        assert opened.run(ground) == dark
        opened.open(opened.file)
        assert opened.run(ground) == dark
        assert opened.errors == []
        opened.run("localStorage.clear()")

    @pytest.mark.parametrize("width", [320, 390, 768, 1280])
    def test_nothing_runs_over_the_side_of_the_screen(self, opened, width):
        opened.open(opened.file, width=width)
        opened.run("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        opened.settle()
        wide = opened.run("""[...document.querySelectorAll('body *')].filter(one =>
            !one.closest('.scroll, nav, pre, .skip, .hidden, svg *')
            && one.getBoundingClientRect().right > innerWidth + 1).map(one => one.outerHTML.slice(0, 90))""")
        assert wide == []
        assert opened.run("document.documentElement.scrollWidth") <= width

    def test_a_figure_follows_its_choices(self, opened):
        opened.open(opened.file)
        opened.run("""(() => { const field = document.querySelector('[data-figure=tradeoff] select.case');
            field.value = '1'; field.dispatchEvent(new Event('change')); })()""")
        texts = opened.run(
            """[...document.querySelectorAll('[data-figure=tradeoff] .case-text')].map(one => one.hidden)"""
        )
        assert texts == [True, False]
        opened.run("""(() => { const field = document.querySelector('[data-figure=sparsity] .filters select');
            field.value = '1'; field.dispatchEvent(new Event('change')); })()""")
        assert "standard deviations" in opened.run(
            "document.querySelector('[data-figure=sparsity] .chart').textContent"
        )
        assert opened.errors == []

    @pytest.mark.skipif(AXE is None, reason="needs axe-core; install axe-core-python or set EVENBITS_AXE to axe.min.js")
    @pytest.mark.parametrize("width", [390, 1280])
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_axe_finds_nothing_serious(self, opened, scheme, width):
        opened.scheme(scheme)
        opened.open(opened.file, width=width)
        opened.run("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        opened.run(AXE.read_text(encoding="utf-8") + "; 0")
        opened.run("axe.run().then(found => { window.found = found; })")
        serious = opened.run("""found.violations.filter(one => ['serious', 'critical'].includes(one.impact))
            .map(one => [one.id, one.nodes.slice(0, 3).map(node => node.html.slice(0, 160) + node.failureSummary)])""")
        assert serious == []
        assert opened.run("found.passes.length") > 20

    def test_it_is_read_on_paper_without_controls_and_in_light_colours(self, opened):
        opened.scheme("dark")
        opened.open(opened.file)
        ink = "getComputedStyle(document.documentElement).getPropertyValue('--ink').trim()"
        drawn = "document.querySelector('#language-chart svg').outerHTML"
        assert opened.run(ink) == "#e8ebf0"
        assert "#e8ebf0" in opened.run(drawn)
        opened.run("window.dispatchEvent(new Event('beforeprint'))")
        assert "#e8ebf0" not in opened.run(drawn)
        opened.send("Emulation.setEmulatedMedia", media="print")
        assert opened.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        for off in (".filters", "details:not([open])"):
            assert opened.run(f"getComputedStyle(document.querySelector('{off}')).display") == "none"
        opened.send("Emulation.setEmulatedMedia", media="")
        opened.run("window.dispatchEvent(new Event('afterprint'))")
        opened.scheme("dark")
        assert opened.run(ink) == "#e8ebf0"
        opened.scheme("light")
