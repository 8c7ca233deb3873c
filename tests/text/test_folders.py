"""`dir:PATH`: the user's own text."""

import json
import os
from pathlib import Path

import pytest
from evenbits.errors import CorpusError, UsageError
from evenbits.text import load_corpus, split
from evenbits.text.alignment import REPEATED
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

ENGLISH = ["The house is old.", "The sky is blue.", "It rains.", "We are here."]
GERMAN = ["Das Haus ist alt.", "Der Himmel ist blau.", "Es regnet.", "Wir sind da."]
FRENCH = ["La maison est vieille.", "Le ciel est bleu.", "Il pleut.", "Nous sommes là."]


def write(folder, **lines):
    for stem, texts in lines.items():
        (folder / f"{stem}.txt").write_bytes("".join(f"{text}\n" for text in texts).encode("utf-8"))
    return f"dir:{folder}"


def write_json(folder, **rows):
    for stem, records in rows.items():
        text = "".join(json.dumps({"id": key, "text": text}) + "\n" for key, text in records.items())
        (folder / f"{stem}.jsonl").write_text(text, encoding="utf-8")
    return f"dir:{folder}"


def counted(corpus):
    return {(entry.what, entry.language, entry.reason): entry.count for entry in corpus.left_out}


def test_lines_are_aligned_over_all_languages(tmp_path):
    corpus = load_corpus(write(tmp_path, en=ENGLISH, deu_Latn=GERMAN, sr_Latn=FRENCH))
    assert corpus.languages == ("de", "en", "sr-Latn")
    assert corpus.texts["de"] == tuple(GERMAN)
    assert corpus.segment_ids == ("line000001", "line000002", "line000003", "line000004")
    assert corpus.left_out == ()


def test_a_short_segment_is_kept(tmp_path):
    corpus = load_corpus(write(tmp_path, en=["Hi", "Yes"], de=["Tag", "Ja"]))
    assert len(corpus) == 2


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_line_ends_and_a_byte_order_mark_are_no_text(tmp_path, ending, last, mark):
    (tmp_path / "de.txt").write_bytes((mark + ending.join(GERMAN) + ending * last).encode("utf-8"))
    assert load_corpus(f"dir:{tmp_path}").texts["de"] == tuple(GERMAN)


def test_only_line_feeds_separate_segments(tmp_path):
    # str.splitlines would also cut at U+2028, U+0085 and form feed, and shift every later line.
    corpus = load_corpus(write(tmp_path, de=["eins\u2028zwei", "drei\x0cvier", "f\x85nf"], en=["1", "2", "3"]))
    assert corpus.texts["de"] == ("eins\u2028zwei", "drei\x0cvier", "f\x85nf")


def test_different_line_counts_are_refused_with_the_counts(tmp_path):
    with pytest.raises(CorpusError, match=r"different numbers of lines \(de\.txt 3, en\.txt 4\)"):
        load_corpus(write(tmp_path, en=ENGLISH, de=GERMAN[:3]))


def test_of_many_files_only_those_of_another_length_are_named(tmp_path):
    texts = dict.fromkeys(("ca", "cs", "da", "fr"), GERMAN)
    with pytest.raises(CorpusError, match=r"different numbers of lines \(5 files 4, de\.txt 3\)"):
        load_corpus(write(tmp_path, en=ENGLISH, de=GERMAN[:3], **texts))


def test_empty_lines_behind_the_last_segment_are_no_segments(tmp_path):
    corpus = load_corpus(write(tmp_path, en=[*ENGLISH, "", " "], de=[*GERMAN, ""], fr=FRENCH))
    assert len(corpus) == 4
    with pytest.raises(CorpusError, match=r"\(de\.txt 3, en\.txt 4, fr\.txt 4\)"):  # the fourth is filled in others
        load_corpus(write(tmp_path, en=ENGLISH, de=GERMAN[:3], fr=FRENCH))


