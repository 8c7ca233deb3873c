"""The store: atomic, verified, shared."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from evenbits import store as store_module
from evenbits.errors import StoreError
from evenbits.store import MANIFEST, DamagedEntryWarning, Store, WaitingWarning
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save as save_arrays

KEY = {"model": "abc", "spec": "int4-g64"}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def entry_file(store, kind="losses"):
    return next(path for path in (store.root / kind).iterdir())


def test_what_was_put_is_got_with_dtype_and_shape(store):
    arrays = {"nll": np.array([[1.5, 2.5]]), "tokens": np.array([3], dtype=np.int64)}
    store.put("losses", KEY, arrays=arrays, meta={"language": "ka", "n": None})
    entry = store.get("losses", KEY)
    assert entry.meta == {"language": "ka", "n": None}
    for name, array in arrays.items():
        assert entry.arrays[name].dtype == array.dtype
        assert np.array_equal(entry.arrays[name], array)


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5) | st.none(), max_size=4))
def test_any_json_meta_survives(tmp_path_factory, meta):
    store = Store(tmp_path_factory.mktemp("store"))
    store.put("meta", {"k": 1}, meta=meta)
    assert store.get("meta", {"k": 1}).meta == meta


def test_another_key_or_kind_is_another_entry(store):
    store.put("losses", KEY, meta={"a": 1})
    assert store.get("losses", KEY | {"spec": "int3-g64"}) is None
    assert store.get("activations", KEY) is None


def test_the_order_of_a_key_does_not_matter(store):
    store.put("losses", {"a": 1, "b": 2}, meta={"x": 1})
    assert store.get("losses", {"b": 2, "a": 1}).meta == {"x": 1}


def test_compute_runs_once(store):
    calls = []

    def fn():
        calls.append(1)
        return {"x": np.arange(3)}, {}

    for _ in range(3):
        assert store.compute("losses", KEY, fn).arrays["x"].tolist() == [0, 1, 2]
    assert len(calls) == 1
    assert (store.misses, store.hits) == (1, 2)


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty"])
def test_a_damaged_entry_is_measured_again(store, damage):
    store.put("losses", KEY, arrays={"x": np.arange(100)}, meta={"n": 1})
    path = entry_file(store)
    blob = bytearray(path.read_bytes())
    if damage == "flip":
        blob[len(blob) // 2] ^= 1
    path.write_bytes({"flip": bytes(blob), "truncate": bytes(blob[:-7]), "empty": b""}[damage])
    with pytest.warns(DamagedEntryWarning, match="measured again"):
        entry = store.compute("losses", KEY, lambda: ({"x": np.arange(2)}, {"n": 2}))
    assert entry.meta == {"n": 2}
    assert store.get("losses", KEY).meta == {"n": 2}


def test_a_failing_computation_leaves_nothing(store):
    def fail():
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        store.compute("losses", KEY, fail)
    assert not (store.root / "losses").exists()


def test_a_full_disk_leaves_nothing_and_says_what_to_do(store, monkeypatch):
    def full(_part, _target):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(StoreError, match=r"disk is full.*EVENBITS_STORE"):
        store.put("losses", KEY, arrays={"x": np.arange(3)})
    assert list((store.root / "losses").iterdir()) == []


ONE_RUN = """
import sys
from pathlib import Path
import numpy as np
from evenbits.store import Store

def measure():
    with Path(sys.argv[2]).open("a") as file:
        file.write("x")
    return {"x": np.arange(1000)}, {}

