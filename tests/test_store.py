"""The store: atomic, verified, shared."""

from __future__ import annotations

import errno
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
from evenbits.errors import StoreError
from evenbits.store import MANIFEST, DamagedEntryWarning, Store
from hypothesis import given
from hypothesis import strategies as st

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
    def full(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"disk is full.*EVENBITS_STORE"):
        store.put("losses", KEY, arrays={"x": np.arange(3)})
    assert list((store.root / "losses").iterdir()) == []


def _count(root, log):
    def fn():
        with Path(log).open("a") as file:
            file.write("x")
        return {"x": np.arange(1000)}, {}

    Store(Path(root)).compute("losses", KEY, fn)


def test_two_runs_at_once_compute_once(store, tmp_path):
    log = tmp_path / "log"
    context = multiprocessing.get_context("spawn")
    runs = [context.Process(target=_count, args=(str(store.root), str(log))) for _ in range(2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert [run.exitcode for run in runs] == [0, 0]
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
