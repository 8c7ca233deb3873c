"""`hf:`, `flores` and `belebele`: aligned data sets of the hub, or a local folder of parquet files.

Two layouts are understood: one configuration per language with the columns id and text, or one table with the columns
language, id and text. Only data files are read; `datasets` runs no code that comes with a data set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from evenbits.errors import CorpusError
from evenbits.paths import expanded
from evenbits.records import Corpus, LeftOut
from evenbits.store import Store
from evenbits.text.alignment import UNASKED, align, by_tag, chosen, not_tags, source_unusable
from evenbits.text.languages import normalise
from evenbits.text.references import CorpusRef, LanguageChoice

__all__ = ["read"]

TEXT_COLUMNS = ("text", "sentence")
ID_COLUMNS = ("id", "segment_id")
LANGUAGE_COLUMNS = ("language", "lang", "locale", "dialect")
DOCUMENT_COLUMNS = ("document", "URL", "url")  # flores: the article that a sentence is from
WHOLE = frozenset({"all", "default"})  # configurations that hold every language, not one called so

Table = Mapping[str, Sequence[Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Place:
    """Where a data set is: hub id or folder, the configuration named (or None), and the split named (or None)."""

    path: str
    config: str | None
    split: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Columns:
    """The columns that make a segment. `repeats`: an id may stand in several rows, as belebele's passages do."""

    ids: tuple[str, ...]
    text: str
    language: str | None
    document: str | None = None
    repeats: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class _Segments:
    """One language's text by segment id, the documents that are named, and how many ids had different texts."""

    rows: dict[str, str]
    documents: dict[str, str]
    ambiguous: int


@dataclass(frozen=True, kw_only=True, slots=True)
class _Read:
    """Text by language, the languages chosen, and what was left out."""

    rows: dict[str, dict[str, str]]
    documents: dict[str, str]
    languages: tuple[str, ...]
    left_out: list[LeftOut]


def read(ref: CorpusRef, choice: LanguageChoice, *, store: Store | None, offline: bool) -> Corpus:  # noqa: ARG001
    """Return the aligned text of a data set. `offline`: only what lies on this machine is used.

    Raises `CorpusError` where `datasets` is missing, the data set cannot be reached or is gated, the layout is neither
    of the two, the split must be named, or a language is absent.
    """
    place = _place(ref)
    with _explained(ref, offline=offline) as library:
        configs = tuple(library.get_dataset_config_names(place.path))
        if place.config is not None and place.config not in configs:
            raise CorpusError(f"{ref.text}: {place.path} has no configuration {place.config}; it has {_some(configs)}")
        named = [place.config] if place.config is not None else sorted(set(configs) - WHOLE)
        by_language, left_out = _by_language(named)
        if place.config is None and by_language:
            found = _from_configurations(library, ref, place, by_language, choice)
        elif len(configs) == 1 or place.config is not None:
            found = _from_table(library, ref, place, place.config or configs[0], choice)
            left_out = []
        else:
            raise CorpusError(
                f"{ref.text}: no configuration of {place.path} is named after a language ({_some(configs)}); "
                "name the one that has a language column: hf:DATASET/CONFIG"
            )
    return align(
        name=ref.text,
        source=f"data set {place.path}" + (f", split {place.split}" if place.split else ""),
        rows=found.rows,
        languages=found.languages,
        left_out=(*left_out, *found.left_out),
        documents=found.documents,
    )


def _place(ref: CorpusRef) -> _Place:
    """Tell a folder, a hub id `a/b` and a configuration `a/b/c` apart; what is a folder here is taken for one."""
    whole = ref.location + (f":{ref.split}" if ref.split and ref.kind == "hf" else "")
    if expanded(whole).is_dir():  # a folder's name may hold a colon
        return _Place(path=str(expanded(whole).resolve()), config=None, split=None)
    path = expanded(ref.location)
    if path.is_dir():
        return _Place(path=str(path.resolve()), config=None, split=ref.split)
    if path.parent.is_dir() and len(path.parts) > 1:
        return _Place(path=str(path.parent.resolve()), config=path.name, split=ref.split)
    owner, _, rest = ref.location.partition("/")
    name, _, config = rest.partition("/")
    looks_like_path = ref.location.startswith((".", "/", "~", "\\")) or "/" in config
    if looks_like_path or not owner or not name:
        raise CorpusError(
            f"{ref.text}: {ref.location} is neither a folder here nor a hub id such as owner/name or owner/name/config"
        )
    return _Place(path=f"{owner}/{name}", config=config or None, split=ref.split)


