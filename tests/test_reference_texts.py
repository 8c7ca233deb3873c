"""Training text of the reference family: cleaning, alignment, and the evaluation text that is kept out."""

import pytest

from fixtures.reference import evaluation, packages, texts
from fixtures.reference.evaluation import EvaluationText, fingerprints, normalise
from fixtures.reference.texts import LANGUAGES, Paragraph, clean_message, language_pool, page_paragraphs, parse_page

PAGE = """<page xmlns="http://projectmallard.org/1.0/" id="power">
  <info><title type="sort">1</title><credit><name>A. Nonymous</name></credit><desc>{desc}</desc></info>
  <title>{title}</title>
  <p>{first} <gui style="button">OK</gui>.</p>
  <note><p>{second}</p></note>
  <code>systemctl suspend</code>
</page>"""
ENGLISH = PAGE.format(
    desc="Save the battery.", title="Power of a computer", first="To suspend, press", second="It uses less power."
)
GERMAN = PAGE.format(
    desc="Den Akku schonen.", title="Energie des Rechners", first="Zum Anhalten drücken Sie", second="Das spart Strom."
)


def write_page(root, folder, name, text):
    path = root / "usr/share/help" / folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def language(tag):
    return next(item for item in LANGUAGES if item.tag == tag)


def paragraph(key, text, *, source="office", held_out=False):
    return Paragraph(key=key, source=source, text=text, held_out=held_out)


def test_the_family_covers_enough_languages_scripts_and_branches():
    assert len(LANGUAGES) >= 24
    assert len({item.script for item in LANGUAGES}) >= 5
    assert len({(item.family, item.branch) for item in LANGUAGES}) >= 8
    assert len({item.tag for item in LANGUAGES}) == len(LANGUAGES)


def test_a_page_gives_its_prose_with_inline_marks_flattened_and_no_code():
    assert parse_page(ENGLISH.encode()) == [
        "Save the battery.",
        "Power of a computer",
        "To suspend, press OK.",
        "It uses less power.",
    ]


def test_a_translated_page_keeps_its_own_paragraphs_only(tmp_path):
    write_page(tmp_path, "C", "power.page", ENGLISH)
    write_page(tmp_path, "de", "power.page", GERMAN.replace("Das spart Strom.", "It uses less power."))
    found = [p.text for p in page_paragraphs(tmp_path, language("de"), seed=0)]
    assert found == ["Den Akku schonen.", "Energie des Rechners", "Zum Anhalten drücken Sie OK."]


def test_a_page_that_is_mostly_a_copy_of_the_english_is_left_out_whole(tmp_path):
    write_page(tmp_path, "C", "power.page", ENGLISH)
    write_page(tmp_path, "fr", "power.page", ENGLISH.replace("Save the battery.", "Économiser la batterie."))
    assert list(page_paragraphs(tmp_path, language("fr"), seed=0)) == []


def test_english_itself_is_read_from_the_source_pages(tmp_path):
    write_page(tmp_path, "C", "power.page", ENGLISH)
    assert len(list(page_paragraphs(tmp_path, language("en"), seed=0))) == 4


def test_the_same_paragraph_has_the_same_key_in_every_language(tmp_path):
    write_page(tmp_path, "C", "power.page", ENGLISH)
    write_page(tmp_path, "de", "power.page", GERMAN)
    german, english = (list(page_paragraphs(tmp_path, language(tag), seed=0)) for tag in ("de", "en"))
    assert [p.key for p in german] == [p.key for p in english]
    assert [p.held_out for p in german] == [p.held_out for p in english]


@pytest.mark.parametrize(
    ("msgid", "text", "cleaned"),
    [
        ("~Save the file", "Datei ~speichern", "Datei speichern"),
        ("_Save the file", "Datei _speichern", "Datei speichern"),
        ("_Save the file", "保存文件(_S)", "保存文件"),
        ("the variable snake_case_name here", "die Variable snake_case_name hier", "die Variable snake_case_name hier"),
        ("Delete <b>every</b> row", "Alle <b>Zeilen</b> löschen", "Alle Zeilen löschen"),
        ("Save the file", "Save the file", None),  # not translated
        ("Save the file", "save the file!", None),  # nor is this
        ("Save", "Speichern unter", None),  # the source is a label
        ("Save it all", "Weg", None),  # too short to be a sentence
        ("Save it all", "全部保存", "全部保存"),  # four ideographs are a sentence
        ("Save it all", "", None),
    ],
)
def test_messages_lose_their_keyboard_marks_and_labels_are_dropped(msgid, text, cleaned):
    assert clean_message(msgid, text) == cleaned


