"""Debian packages as a source of text: fetched by apt where they are not at hand, checked, unpacked, never installed.

Nothing of a package is run or unpacked before its checksum is known.
"""

from __future__ import annotations

import hashlib
import io
import lzma
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from evenbits.errors import CorpusError, IntegrityError

__all__ = ["Package", "archive_of", "unpack"]

ARCHIVE = b"!<arch>\n"
HEADER = 60  # bytes before each member of an `ar` archive, its name first and its size at 48


@dataclass(frozen=True, kw_only=True, slots=True)
class Package:
    """A package by name, version and the SHA-256 of its archive."""

    name: str
    version: str
    sha256: str


def archive_of(name: str, folder: Path, *, expected: Package | None, offline: bool = False) -> tuple[Path, Package]:
    """Return the archive `NAME_*.deb` in `folder`, fetched by apt where it is not there, and what it is.

    Raises `CorpusError` where it cannot be had, `IntegrityError` where it is not the `expected` package; both say where
    to put it.
    """
    remedy = f"Put {name}_*.deb into {folder}"
    if expected is not None:
        remedy = (
            f"Put version {expected.version} of {name} into {folder}; Debian keeps old ones in its snapshot archive"
        )
    archives = sorted(folder.glob(f"{name}_*.deb"))
    if not archives:
        if offline:
            raise CorpusError(f"the package {name} is not on this machine, and nothing may be fetched. {remedy}.")
        _fetch(name, folder, remedy)
        archives = sorted(folder.glob(f"{name}_*.deb"))
    path = archives[-1]
    version = path.name.split("_")[1].replace("%3a", ":")
    found = Package(name=name, version=version, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    if expected is not None and found.sha256 != expected.sha256:
        raise IntegrityError(
            f"{path.name} has SHA-256 {found.sha256}, expected {expected.sha256} of version {expected.version}: the "
            f"text would be another. It was not unpacked. {remedy}, and take this one away."
        )
    return path, found


def _fetch(name: str, folder: Path, remedy: str) -> None:
    program = shutil.which("apt-get")
    if program is None:
        raise CorpusError(
            f"the package {name} is not on this machine, and apt-get, which would fetch it, neither. {remedy}."
        )
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run([program, "download", name], cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603 - fixed command, a name from a table
    if done.returncode:
        said = " / ".join(line.strip() for line in done.stderr.splitlines()[-2:] if line.strip())
        raise CorpusError(f"apt-get could not download {name}: {said or 'it said nothing'}. {remedy}.")


def unpack(archive: Path, root: Path, *, wanted: Callable[[str], bool]) -> None:
    """Write the files of a package whose path (`usr/share/...`) is `wanted` below `root`."""
    try:
        with tarfile.open(fileobj=io.BytesIO(_data(archive))) as packed:
            for member in packed:
                if not member.isdir() and wanted(PurePosixPath(member.name).as_posix()):
                    packed.extract(member, root, filter=_inside)
    except (tarfile.ReadError, EOFError, lzma.LZMAError) as error:
        raise _damaged(archive) from error


def _inside(member: tarfile.TarInfo, root: str) -> tarfile.TarInfo | None:
    try:
        return tarfile.data_filter(member, root)
    except tarfile.FilterError:  # a link that leads out of the package, a device
        return None


def _data(archive: Path) -> bytes:
    """Return the member of a .deb that holds its files; a .deb is an `ar` archive."""
    blob = archive.read_bytes()
    at = len(ARCHIVE)
    while blob.startswith(ARCHIVE) and at + HEADER <= len(blob):
        name, size = blob[at : at + 16].decode("ascii", "replace").strip(" /"), blob[at + 48 : at + 58].strip()
        if not size.isdigit():
            break
        start, end = at + HEADER, at + HEADER + int(size)
        if name.startswith("data.tar"):
            return blob[start:end]
        at = end + end % 2
    raise _damaged(archive)


def _damaged(archive: Path) -> IntegrityError:
    return IntegrityError(f"{archive.name} is no Debian package, or it is damaged")
