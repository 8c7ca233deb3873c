"""Ray: cells go to workers with one model each; the numbers are those of a local run, whoever is lost on the way."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from evenbits.cells import Subject, cluster, measure, measure_damage, room
from evenbits.cells.cell import cells_of
from evenbits.cells.cluster import Cluster, need_of, runner_for, shares_of
from evenbits.cells.room import join, places_of, without_room
from evenbits.cells.runner import Local
from evenbits.cells.streaming import Streamed
from evenbits.errors import DeviceError, SpecError, UsageError
from evenbits.models.device import CPU, Device
from evenbits.models.references import parse_model
from evenbits.models.sources import resolve
from evenbits.records import Corpus
from evenbits.store import Store
from evenbits.variants.quantization.spec import parse_spec, parse_specs
from evenbits.variants.rounding import rounded
from evenbits.variants.variant import FULL_PRECISION
from evenbits.variants.zeroing import without_largest

GIB = 2**30
LANGUAGES = ("de", "fr", "hu", "sw", "yo")


def corpus_of(languages=LANGUAGES, segments=4, length=1):
    return Corpus(
        name="hand",
        source="written in the test",
        languages=languages,
        segment_ids=tuple(f"s{i}" for i in range(segments)),
        texts={tag: tuple(f"{tag} {i * 7} the inner an " * length for i in range(segments)) for tag in languages},
    )


def test_all_cells_of_a_text_go_to_one_worker_and_the_work_is_divided_evenly():
    texts = {"a": ("x" * 60,), "b": ("y" * 40,), "c": ("z" * 30,)}
    corpus = Corpus(name="n", source="s", languages=("a", "b", "c"), segment_ids=("1",), texts=texts)
    cells = [
        cell
        for one in (FULL_PRECISION, without_largest(0.01))
        for cell in cells_of(one, corpus, model="m", dtype="float32", context=64)
    ]
    shares = shares_of(cells, 2)
    # 60 | 40, then 30 to the one with 40: 60 against 70
    assert [sorted({cell.language for cell in share}) for share in shares] == [["a"], ["b", "c"]]
    assert sum(map(len, shares)) == len(cells) == 6
    assert len(shares_of(cells, 9)) == 3  # never more workers than texts


def test_workers_are_as_many_as_memory_has_room_for_and_share_the_cores():
    node = {"CPU": 8.0, "memory": 20.0 * GIB}
    assert [one.cpus for one in places_of([node], memory=6 * GIB, gpus=0, most=40)] == [2, 2, 2]  # 20 // 6 = 3
    assert [one.cpus for one in places_of([node, node], memory=15 * GIB, gpus=0, most=40)] == [8, 8]
    assert len(places_of([node], memory=GIB, gpus=0, most=2)) == 2


def test_on_gpus_there_is_a_worker_for_each_and_none_on_machines_without():
    nodes = [{"CPU": 4.0, "memory": 900.0 * GIB}, {"CPU": 16.0, "GPU": 4.0, "memory": 900.0 * GIB}]
    assert [one.gpus for one in places_of(nodes, memory=40 * GIB, gpus=1, most=40)] == [1, 1, 1, 1]
    assert len(places_of(nodes, memory=40 * GIB, gpus=2, most=40)) == 2


def test_a_cluster_without_room_for_the_model_says_how_much_it_takes():
    nodes = [{"CPU": 4.0, "GPU": 1.0, "memory": 8.0 * GIB}, {"CPU": 4.0, "memory": 9.0 * GIB}]
    assert places_of(nodes, memory=32 * GIB, gpus=1, most=3) == []
    sentence = without_room(nodes, memory=32 * GIB, gpus=1)
    assert "32.0 GiB of memory, 1 GPUs and a core: the most that one of 2 has is 9.0 GiB and 1 GPUs" in sentence


def test_cores_that_others_hold_are_nobodys():
    """Of 8 cores 3 are free: a worker that asked for 8 would never start."""
    assert [one.cpus for one in places_of([{"CPU": 3.0, "memory": 20.0 * GIB}], memory=GIB, gpus=0, most=2)] == [1, 1]
    assert places_of([{"memory": 20.0 * GIB}], memory=GIB, gpus=0, most=2) == []  # Ray leaves out what is used up


def test_memory_is_asked_for_what_is_loaded_whole(tiny_llama, tmp_path):
    """The noise floor's float32 is streamed: 8 B would ask for 68 GiB otherwise, and takes 35."""
    subject = subject_of(tiny_llama, tmp_path, Cluster(), dtype="bfloat16")
    spare = 2 * GIB
    weights = subject.local.parameters
    rounding, sweeping = rounded(parse_spec("int8-row"), subject), without_largest(0.01)
    assert (rounding.dtype, sweeping.in_layer) == ("float32", None)
    assert need_of(subject, subject.cells(rounding, corpus_of())) == {"memory": 2 * 2 * weights + spare, "gpus": 0}
    inside = replace(sweeping, dtype="float32")  # all of its weights are loaded to be zeroed
    assert need_of(subject, subject.cells(inside, corpus_of())) == {"memory": 2 * 4 * weights + spare, "gpus": 0}
    spread = replace(subject, device=Device(name="cuda:0", label="2 x G", libraries="t", beside=("cuda:1",)))
    assert need_of(spread, subject.cells(rounding, corpus_of()))["gpus"] == 2


