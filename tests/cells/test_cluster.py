"""Ray: cells go to workers with one model each; the numbers are those of a local run, whoever is lost on the way."""

import os
import signal
import threading
import time

import pytest
from evenbits.cells import Subject, measure, measure_damage
from evenbits.cells.cell import cells_of
from evenbits.cells.cluster import Cluster, places_of, runner_for, shares_of
from evenbits.cells.runner import Local
from evenbits.cells.streaming import Streamed
from evenbits.errors import DeviceError, SpecError, UsageError
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
    with pytest.raises(DeviceError, match=r"32\.0 GiB of memory and 1 GPUs: the largest of 1 has 8\.0 GiB"):
        places_of([{"CPU": 4.0, "GPU": 1.0, "memory": 8.0 * GIB}], memory=32 * GIB, gpus=1, most=3)


def test_a_runner_is_chosen_by_name():
    assert isinstance(runner_for("local"), Local)
    assert runner_for("ray", address="auto") == Cluster(address="auto")
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
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
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
