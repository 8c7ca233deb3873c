"""Whatever happens to a file of the store: the same numbers, or a sentence; never a traceback, never other numbers."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import time
import warnings

import fault_campaign as campaign
import pytest
from evenbits.commands.app import app
from evenbits.models.fingerprint import RESTING
from typer.testing import CliRunner

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("plain_terminal")]


@pytest.fixture(scope="module")
def work(tiny_model, tmp_path_factory):
    return campaign.Work(tmp_path_factory.mktemp("entries"), tiny_model("llama", layers=3, hidden=64))


@pytest.fixture(scope="module")
def filled(work, tmp_path_factory):
    """A filled store, and what `damage` gives on it."""
    store = tmp_path_factory.mktemp("filled") / "store"
    result = CliRunner().invoke(app, work.damage(store))
    assert result.exit_code == 0, result.output
    return store, json.loads(result.stdout)


def entries(store):
    return sorted(path for path in store.rglob("*") if path.is_file() and "locks" not in path.parts)


def flip(path, rng, store):  # noqa: ARG001 - one shape for all faults
    blob = bytearray(path.read_bytes())
    blob[rng.randrange(len(blob))] ^= 1 << rng.randrange(8)
    path.write_bytes(blob)


def truncate(path, rng, store):  # noqa: ARG001 - same
    blob = path.read_bytes()
    path.write_bytes(blob[: rng.randrange(len(blob))])


def swap(path, rng, store):
    other = rng.choice([one for one in entries(store) if one != path])
    blob = path.read_bytes()
    path.write_bytes(other.read_bytes())
    other.write_bytes(blob)


def foreign(path, rng, store):  # noqa: ARG001 - same
    path.write_bytes(rng.randbytes(rng.randrange(200)))


def folder(path, rng, store):  # noqa: ARG001 - same
    path.unlink()
    (path / "below").mkdir(parents=True)


def link(path, rng, store):  # noqa: ARG001 - same
    path.unlink()
    path.symlink_to(rng.choice(["nowhere", path.name, "/etc/hostname"]))


def gone(path, rng, store):  # noqa: ARG001 - same
    path.unlink()


def part(path, rng, store):  # noqa: ARG001 - same
    path.with_name(f".{path.name}.part").write_bytes(b"half")


FAULTS = [flip, truncate, swap, foreign, folder, link, gone, part]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda one: one.__name__)
def test_a_disturbed_entry_never_changes_a_number(work, filled, tmp_path, fault):
    store, expected = filled
    rng = random.Random(fault.__name__)  # noqa: S311 - not for secrets
    for place in range(campaign.share(len(FAULTS))):
        disturbed = shutil.copytree(store, tmp_path / f"store-{place}")
        for path in rng.sample(entries(disturbed), k=rng.randint(1, 3)):
            if path.is_file() and not path.is_symlink():
                fault(path, rng, disturbed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = CliRunner().invoke(app, work.damage(disturbed))
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout) == expected


def mounted(*arguments):
    try:
        subprocess.run(["mount", *map(str, arguments)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("lifted by: the right to mount a file system (root)")


def unmount(path):
    subprocess.run(["umount", str(path)], check=False, capture_output=True)


def test_a_full_disk_is_a_sentence_and_the_run_resumes(work, filled, tmp_path):
    _, expected = filled
    store = tmp_path / "small"
    store.mkdir()
    mounted("-t", "tmpfs", "-o", "size=64k", "tmpfs", store)
    try:
        result = CliRunner().invoke(app, work.damage(store))
        assert result.exit_code == 2, result.output
        assert "the disk is full while writing" in result.stderr
        assert campaign.parts(store) == []
        mounted("-o", "remount,size=64m", store)
        result = CliRunner().invoke(app, work.damage(store))
        assert json.loads(result.stdout) == expected
    finally:
        unmount(store)


def test_a_store_that_may_only_be_read_serves_what_it_has_and_says_what_it_cannot_keep(work, filled):
    sealed, expected = filled
    time.sleep(RESTING / 1e9)  # of files that changed a moment ago no fingerprint is kept
    assert CliRunner().invoke(app, work.damage(sealed)).exit_code == 0
    mounted("--bind", sealed, sealed)
    try:
        mounted("-o", "remount,bind,ro", sealed)
        result = CliRunner().invoke(app, work.damage(sealed))
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout) == expected
        other = [one if one != "int4-g64,int3-row" else "int5-row" for one in work.damage(sealed)]
        result = CliRunner().invoke(app, other)
        assert result.exit_code == 2, result.output
        assert "no permission to write" in result.stderr
    finally:
        unmount(sealed)