@contextmanager
def _explained(ref: CorpusRef, *, offline: bool) -> Iterator[Any]:
    """Import `datasets`, keep it from the network where asked to, and turn its errors into sentences."""
    try:
        import datasets
        from huggingface_hub import constants
    except ImportError as error:
        raise CorpusError(
            f"the corpus {ref.text} needs the library datasets. Install it with: pip install 'evenbits[hub]'"
        ) from error
    before = datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    bars = datasets.utils.are_progress_bars_disabled()
    try:
        if offline:
            datasets.config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
        datasets.utils.disable_progress_bars()  # one for each language says nothing; the hub's downloads keep theirs
        yield datasets
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise CorpusError(_reason(ref, error, offline=before[0] or offline)) from error
    finally:
        datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before
        if not bars:
            datasets.utils.enable_progress_bars()


def _reason(ref: CorpusRef, error: Exception, *, offline: bool) -> str:
    """Say what was tried and what to do about it."""
    said = " ".join(str(error).split())
    if "gated" in said.lower():
        return (
            f"{ref.text}: {ref.location} is gated. Accept its terms on its page on the hub, then log in with "
            "`hf auth login` (or set HF_TOKEN). The corpus gettext needs neither."
        )
    if "scripts are no longer supported" in said:
        return f"{ref.text}: {ref.location} is a script, and code of a data set is never run; use one of data files"
    if offline and isinstance(error, ConnectionError):
        return (
            f"{ref.text}: {ref.location} is not on this machine, and the run is offline. Load it once with network, or "
            "use the corpus gettext or dir:PATH."
        )
    if isinstance(error, ConnectionError | FileNotFoundError):
        return f"{ref.text}: {ref.location} was not found on the hub or cannot be reached: {said}"
    return f"{ref.text}: {ref.location} cannot be read: {said}"


def _by_language(configs: Iterable[str]) -> tuple[dict[str, str], list[LeftOut]]:
    """Return {tag: configuration}, and count those that name no language or one a second time."""
    by_language: dict[str, str] = {}
    left_out: list[LeftOut] = []
    for config in configs:
        try:
            tag = normalise(config)
        except CorpusError:
            left_out.append(
                LeftOut(what="configuration", language=None, count=1, reason=f"{config} is no language tag")
            )
            continue
        if tag in by_language:
            reason = f"{config} is the same language as {by_language[tag]}, which is used"
            left_out.append(LeftOut(what="configuration", language=tag, count=1, reason=reason))
        else:
            by_language[tag] = config
    return by_language, left_out


def _from_configurations(
    library: Any,
    ref: CorpusRef,
    place: _Place,
    by_language: Mapping[str, str],
    choice: LanguageChoice,
) -> _Read:
    """Read one configuration for each chosen language, and English to recognise untranslated copies."""
    languages = chosen(ref.text, tuple(by_language), choice)
    split = _split(library, ref, place, by_language[languages[0]])

    def read(tag: str) -> _Segments:
        table = _table(library, place.path, by_language[tag], split)
        columns = _columns(ref, table, by_language[tag], with_language=False)
        return _segments(ref, table, columns, range(_length(table)), tag)

    return _rows_of(languages, by_language, read)


def _from_table(
    library: Any,
    ref: CorpusRef,
    place: _Place,
    config: str,
    choice: LanguageChoice,
) -> _Read:
    """Read one table whose rows name their language."""
    table = _table(library, place.path, config, _split(library, ref, place, config))
    columns = _columns(ref, table, config, with_language=True)
    spelled: dict[Any, list[int]] = {}
    for row, value in enumerate(table[columns.language or ""]):
        spelled.setdefault(value if isinstance(value, str) else f"({value!r})", []).append(row)
    tags, odd = by_tag({spelling: spelling for spelling in spelled})
    by_language = {tag: [row for spelling in spellings for row in spelled[spelling]] for tag, spellings in tags.items()}
    if not by_language:
        raise CorpusError(f"{ref.text}: the column {columns.language} holds no language tag, but {_some(odd)}")
    languages = chosen(ref.text, tuple(by_language), choice)

    def read(tag: str) -> _Segments:
        return _segments(ref, table, columns, sorted(by_language[tag]), tag)

    found = _rows_of(languages, by_language, read)
    return replace(found, left_out=[*not_tags(f"value of {columns.language}", odd), *found.left_out])


def _rows_of(languages: tuple[str, ...], present: Iterable[str], read: Callable[[str], _Segments]) -> _Read:
    """Read the chosen languages, and English to recognise untranslated copies; its faults count only where chosen."""
    left_out = _unasked(present, languages)
    rows: dict[str, dict[str, str]] = {}
    documents: dict[str, str] = {}
    for tag in sorted({*languages, *({"en"} & set(present))}):
        try:
            found = read(tag)
        except CorpusError as error:
            if tag in languages:
                raise
            left_out.append(source_unusable(tag, error))
            continue
        rows[tag] = found.rows
        documents |= found.documents
        if found.ambiguous:
            left_out.append(_ambiguous(tag, found.ambiguous))
    return _Read(rows=rows, documents=documents, languages=languages, left_out=left_out)