Store(Path(sys.argv[1])).compute("losses", {"model": "m", "language": "en"}, measure)
"""


def test_two_runs_at_once_compute_once(store, tmp_path):
    log = tmp_path / "log"
    command = [sys.executable, "-c", ONE_RUN, str(store.root), str(log)]
    runs = [subprocess.Popen(command) for _ in range(2)]
    assert [run.wait() for run in runs] == [0, 0]
    assert log.read_text() == "x"


def fill(folder):
    (folder / "sub").mkdir()
    (folder / "sub" / "a.txt").write_text("alpha")


def test_a_folder_is_filled_once(store):
    first = store.folder("models", KEY, fill)
    second = store.folder("models", KEY, lambda _folder: pytest.fail("filled twice"))
    assert first == second
    assert (second / "sub" / "a.txt").read_text() == "alpha"


def test_a_folder_of_a_killed_run_is_never_seen(store):
    def killed(folder):
        (folder / "a.txt").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.folder("models", KEY, killed)
    path = store.folder("models", KEY, fill)
    assert sorted(p.name for p in path.iterdir()) == [MANIFEST, "sub"]
    assert not list(path.parent.glob(".*"))


@pytest.mark.parametrize("text", ["beta!", "longer than before"])
def test_an_altered_folder_is_filled_again(store, text):
    path = store.folder("models", KEY, fill)
    (path / "sub" / "a.txt").write_text(text)
    os.utime(path / "sub" / "a.txt", ns=(1, 1))
    with pytest.warns(DamagedEntryWarning):
        path = store.folder("models", KEY, fill)
    assert (path / "sub" / "a.txt").read_text() == "alpha"


def test_a_moved_time_stamp_alone_is_no_damage(store):
    path = store.folder("models", KEY, fill)
    os.utime(path / "sub" / "a.txt", ns=(1, 1))
    assert store.folder("models", KEY, lambda _folder: pytest.fail("filled twice")) == path


def test_the_environment_names_the_store(monkeypatch, tmp_path):
    monkeypatch.setenv("EVENBITS_STORE", str(tmp_path / "mine"))
    assert Store.default().root == tmp_path / "mine"


OTHER = {"model": "abc", "spec": "int3-g64"}


def path_of(store, kind, key):
    store.put(kind, key, meta={})
    (path,) = (store.root / kind).iterdir()
    path.unlink()
    return path


def test_swapped_entries_answer_to_nobody_and_are_measured_again(store):
    """Whole, with a right checksum, and yet another language's numbers: only the key inside tells."""
    first, second = path_of(store, "losses", KEY), path_of(store, "losses", OTHER)
    store.put("losses", KEY, arrays={"nll": np.array([1.0])})
    store.put("losses", OTHER, arrays={"nll": np.array([2.0])})
    spare = first.with_name("spare")
    first.rename(spare), second.rename(first), spare.rename(second)
    for key, value in ((KEY, 1.0), (OTHER, 2.0)):
        with pytest.warns(DamagedEntryWarning, match="another key"):
            entry = store.compute("losses", key, lambda value=value: ({"nll": np.array([value])}, {}))
        assert entry.arrays["nll"].tolist() == [value]
    assert store.misses == 2


def test_an_entry_of_another_kind_answers_to_nobody(store):
    there, here = path_of(store, "plans", KEY), path_of(store, "losses", KEY)
    store.put("plans", KEY, meta={"bits": 4.0})
    there.rename(here)
    with pytest.warns(DamagedEntryWarning, match="another key"):
        assert store.get("losses", KEY) is None


def test_keys_with_tuples_answer_to_themselves(store):
    key = {"languages": ("de", "ka"), "share": 0.1, "name": "\ud800"}
    store.put("losses", key, meta={"n": 1})
    assert store.get("losses", key).meta == {"n": 1}


def test_an_entry_of_another_version_is_measured_again_without_a_word(store, monkeypatch, recwarn):
    monkeypatch.setattr("evenbits.store.FORMAT", 1)
    store.put("losses", KEY, meta={"old": True})
    folder = store.folder("models", KEY, fill)
    monkeypatch.undo()
    assert store.compute("losses", KEY, lambda: ({}, {"old": False})).meta == {"old": False}
    assert store.folder("models", KEY, lambda target: (target / "new.txt").write_text("x")) == folder
    assert (folder / "new.txt").exists()
    assert not recwarn.list


def sealed(header, arrays=None):
    """Return an entry's bytes, checksum included, whose header is `header`, whatever that is."""
    body = save_arrays(arrays or {}, metadata={"evenbits": header})
    return hashlib.sha256(body).hexdigest().encode() + b"\n" + body


