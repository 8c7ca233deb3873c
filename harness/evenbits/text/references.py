"""What users type for a corpus and for its languages. Only text is looked at here; nothing is read or downloaded."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from evenbits.errors import CorpusError, UsageError
from evenbits.text.languages import normalise

__all__ = [
    "READERS",
    "CorpusForm",
    "CorpusRef",
    "LanguageChoice",
    "describe_corpora",
    "parse_corpus",
    "parse_languages",
]

READERS: dict[str, str] = {
    "gettext": "evenbits.text.catalogues",
    "debian": "evenbits.text.catalogues",
    "dir": "evenbits.text.folders",
    "flores": "evenbits.text.hub",
    "belebele": "evenbits.text.hub",
    "hf": "evenbits.text.hub",
}
"""Kind -> module with `read(ref, choice, *, store, offline) -> Corpus`, imported when such a corpus is loaded.

`KIND:LOCATION` names a corpus of any kind here. A module may also have `languages(ref)`: the tags that there is text
in, where that is known without reading it.
"""

DEFAULT_PACKAGE = "django"
FLORES_SPLIT = "devtest"
BELEBELE_SPLIT = "test"


@dataclass(frozen=True, kw_only=True, slots=True)
class CorpusRef:
    """A corpus as the user named it. `location`: package, folder, or data set id, depending on `kind`.

    `split`: the part of a hub data set, or None. A hub data set's configuration is found when it is loaded, because
    `a/b/c` may also be a folder.
    """

    text: str
    kind: str
    location: str
    split: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class CorpusForm:
    """One way to name a corpus, for help texts: the form, what it is, and the pip extra it needs, if any."""

    form: str
    meaning: str
    extra: str | None


FORMS = (
    CorpusForm(
        form="gettext[:PACKAGE]",
        meaning="message catalogues (.po) of an installed package, Django by default: translated by people, aligned by "
        "message, about 40 languages x 165 segments, nothing to download",
        extra="gettext",
    ),
    CorpusForm(
        form="debian:NAME",
        meaning="message catalogues out of Debian packages, pinned, fetched by apt-get where they are not at hand: "
        "tuxpaint (a drawing program for children), wesnoth (narration and dialogue of a game, documents known)",
        extra="gettext",
    ),
    CorpusForm(
        form="dir:PATH",
        meaning="a folder of your own text: <tag>.txt aligned by line, or <tag>.jsonl with id and text; UTF-8",
        extra=None,
    ),
    CorpusForm(
        form="flores[:SPLIT]",
        meaning="FLORES+ (openlanguagedata/flores_plus, gated: accept its terms and log in), split devtest by default",
        extra="hub",
    ),
    CorpusForm(form="belebele", meaning="passages of facebook/belebele, each once, 122 language variants", extra="hub"),
    CorpusForm(
        form="hf:DATASET[/CONFIG][:SPLIT]",
        meaning="a hub data set or a local folder of parquet files: one configuration per language with columns id and "
        "text, or one table with columns language, id and text",
        extra="hub",
    ),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class LanguageChoice:
    """Which languages of a corpus: its default, all it has, the first `count`, or the named `tags` (normalised)."""

    kind: Literal["default", "all", "count", "tags"]
    count: int | None = None
    tags: tuple[str, ...] = ()


def describe_corpora() -> tuple[CorpusForm, ...]:
    """Return the forms `parse_corpus` understands, in the order to show them."""
    return FORMS


def parse_corpus(text: str) -> CorpusRef:
    """Return what `text` names; raise `UsageError` listing the known forms for anything else. Reads nothing."""
    name, colon, rest = text.strip().partition(":")
    if name == "gettext" and (rest or not colon):
        return CorpusRef(text=text, kind="gettext", location=rest or DEFAULT_PACKAGE)
    if name == "flores" and (rest or not colon):
        return CorpusRef(text=text, kind="flores", location="openlanguagedata/flores_plus", split=rest or FLORES_SPLIT)
    if name == "belebele" and not colon:
        return CorpusRef(text=text, kind="belebele", location="facebook/belebele", split=BELEBELE_SPLIT)
    if name == "hf" and rest:
        # A split never holds a slash or backslash; a Windows path's colon is followed by one.
        found = re.fullmatch(r"(?P<location>.+?)(?::(?P<split>[^:/\\]+))?", rest)
        if found:
            return CorpusRef(text=text, kind="hf", location=found["location"], split=found["split"])
    elif name in READERS and name not in {"gettext", "flores", "belebele"} and rest:
        return CorpusRef(text=text, kind=name, location=rest)
    known = "\n".join(f"  {form.form:30} {form.meaning}" for form in FORMS)
    raise UsageError(f"unknown corpus {text!r}. Known forms are:\n{known}")


def parse_languages(languages: Sequence[str] | str | None) -> LanguageChoice:
    """Return the choice that `languages` stands for.

    None: the corpus's default. A text: `all`, a number, or tags separated by commas or blanks. A sequence: tags.
    Raises `CorpusError` for what is no language tag, `UsageError` for a number below 1, an empty list, or a repeated
    language.
    """
    if languages is None:
        return LanguageChoice(kind="default")
    words = re.split(r"[,\s]+", languages.strip()) if isinstance(languages, str) else list(languages)
    words = [word for word in words if word]
    if len(words) == 1 and words[0] == "all":
        return LanguageChoice(kind="all")
    if len(words) == 1 and re.fullmatch(r"[+-]?\d+", words[0]):
        if int(words[0]) < 1:
            raise UsageError(f"--languages {words[0]}: at least one language is needed")
        return LanguageChoice(kind="count", count=int(words[0]))
    if not words:
        raise UsageError("--languages is empty: give tags such as de,sr-Latn, a number, or all")
    tags = [normalise(word) for word in words]
    for place, tag in enumerate(tags):
        if tag in tags[:place]:
            first = words[tags.index(tag)]
            twice = f"{words[place]} twice" if first == words[place] else f"{first} and {words[place]}, both {tag}"
            raise UsageError(f"--languages names {twice}; name each language once")
    return LanguageChoice(kind="tags", tags=tuple(sorted(tags)))


def absent_languages(name: str, wanted: Sequence[str], present: Sequence[str]) -> CorpusError:
    """Return the error for languages a corpus does not have; it names them and lists those it has."""
    missing = [tag for tag in wanted if tag not in present]
    return CorpusError(
        f"{name} has no text in {', '.join(missing)}. It has {len(present)} languages: {', '.join(sorted(present))}."
    )
