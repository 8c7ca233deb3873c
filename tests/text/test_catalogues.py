"""`gettext`: message catalogues of installed packages."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest
from evenbits.errors import CorpusError
from evenbits.store import Store
from evenbits.text import load_corpus, split
from evenbits.text.catalogues import SHORTEST, same_placeholders
from hypothesis import given
from hypothesis import strategies as st

needs_django = pytest.mark.skipif(
    importlib.util.find_spec("django") is None or importlib.util.find_spec("polib") is None,
    reason="lifted by: pip install 'evenbits[gettext]'",
)

LONG = "This message is long enough to be a segment, number %d."


def po(*entries):
    """Return a catalogue; an entry is (msgid, msgstr) or a block as it stands."""
    header = 'msgid ""\nmsgstr ""\n"Content-Type: text/plain; charset=UTF-8\\n"\n'
    blocks = [entry if isinstance(entry, str) else f'msgid "{entry[0]}"\nmsgstr "{entry[1]}"\n' for entry in entries]
    return "\n".join((header, *blocks))


def message(number):
    return LONG.replace("%d", str(number))


def translated(language, numbers):
    return [(message(number), f"{language} says this in its own words, number {number}.") for number in numbers]


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Return a function that makes an installed package with the catalogues {"app/locale folder": text}."""
    pytest.importorskip("polib")
    monkeypatch.syspath_prepend(tmp_path)

    def install(catalogues, name="talking"):
        root = tmp_path / name
        root.mkdir(exist_ok=True)
        # Importing the package would fail: it must be found without being run.
        (root / "__init__.py").write_text("raise SystemError('imported')", encoding="utf-8")
        for place, text in catalogues.items():
            app, _, tag = place.rpartition("/")
            path = root / app / "locale" / tag / "LC_MESSAGES" / "messages.po"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return f"gettext:{name}"

    yield install
    sys.modules.pop("talking", None)


@pytest.fixture(scope="module")
def parsed(tmp_path_factory):
    """Return a store in which Django's catalogues are parsed once for all tests here."""
    return Store(tmp_path_factory.mktemp("store"))


def counted(corpus):
    return {(entry.what, entry.language, entry.reason): entry.count for entry in corpus.left_out}


@needs_django
def test_django_gives_forty_languages_and_about_165_segments(parsed):
    corpus = load_corpus("gettext", store=parsed)
    assert len(corpus.languages) == 40
    assert 150 <= len(corpus) <= 180
    assert {"en", "hsb", "ckb", "ug", "sr-Cyrl", "sr-Latn", "zh-Hans", "zh-Hant"} <= set(corpus.languages)
    # One for each language and script: Argentinian Spanish and Algerian Arabic are as well covered as their bases.
    assert not {"es-AR", "ar-DZ", "pt-BR", "en-GB"} & set(corpus.languages)
    left_out = counted(corpus)
    assert left_out[("language", "es-AR", "regional variant of a language that is there")] == 1
    assert left_out[("language", "te", "fewer usable messages than the chosen languages")] == 1
    assert corpus.source.startswith("message catalogues of django 5.")
    assert all(len(text) >= SHORTEST for text in corpus.texts["en"])
    probe, evaluation = split(corpus, seed=0)
    assert len(probe) + len(evaluation) == len(corpus)


@needs_django
def test_stored_catalogues_give_the_same_corpus_without_parsing(tmp_path, monkeypatch):
    store = Store(tmp_path)
    first = load_corpus("gettext", languages="de,ko,hsb", store=store)
    monkeypatch.setattr("evenbits.text.catalogues._parse", lambda _: pytest.fail("parsed again"))
    assert load_corpus("gettext", languages="de,ko,hsb", store=store) == first


@needs_django
def test_all_languages_keep_at_least_sixty_common_messages(parsed):
    corpus = load_corpus("gettext", languages="all", store=parsed)
    assert len(corpus.languages) > 40
    assert len(corpus) >= 60 - 1  # one source text may stand in two applications