@pytest.mark.parametrize(
    "header",
    [
        "[]",
        "5",
        "null",
        "{}",
        "not json",
        "[" * 100_000,
        '{"format": 2}',
        json.dumps({"format": 2, "kind": "losses", "key": KEY}),
        json.dumps({"format": 2, "kind": "losses", "key": KEY, "meta": [1]}),
    ],
    ids=lambda text: text[:20],
)
def test_a_whole_entry_with_an_odd_header_is_measured_again(store, header):
    path_of(store, "losses", KEY).write_bytes(sealed(header))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DamagedEntryWarning)
        assert store.compute("losses", KEY, lambda: ({}, {"n": 2})).meta == {"n": 2}
    assert store.get("losses", KEY).meta == {"n": 2}


def folder_at(path):
    (path / "below").mkdir(parents=True)


PLACEHOLDERS = {
    "folder": folder_at,
    "dangling link": lambda path: path.symlink_to("nowhere"),
    "circular link": lambda path: path.symlink_to(path.name),
    "pipe": os.mkfifo,
}


@pytest.mark.parametrize("made", PLACEHOLDERS.values(), ids=PLACEHOLDERS.keys())
def test_what_is_no_file_in_an_entrys_place_is_removed(store, made):
    made(path_of(store, "losses", KEY))
    with pytest.warns(DamagedEntryWarning, match="is no file"):
        assert store.compute("losses", KEY, lambda: ({}, {"n": 2})).meta == {"n": 2}


MANIFESTS = ["[]", "5", "{}", "null", "[" * 100_000, "\x00", '{"format": 2}', '{"format": 2, "files": 3}']


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda text: text[:20])
def test_a_folder_with_an_odd_manifest_is_made_again(store, manifest):
    path = store.folder("models", KEY, fill)
    (path / MANIFEST).write_text(manifest)
    (path / "sub" / "a.txt").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DamagedEntryWarning)
        store.folder("models", KEY, fill)
    assert (path / "sub" / "a.txt").read_text() == "alpha"


@pytest.mark.parametrize("files", [5, {"sub/a.txt": None}, {"sub/a.txt": {"size": "5"}}, {}])
def test_a_manifest_of_its_own_key_with_odd_files_is_made_again(store, files):
    path = store.folder("models", KEY, fill)
    header = json.loads((path / MANIFEST).read_text()) | {"files": files}
    (path / MANIFEST).write_text(json.dumps(header))
    with pytest.warns(DamagedEntryWarning, match="made again"):
        store.folder("models", KEY, fill)


def test_swapped_folders_are_made_again(store):
    first = store.folder("models", KEY, fill)
    second = store.folder("models", OTHER, lambda target: (target / "b.txt").write_text("beta"))
    spare = first.with_name("spare")
    first.rename(spare), second.rename(first), spare.rename(second)
    with pytest.warns(DamagedEntryWarning, match="another key"):
        assert (store.folder("models", KEY, fill) / "sub" / "a.txt").read_text() == "alpha"


def test_a_file_that_was_added_to_a_folder_is_no_part_of_it(store):
    path = store.folder("models", KEY, fill)
    (path / "sub" / "model-00002.safetensors").write_text("foreign")
    with pytest.warns(DamagedEntryWarning):
        store.folder("models", KEY, fill)
    assert not (path / "sub" / "model-00002.safetensors").exists()


def test_an_entry_that_another_run_writes_right_after_it_was_looked_for_stays(store, monkeypatch):
    def then_written(look):
        def looked(path):
            found = look(path)
            monkeypatch.undo()
            Store(store.root).put("losses", KEY, meta={"by": "another run"})
            return found

        return looked

    monkeypatch.setattr(Path, "is_file", then_written(Path.is_file))
    monkeypatch.setattr(os.path, "lexists", then_written(os.path.lexists))
    assert store.get("losses", KEY) is None
    assert store.get("losses", KEY).meta == {"by": "another run"}


@pytest.mark.parametrize("made", [Path.touch, lambda path: path.symlink_to("nowhere")], ids=["file", "dangling link"])
def test_what_is_no_folder_in_a_folders_place_is_removed(store, made):
    path = store.folder("models", KEY, fill)
    shutil.rmtree(path)
    made(path)
    with pytest.warns(DamagedEntryWarning, match="made again"):
        assert (store.folder("models", KEY, fill) / "sub" / "a.txt").read_text() == "alpha"


