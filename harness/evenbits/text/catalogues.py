"""`gettext`, `debian`: message catalogues of an installed package (.po), or of a corpus with a name (.mo).

People translated them, and message ids align them.

A message is used where it is singular, translated, not marked fuzzy or obsolete, not a copy of its source, at least
`SHORTEST` characters long, and where source and translation have the same placeholders. English is the source itself.

Default languages: the `DEFAULT_LANGUAGES` with the most usable messages (English among them), ties by tag, one for
each language and script. A regional variant (`es-AR`, `pt-BR`) is left out where its base language is there; of
variants without a base the best covered one stays.
"""

from __future__ import annotations

import codecs
import hashlib
import importlib.metadata
import importlib.util
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from evenbits.errors import CorpusError
from evenbits.records import Corpus, LeftOut, digest_of
from evenbits.store import Store
from evenbits.text.alignment import UNASKED, by_tag, not_tags
from evenbits.text.files import entries, read_bytes
from evenbits.text.named import documents_in, named_corpus, unpacked
from evenbits.text.references import CorpusRef, LanguageChoice, absent_languages

__all__ = ["SHORTEST", "read", "same_placeholders"]

SHORTEST = 30  # characters of the source text: shorter ones are labels, whose losses are mostly chance
DEFAULT_LANGUAGES = 40
FEWEST_COMMON = 60  # `all` stops adding languages where fewer messages would be common to them
ENGLISH = "en"
SEPARATOR = "\x04"  # as in .mo files
ID_DIGITS = 12
SEVEN_BIT = ("iso2022", "hz", "utf-7")  # charsets whose bytes are all ASCII's: any text in them looks like UTF-8
SCHEMA = 2  # of what is stored; raise it when the rules for a usable message change

PLACEHOLDERS = re.compile(
    r"%\(\w+\)[#0\-+]*\d*(?:\.\d+)?[a-zA-Z]"  # %(name)s
    r"|%[#0\-+]*\d*(?:\.\d+)?[sdifrgxc]"  # %s, %d, %.2f
    r"|\{\w*(?:![rsa])?(?::[^{}]*)?\}"  # {}, {name}, {value:.2f}
    r"|</?[a-zA-Z]\w*"  # an HTML tag's name: its attributes may be translated
)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Catalogue:
    """One language's catalogues: usable translations by message, and how many others there were by reason."""

    usable: Mapping[str, str]
    refused: Mapping[str, int]


def same_placeholders(source: str, translation: str) -> bool:
    """Return whether both have the same placeholders and HTML tags, each as often, and a line break at the same ends.

    Line breaks inside are layout: `msgfmt --check` looks at the ends only, too.
    """
    ends = (source.startswith("\n"), source.endswith("\n")) == (
        translation.startswith("\n"),
        translation.endswith("\n"),
    )
    return ends and Counter(PLACEHOLDERS.findall(source)) == Counter(PLACEHOLDERS.findall(translation))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Place:
    """Where catalogues lie and what they are: files `locale/<tag>/LC_MESSAGES/*suffix` below `root`.

    `others`: what is said where a language has none of these. `languages`: those of the default, empty for the best
    covered. `documents`: see `NamedCorpus`.
    """

    root: Path
    title: str
    suffix: str
    others: str = ""
    languages: tuple[str, ...] = ()
    documents: str = ""


def read(ref: CorpusRef, choice: LanguageChoice, *, store: Store | None, offline: bool) -> Corpus:
    """Return the messages of package, or named corpus, `ref.location` that every chosen language has.

    `choice` by number or default takes the best covered languages, or those that a named corpus has for its default;
    `all` adds languages by coverage as long as `FEWEST_COMMON` messages stay common. Only the languages needed are
    parsed; `store` keeps what was parsed under the digest of the files. Raises `CorpusError` where package, polib,
    catalogues or languages are missing.
    """
    place = _locate(ref, store, offline=offline)
    root = place.root
    if choice.kind == "default" and place.languages:
        choice = LanguageChoice(kind="tags", tags=place.languages)
    files, odd = _files(ref, place)
    if choice.kind == "tags":
        if not set(choice.tags) <= {*files, ENGLISH}:
            raise absent_languages(f"{ref.kind} of {ref.location}", choice.tags, tuple({*files, ENGLISH}))
        wanted = choice.tags
    else:
        wanted = tuple(sorted({*files, ENGLISH}))
    catalogues, broken = _all_parsed(root, {tag: files[tag] for tag in wanted if tag != ENGLISH}, store)
    if broken and (choice.kind == "tags" or not catalogues):
        raise next(iter(broken.values()))
    languages, left_out = _choose(choice, catalogues, tuple(sorted({*files} - {*broken})))
    left_out += [*odd, *(_broken(tag, error) for tag, error in broken.items())]
    used = {tag: catalogues[tag] for tag in languages if tag != ENGLISH}
    messages = set().union(*(catalogue.usable for catalogue in used.values())) or _source_messages(root, files)
    kept, repeated = _common(used, messages)
    source = f"message catalogues of {place.title}"
    if not kept:
        raise CorpusError(
            f"no message among the {source} is usable in all of {', '.join(languages)}; choose fewer with "
            f"--languages{_in_the_way(used)}"
        )
    for count, reason in (
        (len(messages) - len(kept) - repeated, "not usable in every chosen language"),
        (repeated, "the same source text as another message"),
    ):
        if count:
            left_out.append(LeftOut(what="segment", language=None, count=count, reason=reason))
    return Corpus(
        name=ref.text,
        source=source,
        languages=languages,
        segment_ids=tuple(digest_of(key)[:ID_DIGITS] for key in kept),
        texts={tag: tuple(_text(key, used.get(tag)) for key in kept) for tag in languages},
        left_out=(*left_out, *_refusals(used)),
        documents=documents_in(root, place.documents, [_text(key, None) for key in kept]) if place.documents else (),
    )