@needs_django
def test_django_lists_what_it_has_where_a_language_is_absent():
    with pytest.raises(CorpusError, match=r"has no text in ace, zu\. It has 99 languages: af, am, ar, .*zh-Hans"):
        load_corpus("gettext", languages="de,zu,ace_Latn")


def test_only_usable_messages_stay_and_each_reason_is_counted(package):
    text = package(
        {
            "app/de": po(
                *translated("German", [1]),
                ("Short source", "Eine Übersetzung, die lang genug wäre, zählt nicht."),
                (message(2), ""),
                (message(3), message(3)),
                "#, fuzzy\n" + po((message(4), "Unsicher übersetzt, niemand hat es geprüft.")).split("\n\n")[-1],
                f'msgid "{message(5)}"\nmsgid_plural "{message(6)}"\nmsgstr[0] "Einzahl"\nmsgstr[1] "Mehrzahl"\n',
                ("There are %(count)s long messages in this box.", "Hier liegen viele lange Nachrichten."),
                f'#~ msgid "{message(7)}"\n#~ msgstr "Veraltet und nicht mehr in Gebrauch."\n',
            )
        }
    )
    corpus = load_corpus(text)
    assert corpus.languages == ("de", "en")
    assert corpus.texts == {"de": ("German says this in its own words, number 1.",), "en": (message(1),)}
    assert counted(corpus) == {
        ("message", "de", "source shorter than 30 characters"): 1,
        ("message", "de", "not translated"): 1,
        ("message", "de", "equal to the source text"): 1,
        ("message", "de", "fuzzy"): 1,
        ("message", "de", "plural"): 1,
        ("message", "de", "other placeholders than the source"): 1,
        ("message", "de", "obsolete"): 1,
    }


def test_segments_are_the_messages_of_every_chosen_language(package):
    text = package(
        {
            "app/de": po(*translated("German", range(5))),
            "app/fr": po(*translated("French", range(1, 6))),
            "app/ko": po(*translated("Korean", [9])),
        }
    )
    corpus = load_corpus(text, languages="de,fr,en")
    assert set(corpus.texts["en"]) == {message(number) for number in range(1, 5)}
    assert counted(corpus) == {
        ("segment", None, "not usable in every chosen language"): 2,
        ("language", None, "not asked for"): 1,
    }
    for place, source in enumerate(corpus.texts["en"]):
        number = source.split("number ")[1]
        assert corpus.texts["de"][place].endswith(number)
        assert corpus.texts["fr"][place].endswith(number)


def test_nothing_in_common_is_refused_with_the_languages(package):
    text = package({"app/de": po(*translated("German", [1])), "app/fr": po(*translated("French", [2]))})
    said = r"no message .* is usable in all of de, en, fr; choose fewer with --languages \(without de there are 1\)"
    with pytest.raises(CorpusError, match=said):
        load_corpus(text)


def test_where_no_single_language_is_in_the_way_those_with_the_fewest_messages_are_named(package):
    numbers = {"de": [1, 2, 3], "fr": [4, 5], "it": [6], "es": [7, 8, 9, 10]}
    text = package({f"app/{tag}": po(*translated(tag, those)) for tag, those in numbers.items()})
    with pytest.raises(CorpusError, match=r"\(fewest are usable in it: 1, fr: 2, de: 3\)"):
        load_corpus(text)


def test_english_alone_without_messages_names_no_language_in_the_way(package):
    text = package({"app/de": po(("short", "kurz"))})
    with pytest.raises(CorpusError, match=r"usable in all of en; choose fewer with --languages$"):
        load_corpus(text, languages="en")