def test_an_empty_line_leaves_the_segment_out_of_every_language(tmp_path):
    corpus = load_corpus(write(tmp_path, en=ENGLISH, de=[GERMAN[0], "", *GERMAN[2:]], fr=[*FRENCH[:3], "  "]))
    assert corpus.texts["en"] == (ENGLISH[0], ENGLISH[2])
    assert counted(corpus) == {
        ("segment", "de", "empty"): 1,
        ("segment", "fr", "empty"): 1,
        ("segment", None, "not usable in every language"): 2,
    }


def test_an_empty_last_line_is_a_segment_that_is_missing(tmp_path):
    corpus = load_corpus(write(tmp_path, en=ENGLISH, de=[*GERMAN[:3], ""]))
    assert counted(corpus)[("segment", "de", "empty")] == 1


def test_an_empty_file_is_named(tmp_path):
    with pytest.raises(CorpusError, match=r"de\.txt is empty"):
        load_corpus(write(tmp_path, en=ENGLISH, de=[]))


def test_bytes_that_are_no_utf8_are_named_with_file_byte_and_line(tmp_path):
    text = write(tmp_path, en=ENGLISH)
    (tmp_path / "de.txt").write_bytes(b"Das Haus\nGr\xfc\xdfe\n")
    # "Das Haus\n" has 9 bytes, "Gr" two more: the first bad byte is number 11, in line 2.
    with pytest.raises(CorpusError, match=r"de\.txt is not UTF-8: byte 11 \(0xfc, line 2\)"):
        load_corpus(text)


def test_a_copy_of_the_source_is_left_out_of_every_language_and_counted(tmp_path):
    corpus = load_corpus(write(tmp_path, en=ENGLISH, de=[ENGLISH[0], *GERMAN[1:]], fr=FRENCH))
    assert corpus.texts["fr"] == tuple(FRENCH[1:])
    assert counted(corpus)[("segment", "de", "equal to the source text")] == 1


def test_a_copy_is_recognised_when_english_is_not_chosen(tmp_path):
    corpus = load_corpus(write(tmp_path, en=ENGLISH, de=[ENGLISH[0], *GERMAN[1:]], fr=FRENCH), languages="de,fr")
    assert corpus.languages == ("de", "fr")
    assert len(corpus) == 3


def test_a_language_that_is_mostly_the_source_is_refused(tmp_path):
    text = write(tmp_path, en=ENGLISH, de=[*ENGLISH[:3], GERMAN[3]], fr=FRENCH)
    with pytest.raises(CorpusError, match=r"text of de equals en in 3 of 4 segments.*leave de out with --languages"):
        load_corpus(text)
    assert load_corpus(text, languages="en,fr").languages == ("en", "fr")


def test_half_copies_are_left_out_but_not_refused(tmp_path):
    corpus = load_corpus(write(tmp_path, en=ENGLISH, de=[*ENGLISH[:2], *GERMAN[2:]]))
    assert len(corpus) == 2


def test_a_regional_variant_of_the_source_may_equal_it(tmp_path):
    assert len(load_corpus(write(tmp_path, en=ENGLISH, en_GB=ENGLISH, de=GERMAN))) == 4


def test_absent_languages_are_named_with_those_there_are(tmp_path):
    with pytest.raises(CorpusError, match=r"no text in ko, ug\. It has 2 languages: de, en\."):
        load_corpus(write(tmp_path, en=ENGLISH, de=GERMAN), languages="de,ko,ug")


def test_languages_not_asked_for_are_counted(tmp_path):
    corpus = load_corpus(write(tmp_path, en=ENGLISH, de=GERMAN, fr=FRENCH), languages="de")
    assert counted(corpus) == {("language", None, "not asked for"): 2}