@pytest.mark.parametrize("left", [lambda part: part.write_bytes(b"half"), Path.mkdir], ids=["file", "folder"])
def test_what_a_killed_run_left_is_replaced_by_the_next_writing(store, left):
    path = path_of(store, "losses", KEY)
    left(path.with_name(f".{path.name}.part"))
    other = path.with_name(".another-entry.part")
    other.write_bytes(b"being written by another run")
    store.put("losses", KEY, meta={})
    assert sorted(entry.name for entry in path.parent.iterdir()) == sorted([path.name, other.name])


def test_a_claim_is_held_by_one_run_at_a_time_and_leaves_nothing_to_read(store):
    other = Store(store.root)
    with store.claim("visits", KEY, wait=False) as mine, other.claim("visits", KEY, wait=False) as theirs:
        assert (mine, theirs) == (True, False)
    with other.claim("visits", KEY, wait=True) as theirs:
        assert theirs
    assert not store.has("visits", KEY)


USES = {
    "get": lambda store: store.get("losses", KEY),
    "put": lambda store: store.put("losses", KEY, meta={}),
    "compute": lambda store: store.compute("losses", KEY, lambda: ({}, {})),
    "folder": lambda store: store.folder("losses", KEY, fill),
}


@pytest.mark.parametrize("use", [USES["put"], USES["compute"], USES["folder"]], ids=["put", "compute", "folder"])
@pytest.mark.parametrize("file", [".", "losses", "locks"])
def test_a_file_where_the_store_needs_a_folder_is_named(store, use, file):
    place = store.root / file
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("a file of somebody's")
    with pytest.raises(StoreError, match=rf"{re.escape(str(place))} is a file where the store needs a folder.*--store"):
        use(store)
    assert place.read_text() == "a file of somebody's"


@pytest.mark.parametrize("use", [USES["put"], USES["compute"], USES["folder"]], ids=["put", "compute", "folder"])
def test_a_store_that_cannot_be_written_says_so(store, use, monkeypatch):
    def refused(self, *_args, **_kwargs):
        raise OSError(errno.EROFS, "Read-only file system", str(self))

    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(StoreError, match=r"no permission to write.*--store"):
        use(store)


def test_a_store_that_cannot_be_written_is_still_read(store, monkeypatch):
    store.put("losses", KEY, meta={"n": 1})
    folder = store.folder("models", KEY, fill)
    monkeypatch.setattr(FileLock, "acquire", lambda _self: pytest.fail("nothing is to be written"))
    assert store.compute("losses", KEY, lambda: pytest.fail("measured again")).meta == {"n": 1}
    assert store.folder("models", KEY, lambda _folder: pytest.fail("filled again")) == folder


@pytest.mark.parametrize("use", USES.values(), ids=USES.keys())
def test_any_other_refusal_of_the_system_is_a_sentence(store, use, monkeypatch):
    store.put("losses", KEY, meta={})

    def broken(self, *_args, **_kwargs):
        raise OSError(errno.EIO, "Input/output error", str(self))

    monkeypatch.setattr(Path, "read_bytes", broken)
    monkeypatch.setattr(Path, "mkdir", broken)
    with pytest.raises(StoreError, match=r"cannot use .*: Input/output error; check that disk"):
        use(store)


def test_an_error_of_what_fills_a_folder_stays_its_own(store):
    """A download that fails is an OSError too, and no fault of the store's."""

    def unreachable(_folder):
        raise ConnectionError(errno.ECONNREFUSED, "Connection refused")

    with pytest.raises(ConnectionError, match="refused"):
        store.folder("models", KEY, unreachable)
    assert not list((store.root / "models").iterdir())


def test_a_home_is_expanded(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Store("~/zz").root == tmp_path / "zz"


def test_whoever_waits_for_another_run_for_long_says_for_which_file(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "PATIENCE", 0.05)
    store, key = Store(tmp_path), {"a": 1}
    file = tmp_path / "locks" / f"{store._path('x', key).name}.lock"
    file.parent.mkdir(parents=True)
    begun = threading.Event()

    def hold():
        with FileLock(file):
            begun.set()
            time.sleep(0.5)

    other = threading.Thread(target=hold)
    other.start()
    begun.wait()
    with pytest.warns(WaitingWarning, match=re.escape(str(file))):
        store.compute("x", key, lambda: ({}, {"b": 2}))
    other.join()
    assert store.get("x", key).meta == {"b": 2}