def test_context_and_application_are_part_of_a_message(package):
    entry = f'msgctxt "{{}}"\nmsgid "{message(1)}"\nmsgstr "{{}} Fassung dieser langen Nachricht."\n'
    text = package(
        {
            "app/de": po(entry.format("noun", "Erste"), entry.format("verb", "Zweite")),
            "app/fr": po(entry.format("verb", "Troisième")),
            "other/fr": po((message(1), "Quatrième version de ce message.")),
        }
    )
    corpus = load_corpus(text)
    assert corpus.texts["de"] == ("Zweite Fassung dieser langen Nachricht.",)
    assert corpus.texts["fr"] == ("Troisième Fassung dieser langen Nachricht.",)


def test_one_source_text_is_one_segment(package):
    text = package({"a/de": po(*translated("German", [1])), "b/de": po(*translated("German", [1]))})
    corpus = load_corpus(text)
    assert len(corpus) == 1
    assert counted(corpus) == {("segment", None, "the same source text as another message"): 1}


def test_segment_ids_do_not_depend_on_other_languages(package):
    text = package({"app/de": po(*translated("German", range(9))), "app/fr": po(*translated("French", range(4, 9)))})
    ids = {
        tag: dict(zip(c.texts["en"], c.segment_ids, strict=True))
        for tag in ("de", "fr")
        for c in [load_corpus(text, languages=["en", tag])]
    }
    assert len(ids["fr"]) == 5
    assert all(ids["de"][source] == segment_id for source, segment_id in ids["fr"].items())


def test_a_regional_variant_yields_to_its_base_even_when_better_covered(package):
    text = package(
        {
            "app/pt": po(*translated("Portuguese", range(3))),
            "app/pt_BR": po(*translated("Brazilian", range(5))),
            "app/es_MX": po(*translated("Mexican", range(3))),
            "app/es_AR": po(*translated("Argentinian", range(4))),
            "app/en_GB": po(*translated("British", range(5))),
            "app/sr": po(*translated("Serbian", range(5))),
            "app/sr_Latn": po(*translated("Serbian in Latin", range(5))),
        }
    )
    corpus = load_corpus(text)
    # pt stays for pt-BR; of two variants without es the better covered stays; the scripts of Serbian are two languages.
    assert corpus.languages == ("en", "es-AR", "pt", "sr-Cyrl", "sr-Latn")
    variants = {entry.language for entry in corpus.left_out if entry.reason.startswith("regional variant")}
    assert variants == {"pt-BR", "es-MX", "en-GB"}
    assert load_corpus(text, languages="pt_BR,pt").languages == ("pt", "pt-BR")


def test_a_number_takes_the_best_covered_languages_and_ties_by_tag(package):
    text = package(
        {
            "app/de": po(*translated("German", range(3))),
            "app/fr": po(*translated("French", range(5))),
            "app/cs": po(*translated("Czech", range(3))),
        }
    )
    corpus = load_corpus(text, languages="3")
    assert corpus.languages == ("cs", "en", "fr")
    assert counted(corpus)[("language", "de", "fewer usable messages than the chosen languages")] == 1
    english = load_corpus(text, languages="1")
    assert english.languages == ("en",)
    assert set(english.texts["en"]) == {message(number) for number in range(5)}  # without a catalogue en, all sources
    with pytest.raises(CorpusError, match=r"4 languages, one for each language and script; 5 were asked for"):
        load_corpus(text, languages="5")


def test_english_alone_is_the_source_catalogue(package):
    source = po((message(1), ""), ("Too short", ""))
    corpus = load_corpus(package({"app/en": source, "app/de": po(*translated("German", [1]))}), languages="en")
    assert corpus.texts == {"en": (message(1),)}


def test_a_language_without_usable_messages_is_not_taken_by_default(package):
    text = package({"app/de": po(*translated("German", [1])), "app/lb": po((message(1), ""))})
    corpus = load_corpus(text)
    assert corpus.languages == ("de", "en")
    assert counted(corpus)[("language", "lb", "fewer usable messages than the chosen languages")] == 1