def test_what_models_were_trained_on_is_the_default_as_far_as_there_is_text(tmp_path):
    text = write(tmp_path, en=ENGLISH, de=GERMAN, fr=FRENCH)
    corpus = load_corpus(text, trained=("de", "en", "ga"))
    assert corpus.languages == ("de", "en")
    assert counted(corpus) == {
        ("language", "fr", "not asked for: no model was trained on them; --languages all takes them"): 1,
        ("language", "ga", "trained on, but the corpus has no text in it"): 1,
    }
    assert load_corpus(text, trained=("ga",)).languages == ("de", "en", "fr")
    assert load_corpus(text, languages="all", trained=("de",)).languages == ("de", "en", "fr")


def test_a_number_takes_english_and_then_the_first_tags(tmp_path):
    text = write(tmp_path, en=ENGLISH, de=GERMAN, fr=FRENCH)
    assert load_corpus(text, languages="2").languages == ("de", "en")
    with pytest.raises(CorpusError, match="has 3 languages, 4 were asked for"):
        load_corpus(text, languages="4")


def test_a_missing_folder_a_file_and_a_folder_without_text_are_refused(tmp_path):
    with pytest.raises(CorpusError, match="absent does not exist"):
        load_corpus(f"dir:{tmp_path / 'absent'}")
    (tmp_path / "notes.md").write_text("x", encoding="utf-8")
    with pytest.raises(CorpusError, match="is a file; dir: needs the folder"):
        load_corpus(f"dir:{tmp_path / 'notes.md'}")
    with pytest.raises(CorpusError, match=r"has no text: expected files such as de\.txt.*found notes\.md"):
        load_corpus(f"dir:{tmp_path}")


def test_other_files_are_counted_and_named(tmp_path):
    (tmp_path / "README.md").write_text("x", encoding="utf-8")
    corpus = load_corpus(write(tmp_path, en=ENGLISH, de=GERMAN))
    assert counted(corpus) == {("file", None, "not .txt or .jsonl: README.md"): 1}


def test_a_text_file_that_is_no_language_is_counted_and_named(tmp_path):
    corpus = load_corpus(write(tmp_path, en=ENGLISH, de=GERMAN, LICENSE=["not"], **{"xx@yyy": ["aligned", "at all"]}))
    assert corpus.languages == ("de", "en")
    assert counted(corpus) == {("file", None, "its name is no language tag: LICENSE.txt, xx@yyy.txt"): 2}


def test_a_folder_in_which_no_file_is_named_after_a_language_is_refused(tmp_path):
    with pytest.raises(CorpusError, match=r"has no text: expected files such as de\.txt.*found LICENSE\.txt"):
        load_corpus(write(tmp_path, LICENSE=GERMAN))


def test_two_files_of_one_language_are_refused(tmp_path):
    with pytest.raises(CorpusError, match=r"de\.txt and .*deu_Latn\.txt are both de; keep one"):
        load_corpus(write(tmp_path, de=GERMAN, deu_Latn=GERMAN))


def test_txt_and_jsonl_are_not_mixed(tmp_path):
    write(tmp_path, en=ENGLISH)
    with pytest.raises(CorpusError, match=r"mixes \.txt and \.jsonl \(en\.txt and de\.jsonl\)"):
        load_corpus(write_json(tmp_path, de={"a": "eins"}))


def test_json_lines_are_aligned_by_id_in_the_order_of_english(tmp_path):
    corpus = load_corpus(
        write_json(tmp_path, en={"b": "two", "a": "one", 3: "three"}, de={"a": "eins", 3: "drei", "b": "zwei"})
    )
    assert corpus.segment_ids == ("b", "a", "3")
    assert corpus.texts["de"] == ("zwei", "eins", "drei")


def test_ids_that_a_language_lacks_are_left_out_and_counted(tmp_path):
    corpus = load_corpus(write_json(tmp_path, en={"a": "one", "b": "two"}, de={"b": "zwei", "c": "drei"}))
    assert corpus.segment_ids == ("b",)
    assert counted(corpus) == {
        ("segment", "de", "missing in this language"): 1,
        ("segment", "en", "missing in this language"): 1,
        ("segment", None, "not usable in every language"): 2,
    }


