"""`dir:PATH`: the user's own text, one file for each language, aligned by line or by id. UTF-8, checked strictly."""

from __future__ import annotations

from pathlib import Path

from evenbits.errors import CorpusError
from evenbits.foreign import parse_json, shown
from evenbits.paths import expanded
from evenbits.records import Corpus, LeftOut
from evenbits.store import Store
from evenbits.text.alignment import UNASKED, align, by_tag, chosen, not_tags, source_language, source_unusable
from evenbits.text.files import entries, read_bytes
from evenbits.text.references import CorpusRef, LanguageChoice

__all__ = ["languages", "read"]

SUFFIXES = (".txt", ".jsonl")


def read(ref: CorpusRef, choice: LanguageChoice, *, store: Store | None, offline: bool) -> Corpus:  # noqa: ARG001
    """Return the aligned text of the folder `ref.location`.

    `<tag>.txt`: line i of every file says the same thing. `<tag>.jsonl`: objects with `id` (text or whole number) and
    `text`, in any order, and `document` where segments come from one text. Lines end in LF or CRLF, or in CR where a
    file has no LF; a byte order mark and empty lines at the end, where the other files have ended, are no text. What is
    wrong with a chosen language's file raises `CorpusError` naming file and line or byte; what is wrong with another's
    is no matter, and what is named after no language is left out and counted.
    """
    folder = expanded(ref.location)
    files, left_out = _files(folder)
    languages = chosen(ref.text, tuple(sorted(files)), choice)
    paths = {tag: _only(ref.text, tag, files[tag]) for tag in languages}
    _same_kind(folder, list(paths.values()))
    documents: dict[str, str] = {}
    rows = {}
    for tag, path in paths.items():
        rows[tag], of_segments = _read(path)
        documents = _agreed(path, documents, of_segments)
    source = source_language(tuple(files))
    if source is not None and source not in languages:  # English tells untranslated copies, but was not asked for
        try:
            rows |= _source_rows(ref.text, source, files[source], paths[languages[0]], rows)
        except CorpusError as error:
            left_out.append(source_unusable(source, error))
    if _kind(paths[languages[0]]) == ".txt":
        rows = _without_empty_ends(rows)
        _same_line_counts(ref.text, {path: len(rows[tag]) for tag, path in paths.items()})
    if len(languages) < len(files):
        left_out.append(LeftOut(what="language", language=None, count=len(files) - len(languages), reason=UNASKED))
    return align(
        name=ref.text,
        source=f"text files of {folder} ({len(files)} languages)",
        rows=rows,
        languages=languages,
        left_out=tuple(left_out),
        documents=documents,
    )


def languages(ref: CorpusRef) -> tuple[str, ...]:
    """Return the languages after which text files of the folder are named; no file is opened."""
    return tuple(sorted(_files(expanded(ref.location))[0]))


def _files(folder: Path) -> tuple[dict[str, list[Path]], list[LeftOut]]:
    """Return {tag: files named after it}, and what else lies there, counted; hidden files are not looked at."""
    if not folder.exists():
        raise CorpusError(
            f"the folder {folder} does not exist; dir: needs a folder with <tag>.txt or <tag>.jsonl files"
        )
    if not folder.is_dir():
        raise CorpusError(f"{folder} is a file; dir: needs the folder with the <tag>.txt or <tag>.jsonl files")
    everything = [path for path in entries(folder) if not path.name.startswith(".")]
    texts = [path for path in everything if _kind(path) in SUFFIXES]
    others = [path.name for path in everything if path not in texts]
    tags, odd = by_tag({path.name: path.stem for path in texts})
    if not tags:
        found = ", ".join(path.name for path in everything[:5]) or "nothing"
        raise CorpusError(f"{folder} has no text: expected files such as de.txt or de.jsonl, found {found}")
    left_out = not_tags("file", odd)
    if others:
        reason = f"not .txt or .jsonl: {', '.join(others)}"
        left_out.append(LeftOut(what="file", language=None, count=len(others), reason=reason))
    return {tag: [folder / name for name in names] for tag, names in tags.items()}, left_out


def _kind(path: Path) -> str:
    return path.suffix.lower()


def _only(name: str, tag: str, paths: list[Path]) -> Path:
    """Return the one file of a language; which of several holds its text is not for us to say."""
    if len(paths) > 1:
        raise CorpusError(f"{name}: {' and '.join(map(str, paths))} are both {tag}; keep one of them")
    return paths[0]


def _same_kind(folder: Path, paths: list[Path]) -> None:
    if len({_kind(path) for path in paths}) > 1:
        examples = [next(path.name for path in paths if _kind(path) == suffix) for suffix in SUFFIXES]
        raise CorpusError(
            f"{folder} mixes .txt and .jsonl ({' and '.join(examples)}): lines and ids cannot be aligned. Use one kind."
        )