@pytest.mark.parametrize(
    ("address", "device", "gpus", "refused"),
    [("auto", "auto", 2, True), ("auto", "cpu", 2, False), ("auto", "auto", 0, False), (None, "auto", 2, False)],
)
def test_gpus_of_a_cluster_are_not_left_idle_in_silence(address, device, gpus, refused, monkeypatch):
    monkeypatch.setattr(cluster, "total", lambda: [{"CPU": 4.0}, {"CPU": 8.0, "GPU": float(gpus)}])
    runner = Cluster(address=address, device=device)
    here = SimpleNamespace(device=CPU)
    if not refused:
        runner._refuse_idle_gpus(here)
        return
    with pytest.raises(DeviceError, match=r"the cluster's GPUs \(2\) would stand idle: start evenbits on a machine"):
        runner._refuse_idle_gpus(here)


def faked(monkeypatch, init):
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=init, is_initialized=lambda: False))


def test_a_cluster_that_is_not_there_is_a_sentence(monkeypatch):
    def init(**_):
        raise ConnectionError("Could not find any running Ray instance.\nPlease specify one.")

    faked(monkeypatch, init)
    with pytest.raises(
        UsageError, match=r"^--ray-address auto: Could not find any running Ray instance. Please .*`ray st"
    ):
        join("auto")


def test_a_cluster_that_does_not_answer_is_not_waited_for_forever(monkeypatch):
    waiting = threading.Event()
    faked(monkeypatch, lambda **_: waiting.wait(60))
    monkeypatch.setattr(room, "JOIN_SECONDS", 0.2)
    try:
        with pytest.raises(UsageError, match="nothing answers within"):
            join("10.1.2.3:6379")
    finally:
        waiting.set()


def test_a_runner_is_chosen_by_name():
    assert isinstance(runner_for("local"), Local)
    assert runner_for("ray", address="auto", device="cuda") == Cluster(address="auto", device="cuda")
    assert isinstance(runner_for("local", layers=True), Streamed)
    with pytest.raises(UsageError, match="leave --runner ray out"):
        runner_for("ray", layers=True)


def test_without_ray_the_sentence_says_what_to_install(monkeypatch, tiny_llama, store):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    subject = Subject(local=resolve(parse_model(str(tiny_llama)), store=store), store=store, runner=Cluster())
    with pytest.raises(UsageError, match=r"pip install 'evenbits\[ray\]'"):
        subject.losses(FULL_PRECISION, corpus_of())


@pytest.fixture(scope="module")
def two_cores():
    """A cluster of this machine with two cores: two workers."""
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'evenbits[ray]', or tox run -e ray")
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


def subject_of(folder, root, runner, **options):
    kept = Store(root)
    local = resolve(parse_model(str(folder)), store=kept)
    return Subject(local=local, store=kept, runner=runner, **{"dtype": "float32", "context": 256, **options})


@pytest.mark.slow
@pytest.mark.usefixtures("two_cores")
def test_two_workers_give_the_table_of_a_local_run(tiny_llama, tmp_path):
    specs, corpus = parse_specs("int4-g32,int8-row,int4-g32+keep1%:activation"), corpus_of()
    probe = corpus_of(("de", "yo"), segments=2, length=2)
    tables = {}
    for name, runner in (("local", Local()), ("ray", Cluster())):
        subject = subject_of(tiny_llama, tmp_path / name, runner, dtype="bfloat16", probe=probe)
        swept = {f"layer {i}": without_largest(0.1, where=f"layer {i}", layer=i, modules=MODULES[i]) for i in (0, 1)}
        found = (measure_damage(subject, specs, corpus), measure(subject, swept, corpus))
        tables[name] = [table.rows(seed=0) for table in found]
        if name == "ray":
            assert len(runner._workers) == 2
            assert not subject._loaded  # the model is in the workers, not here
        subject.release()
    assert tables["ray"] == tables["local"]


MODULES = [[f"model.layers.{i}.mlp.{part}_proj" for part in ("gate", "up", "down")] for i in (0, 1)]


