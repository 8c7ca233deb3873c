"""`debian:NAME`: corpora with a name, `corpora.toml` beside this file: packages, pinned, with domain and licence."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from evenbits.errors import CorpusError
from evenbits.store import Store
from evenbits.text.debian import Package, archive_of, unpack
from evenbits.text.files import read_bytes

__all__ = ["NamedCorpus", "documents_in", "named_corpora", "named_corpus", "unpacked"]

QUOTED = re.compile(r'"((?:[^"]|"")*)"')


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedCorpus:
    """A corpus of message catalogues. `documents`: glob of the files that messages stand in, empty for none."""

    name: str
    title: str
    domain: str
    licence: str
    languages: tuple[str, ...]
    packages: tuple[Package, ...]
    documents: str = ""

    def __str__(self) -> str:
        held = ", ".join(f"{one.name} {one.version}" for one in self.packages)
        return f"{self.title} ({self.domain}; {self.licence}; Debian's {held})"


@cache
def named_corpora() -> Mapping[str, NamedCorpus]:
    """Return the table, by name."""
    table = tomllib.loads(files("evenbits.text").joinpath("corpora.toml").read_text(encoding="utf-8"))
    return {
        name: NamedCorpus(
            name=name,
            packages=tuple(Package(**package) for package in row.pop("packages")),
            languages=tuple(sorted(row.pop("languages"))),
            **row,
        )
        for name, row in table.items()
    }


def named_corpus(name: str) -> NamedCorpus:
    """Return the corpus of that name; `CorpusError` lists those there are."""
    if name not in named_corpora():
        raise CorpusError(f"there is no corpus debian:{name}; there are debian:{', debian:'.join(named_corpora())}")
    return named_corpora()[name]


def unpacked(corpus: NamedCorpus, store: Store | None, *, offline: bool) -> Path:
    """Return the folder with the catalogues and documents of a corpus, unpacked once into the store.

    The packages are those that lie in the folder `debs` of the store, else apt fetches them there.
    """
    home = Store.default() if store is None else store

    def wanted(name: str) -> bool:
        return name.endswith(".mo") or (corpus.documents != "" and name.endswith(Path(corpus.documents).suffix))

    def fill(target: Path) -> None:
        for package in corpus.packages:
            archive, _ = archive_of(package.name, home.root / "debs", expected=package, offline=offline)
            unpack(archive, target, wanted=wanted)

    key = {"packages": [asdict(package) for package in corpus.packages], "documents": corpus.documents}
    return home.folder("debian", key, fill)


def documents_in(root: Path, pattern: str, sources: Sequence[str]) -> tuple[str, ...]:
    """Return the document of each source text: the first file with it as a quoted string, a doubled quote being one.

    A text that stands in no file is a document of its own.
    """
    place: dict[str, str] = {}
    for path in sorted(root.glob(pattern)):
        text = read_bytes(path).decode("utf-8", "replace")
        for found in QUOTED.findall(text):
            place.setdefault(found.replace('""', '"').strip(), path.relative_to(root).as_posix())
    return tuple(place.get(source.strip(), source) for source in sources)