def test_changed_catalogues_are_parsed_again(package, tmp_path):
    store = Store(tmp_path / "store")
    text = package({"app/de": po(*translated("German", [1]))})
    assert len(load_corpus(text, store=store)) == 1
    package({"app/de": po(*translated("German", [1, 2]))})
    assert len(load_corpus(text, store=store)) == 2


def test_a_package_that_is_absent_or_has_no_catalogues_is_named(package):
    with pytest.raises(CorpusError, match="message catalogues of nosuchpackage, which is not installed"):
        load_corpus("gettext:nosuchpackage")
    with pytest.raises(CorpusError, match="catalogues of no-name, which is not installed"):
        load_corpus("gettext:no-name")
    with pytest.raises(CorpusError, match=r"silent has no message catalogues.*gettext:PACKAGE"):
        load_corpus(package({}, name="silent"))


@pytest.mark.parametrize("missing", ["django", "polib"])
def test_a_missing_library_names_the_extra(monkeypatch, missing):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == missing else find(name, *more))
    if missing == "polib" and find("django") is None:
        pytest.skip("lifted by: pip install 'evenbits[gettext]'")
    with pytest.raises(CorpusError, match=rf"{missing}.*pip install 'evenbits\[gettext\]'"):
        load_corpus("gettext")


def test_a_catalogue_that_cannot_be_read_is_named(package, tmp_path):
    text = package({"app/de": po() + "no catalogue\n"})
    with pytest.raises(CorpusError, match=r"messages\.po cannot be read as a message catalogue"):
        load_corpus(text)
    path = tmp_path / "talking" / "app" / "locale" / "de" / "LC_MESSAGES" / "messages.po"
    path.write_bytes(po().encode("utf-8") + b'msgid "Gr\xfc\xdfe"\nmsgstr "x"\n')
    with pytest.raises(CorpusError, match=r"messages\.po is not UTF-8: byte \d+"):
        load_corpus(text)


def test_odd_locales_beside_the_wanted_ones_are_counted_and_spoil_nothing(package):
    text = package(
        {
            "app/fr": po(*translated("French", range(4))),
            "app/es": po(*translated("Spanish", range(4))),
            "app/de": po(*translated("German", range(4))),
            "app/de_DE": po(*translated("Another German", range(4))),
            "app/xx@yyy": po(*translated("Nobody", range(4))),
            "app/templates": po((message(1), "")),
        }
    )
    odd = ("catalogue folder", None, "its name is no language tag: templates, xx@yyy")
    second = ("catalogue folder", "de", "de_DE is the same language as de, which is read")
    for languages in ("es,fr", None, "4"):
        corpus = load_corpus(text, languages=languages)
        assert {"es", "fr"} <= set(corpus.languages)
        assert (counted(corpus)[odd], counted(corpus)[second]) == (2, 1)
    assert load_corpus(text, languages="de").texts["de"][0].startswith("German")


def test_catalogues_of_one_language_in_several_applications_are_one(package):
    text = package({"a/de": po(*translated("German", [1])), "b/de_DE": po(*translated("German", [2]))})
    assert len(load_corpus(text)) == 2


def test_a_folder_of_compiled_catalogues_alone_is_counted(package, tmp_path):
    text = package({"app/fr": po(*translated("French", [1]))})
    compiled = tmp_path / "talking" / "app" / "locale" / "de" / "LC_MESSAGES" / "messages.mo"
    compiled.parent.mkdir(parents=True)
    compiled.touch()
    reason = "de has no .po file; compiled catalogues (.mo) are not read"
    assert counted(load_corpus(text))[("catalogue folder", "de", reason)] == 1


FAULTS = {
    "pointer of git-lfs": lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:a\n"),
    "circular link": lambda path: path.symlink_to(path.name),
    "pipe": os.mkfifo,
    "folder": Path.mkdir,
    "no catalogue": lambda path: path.write_text("no catalogue\n"),
    "no UTF-8": lambda path: path.write_bytes(b'msgid "Gr\xfc\xdfe"\nmsgstr "x"\n'),
}


