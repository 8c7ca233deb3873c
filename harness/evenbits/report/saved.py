"""Numbered reports in a folder: what `--autosave` keeps, and what `--baseline 0003` or `--baseline latest` names.

A saved report is the whole document in one file, `0003_<commit>_<start>.json`, numbered from 0001 in the order of
saving. The commit is that of the repository in which the folder lies, `unversioned` without one; the one of evenbits
stands in the report. Nothing is ever overwritten or renumbered; deleting old files is up to their owner.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evenbits.errors import ReportError, StoreError
from evenbits.paths import expanded

__all__ = ["FOLDER", "LATEST", "find_report", "save_report", "saved_reports"]

FOLDER = ".evenbits"
"""Folder of saved reports where none is named, below the folder in which the command was started."""

LATEST = "latest"

NAME = re.compile(r"(?P<number>[0-9]{4,})_[\w.-]*\.json", re.ASCII)


def saved_reports(folder: Path) -> dict[int, Path]:
    """Return the saved reports of `folder` by number, ascending; none where the folder does not exist."""
    found: dict[int, Path] = {}
    for file in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        match = NAME.fullmatch(file.name)
        if match is not None:
            found.setdefault(int(match["number"]), file)
    return dict(sorted(found.items()))


def save_report(document: Mapping[str, Any], folder: Path) -> Path:
    """Write `document` under the next number and return the file; two runs at once get two numbers.

    `ReportError` where the folder cannot be written.
    """
    from filelock import FileLock, Timeout

    from evenbits.report.document import dump, write
    from evenbits.report.environment import commit_of

    started = re.sub(r"[^0-9T]", "", str(document["timing"].get("started") or "").partition("+")[0])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        commit = (commit_of(folder) or "unversioned")[:12]
        with FileLock(folder / ".lock", timeout=60):
            number = max(saved_reports(folder), default=0) + 1
            file = folder / f"{number:04d}_{commit}{f'_{started}' if started else ''}.json"
            write(file, dump(document))
    except (OSError, Timeout, StoreError) as error:
        raise ReportError(f"the report cannot be saved in {folder}: {error}.") from None
    return file


def find_report(text: str, folder: Path) -> Path:
    """Return the file that `text` names: `latest`, the number of a saved report in `folder`, or a path.

    A file of that name wins. `ReportError` where no saved report has the number.
    """
    path = expanded(text)
    if path.is_file() or not (text == LATEST or text.isdecimal()):
        return path
    saved = saved_reports(folder)
    number = max(saved, default=0) if text == LATEST else int(text)
    if number in saved:
        return saved[number]
    have = ", ".join(f"{one:04d}" for one in saved)
    raise ReportError(
        f"there is no saved report {text} in {folder}; "
        + (f"it has {have}." if have else "it has none: run once with --autosave.")
    )
