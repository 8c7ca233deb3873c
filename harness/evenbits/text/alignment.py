"""From texts by language and id to a `Corpus`: every segment is present, non-empty and translated in every language."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evenbits.errors import CorpusError
from evenbits.records import Corpus, LeftOut
from evenbits.text.languages import normalise
from evenbits.text.references import LanguageChoice, absent_languages

__all__ = ["UNASKED", "align", "by_tag", "chosen", "not_tags", "source_language", "source_unusable"]

Rows = Mapping[str, Mapping[str, str]]  # language -> segment id -> text, in reading order

UNASKED = "not asked for"
"""Why a language of the corpus is left out that the user did not choose."""
REPEATED = "the same text as an earlier segment"
COPIES_REFUSED = 0.5  # share of segments equal to the source, or to one another, above which a language is refused


def source_language(present: tuple[str, ...]) -> str | None:
    """Return the language others were most likely translated from: English, or None where it is absent."""
    return "en" if "en" in present else None


def source_unusable(source: str, error: CorpusError) -> LeftOut:
    """Return the entry that says what is missing where a source that nobody asked for cannot be read."""
    reason = f"not asked for and not usable, so that copies of it are not recognised in other languages: {error}"
    return LeftOut(what="language", language=source, count=1, reason=reason)


def chosen(name: str, present: tuple[str, ...], choice: LanguageChoice) -> tuple[str, ...]:
    """Return the languages of `present` that `choice` means, sorted; by default all.

    A number takes English, where it is present, and then the first ones by tag.
    Raises `CorpusError` for languages that are absent, naming them and those there are.
    """
    if choice.kind == "tags":
        if not set(choice.tags) <= set(present):
            raise absent_languages(name, choice.tags, present)
        return choice.tags
    if choice.kind == "count":
        count = choice.count or 0
        if count > len(present):
            raise CorpusError(
                f"{name} has {len(present)} languages, {count} were asked for: {', '.join(sorted(present))}"
            )
        return tuple(sorted(sorted(present, key=lambda tag: (tag != source_language(present), tag))[:count]))
    return tuple(sorted(present))


def align(
    *,
    name: str,
    source: str,
    rows: Rows,
    languages: tuple[str, ...],
    left_out: tuple[LeftOut, ...] = (),
    documents: Mapping[str, str] | None = None,
) -> Corpus:
    """Return the segments that every one of `languages` has, in the order of the source (else the first) language.

    `rows` may hold more languages than are chosen; English among them serves to recognise untranslated copies.
    `documents`: segment id -> the document it comes from, where that is known; a segment without one stands alone.
    Left out and counted by language: segments missing in it, empty ones, copies of the source text (languages that
    share the source's primary subtag, such as `en-GB`, are not held to that), and of the others those whose text an
    earlier one has there, which would stand in both halves of the corpus and count twice. Raises `CorpusError` where
    a language is mostly copies, or no segment is left.
    """
    reference = source_language(tuple(rows))
    first = reference if reference in languages else languages[0]
    order = list(rows[first])
    order += [key for tag in languages if tag != first for key in rows[tag] if key not in rows[first]]
    candidates = list(dict.fromkeys(order))
    reasons = {tag: _unusable(name, tag, rows, candidates, reference) for tag in languages}
    refused = {key for of_tag in reasons.values() for keys in of_tag.values() for key in keys}
    repeats = _repeats(name, [key for key in candidates if key not in refused], rows, (first, *languages))
    counted = [
        LeftOut(what="segment", language=tag, count=len(keys), reason=reason)
        for tag in languages
        for reason, keys in {**reasons[tag], REPEATED: repeats[tag]}.items()
        if keys
    ]
    refused = refused.union(*repeats.values())
    kept = [key for key in candidates if key not in refused]
    if not kept:
        why = "; ".join(f"{entry.language}: {entry.count} {entry.reason}" for entry in counted) or "there is no text"
        raise CorpusError(
            f"{name} has no segment left that every language has, of {len(candidates)}: {why}. "
            "Check that the ids are the same in every language, or choose fewer languages."
        )
    if refused:
        total = LeftOut(
            what="segment", language=None, count=len(candidates) - len(kept), reason="not usable in every language"
        )
        counted.append(total)
    return Corpus(
        name=name,
        source=source,
        languages=languages,
        segment_ids=tuple(kept),
        texts={tag: tuple(rows[tag][key] for key in kept) for tag in languages},
        left_out=(*left_out, *counted),
        documents=tuple(documents.get(key, key) for key in kept) if documents else (),
    )


def _unusable(name: str, tag: str, rows: Rows, candidates: Sequence[str], reference: str | None) -> dict[str, set[str]]:
    """Return the segments that `tag` cannot give, by reason."""
    texts = rows[tag]
    return {
        "missing in this language": {key for key in candidates if key not in texts},
        "empty": {key for key, text in texts.items() if not text.strip()},
        "equal to the source text": _copies(name, tag, rows, reference),
    }


def _repeats(name: str, keys: Sequence[str], rows: Rows, languages: Sequence[str]) -> dict[str, set[str]]:
    """Return by language the segments of `keys` whose text an earlier one that stays has there.

    Refuse a language that mostly repeats itself where the first of `languages` does not.
    """
    seen: dict[str, set[str]] = {tag: set() for tag in languages}
    repeats: dict[str, set[str]] = {tag: set() for tag in languages}
    for key in keys:
        texts = {tag: rows[tag][key].strip() for tag in seen}
        again = [tag for tag, text in texts.items() if text in seen[tag]]
        for tag in again:
            repeats[tag].add(key)
        if not again:
            for tag, text in texts.items():
                seen[tag].add(text)
    for tag, found in repeats.items():
        own = found - repeats[languages[0]]
        if len(own) > COPIES_REFUSED * len(keys):
            raise CorpusError(
                f"{name}: in {tag} {len(own)} of {len(keys)} segments repeat the text of another that says something "
                f"else in {languages[0]}, so it is not a translation. Give the {tag} text, or leave {tag} out with "
                "--languages."
            )
    return repeats


def _copies(name: str, tag: str, rows: Rows, reference: str | None) -> set[str]:
    """Return the segments of `tag` that equal the source text; refuse a language that is mostly copies."""
    if reference is None or tag.partition("-")[0] == reference:
        return set()
    texts = {key: text for key, text in rows[tag].items() if text.strip() and key in rows[reference]}
    copies = {key for key, text in texts.items() if text.strip() == rows[reference][key].strip()}
    if len(copies) > COPIES_REFUSED * len(texts):
        raise CorpusError(
            f"{name}: the text of {tag} equals {reference} in {len(copies)} of {len(texts)} segments, so it is not a "
            f"translation. Give the {tag} text, or leave {tag} out with --languages."
        )
    return copies


def by_tag(spellings: Mapping[str, str]) -> tuple[dict[str, list[str]], list[str]]:
    """Return {normalised tag: names}, sorted, for {name: spelling of a tag}, and the names whose spelling is no tag."""
    named: dict[str, list[str]] = {}
    odd: list[str] = []
    for name, spelling in spellings.items():
        try:
            named.setdefault(normalise(spelling), []).append(name)
        except CorpusError:
            odd.append(name)
    return dict(sorted(named.items())), odd


def not_tags(what: str, names: Sequence[str]) -> list[LeftOut]:
    """Return the entry that counts and names what could not be taken for a language; none for no names."""
    reason = f"its name is no language tag: {', '.join(names)}"
    return [LeftOut(what=what, language=None, count=len(names), reason=reason)] if names else []