def test_normalising_ignores_case_punctuation_width_and_spaces():
    assert normalise(" \uff33ave  THE file\u2026 ") == normalise("save the file") == "save the file"


def test_evaluation_text_is_recognised_whole_whatever_its_length():
    evaluated = EvaluationText(["Ja", "Please enter a valid date."])
    assert evaluated.leaks("please enter a valid date")
    assert evaluated.leaks("ja!")
    assert not evaluated.leaks("Please enter a number.")


def test_a_long_evaluation_segment_is_recognised_inside_a_paragraph_and_a_short_one_is_not():
    evaluated = EvaluationText(["Please enter a valid date.", "Yes, please"])
    assert evaluated.leaks("First: please enter a VALID date, then go on.")
    assert not evaluated.leaks("He said: yes, please come in.")  # 11 bytes are below CONTAINED_BYTES


def test_a_pool_holds_no_evaluation_text_and_counts_what_it_left_out():
    raw = [paragraph("a", "Please enter a valid date."), paragraph("b", "The legend is below the chart.")]
    pool, left_out = language_pool(raw, EvaluationText(["Please enter a valid date."]), seed=0)
    assert [p.key for p in pool] == ["b"]
    assert left_out == 1


def test_a_text_that_is_held_out_once_is_never_trained_on():
    raw = [paragraph("a", "The same words."), paragraph("b", "The same words!", held_out=True)]
    pool, _ = language_pool(raw, EvaluationText([]), seed=0)
    assert [(p.key, p.held_out) for p in pool] == [("b", True)]


def test_pools_of_two_languages_follow_the_same_order_of_keys():
    keys = [f"office/{n}" for n in range(30)]
    german, _ = language_pool([paragraph(k, f"Satz {k}") for k in keys], EvaluationText([]), seed=3)
    french, _ = language_pool([paragraph(k, f"Phrase {k}") for k in reversed(keys)], EvaluationText([]), seed=3)
    assert [p.key for p in german] == [p.key for p in french] != keys


def test_both_sources_are_mixed_by_bytes_from_the_start():
    raw = [paragraph(f"o{n}", f"office sentence {n:03}") for n in range(50)]
    raw += [paragraph(f"d{n}", f"docs sentence 2 {n:03}", source="docs") for n in range(50)]  # as long as the others
    pool, _ = language_pool(raw, EvaluationText([]), seed=0)
    assert [p.source for p in pool[:20]].count("docs") == 10


def test_fingerprints_are_equal_for_texts_that_count_as_the_same():
    marks = fingerprints(["Save the file", "save  the file.", "Another sentence"])
    assert len(marks) == 2
    assert marks.max() < 2**40


def test_django_catalogues_are_found_for_every_language_of_the_family():
    for tag in ("en", "de", "zh-Hans"):
        assert len(evaluation.evaluation_messages(language(tag).django)) > 300


def test_a_package_of_another_version_is_refused_with_the_remedy(tmp_path):
    (tmp_path / "debs").mkdir()
    (tmp_path / "debs/gnome-user-docs_99_all.deb").write_bytes(b"not the one")
    with pytest.raises(RuntimeError, match=r"gnome-user-docs 99 is not the package.*--accept-sources"):
        packages.fetch(["gnome-user-docs"], tmp_path)


def test_without_apt_the_recipe_says_where_it_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="Run it on Debian or Ubuntu"):
        packages.fetch(["gnome-user-docs"], tmp_path)


def test_every_source_package_is_pinned_by_version_and_checksum():
    import json

    pinned = json.loads(packages.SOURCES.read_text())
    wanted = {"gnome-user-docs", *(f"libreoffice-l10n-{item.office}" for item in texts.LANGUAGES if item.office)}
    assert set(pinned) == wanted
    assert all(len(entry["sha256"]) == 64 for entry in pinned.values())
