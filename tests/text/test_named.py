"""`debian:NAME`: the table of corpora, and how their catalogues are read."""

import shutil
from importlib.resources import files

import numpy as np
import pytest
from evenbits.errors import CorpusError
from evenbits.fixtures.reference.training.evaluation import fingerprints
from evenbits.fixtures.reference.training.texts import PROGRAMS
from evenbits.store import Store
from evenbits.text import load_corpus
from evenbits.text.languages import describe, normalise
from evenbits.text.named import NamedCorpus, documents_in, named_corpora

polib = pytest.importorskip("polib", reason="lifted by: pip install 'evenbits[gettext]'")

SENTENCES = [f"The knight says sentence {number} of the story." for number in range(4)]


def compiled(path, translations):
    """Write a compiled catalogue, with a plural and an untranslated message besides."""
    catalogue = polib.POFile()
    catalogue.metadata = {"Content-Type": "text/plain; charset=utf-8"}
    catalogue.extend(polib.POEntry(msgid=source, msgstr=text) for source, text in translations.items())
    plural = {0: "einer", 1: "viele"}
    catalogue.append(polib.POEntry(msgid="%d is one", msgid_plural="%d are many of them", msgstr_plural=plural))
    catalogue.append(polib.POEntry(msgid="Nobody has translated this sentence yet.", msgstr=""))
    path.parent.mkdir(parents=True, exist_ok=True)
    catalogue.save_as_mofile(str(path))


@pytest.fixture
def story(tmp_path, monkeypatch):
    """The corpus debian:story, unpacked: three languages, of which it takes two, and two scenes."""
    root = tmp_path / "unpacked"
    for tag in ("de", "fr", "pt_BR"):
        told = {source: f"{tag} erzählt: {source}" for source in SENTENCES[: 3 if tag == "de" else 4]}
        compiled(root / "usr/share/locale" / tag / "LC_MESSAGES/story.mo", told)
    (root / "scenes").mkdir()
    (root / "scenes/1.cfg").write_text(f'message= _ "{SENTENCES[0]}"\nother= _ "{SENTENCES[1]}"', encoding="utf-8")
    (root / "scenes/2.cfg").write_text(f'message= _"{SENTENCES[1]}"', encoding="utf-8")
    corpus = NamedCorpus(
        name="story",
        title="A story",
        domain="fiction",
        licence="CC0-1.0",
        languages=("de", "en"),
        packages=(),
        documents="scenes/*.cfg",
    )
    monkeypatch.setattr("evenbits.text.named.named_corpora", lambda: {"story": corpus})
    monkeypatch.setattr("evenbits.text.catalogues.unpacked", lambda corpus, store, *, offline: root)  # noqa: ARG005
    return corpus


def test_a_named_corpus_gives_its_own_languages_and_english_as_the_source(story):  # noqa: ARG001
    corpus = load_corpus("debian:story")
    assert corpus.languages == ("de", "en")
    assert sorted(corpus.texts["en"]) == SENTENCES[:3]
    assert sorted(corpus.texts["de"]) == [f"de erzählt: {source}" for source in SENTENCES[:3]]
    assert corpus.source == "message catalogues of A story (fiction; CC0-1.0; Debian's )"
    assert {one.reason: one.count for one in corpus.left_out if one.language == "de"} == {"plural": 1}


def test_other_languages_of_a_named_corpus_can_be_asked_for(story):  # noqa: ARG001
    corpus = load_corpus("debian:story", languages="fr,pt-BR")
    assert (corpus.languages, len(corpus)) == (("fr", "pt-BR"), 4)
    with pytest.raises(CorpusError, match="debian of story has no text in ja"):
        load_corpus("debian:story", languages="ja")


def test_a_message_is_of_the_first_document_that_it_stands_in_or_of_its_own(story):  # noqa: ARG001
    corpus = load_corpus("debian:story")
    document = dict(zip(corpus.texts["en"], corpus.documents, strict=True))
    assert document == {
        SENTENCES[0]: "scenes/1.cfg",
        SENTENCES[1]: "scenes/1.cfg",
        SENTENCES[2]: SENTENCES[2],
    }


def test_a_doubled_quote_of_a_document_is_one(tmp_path):
    (tmp_path / "a.cfg").write_text('x = "Say ""no"" to me"', encoding="utf-8")
    assert documents_in(tmp_path, "*.cfg", ['Say "no" to me', "x = "]) == ("a.cfg", "x = ")


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(CorpusError, match="there is no corpus debian:odd; there are debian:tuxpaint, debian:wesnoth"):
        load_corpus("debian:odd")


def test_a_package_that_is_not_at_hand_is_named_when_nothing_may_be_fetched(tmp_path):
    with pytest.raises(CorpusError, match=r"tuxpaint-data is not on this machine.*Put version .* into .*debs"):
        load_corpus("debian:tuxpaint", store=Store(tmp_path), offline=True)


@pytest.mark.parametrize("corpus", named_corpora().values(), ids=lambda corpus: corpus.name)
def test_every_named_corpus_is_pinned_and_was_no_training_text_of_the_reference_family(corpus):
    assert corpus.title
    assert corpus.domain
    assert corpus.licence == "GPL-2.0-or-later"
    assert all(len(package.sha256) == 64 and package.version for package in corpus.packages)
    assert not {package.name for package in corpus.packages} & {*PROGRAMS}
    assert [normalise(tag) for tag in corpus.languages] == list(corpus.languages)


@pytest.mark.slow  # fetches up to 20 MB of packages
@pytest.mark.skipif(shutil.which("apt-get") is None, reason="lifted by: apt-get with Debian 12's lists of packages")
@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("tuxpaint", {"languages": 47, "low": 18, "segments": 83, "documents": 0}),
        ("wesnoth", {"languages": 29, "low": 3, "segments": 525, "documents": 36}),
    ],
)
def test_the_corpora_are_what_the_docs_say_and_no_model_of_the_family_was_shown_them(tmp_path, name, counts):
    corpus = load_corpus(f"debian:{name}", store=Store(tmp_path))
    assert counts == {
        "languages": len(corpus.languages),
        "low": sum(describe(tag).tier == "low" for tag in corpus.languages),
        "segments": len(corpus),
        "documents": len(set(corpus.documents)),
    }
    shown = np.load(str(files("evenbits.fixtures.reference").joinpath("fingerprints.npy")))
    assert not any(np.isin(fingerprints(corpus.texts[tag]), shown).any() for tag in corpus.languages)