@pytest.mark.slow
@pytest.mark.usefixtures("two_cores")
def test_a_killed_worker_costs_only_its_open_cells(tiny_llama, tmp_path):
    spec = parse_spec("int4-g32")
    corpus = corpus_of(tuple(LANGUAGES), segments=40, length=12)
    whole = measure_damage(subject_of(tiny_llama, tmp_path / "local", Local()), [spec], corpus).rows(seed=0)
    runner = Cluster()
    subject = subject_of(tiny_llama, tmp_path / "ray", runner)
    found = {}
    run = threading.Thread(target=lambda: found.update(rows=measure_damage(subject, [spec], corpus).rows(seed=0)))
    run.start()
    folder = tmp_path / "ray" / "losses"
    deadline = time.monotonic() + 600
    while len(list(folder.glob("[!.]*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    before = {file: file.stat().st_mtime_ns for file in folder.glob("[!.]*")}
    victim = workers()[0]
    os.kill(victim, signal.SIGKILL)
    run.join(timeout=900)
    assert found["rows"] == whole
    assert len(before) < len(list(folder.glob("[!.]*")))  # it was killed in the middle
    assert {file: file.stat().st_mtime_ns for file in before} == before  # what was measured was not measured again
    assert victim not in workers()
    subject.release()


def workers():
    """Process numbers of the workers of this process's cluster."""
    psutil = pytest.importorskip("psutil")
    every = psutil.Process().children(recursive=True)
    return [one.pid for one in every if " ".join(one.cmdline()).startswith("ray::Worker")]


@pytest.mark.slow
@pytest.mark.usefixtures("two_cores")
def test_an_error_in_a_worker_is_the_sentence_of_a_local_run(tiny_llama, tmp_path):
    subject = subject_of(tiny_llama, tmp_path, Cluster())
    variant = rounded(parse_spec("int4-g48"), subject)  # rows of 64 do not divide
    with pytest.raises(SpecError, match=r"q_proj.*48"):
        subject.losses(variant, corpus_of())
    subject.release()


@pytest.mark.slow
@pytest.mark.usefixtures("two_cores")
def test_a_worker_whose_room_was_taken_is_not_waited_for(tiny_llama, tmp_path, monkeypatch):
    """As if both cores and a third had been free when workers were begun: the third one cannot start."""
    monkeypatch.setattr(cluster, "total", lambda: [{"CPU": 3.0, "memory": 32.0 * GIB}])
    monkeypatch.setattr(cluster, "free", cluster.total)
    monkeypatch.setattr(cluster, "START_SECONDS", 3.0)
    runner = Cluster()
    subject = subject_of(tiny_llama, tmp_path, runner)
    begun = []
    monkeypatch.setattr(Cluster, "_round", lambda self, *rest: begun.append(len(self._workers)) or rounds(self, *rest))
    found = subject.losses(FULL_PRECISION, corpus_of())
    assert list(found) == list(LANGUAGES)
    assert begun[0] == 3
    assert len(begun) > 1
    subject.release()


rounds = Cluster._round

HOLDER = """
import sys, ray
ray.init(address=sys.argv[1], log_to_driver=False)
class Holder: ...
held = ray.remote(Holder).options(num_cpus=1).remote()
ray.get(held.__ray_ready__.remote())
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def one_core():
    """The address of a cluster of its own with one core, as an administrator starts one."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'evenbits[ray]', or tox run -e ray")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [
        "--head",
        "--block",
        f"--port={port}",
        "--num-cpus=1",
        "--include-dashboard=false",
        "--disable-usage-stats",
    ]
    head = subprocess.Popen(
        [str(Path(sys.executable).with_name("ray")), "start", *words], stdout=subprocess.PIPE, text=True
    )
    try:
        assert any("Ray runtime started" in line for line in head.stdout)
        yield f"127.0.0.1:{port}"
    finally:
        head.terminate()
        head.communicate(timeout=60)


def damage(folder, tmp_path, *words):
    """`evenbits damage` on two languages, in a process of its own."""
    texts = tmp_path / "texts"
    texts.mkdir(exist_ok=True)
    for tag in ("de", "fr"):
        (texts / f"{tag}.txt").write_text(f"the inner {tag}\nan apple\n", encoding="utf-8")
    command = [sys.executable, "-m", "evenbits", "damage", str(folder), "--spec=int4-g32", "--json"]
    return subprocess.Popen(
        [*command, f"--corpus=dir:{texts}", f"--store={tmp_path / 'store'}", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_a_full_cluster_is_waited_for_and_who_is_in_it_is_named(one_core, tiny_llama, tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, one_core], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert "held" in holder.stdout.readline()
        run = damage(tiny_llama, tmp_path, "--runner=ray", f"--ray-address={one_core}")
        said = next(line for line in run.stderr if "on the cluster" in line)
        holder.stdin.close()
    assert "waits for 2.0 GiB of memory and a core on one machine; at work there: Holder (process " in said
    printed, _ = run.communicate(timeout=300)
    assert run.returncode == 0
    assert {row["language"] for row in json.loads(printed)["damage"]} == {"de", "fr"}


@pytest.mark.slow
def test_an_address_at_which_nothing_answers_is_a_sentence_in_the_end(tiny_llama, tmp_path):
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'evenbits[ray]', or tox run -e ray")
    began = time.monotonic()
    run = damage(tiny_llama, tmp_path, "--runner=ray", "--ray-address=127.0.0.1:1")
    _, said = run.communicate(timeout=300)
    assert run.returncode == 2
    assert "evenbits: --ray-address 127.0.0.1:1: nothing answers within 30 seconds. Start evenbits on" in said
    assert "Traceback" not in said
    assert time.monotonic() - began < 90
