"""What other plugins add to a report, and what happens when they fail."""

import evenbits.text  # noqa: F401 - numpy cannot be imported again in each of pytester's runs
import gate_suite
import pytest
from evenbits.report.document import load
from evenbits.report.sections import Section

HOOKS = """
from evenbits.report.sections import Section

def pytest_evenbits_sections(document):
    rows = [(row["language"], row["excess_bits"]["value"], None) for row in document["damage"]]
    yield Section(title="Mine <b>", text="seen & counted", columns=("language", "bits|x", "none"), rows=rows)
"""
POLICY = "[metric.excess_bits]\nlimit = 20\n"


@pytest.fixture
def suite(pytester, monkeypatch):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("COLUMNS", "200")
    gate_suite.prepare(pytester, {tag: gate_suite.damage_row(tag, 5.0) for tag in ("de", "en", "sw")}, POLICY)
    return pytester


def run(suite, *options):
    command = ["-m", "gate", "--model=a/b", "--spec=int4-g64", "--languages=de,en,sw", "--policy=policy.toml"]
    return suite.runpytest_inprocess(*command, "-p", "theirs", *options)


def test_a_section_stands_in_every_form_of_the_report_as_text(suite):
    suite.makepyfile(theirs=HOOKS)
    suite.syspathinsert()
    result = run(suite)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["also          Mine <b>: seen & counted"])
    folder = suite.path / "out"
    assert load(folder / "report.json")["sections"] == [
        {
            "title": "Mine <b>",
            "text": "seen & counted",
            "columns": ["language", "bits|x", "none"],
            "rows": [["de", 5.0, None], ["en", 5.0, None], ["sw", 5.0, None]],
        }
    ]
    markdown = (folder / "summary.md").read_text(encoding="utf-8")
    assert "### Mine &lt;b>\n\nseen &amp; counted\n\n| language | bits\\|x | none |" in markdown
    assert "| de | 5.00 | - |" in markdown
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert "Mine &lt;b&gt;</h2>" in page


@pytest.mark.parametrize(
    ("hook", "sentence"),
    [
        ("def pytest_evenbits_sections(): return 1 / 0", "*pytest_evenbits_sections failed, and what it would have*"),
        ("def pytest_evenbits_sections(): return [3]", "*pytest_evenbits_sections returned int instead of Section*"),
        ("def pytest_evenbits_measurements(): return ['x']", "*measurements returned str instead of Measurement*"),
        ("def pytest_evenbits_measurements(damage): return [damage[99]]", "*measurements failed*IndexError*"),
    ],
)
def test_a_hook_that_fails_costs_its_addition_and_the_exit_code_but_not_the_report(suite, hook, sentence):
    suite.makepyfile(theirs=hook)
    suite.syspathinsert()
    result = run(suite)
    assert result.ret == 1
    result.stdout.fnmatch_lines([sentence])
    assert "Traceback" not in result.stdout.str()
    document = load(suite.path / "out" / "report.json")
    assert document["verdicts"]["gate"]["verdict"] == "supported"
    assert "sections" not in document


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"title": " ", "text": "x"}, "needs a title"),
        ({"title": "t"}, "says nothing"),
        ({"title": "t", "columns": ("a",), "rows": [(1,), (1, 2)]}, "has 1 columns, and row 1 has 2 cells"),
    ],
)
def test_a_section_that_cannot_be_shown_is_refused_where_it_is_made(wrong, message):
    with pytest.raises(ValueError, match=message):
        Section(**wrong)