def _split(library: Any, ref: CorpusRef, place: _Place, config: str) -> str:
    """Return the split to read: the one named, else the only one."""
    splits = tuple(library.get_dataset_split_names(place.path, config))
    if place.split is not None:
        if place.split not in splits:
            raise CorpusError(f"{ref.text}: {place.path} has no split {place.split}; it has {_some(splits)}")
        return place.split
    if len(splits) != 1:
        raise CorpusError(
            f"{ref.text}: {place.path} has the splits {_some(splits)}; name one, as in {ref.text}:{splits[0]}"
        )
    return str(splits[0])


def _table(library: Any, path: str, config: str, split: str) -> Table:
    """Return the columns of one configuration and split that may matter, as plain lists."""
    dataset = library.load_dataset(path, config, split=split)
    wanted = {*TEXT_COLUMNS, *ID_COLUMNS, *LANGUAGE_COLUMNS, *DOCUMENT_COLUMNS, "link", "split", "flores_passage"}
    kept = [name for name in dataset.column_names if name in wanted]
    table: dict[str, Sequence[Any]] = dict.fromkeys(dataset.column_names, ())
    return table | {name: list(dataset[name]) for name in kept}


def _columns(ref: CorpusRef, table: Table, config: str, *, with_language: bool) -> _Columns:
    """Find the columns of a segment, or say which are missing."""
    if {"link", "flores_passage"} <= set(table):
        # belebele: `link` and, where it is given, `split` name a passage; its questions repeat it.
        ids = tuple(name for name in ("split", "link") if name in table)
        found = _Columns(ids=ids, text="flores_passage", language=_first(table, LANGUAGE_COLUMNS), repeats=True)
    else:
        segment_id, text = _first(table, ID_COLUMNS), _first(table, TEXT_COLUMNS)
        if segment_id is None or text is None:
            raise CorpusError(
                f"{ref.text}: {config} has the columns {_some(tuple(table))}; needed are id and text "
                f"(also understood: {', '.join((*ID_COLUMNS[1:], *TEXT_COLUMNS[1:]))})"
            )
        language, document = _first(table, LANGUAGE_COLUMNS), _first(table, DOCUMENT_COLUMNS)
        found = _Columns(ids=(segment_id,), text=text, language=language, document=document)
    if with_language and found.language is None:
        raise CorpusError(
            f"{ref.text}: {config} has the columns {_some(tuple(table))}; "
            "one table needs a column language beside id and text"
        )
    return found


def _segments(ref: CorpusRef, table: Table, columns: _Columns, places: Iterable[int], tag: str) -> _Segments:
    """Return the text of one language; ids whose texts differ are dropped and counted."""
    rows: dict[str, str] = {}
    documents: dict[str, str] = {}
    ambiguous: set[str] = set()
    for row in places:
        parts = [table[name][row] for name in columns.ids]
        if any(part is None or part == "" for part in parts):
            raise CorpusError(f"{ref.text}: row {row} of {tag} has no {' and '.join(columns.ids)}; segments need an id")
        segment_id = ":".join(str(part) for part in parts)
        text = table[columns.text][row]
        if text is not None and not isinstance(text, str):
            raise CorpusError(f"{ref.text}: {columns.text} of {segment_id} in {tag} is {type(text).__name__}, not text")
        if segment_id in rows and not columns.repeats:
            raise CorpusError(f"{ref.text}: {tag} has the id {segment_id} a second time; ids must be unique")
        if rows.setdefault(segment_id, text or "").strip() != (text or "").strip():
            ambiguous.add(segment_id)
        document = table[columns.document][row] if columns.document else None
        if isinstance(document, str) and document:
            documents[segment_id] = document
    kept = {key: text for key, text in rows.items() if key not in ambiguous}
    return _Segments(rows=kept, documents=documents, ambiguous=len(ambiguous))


def _ambiguous(tag: str, count: int) -> LeftOut:
    return LeftOut(what="segment", language=tag, count=count, reason="one id with different texts")


def _unasked(by_language: Iterable[str], languages: Sequence[str]) -> list[LeftOut]:
    count = len(set(by_language) - set(languages))
    return [LeftOut(what="language", language=None, count=count, reason=UNASKED)] if count else []


def _first(table: Table, names: Iterable[str]) -> str | None:
    return next((name for name in names if name in table), None)


def _length(table: Table) -> int:
    return max((len(column) for column in table.values()), default=0)


def _some(names: Sequence[str], most: int = 12) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