@pytest.mark.parametrize("made", FAULTS.values(), ids=FAULTS.keys())
def test_a_faulty_catalogue_stops_only_who_asked_for_its_language(package, tmp_path, made):
    text = package({"app/fr": po(*translated("French", [1]))})
    path = tmp_path / "talking" / "app" / "locale" / "de" / "LC_MESSAGES" / "messages.po"
    path.parent.mkdir(parents=True)
    made(path)
    with pytest.raises(CorpusError, match=r"locale/de/LC_MESSAGES/messages\.po "):
        load_corpus(text, languages="de,fr")
    assert load_corpus(text, languages="fr").languages == ("fr",)
    (told,) = [one for one in load_corpus(text).left_out if one.language == "de"]
    assert "locale/de/LC_MESSAGES/messages.po" in told.reason


def in_charset(declared, written):
    text = po((message(1), "Größe und Gefühl: schöne Grüße, süßer Käfer."))
    return text.replace("charset=UTF-8", f"charset={declared}").encode(written)


@pytest.mark.parametrize(
    ("declared", "written"),
    [
        ("ISO-8859-1", "latin-1"),
        ("windows-1252", "cp1252"),
        ("UTF-8", "utf-8"),
        ("ISO-8859-1", "utf-8"),  # a header copied from elsewhere: the bytes are UTF-8 all the same
        ("CHARSET", "utf-8"),  # as in a template
        ("hex", "utf-8"),  # a codec of Python's that is none of text
        ("UTF-7", "utf-7"),
    ],
)
def test_a_catalogue_is_read_in_the_charset_it_declares(package, tmp_path, declared, written):
    text = package({"app/de": po()})
    path = tmp_path / "talking" / "app" / "locale" / "de" / "LC_MESSAGES" / "messages.po"
    path.write_bytes(in_charset(declared, written))
    assert load_corpus(text).texts["de"] == ("Größe und Gefühl: schöne Grüße, süßer Käfer.",)


def test_a_stateful_charset_is_believed(package, tmp_path):
    text = package({"app/ja": po()})
    path = tmp_path / "talking" / "app" / "locale" / "ja" / "LC_MESSAGES" / "messages.po"
    japanese = po((message(1), "これは十分に長い日本語の文です。")).replace("charset=UTF-8", "charset=ISO-2022-JP")
    path.write_bytes(japanese.encode("iso2022_jp"))
    assert load_corpus(text).texts["ja"] == ("これは十分に長い日本語の文です。",)


@pytest.mark.parametrize(
    ("source", "translation", "same"),
    [
        ("%(name)s has %(count)d", "%(count)d hat %(name)s", True),
        ("%(name)s has %(count)d", "%(name)s hat", False),
        ("%s and %s", "%s und %s", True),
        ("%s and %s", "%s", False),
        ("{name} {}", "{} {name}", True),
        ("{value:.2f}", "{value:.3f}", False),
        ("100% sure", "100% sicher", True),
        ("<a href='x'>here</a>", "<a href='y'>hier</a>", True),
        ("<b>bold</b>", "fett", False),
        ("one\ntwo", "eins zwei", True),
        ("\none", "eins", False),
        ("one\n", "eins", False),
    ],
)
def test_placeholders_tags_and_outer_line_breaks_must_agree(source, translation, same):
    assert same_placeholders(source, translation) is same


@given(st.lists(st.sampled_from(["%s", "%(a)s", "{x}", "<b>", "</b>", "word", "Wort"])))
def test_the_order_of_placeholders_is_free(parts):
    assert same_placeholders(" ".join(parts), " ".join(reversed(parts)))
    assert not same_placeholders(" ".join(parts), " ".join([*parts, "%s"]))