def _source_rows(
    name: str, source: str, paths: list[Path], beside: Path, rows: dict[str, dict[str, str]]
) -> dict[str, dict[str, str]]:
    """Return {source: its rows}, for a source that nobody asked for. Raises `CorpusError` where it cannot serve."""
    path = _only(name, source, paths)
    _same_kind(path.parent, [beside, path])
    found = {source: _read(path)[0]}
    if _kind(path) == ".txt":
        trimmed = _without_empty_ends(rows | found)
        _same_line_counts(name, {beside: max(len(trimmed[tag]) for tag in rows), path: len(trimmed[source])})
    return found


def _agreed(path: Path, known: dict[str, str], more: dict[str, str]) -> dict[str, str]:
    """Return both, of {segment id: document}; a segment comes from one document, whatever file says so."""
    for segment_id, document in more.items():
        if known.get(segment_id, document) != document:
            raise CorpusError(
                f"{path}: segment {segment_id} is of document {document!r}, in another file of {known[segment_id]!r}; "
                "aligned segments come from one document"
            )
    return known | more


def _read(path: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Return {segment id: text}, and {segment id: document} where it is named.

    For `.txt` the id is the line's number, padded so that ids sort by position.
    """
    lines = _lines(path)
    if _kind(path) == ".txt":
        return {f"line{number:06d}": line for number, line in enumerate(lines, start=1)}, {}
    rows: dict[str, str] = {}
    documents: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue  # a blank line between JSON objects holds no segment
        segment_id, text, document = _record(path, number, line)
        if segment_id in rows:
            raise CorpusError(
                f"{path}, line {number}: id {segment_id!r} stands there a second time; ids must be unique"
            )
        rows[segment_id] = text
        if document is not None:
            documents[segment_id] = document
    if not rows:
        raise CorpusError(f"{path} is empty; give its segments or leave the language out with --languages")
    return rows, documents


def _lines(path: Path) -> list[str]:
    """Return the lines of a UTF-8 file, which end in LF or CRLF: U+2028 and the like are part of the text.

    In a file without any LF lines end in CR, as old systems wrote them.
    """
    blob = read_bytes(path)
    try:
        text = blob.decode("utf-8")
    except UnicodeDecodeError as error:
        line = blob.count(b"\n", 0, error.start) + 1
        raise CorpusError(
            f"{path} is not UTF-8: byte {error.start} (0x{blob[error.start]:02x}, line {line}) cannot be decoded. "
            "Save the file as UTF-8."
        ) from error
    lines = text.removeprefix("\ufeff").split("\n" if "\n" in text else "\r")
    if lines[-1] == "":
        lines.pop()
    lines = [line.removesuffix("\r") for line in lines]
    if not any(line.strip() for line in lines):
        raise CorpusError(f"{path} is empty; give its segments or leave the language out with --languages")
    return lines


def _record(path: Path, number: int, line: str) -> tuple[str, str, str | None]:
    """Return (id, text, document or None) of one JSON line."""
    where = f"{path}, line {number}"
    value = parse_json(line.encode(), source=where, error=CorpusError)
    if not isinstance(value, dict) or not {"id", "text"} <= set(value):
        raise CorpusError(f'{where} needs an object with id and text, such as {{"id": "1", "text": "..."}}')
    segment_id, text = value["id"], value["text"]
    if isinstance(segment_id, bool) or not isinstance(segment_id, str | int) or segment_id == "":
        raise CorpusError(f"{where}: id is {shown(segment_id)}; it must be a text or a whole number")
    if not isinstance(text, str):
        raise CorpusError(f"{where}: text is {type(text).__name__}, not text")
    document = value.get("document")
    if document is not None and (not isinstance(document, str) or not document):
        raise CorpusError(f"{where}: document is {shown(document)}; it must be a text, or be left out")
    return str(segment_id), text, document


def _without_empty_ends(rows: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    """Return the rows up to the last line that is filled in any file: editors leave empty ones behind it."""
    last = max(place for lines in rows.values() for place, line in enumerate(lines.values()) if line.strip())
    return {tag: dict(list(lines.items())[: last + 1]) for tag, lines in rows.items()}


def _same_line_counts(name: str, counts: dict[Path, int]) -> None:
    """Refuse files of different lengths: line i could not be told to say the same thing."""
    if len(set(counts.values())) > 1:
        by_count: dict[int, list[str]] = {}
        for path, count in sorted(counts.items()):
            by_count.setdefault(count, []).append(path.name)
        listed = ", ".join(
            f"{len(names)} files {count}" if len(names) > 3 else ", ".join(f"{one} {count}" for one in names)
            for count, names in by_count.items()
        )
        raise CorpusError(
            f"{name}: the files have different numbers of lines ({listed}), so lines cannot be aligned. "
            "Give every file the same lines, an empty one where a translation is missing, or use .jsonl with ids."
        )