def test_ids_with_nothing_in_common_are_refused(tmp_path):
    with pytest.raises(CorpusError, match=r"no segment left.*de: 2 missing.*en: 2 missing.*ids are the same"):
        load_corpus(write_json(tmp_path, en={"a": "one", "b": "two"}, de={"x": "eins", "y": "zwei"}))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "a", "text": "two"}', "line 2: id 'a' stands there a second time"),
        ('{"id": "b"', "line 2 is not JSON"),
        ('{"id": "b"}', "line 2 needs an object with id and text"),
        ('["b", "two"]', "line 2 needs an object with id and text"),
        ('{"id": 1.5, "text": "two"}', "line 2: id is 1.5"),
        ('{"id": true, "text": "two"}', "line 2: id is true"),
        ('{"id": "b", "text": 2}', "line 2: text is int"),
        ('{"id": "b", "text": "\\ud800"}', "line 2 holds .* which is no Unicode"),
        ("[" * 200_000, "line 2 is nested more than 64 levels deep"),
        ('{"id": ' + "9" * 5000 + ', "text": "two"}', "line 2 holds a whole number of 5000 digits"),
    ],
)
def test_a_bad_json_line_is_named(tmp_path, line, message):
    (tmp_path / "en.jsonl").write_text('{"id": "a", "text": "one"}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(CorpusError, match=message) as caught:
        load_corpus(f"dir:{tmp_path}")
    assert "en.jsonl" in str(caught.value)


def test_the_same_folder_has_the_same_digest_and_an_altered_one_another(tmp_path):
    text = write(tmp_path, en=ENGLISH, de=GERMAN)
    before = load_corpus(text).digest
    assert load_corpus(text).digest == before
    write(tmp_path, de=[*GERMAN[:3], "Wir sind hier."])
    assert load_corpus(text).digest != before


def test_segments_draw_the_same_ids_in_every_language(tmp_path):
    text = write(tmp_path, en=ENGLISH, de=GERMAN)
    corpus = load_corpus(text, segments=2, seed=5)
    places = [int(segment_id.removeprefix("line")) - 1 for segment_id in corpus.segment_ids]
    assert corpus.texts == {"en": tuple(ENGLISH[i] for i in places), "de": tuple(GERMAN[i] for i in places)}
    assert counted(corpus) == {("segment", None, "not in the sample asked for"): 2}
    assert load_corpus(text, segments=2, seed=5, languages="de").segment_ids == corpus.segment_ids
    with pytest.raises(UsageError, match="--segments 0"):
        load_corpus(text, segments=0)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 1102233\n"

FAULTS = {
    "no UTF-8": lambda path: path.write_bytes(b"Gr\xfc\xdfe\n"),
    "empty": lambda path: path.write_bytes(b""),
    "pointer of git-lfs": lambda path: path.write_bytes(POINTER),
    "pointer of git-annex": lambda path: path.write_bytes(b"/annex/objects/SHA256E-s1--ab.txt\n"),
    "circular link": lambda path: path.symlink_to(path.name),
    "dangling link": lambda path: path.symlink_to("nowhere.txt"),
    "pipe": os.mkfifo,
    "folder": Path.mkdir,
    "another length": lambda path: path.write_text("one line\n"),
    "an untranslated copy": lambda path: path.write_text("\n".join(ENGLISH)),
}
faulty = pytest.mark.parametrize("made", FAULTS.values(), ids=FAULTS.keys())


@faulty
def test_a_chosen_language_with_a_faulty_file_is_never_lost_without_a_word(tmp_path, made):
    text = write(tmp_path, en=ENGLISH, fr=FRENCH)
    made(tmp_path / "de.txt")
    for languages in (None, "de,fr", "all"):
        with pytest.raises(CorpusError, match=r"\bde\b"):
            load_corpus(text, languages=languages)


@faulty
def test_a_fault_of_a_language_nobody_asked_for_spoils_nothing(tmp_path, made):
    text = write(tmp_path, en=ENGLISH, fr=FRENCH)
    made(tmp_path / "de.txt")
    for corpus in (load_corpus(text, languages="en,fr"), load_corpus(text, trained=("en", "fr"))):
        assert corpus.languages == ("en", "fr")
        assert len(corpus) == 4
        assert [(one.what, one.count) for one in corpus.left_out] == [("language", 1)]


@pytest.mark.parametrize("made", [FAULTS[name] for name in FAULTS if "copy" not in name])
def test_a_fault_of_english_that_nobody_asked_for_is_told_and_spoils_nothing(tmp_path, made):
    text = write(tmp_path, de=GERMAN, fr=FRENCH)
    made(tmp_path / "en.txt")
    corpus = load_corpus(text, languages="de,fr")
    assert len(corpus) == 4
    (told,) = [one for one in corpus.left_out if one.language == "en"]
    assert told.reason.startswith("not asked for and not usable, so that copies of it are not recognised")


def test_pointers_of_git_lfs_are_not_measured_as_text(tmp_path):
    for tag in ("de", "en", "ka"):
        (tmp_path / f"{tag}.txt").write_bytes(POINTER)
    with pytest.raises(CorpusError, match=r"de\.txt holds no text but a pointer of git-lfs .*`git lfs pull`"):
        load_corpus(f"dir:{tmp_path}")


def test_a_link_that_leads_to_a_text_is_that_text(tmp_path):
    text = write(tmp_path, en=ENGLISH)
    (tmp_path / ".german").write_text("\n".join(GERMAN))
    (tmp_path / "de.txt").symlink_to(".german")
    assert load_corpus(text).texts["de"] == tuple(GERMAN)


def test_a_file_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    text = write(tmp_path, en=ENGLISH, de=GERMAN)

    def refused(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refused)
    with pytest.raises(CorpusError, match=r"de\.txt cannot be read: Permission denied"):
        load_corpus(text, languages="de")


def test_a_folder_that_may_not_be_listed_is_named(tmp_path, monkeypatch):
    text = write(tmp_path, en=ENGLISH)

    def refused(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refused)
    with pytest.raises(CorpusError, match="cannot be looked into: Permission denied"):
        load_corpus(text)


def test_lines_of_old_systems_end_in_carriage_returns(tmp_path):
    text = write(tmp_path, en=ENGLISH)
    (tmp_path / "de.txt").write_bytes("\r".join(GERMAN).encode())
    assert load_corpus(text).texts["de"] == tuple(GERMAN)
    (tmp_path / "de.txt").write_bytes(("Das\rHaus\n" + "\n".join(GERMAN[1:])).encode())
    assert load_corpus(text).texts["de"][0] == "Das\rHaus"  # beside line feeds it separates nothing


@pytest.mark.parametrize("suffix", ["TXT", "Txt", "JSONL"])
def test_capital_extensions_and_tags_are_taken(tmp_path, suffix):
    lines = [json.dumps({"id": n, "text": text}) for n, text in enumerate(GERMAN)] if suffix == "JSONL" else GERMAN
    (tmp_path / f"DE.{suffix}").write_text("\n".join(lines), encoding="utf-8")
    assert load_corpus(f"dir:{tmp_path}").texts == {"de": tuple(GERMAN)}


def test_files_that_differ_in_capitals_alone_are_two_of_one_language(tmp_path):
    write(tmp_path, en=ENGLISH, de=GERMAN)
    (tmp_path / "de.TXT").write_text("\n".join(GERMAN))
    with pytest.raises(CorpusError, match=r"de\.TXT and .*de\.txt are both de; keep one"):
        load_corpus(f"dir:{tmp_path}")
    assert load_corpus(f"dir:{tmp_path}", languages="en").languages == ("en",)


def test_folders_among_the_files_are_counted_and_named(tmp_path):
    text = write(tmp_path, en=ENGLISH)
    (tmp_path / "de").mkdir()
    assert counted(load_corpus(text)) == {("file", None, "not .txt or .jsonl: de"): 1}


def test_repeated_text_is_left_out_so_that_no_half_has_the_other_s(tmp_path):
    """20 lines with 10 texts; of these halves shared six."""
    lines = {tag: [f"{word} {number % 10}" for number in range(20)] for tag, word in (("de", "Satz"), ("en", "line"))}
    corpus = load_corpus(write(tmp_path, **lines))
    assert counted(corpus) == {
        ("segment", "de", REPEATED): 10,
        ("segment", "en", REPEATED): 10,
        ("segment", None, "not usable in every language"): 10,
    }
    probe, evaluation = split(corpus, seed=0)
    assert not set(probe.texts["de"]) & set(evaluation.texts["de"])


LINE = st.text(st.characters(codec="utf-8", exclude_characters="\n\r\ufeff"), max_size=8)


def without_repeats(rows):
    """Return the rows none of whose texts a returned one before has in that language."""
    kept = []
    for row in rows:
        if not any(text.strip() == said.strip() for one in kept for text, said in zip(row, one, strict=True)):
            kept.append(row)
    return kept


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(LINE, LINE, LINE), min_size=1, max_size=12))
@example([("0", "00", "0"), ("1", "00", "1"), ("", "", "")])
def test_alignment_keeps_exactly_the_lines_that_are_usable_in_every_language(tmp_path, rows):
    languages = {tag: [row[place] for row in rows] for place, tag in enumerate(("de", "en", "fr"))}
    usable = [
        row
        for row in rows
        if all(text.strip() for text in row) and row[1].strip() not in {row[0].strip(), row[2].strip()}
    ]
    kept = without_repeats(usable)
    try:
        corpus = load_corpus(write(tmp_path, **languages))
    except CorpusError as error:
        # Refused only where a file is empty, a language mostly copies or repeats itself, or nothing is left.
        empty = any(not any(text.strip() for text in texts) for texts in languages.values())
        copies = [
            sum(bool(row[place].strip()) and row[place].strip() == row[1].strip() for row in rows) for place in (0, 2)
        ]
        filled = [sum(bool(row[place].strip()) for row in rows) for place in (0, 2)]
        mostly = any(count * 2 > total for count, total in zip(copies, filled, strict=True))
        assert empty or mostly or len(kept) < len(usable) or not usable, error  # noqa: PT017 - both outcomes are checked
        return
    assert [tuple(corpus.texts[tag][i] for tag in ("de", "en", "fr")) for i in range(len(corpus))] == kept
    dropped = counted(corpus).get(("segment", None, "not usable in every language"), 0)
    lines = max(place for place, row in enumerate(rows, start=1) if any(text.strip() for text in row))
    assert dropped + len(corpus) == lines  # empty lines at the end are none


def write_lines(folder, stem, *records):
    (folder / f"{stem}.jsonl").write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    return f"dir:{folder}"


def test_json_lines_may_name_the_document_of_a_segment(tmp_path):
    write_json(tmp_path, de={"a": "eins", "b": "zwei", "c": "vier"})
    text = write_lines(
        tmp_path,
        "en",
        {"id": "a", "text": "one", "document": "x"},
        {"id": "b", "text": "two", "document": "x"},
        {"id": "c", "text": "four"},
    )
    assert load_corpus(text, languages="all").documents == ("x", "x", "c")
    write_lines(tmp_path, "fr", {"id": "a", "text": "un", "document": "y"})
    with pytest.raises(CorpusError, match="segment a is of document 'y', in another file of 'x'"):
        load_corpus(text, languages="all")


@pytest.mark.parametrize("document", [7, "", ["x"]])
def test_a_document_is_a_text(tmp_path, document):
    text = write_lines(tmp_path, "en", {"id": "a", "text": "one", "document": document})
    with pytest.raises(CorpusError, match=r"en\.jsonl, line 1: document is .* it must be a text, or be left out"):
        load_corpus(text, languages="all")
