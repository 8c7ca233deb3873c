"""Measurements of a run's parts made into one store: what is equal is one, what contradicts is refused by name."""

import json

import numpy as np
import pytest
from evenbits.cells.pool import MEASUREMENTS, RUN, Asked, pool
from evenbits.errors import GapError, ReportError
from evenbits.models import device
from evenbits.store import SEAL, Store

OPTIONS = {"model": ["a"], "spec": ["int4-g64"], "seed": "0"}


@pytest.fixture
def part(tmp_path):
    """`part(name, languages, **options)` -> folder of a report with the losses of these languages."""

    def make(name, languages, *, nll=1.0, arithmetic="float32 on cpu", shard=None, **options):
        store = Store(tmp_path / f"store-{name}")
        for tag in languages:
            key = {"language": tag}
            store.put("losses", key, arrays={"nll": np.full(3, nll)}, meta={"arithmetic": arithmetic})
        folder = tmp_path / name
        store.keep(folder / MEASUREMENTS)
        asked = Asked(arguments=("evals",), options=OPTIONS | options, shard=shard)
        (folder / MEASUREMENTS / RUN).write_text(json.dumps(asked.to_json()), encoding="utf-8")
        return folder

    return make


def test_parts_are_joined_and_what_they_were_asked_is_the_whole(part, tmp_path):
    whole = pool([part("one", ["de", "fr"]), part("two", ["fr", "yo"], model=["b"])], tmp_path / "pool")
    assert whole.asked.options["model"] == ["a", "b"]
    assert whole.asked.options["spec"] == ["int4-g64"]
    assert whole.repeated == 1  # fr
    store = Store(tmp_path / "pool")
    assert [store.get("losses", {"language": tag}) is not None for tag in ("de", "fr", "yo", "am")] == [1, 1, 1, 0]


def test_a_pooled_store_computes_nothing_and_says_what_is_missing(part, tmp_path):
    pool([part("one", ["de"])], tmp_path / "pool")
    store = Store(tmp_path / "pool")
    assert (tmp_path / "pool" / SEAL).is_file()
    with pytest.raises(GapError, match="a part of the run is missing: losses of language yo"):
        store.compute("losses", {"language": "yo"}, lambda: pytest.fail("it was computed"))


@pytest.fixture
def parts_of_two_machines(part, tmp_path, monkeypatch):
    """`parts_of_two_machines(dtype, versions)`: two parts, the first on a CPU that multiplies bfloat16."""

    def make(dtype, versions):
        parts = []
        for number, version in enumerate(versions):
            monkeypatch.setattr(device, "version", lambda _, version=version: version)
            monkeypatch.setattr(device, "multiplies_bfloat16", lambda number=number: number == 0)
            store = Store(tmp_path / f"devices-{number}")
            device.device_of_run("cpu", dtype=dtype, weights=8, store=store)
            parts.append(part(f"part{number}", ["de", "fr"][number : number + 1]))
            store.keep(parts[-1] / MEASUREMENTS)
        return parts

    return make


@pytest.mark.parametrize(
    ("dtype", "versions", "said"),
    [
        ("bfloat16", ("2.13", "2.13"), r"products in bfloat16 and cpu, .*products in float32\. .* --dtype float32"),
        (
            "float32",
            ("2.13", "2.14"),
            r"torch 2\.13, transformers 2\.13, tokenizers 2\.13 and cpu, .*same versions",
        ),
    ],
)
def test_parts_that_were_not_computed_alike_are_refused_with_what_differs(
    parts_of_two_machines, tmp_path, dtype, versions, said
):
    parts = parts_of_two_machines(dtype, versions)
    with pytest.raises(ReportError, match=rf"part0 and .*part1 were not computed alike: cpu, .*{said}"):
        pool(parts, tmp_path / "pool")


def test_float32_of_cpus_that_multiply_bfloat16_differently_is_joined(parts_of_two_machines, tmp_path):
    assert pool(parts_of_two_machines("float32", ("2.13", "2.13")), tmp_path / "pool").repeated == 1


def test_different_numbers_of_one_cell_are_refused_with_the_cell_and_the_machines(part, tmp_path):
    parts = [part("one", ["de"]), part("two", ["de"], nll=2.0, arithmetic="bfloat16 on cuda")]
    with pytest.raises(ReportError, match=r'contradict each other in losses \(language "de"\).*bfloat16 on cuda'):
        pool(parts, tmp_path / "pool")


@pytest.mark.parametrize(
    ("second", "sentence"),
    [
        ({"seed": "1"}, "no parts of one run: they had --seed 0 and 1"),
        ({"corpus": "dir:other"}, "they had --corpus None and dir:other"),
    ],
)
def test_parts_of_different_runs_are_refused(part, tmp_path, second, sentence):
    with pytest.raises(ReportError, match=sentence):
        pool([part("one", ["de"]), part("two", ["fr"], **second)], tmp_path / "pool")


def test_a_missing_shard_is_named(part, tmp_path):
    parts = [part("one", ["de"], shard=(1, 3)), part("two", ["fr"], shard=(3, 3))]
    with pytest.raises(ReportError, match="the shards 2/3 of a, int4-g64 are missing"):
        pool(parts, tmp_path / "pool")


def test_a_store_may_be_a_part_but_does_not_say_what_was_asked(part, tmp_path):
    first = part("one", ["de"])
    store = Store(tmp_path / "bare")
    store.put("losses", {"language": "yo"}, arrays={"nll": np.ones(3)})
    assert pool([first, store.root], tmp_path / "pool").asked.options["model"] == ["a"]
    with pytest.raises(ReportError, match="none of the parts says what was asked"):
        pool([store.root], tmp_path / "other")
    with pytest.raises(ReportError, match="holds no measurements"):
        pool([tmp_path / "nothing"], tmp_path / "third")


def test_a_damaged_entry_of_a_part_is_refused(part, tmp_path):
    folder = part("one", ["de"])
    (file,) = (folder / MEASUREMENTS / "losses").iterdir()
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(Exception, match="is no measurement of this version: is damaged"):
        pool([folder], tmp_path / "pool")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000, "levels"),
        ("{}", "arguments, which must be a list of texts"),
        ('{"arguments": ["evals"], "options": 3}', "options must be an object"),
        ('{"arguments": ["evals"], "options": {}, "shard": [1, "2"]}', "shard must be a list of 2 whole numbers"),
        ('{"arguments": ["evals"], "options": {}, "policy": 7}', "policy must be a text"),
    ],
)
def test_an_odd_file_of_what_was_asked_is_one_sentence_with_its_key(part, tmp_path, text, said):
    folder = part("one", ["de"])
    (folder / MEASUREMENTS / RUN).write_text(text, encoding="utf-8")
    with pytest.raises(ReportError, match=rf"run\.json.*{said}.*Run that part again"):
        pool([folder], tmp_path / "pool")
