"""What users type for a corpus and its languages."""

import subprocess
import sys

import pytest
from evenbits.errors import CorpusError, UsageError
from evenbits.text import describe_corpora, parse_corpus, parse_languages


@pytest.mark.parametrize(
    ("text", "kind", "location", "split"),
    [
        ("gettext", "gettext", "django", None),
        ("gettext:sphinx", "gettext", "sphinx", None),
        ("dir:texts/mine", "dir", "texts/mine", None),
        (r"dir:C:\texts", "dir", r"C:\texts", None),
        ("flores", "flores", "openlanguagedata/flores_plus", "devtest"),
        ("flores:dev", "flores", "openlanguagedata/flores_plus", "dev"),
        ("belebele", "belebele", "facebook/belebele", "test"),
        ("hf:owner/name", "hf", "owner/name", None),
        ("hf:owner/name/config:test", "hf", "owner/name/config", "test"),
        (r"hf:C:\data\set:test", "hf", r"C:\data\set", "test"),
        (r"hf:C:\data\set", "hf", r"C:\data\set", None),
    ],
)
def test_each_form_is_understood(text, kind, location, split):
    ref = parse_corpus(text)
    assert (ref.text, ref.kind, ref.location, ref.split) == (text, kind, location, split)


@pytest.mark.parametrize("text", ["", "wikipedia", "dir:", "dir", "gettext:", "flores:", "hf:", "hf", "belebele:x"])
def test_an_unknown_corpus_lists_the_known_forms(text):
    with pytest.raises(UsageError) as caught:
        parse_corpus(text)
    message = str(caught.value)
    assert repr(text) in message
    assert all(form.form in message for form in describe_corpora())


def test_parsing_a_corpus_imports_nothing_heavy():
    code = (
        "import sys; from evenbits.text import parse_corpus; parse_corpus('flores'); parse_corpus('gettext');"
        "print([name for name in ('torch', 'transformers', 'datasets', 'pandas', 'polib', 'django', 'scipy') "
        "if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("languages", "kind", "count", "tags"),
    [
        (None, "default", None, ()),
        ("all", "all", None, ()),
        ("12", "count", 12, ()),
        ("fr,de_DE", "tags", None, ("de", "fr")),
        ("fr, sr ", "tags", None, ("fr", "sr-Cyrl")),
        (["pt_BR", "pt"], "tags", None, ("pt", "pt-BR")),
    ],
)
def test_a_choice_of_languages_is_a_default_all_a_number_or_tags(languages, kind, count, tags):
    choice = parse_languages(languages)
    assert (choice.kind, choice.count, choice.tags) == (kind, count, tags)


@pytest.mark.parametrize(
    ("languages", "message"),
    [
        ("0", "--languages 0: at least one language is needed"),
        ("-3", "--languages -3: at least one language is needed"),
        ("", "--languages is empty"),
        ([], "--languages is empty"),
        ("de,fr,de", "names de twice"),
        ("de,deu_Latn", "names de and deu_Latn, both de"),
    ],
)
def test_an_impossible_choice_is_refused(languages, message):
    with pytest.raises(UsageError, match=message):
        parse_languages(languages)


def test_a_choice_with_an_invalid_tag_names_it():
    with pytest.raises(CorpusError, match="'german' is not a language tag"):
        parse_languages("de,german")
