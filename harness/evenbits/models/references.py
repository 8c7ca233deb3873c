"""What a user types after `--model`, understood without loading anything heavy."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from evenbits.errors import ModelError, UsageError
from evenbits.paths import expanded

__all__ = ["FORMS", "MEASURED", "Kind", "ModelRef", "parse_model", "reference_name"]

Kind = Literal["hub", "folder", "gguf", "wheel", "reference", "measured"]

MEASURED = "measured"
"""Before the name of a model of which a store has all that is asked: a merge reads no model's files."""

FORMS = (
    "a hub id (`org/name` or `org/name@revision`), a folder, a file `path.gguf`, `wheel:NAME==VERSION` "
    "(optionally `#sha256=...` of the model file inside), `reference` or `reference:NAME`"
)

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
REVISION = re.compile(r"[\w./-]+", re.ASCII)
WHEEL = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*)==(?P<version>[\w.+!-]+)(#sha256=(?P<sha256>[0-9a-f]{64}))?", re.ASCII)
NAME = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelRef:
    """A model as named by a user.

    `text`: what was typed. `location`: hub id, path, `NAME==VERSION`, or name of a reference model ("" for the only
    one). `revision`: branch, tag or commit on the hub. `sha256`: of the model file inside a wheel, where it was given.
    """

    text: str
    kind: Kind
    location: str
    revision: str | None = None
    sha256: str | None = None

    def __str__(self) -> str:
        return self.text


def reference_name(text: str) -> str | None:
    """Return NAME of `reference:NAME`, the text of a model that ships with evenbits; None for any other."""
    name = text.removeprefix("reference:")
    return None if name == text else name


def parse_model(text: str) -> ModelRef:
    """Return what `text` names. A folder that exists wins over a hub id of the same form.

    Raises `UsageError` for text of none of the forms, `ModelError` for a path that does not exist.
    """
    text = text.strip()
    if not text:
        raise UsageError(f"the model is empty; give {FORMS}")
    prefix, colon, rest = text.partition(":")
    if prefix == MEASURED and rest:
        return ModelRef(text=rest, kind="measured", location=rest)
    if prefix == "wheel" and colon:
        return _wheel(text, rest)
    if prefix == "reference" and (not colon or NAME.fullmatch(rest)):
        return ModelRef(text=text, kind="reference", location=rest)
    path = expanded(text)
    if text.lower().endswith(".gguf"):
        if not _is(Path.is_file, path):
            raise ModelError(f"there is no file {path}; give the path of a GGUF file that exists")
        return ModelRef(text=text, kind="gguf", location=str(path))
    if _is(Path.is_dir, path):
        return ModelRef(text=text, kind="folder", location=str(path))
    if text.startswith((".", "/", "~")):
        what = "is a file, not a folder with config.json" if _is(Path.is_file, path) else "does not exist"
        raise ModelError(f"the model {path} {what}; give {FORMS}")
    return _hub(text)


def _is(kind: Callable[[Path], bool], path: Path) -> bool:
    """Ask the file system; a name it cannot even look up (too long, no permission) is nothing that exists."""
    try:
        return kind(path)
    except OSError:
        return False


def _wheel(text: str, requirement: str) -> ModelRef:
    match = WHEEL.fullmatch(requirement)
    if match is None:
        raise UsageError(
            f"{text!r} does not name a wheel with its exact version; write wheel:NAME==VERSION, "
            "or wheel:NAME==VERSION#sha256=<64 lower-case hex digits of the model file inside>"
        )
    location = f"{match['name']}=={match['version']}"
    return ModelRef(text=text, kind="wheel", location=location, sha256=match["sha256"])


def _hub(text: str) -> ModelRef:
    identifier, at, revision = text.partition("@")
    if not HUB_ID.fullmatch(identifier) or (at and not REVISION.fullmatch(revision)):
        raise UsageError(f"{text!r} does not name a model; give {FORMS}")
    return ModelRef(text=text, kind="hub", location=identifier, revision=revision or None)