def _locate(ref: CorpusRef, store: Store | None, *, offline: bool) -> _Place:
    """Return where the catalogues of `ref` lie; an installed package is found without importing it."""
    if importlib.util.find_spec("polib") is None:
        raise CorpusError(f"the corpus {ref.kind} needs polib. Install it with: pip install 'evenbits[gettext]'")
    if ref.kind == "debian":
        corpus = named_corpus(ref.location)
        root = unpacked(corpus, store, offline=offline)
        return _Place(
            root=root, title=str(corpus), suffix=".mo", languages=corpus.languages, documents=corpus.documents
        )
    package = ref.location
    extra = " Install it with: pip install 'evenbits[gettext]'" if package == "django" else " Install it first."
    try:
        spec = importlib.util.find_spec(package) if package.isidentifier() else None
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise CorpusError(
            f"the corpus gettext reads the message catalogues of {package}, which is not installed.{extra}"
        )
    root = Path(next(iter(spec.submodule_search_locations)))
    return _Place(
        root=root,
        title=f"{package} {_version(package)}",
        suffix=".po",
        others="; compiled catalogues (.mo) are not read",
    )


@cache
def _version(package: str) -> str:
    """Return the version of the distribution that installed `package`; looking for another name's takes long."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        owners = importlib.metadata.packages_distributions().get(package, [])
        return importlib.metadata.version(owners[0]) if owners else "(version unknown)"


def _files(ref: CorpusRef, place: _Place) -> tuple[dict[str, list[Path]], list[LeftOut]]:
    """Return the catalogues of each language, root/**/locale/<tag>/LC_MESSAGES/*, and folders that are none.

    A package is not the user's to tidy: of several folders of one language beside each other the one spelled as its
    tag is read, else the first by name, and the others are counted.
    """
    files: dict[str, list[Path]] = {}
    left_out: list[LeftOut] = []
    odd: set[str] = set()
    root = place.root
    for locale in sorted(path for path in root.rglob("locale") if path.is_dir()):
        folders = {folder.name: folder for folder in entries(locale) if (folder / "LC_MESSAGES").is_dir()}
        tags, no_tags = by_tag({name: name for name in folders})
        odd.update(no_tags)
        for tag, names in tags.items():
            first, *others = sorted(names, key=lambda name: (name.replace("_", "-") != tag, name))
            found = [path for path in entries(folders[first] / "LC_MESSAGES") if path.suffix.lower() == place.suffix]
            files.setdefault(tag, []).extend(found)
            reasons = [f"{name} is the same language as {first}, which is read" for name in others]
            reasons += [] if found else [f"{first} has no {place.suffix} file{place.others}"]
            left_out += [LeftOut(what="catalogue folder", language=tag, count=1, reason=why) for why in reasons]
    left_out += not_tags("catalogue folder", sorted(odd))
    files = {tag: paths for tag, paths in sorted(files.items()) if paths}
    if not files:
        raise CorpusError(
            f"{ref.location} has no message catalogues (locale/<tag>/LC_MESSAGES/*.po below {root}); "
            "choose another package with gettext:PACKAGE"
        )
    return files, left_out


def _all_parsed(
    root: Path, files: Mapping[str, Sequence[Path]], store: Store | None
) -> tuple[dict[str, _Catalogue], dict[str, CorpusError]]:
    """Return the catalogues by language, and what is wrong with those that cannot be read."""
    catalogues: dict[str, _Catalogue] = {}
    broken: dict[str, CorpusError] = {}
    for tag, paths in files.items():
        try:
            catalogues[tag] = _parsed(root, paths, store)
        except CorpusError as error:
            broken[tag] = error
    return catalogues, broken


def _broken(tag: str, error: CorpusError) -> LeftOut:
    return LeftOut(what="language", language=tag, count=1, reason=str(error))


def _parsed(root: Path, paths: Sequence[Path], store: Store | None) -> _Catalogue:
    """Return one language's catalogue, from the store where the very same files were parsed before."""
    names = [path.relative_to(root).as_posix() for path in paths]

    def parse() -> dict[str, Any]:
        catalogue = _parse(dict(zip(names, paths, strict=True)))
        return {"usable": dict(catalogue.usable), "refused": dict(catalogue.refused)}

    if store is None:
        meta = parse()
    else:
        digests = {name: hashlib.sha256(read_bytes(path)).hexdigest() for name, path in zip(names, paths, strict=True)}
        key = {"schema": SCHEMA, "shortest": SHORTEST, "files": digests}
        meta = store.compute("catalogue", key, lambda: ({}, parse())).meta
    return _Catalogue(usable=meta["usable"], refused=meta["refused"])


def _parse(files: Mapping[str, Path]) -> _Catalogue:
    """Parse one language's files and sort their messages into usable and refused ones."""
    usable: dict[str, str] = {}
    refused: Counter[str] = Counter()
    for name, path in files.items():
        for entry in _entries(path):
            reason = _refusal(entry)
            if reason is None:
                usable[_message_key(name, entry.msgctxt, entry.msgid)] = entry.msgstr
            else:
                refused[reason] += 1
    return _Catalogue(usable=usable, refused=dict(sorted(refused.items())))


def _entries(path: Path) -> Iterator[Any]:
    import polib

    blob = read_bytes(path)
    try:
        if path.suffix.lower() == ".mo":
            yield from polib.mofile(blob, encoding="utf-8")
        else:
            encoding = _encoding(path, blob, polib.detect_encoding(str(path)))
            yield from polib.pofile(str(path), encoding=encoding)
    except (OSError, ValueError, LookupError) as error:  # polib reports syntax errors as OSError
        raise CorpusError(f"{path} cannot be read as a message catalogue: {error}") from error


def _encoding(path: Path, blob: bytes, declared: str) -> str:
    """Return the encoding of a catalogue: UTF-8 where its bytes are that, else the charset its header declares.

    Headers are copied from other catalogues more often than texts are: what decodes as UTF-8 beyond ASCII is UTF-8.
    Charsets that write everything in ASCII's bytes have to be believed.
    """
    name = codecs.lookup(declared).name
    for encoding in dict.fromkeys([name, "utf-8"] if name.startswith(SEVEN_BIT) else ["utf-8", name]):
        try:
            blob.decode(encoding)
        except UnicodeDecodeError as error:
            place = error.start
        except LookupError:  # a codec of Python's that is none of text
            continue
        else:
            return encoding
    also = "" if name == "utf-8" else f" nor {name}, the charset it declares"
    raise CorpusError(f"{path} is not UTF-8{also}: byte {place} cannot be decoded")


def _refusal(entry: Any) -> str | None:
    """Return why a message is not used, or None. The first reason that holds is the one counted."""
    reasons = (
        ("obsolete", entry.obsolete),
        ("plural", bool(entry.msgid_plural)),
        (f"source shorter than {SHORTEST} characters", len(entry.msgid) < SHORTEST),
        ("fuzzy", "fuzzy" in entry.flags),
        ("not translated", not entry.msgstr.strip()),
        ("equal to the source text", entry.msgstr.strip() == entry.msgid.strip()),
        ("other placeholders than the source", not same_placeholders(entry.msgid, entry.msgstr)),
    )
    return next((reason for reason, holds in reasons if holds), None)


def _message_key(name: str, context: str | None, msgid: str) -> str:
    """Return the message's identity: application and domain (the file without its language), context, source text."""
    application, _, rest = name.partition("locale/")
    domain = rest.rpartition("/")[2]
    return SEPARATOR.join((application + domain, context or "", msgid))


def _group(tag: str) -> str:
    """Return the tag without region and variant: language and, where it is written, script (four letters)."""
    primary, *rest = tag.split("-")
    return "-".join([primary, *(part for part in rest if len(part) == 4 and part.isalpha())])


def _choose(
    choice: LanguageChoice, catalogues: Mapping[str, _Catalogue], present: tuple[str, ...]
) -> tuple[tuple[str, ...], list[LeftOut]]:
    """Return the chosen languages, sorted, and the others counted."""
    if choice.kind == "tags":
        count = len({*present, ENGLISH} - set(choice.tags))
        unasked = LeftOut(what="language", language=None, count=count, reason=UNASKED)
        return choice.tags, [unasked] if count else []
    ranked = sorted(catalogues, key=lambda tag: (-len(catalogues[tag].usable), tag))
    variants = _variants(ranked)
    bases = [tag for tag in ranked if tag not in variants and catalogues[tag].usable]
    if choice.kind == "all":
        taken, why = _with_common(bases, catalogues), f"fewer than {FEWEST_COMMON} messages would be common to all"
    else:
        count = DEFAULT_LANGUAGES if choice.count is None else choice.count
        if choice.count is not None and count > len(bases) + 1:
            raise CorpusError(
                f"the catalogues have {len(bases) + 1} languages, one for each language and script; "
                f"{count} were asked for"
            )
        taken, why = bases[: count - 1], "fewer usable messages than the chosen languages"
    left_out = [
        LeftOut(what="language", language=tag, count=1, reason="regional variant of a language that is there")
        for tag in sorted(variants)
    ]
    others = sorted(set(ranked) - variants - set(taken))
    left_out += [LeftOut(what="language", language=tag, count=1, reason=why) for tag in others]
    return tuple(sorted([ENGLISH, *taken])), left_out


def _variants(ranked: Sequence[str]) -> set[str]:
    """Return the tags that are left out because their language, in their script, is there by another tag.

    The tag without region stays; where there is none, the best covered one of `ranked` does.
    """
    stays: dict[str, str] = {}
    for tag in (ENGLISH, *(tag for tag in ranked if _group(tag) == tag), *ranked):
        stays.setdefault(_group(tag), tag)
    return set(ranked) - set(stays.values())


def _with_common(ranked: Sequence[str], catalogues: Mapping[str, _Catalogue]) -> list[str]:
    """Return the languages, best covered first, that can be added while `FEWEST_COMMON` messages stay common."""
    taken: list[str] = []
    common: set[str] | None = None
    for tag in ranked:
        shared = set(catalogues[tag].usable) if common is None else common & set(catalogues[tag].usable)
        if len(shared) >= FEWEST_COMMON:
            taken.append(tag)
            common = shared
    return taken


def _refusals(catalogues: Mapping[str, _Catalogue]) -> list[LeftOut]:
    """Return the refused messages counted by language and reason."""
    return [
        LeftOut(what="message", language=tag, count=count, reason=reason)
        for tag, catalogue in catalogues.items()
        for reason, count in catalogue.refused.items()
    ]


def _source_messages(root: Path, files: Mapping[str, Sequence[Path]]) -> set[str]:
    """Return the source messages there are: those of the English catalogue, else of all catalogues.

    Catalogues of other languages say what the source says: one that cannot be read is not needed for that.
    """
    found: set[str] = set()
    for path in files.get(ENGLISH) or [path for several in files.values() for path in several]:
        try:
            entries_of = list(_entries(path))
        except CorpusError:
            continue
        found |= {
            _message_key(path.relative_to(root).as_posix(), entry.msgctxt, entry.msgid)
            for entry in entries_of
            if _refusal(entry) in {None, "not translated", "equal to the source text"}
        }
    return found


def _common(catalogues: Mapping[str, _Catalogue], messages: Iterable[str]) -> tuple[list[str], int]:
    """Return the messages every catalogue has, each source text once, and how many repeated another's source text."""
    common = [key for key in sorted(messages) if all(key in one.usable for one in catalogues.values())]
    first: dict[str, str] = {}
    for key in common:
        first.setdefault(_text(key, None), key)
    return list(first.values()), len(common) - len(first)


def _in_the_way(catalogues: Mapping[str, _Catalogue]) -> str:
    """Return which language to leave out, where that alone would help, else which have the fewest usable messages."""
    if not catalogues:
        return ""
    rest = {tag: {other: one for other, one in catalogues.items() if other != tag} for tag in catalogues}
    left = {tag: len(_common(others, next(iter(others.values())).usable)[0]) for tag, others in rest.items() if others}
    if any(left.values()):
        best = max(left, key=lambda tag: left[tag])
        return f" (without {best} there are {left[best]})"
    fewest = sorted(catalogues, key=lambda tag: len(catalogues[tag].usable))[:3]
    return f" (fewest are usable in {', '.join(f'{tag}: {len(catalogues[tag].usable)}' for tag in fewest)})"


def _text(key: str, catalogue: _Catalogue | None) -> str:
    """Return the translation of a message; without a catalogue its source, the last part of its identity."""
    return key.rpartition(SEPARATOR)[2] if catalogue is None else catalogue.usable[key]
