"""`dir:PATH`: the user's own text, one file for each language, aligned by line or by id. UTF-8, checked strictly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from evenbits.errors import CorpusError
from evenbits.paths import expanded
from evenbits.records import Corpus, LeftOut
from evenbits.text.alignment import UNASKED, align, chosen, source_language, unique_tags
from evenbits.text.references import CorpusRef, LanguageChoice

__all__ = ["read_folder"]

SUFFIXES = (".txt", ".jsonl")


def read_folder(ref: CorpusRef, choice: LanguageChoice) -> Corpus:
    """Return the aligned text of the folder `ref.location`.

    `<tag>.txt`: line i of every file says the same thing. `<tag>.jsonl`: objects with `id` (text or whole number) and
    `text`, in any order. Lines end in LF or CRLF; a byte order mark and empty lines at the end, where the other files
    have ended, are no text. Raises `CorpusError` naming file and line or byte.
    """
    folder = expanded(ref.location)
    paths, ignored = _files(folder)
    present = unique_tags(ref.text, {path.stem: str(path) for path in paths.values()})
    files = {tag: paths[stem] for tag, stem in present.items()}
    languages = chosen(ref.text, tuple(sorted(files)), choice)
    needed = {*languages, source_language(tuple(files)) or languages[0]}  # English tells untranslated copies
    rows = {tag: _read(files[tag]) for tag in sorted(needed)}
    if next(iter(files.values())).suffix == ".txt":
        rows = _without_empty_ends(rows)
        _same_line_counts(ref.text, {files[tag]: len(rows[tag]) for tag in rows})
    left_out = []
    if ignored:
        left_out.append(
            LeftOut(what="file", language=None, count=len(ignored), reason=f"not .txt or .jsonl: {', '.join(ignored)}")
        )
    if len(languages) < len(files):
        left_out.append(LeftOut(what="language", language=None, count=len(files) - len(languages), reason=UNASKED))
    return align(
        name=ref.text,
        source=f"text files of {folder} ({len(files)} languages)",
        rows=rows,
        languages=languages,
        left_out=tuple(left_out),
    )


def _files(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """Return {stem: path} of the text files, and the names of other files; hidden files are not looked at."""
    if not folder.exists():
        raise CorpusError(
            f"the folder {folder} does not exist; dir: needs a folder with <tag>.txt or <tag>.jsonl files"
        )
    if not folder.is_dir():
        raise CorpusError(f"{folder} is a file; dir: needs the folder with the <tag>.txt or <tag>.jsonl files")
    everything = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    texts = [path for path in everything if path.suffix in SUFFIXES]
    if not texts:
        found = ", ".join(path.name for path in everything[:5]) or "nothing"
        raise CorpusError(f"{folder} has no text: expected files such as de.txt or de.jsonl, found {found}")
    if len({path.suffix for path in texts}) > 1:
        examples = [next(path.name for path in texts if path.suffix == suffix) for suffix in SUFFIXES]
        raise CorpusError(
            f"{folder} mixes .txt and .jsonl ({' and '.join(examples)}): lines and ids cannot be aligned. Use one kind."
        )
    return {path.stem: path for path in texts}, [path.name for path in everything if path not in texts]


def _read(path: Path) -> dict[str, str]:
    """Return {segment id: text}; for `.txt` the id is the line's number, padded so that ids sort by position."""
    lines = _lines(path)
    if path.suffix == ".txt":
        return {f"line{number:06d}": line for number, line in enumerate(lines, start=1)}
    rows: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue  # a blank line between JSON objects holds no segment
        segment_id, text = _record(path, number, line)
        if segment_id in rows:
            raise CorpusError(
                f"{path}, line {number}: id {segment_id!r} stands there a second time; ids must be unique"
            )
        rows[segment_id] = text
    if not rows:
        raise CorpusError(f"{path} is empty; give its segments or leave the language out with --languages")
    return rows


def _lines(path: Path) -> list[str]:
    """Return the lines of a UTF-8 file. Only LF and CRLF end a line: U+2028 and the like are part of the text."""
    blob = path.read_bytes()
    try:
        text = blob.decode("utf-8")
    except UnicodeDecodeError as error:
        line = blob.count(b"\n", 0, error.start) + 1
        raise CorpusError(
            f"{path} is not UTF-8: byte {error.start} (0x{blob[error.start]:02x}, line {line}) cannot be decoded. "
            "Save the file as UTF-8."
        ) from error
    lines = text.removeprefix("\ufeff").split("\n")
    if lines[-1] == "":
        lines.pop()
    lines = [line.removesuffix("\r") for line in lines]
    if not any(line.strip() for line in lines):
        raise CorpusError(f"{path} is empty; give its segments or leave the language out with --languages")
    return lines


def _record(path: Path, number: int, line: str) -> tuple[str, str]:
    """Return (id, text) of one JSON line."""
    where = f"{path}, line {number}"
    try:
        value: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise CorpusError(f"{where} is not JSON ({error.msg} at column {error.colno})") from error
    if not isinstance(value, dict) or not {"id", "text"} <= set(value):
        raise CorpusError(f'{where} needs an object with id and text, such as {{"id": "1", "text": "..."}}')
    segment_id, text = value["id"], value["text"]
    if isinstance(segment_id, bool) or not isinstance(segment_id, str | int) or segment_id == "":
        raise CorpusError(f"{where}: id is {segment_id!r}; it must be a text or a whole number")
    if not isinstance(text, str):
        raise CorpusError(f"{where}: text is {type(text).__name__}, not text")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise CorpusError(
            f"{where}: text has half a surrogate pair at character {error.start}; it has no UTF-8"
        ) from error
    return str(segment_id), text


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
