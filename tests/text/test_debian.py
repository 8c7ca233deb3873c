"""Debian packages as a source of text: at hand or fetched, checked before they are unpacked."""

import hashlib
import io
import tarfile

import pytest
from evenbits.errors import CorpusError, IntegrityError
from evenbits.text.debian import Package, archive_of, unpack


def deb(files, links=()):
    """Return a package as dpkg-deb writes it: an ar archive of debian-binary, control.tar and data.tar."""

    def tar(named, pointing=()):
        blob = io.BytesIO()
        with tarfile.open(fileobj=blob, mode="w:xz") as packed:
            for name, content in named.items():
                member = tarfile.TarInfo(f"./{name}")
                member.size = len(content)
                packed.addfile(member, io.BytesIO(content))
            for name, target in pointing:
                member = tarfile.TarInfo(f"./{name}")
                member.type, member.linkname = tarfile.SYMTYPE, target
                packed.addfile(member)
        return blob.getvalue()

    blob = b"!<arch>\n"
    parts = {"debian-binary": b"2.0\n", "control.tar.xz": tar({"control": b"odd"}), "data.tar.xz": tar(files, links)}
    for name, content in parts.items():
        blob += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode() + content
        blob += b"\n" * (len(content) % 2)
    return blob


@pytest.fixture
def debs(tmp_path, monkeypatch):
    """An empty folder for packages, on a machine without apt."""
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    return tmp_path / "debs"


def put(folder, name, blob):
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(blob)
    return hashlib.sha256(blob).hexdigest()


def test_a_package_at_hand_is_taken_where_its_checksum_is_the_pinned_one(debs):
    sha256 = put(debs, "talk_1%3a2-3_all.deb", b"whatever it holds")
    pinned = Package(name="talk", version="1:2-3", sha256=sha256)
    assert archive_of("talk", debs, expected=pinned) == (debs / "talk_1%3a2-3_all.deb", pinned)


def test_another_package_than_the_pinned_one_is_named_with_both_checksums_and_not_opened(debs):
    sha256 = put(debs, "talk_4_all.deb", b"altered")
    with pytest.raises(IntegrityError) as caught:
        archive_of("talk", debs, expected=Package(name="talk", version="3", sha256="0" * 64))
    assert all(word in str(caught.value) for word in ("talk_4_all.deb", sha256, "0" * 64, "Put version 3 of talk into"))


def test_without_apt_and_without_the_network_it_is_said_where_to_put_the_package(debs):
    with pytest.raises(CorpusError, match=r"apt-get, which would fetch it, neither. Put talk_\*.deb into .*debs"):
        archive_of("talk", debs, expected=None)
    with pytest.raises(CorpusError, match="nothing may be fetched"):
        archive_of("talk", debs, expected=None, offline=True)


def test_what_is_wanted_of_a_package_is_unpacked_and_nothing_outside(debs, tmp_path):
    put(
        debs,
        "talk_1_all.deb",
        deb(
            {"usr/share/locale/de/talk.mo": b"words", "usr/bin/talk": b"\x7fELF", "../outside.mo": b"out"},
            links=[("usr/share/a.mo", "/etc/passwd")],
        ),
    )
    unpack(debs / "talk_1_all.deb", tmp_path / "root", wanted=lambda name: name.endswith(".mo"))
    found = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if not path.is_dir()]
    assert sorted(found) == ["debs/talk_1_all.deb", "root/usr/share/locale/de/talk.mo"]
    assert (tmp_path / "root/usr/share/locale/de/talk.mo").read_bytes() == b"words"


@pytest.mark.parametrize("blob", [b"", b"!<arch>\n", b"PK\x03\x04 a zip", deb({"a": b"b"})[:150]])
def test_what_is_no_package_is_named(debs, tmp_path, blob):
    put(debs, "talk_1_all.deb", blob)
    with pytest.raises(IntegrityError, match=r"talk_1_all\.deb is no Debian package, or it is damaged"):
        unpack(debs / "talk_1_all.deb", tmp_path, wanted=lambda _: True)
