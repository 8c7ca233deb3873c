"""Paths as people type them, and as a run records them."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["INSTALLED_EVALS", "as_typed", "expanded"]

INSTALLED_EVALS = "evenbits.evals"
"""How the installed evals are named where a project may have `evals/` of its own: by their package."""


def as_typed(file: Path, here: Path) -> Path:
    """Return `file` as one would type it in the folder `here`: below it without the way there, else as it is."""
    return file.relative_to(here) if file.is_relative_to(here) else file


def expanded(text: str | Path) -> Path:
    """Return `text` as a path, `~` and `~user` replaced by a home; left as it is where there is no such user.

    `Path.expanduser` raises for a user that does not exist, and for a null character: what cannot exist is then said
    by whoever looks for the file, in a sentence.
    """
    try:
        return Path(os.path.expanduser(text))  # noqa: PTH111 - see above
    except ValueError:
        return Path(text)
