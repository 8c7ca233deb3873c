"""Everything that runs a model runs on another device too, and gives what the CPU gives."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import architectures
import numpy as np
import pytest
import tokenizers
import torch
import transformers
from evenbits.cells import Subject, measure_damage
from evenbits.cells.cell import cells_of
from evenbits.cells.streaming import Streamed
from evenbits.errors import DeviceError, GapError
from evenbits.models import device as module
from evenbits.models.device import CPU, Device, describe, device_for, device_of_run, lacks_room, parse_device
from evenbits.models.loading import load
from evenbits.models.placement import homes_of
from evenbits.models.references import parse_model
from evenbits.models.sources import resolve
from evenbits.observe.activations.collection import measure
from evenbits.observe.activations.gradients import measure_gradients
from evenbits.observe.activations.importance import ActivationImportance
from evenbits.observe.activations.lookup import activation_statistics
from evenbits.observe.activations.spikes import spike_peaks
from evenbits.records import Corpus
from evenbits.scoring import score
from evenbits.scoring.body import halved
from evenbits.scoring.head import predict
from evenbits.scoring.packed import _blocks
from evenbits.scoring.sweep import Change, sweep
from evenbits.store import SEAL, Store
from evenbits.studies.h035.rounding import measure_errors, weight_errors
from evenbits.variants.export import write_quantized
from evenbits.variants.quantization.patching import quantized
from evenbits.variants.quantization.spec import parse_spec
from evenbits.variants.registry import parse, variant_of
from evenbits.variants.variant import FULL_PRECISION, in_dtype
from evenbits.variants.zeroing import dropping
from fake_device import FAKE, OTHER, SYNCHRONISED, emulated

TEXTS = ("The quick brown fox.", "jumps over", "the lazy dog again and again and again, an inner thing", "in the tin")
IDS = ("a", "b", "c", "d")
CORPUS = Corpus(
    name="c", source="test", languages=("de", "en"), segment_ids=IDS, texts={"en": TEXTS, "de": TEXTS[::-1]}
)
LIBRARIES = f"torch {torch.__version__}, transformers {transformers.__version__}, tokenizers {tokenizers.__version__}"
QUICK = ("gpt_neox", "gemma4_text", "mamba2", "deepseek_v3", "qwen2_vl")
SPECS = (
    "int4-row",
    "int4-g16-asym+include:head",
    "nf4-b16+keep1%:magnitude",
    "int3-g16+keep1%:random",
    "int4-g16+keep1%:activation@global",
    "int4-g16+keep0.5%:sensitivity",
    "int4-g16+keep1%:superweight",
    "int4-g16+clip:mse",
    "int4-g16+clip:mse[de]",
)
ELSEWHERE = Device(name="fake:0", label="emulated")
SPREAD = Device(name="fake:0", label="2 x emulated", beside=("fake:1",))
NARROW = Device(name="fake:0", label="emulated without float64")
HALF = Device(name="fake:0", label="half emulated", beside=("cpu",))
"""torch's autograd takes one device of a backend from Python, so gradients cross to the CPU and back."""


@pytest.fixture(autouse=True)
def _emulated(request):
    with emulated(float64="no float64" not in request.node.name):
        yield


@pytest.fixture(scope="module", params=["llama", "gpt2", pytest.param("gemma3_text", marks=pytest.mark.slow)])
def local(request, tiny_model, tmp_path_factory):
    """Three kinds of model: lean forward, own forward with Conv1D, windows and soft caps."""
    store = Store(tmp_path_factory.mktemp("resolved") / "store")
    return resolve(parse_model(str(tiny_model(request.param))), store=store)


@pytest.fixture(scope="module", params=[ELSEWHERE, SPREAD, NARROW], ids=["one device", "two devices", "no float64"])
def pair(request, local):
    """A model on the CPU and on the fake device, spread over two, or on one that has no float64."""
    return [load(local, dtype=torch.float32, device=device) for device in (CPU, request.param)]


@pytest.fixture(scope="module", params=[ELSEWHERE, HALF, NARROW], ids=["one device", "two devices", "no float64"])
def learning_pair(request, local):
    """The same for what needs gradients."""
    return [load(local, dtype=torch.float32, device=device) for device in (CPU, request.param)]


def nlls(loaded, **options):
    losses, hidden = score(loaded, "en", IDS, TEXTS, **options)
    return losses, hidden


def close(here, there, *, relative=1e-5, absolute=1e-6):
    np.testing.assert_allclose(np.asarray(there), np.asarray(here), rtol=relative, atol=absolute)


def test_the_model_is_there_and_shares_what_it_shared(pair):
    here, there = pair
    devices = {
        name: {parameter.device for parameter in there.model.get_submodule(name).parameters()}
        for name in (there.anatomy.embedding, there.anatomy.head, there.anatomy.layers[-1])
    }
    last = OTHER if there.device.beside else FAKE
    assert list(devices.values()) == [{FAKE}, {FAKE}, {last}]
    assert there.anatomy == here.anatomy
    head, embedding = (there.model.get_submodule(name).weight for name in (there.anatomy.head, there.anatomy.embedding))
    assert (head is embedding) == here.anatomy.tied
    assert here.arithmetic.startswith("torch.float32 on cpu, torch 2")
    assert there.arithmetic.startswith(f"torch.float32 on fake {there.device.label}, torch 2")


def test_losses_and_divergence_are_those_of_the_cpu(pair):
    scored = []
    for loaded in pair:
        full, hidden = nlls(loaded, keep_hidden=True)
        with quantized(loaded, parse_spec("int3-row")):
            changed, _ = nlls(loaded, reference=hidden, batch_tokens=40)
        scored.append(
            (full.nll, changed.nll, changed.kl, changed.delta_p, changed.square_delta_p, changed.top1_changed)
        )
    for here, there in zip(*scored, strict=True):
        close(here, there, absolute=1e-5)


@pytest.mark.parametrize("spec", SPECS)
def test_weights_are_rounded_as_on_the_cpu(learning_pair, spec, tmp_path):
    weights = []
    for loaded in learning_pair:
        importance = ActivationImportance(loaded, CORPUS, store=Store(tmp_path / loaded.device.name.replace(":", "")))
        with quantized(loaded, parse_spec(spec), importance=importance):
            weights.append([parameter.detach().cpu() for parameter in loaded.model.parameters()])
    for here, there in zip(*weights, strict=True):
        close(here, there)


@pytest.mark.parametrize("ours", [False, True], ids=["as transformers saves it", "as evenbits exports it"])
def test_another_checkpoint_runs_on_the_device_of_the_run(ours, pair, tmp_path):
    here, elsewhere = pair
    folder = here.local.folder
    if ours:
        folder = tmp_path / "ours"
        write_quantized(here, parse_spec("int4-g16"), folder)
    rows = []
    for device in (CPU, elsewhere.device):
        store = Store(tmp_path / "store")  # the same: what one device computed is never the other's
        subject = Subject(local=here.local, store=store, dtype="float32", device=device)
        spec = parse(f"checkpoint:{folder}")
        with spec.variant(subject).open(subject) as scorer:
            devices = {str(parameter.device) for parameter in scorer.loaded.model.parameters()}
            assert devices == set(device.names)
        found = measure_damage(subject, [spec], CORPUS).rows(seed=0)
        assert {row["artefact"]["device"] for row in found} == {device.make}
        rows.append([row["nll_quantized"] for row in found])
    close(*rows)


@pytest.mark.parametrize("spec", ["checkpoint:{}", "bnb:nf4", "torchao:int8"])
def test_what_another_device_computed_is_another_measurement(spec, pair, tmp_path):
    pytest.importorskip("bitsandbytes" if spec.startswith("bnb") else "torchao" if spec.startswith("t") else "torch")
    here, _ = pair
    subjects = [
        Subject(local=here.local, store=Store(tmp_path / "store"), dtype="float32", device=device)
        for device in (CPU, ELSEWHERE)
    ]
    keys = [parse(spec.format(here.local.folder)).variant(subject).key for subject in subjects]
    assert keys[0] != keys[1]


@pytest.mark.parametrize("spec", ["int4-g16", "int4-g16-asym", "nf4-b16", "int4-g16+clip:mse", "int8-row"])
def test_a_spec_waits_for_the_device_once_a_matrix_however_many_blocks_it_has(pair, spec, monkeypatch):
    monkeypatch.setattr("evenbits.variants.quantization.grids.DEVICE_BLOCK", 256)
    _, there = pair
    SYNCHRONISED.clear()
    with quantized(there, parse_spec(spec)):
        pass
    assert sum(SYNCHRONISED.values()) <= len(there.anatomy.linears), SYNCHRONISED


def test_activations_are_those_of_the_cpu(pair, tmp_path):
    found = [
        activation_statistics(loaded, TEXTS, language="en", store=Store(tmp_path / str(number)))
        for number, loaded in enumerate(pair)
    ]
    here, there = found
    for name in ("attention_write", "mlp_write", "head_norm", "sink_mass", "participation", "segment_state"):
        close(getattr(here, name), getattr(there, name), relative=1e-4, absolute=1e-5)
    for name, energy in here.input_square.items():
        close(energy, there.input_square[name], relative=1e-4)
        close(here.input_peak[name], there.input_peak[name], relative=1e-4)


def test_spikes_gradients_and_rounding_errors_are_those_of_the_cpu(learning_pair, tmp_path):
    spec = parse_spec("int4-g16")
    spikes, gradients, errors = [], [], []
    for number, loaded in enumerate(learning_pair):
        spikes.append(spike_peaks(loaded, TEXTS))
        gradients.append(measure_gradients(loaded, TEXTS[:2], language="en"))
        deltas = {"s": weight_errors(loaded, CORPUS, spec, store=Store(tmp_path / str(number)), seed=0)}
        errors.append(measure_errors(loaded, TEXTS, "en", deltas)["s"])
    for name in spikes[0]:
        close(spikes[0][name].inputs, spikes[1][name].inputs, relative=1e-4)
        close(gradients[0][name], gradients[1][name].cpu(), relative=1e-3, absolute=1e-7)
    for name in ("relative", "first_order", "weighted"):
        close(getattr(errors[0], name), getattr(errors[1], name), relative=1e-3)


def test_a_sweep_and_ablations_are_those_of_the_cpu(pair):
    found = []
    for loaded in pair:
        only = parse_spec("int3-row+only:" + loaded.anatomy.layers[1])
        changes = [
            Change(layer=1, apply=lambda loaded=loaded, only=only: quantized(loaded, only)),
            Change(layer=0, apply=lambda loaded=loaded: dropping(loaded, kind="channel", seed=(1,))),
            Change(layer=0, apply=lambda loaded=loaded: dropping(loaded, kind="head", seed=(2,))),
        ]
        swept = next(iter(sweep(loaded, IDS, {"en": TEXTS}, changes)))
        found.append([swept.full["en"].nll, *(one["en"].nll for one in swept.changed)])
    for here, there in zip(*found, strict=True):
        close(here, there, absolute=1e-4)


@pytest.mark.parametrize("architecture", architectures.every_type(*QUICK))
def test_every_type_gives_over_two_devices_what_it_gives_on_the_cpu(architecture, tmp_path):
    store = Store(tmp_path / "store")
    local = resolve(parse_model(str(architectures.build(architecture, tmp_path / "model"))), store=store)
    here, two = (load(local, dtype=torch.float32, device=device) for device in (CPU, SPREAD))
    assert {str(parameter.device) for parameter in two.model.parameters()} == {"fake:0", "fake:1"}
    close(*(nlls(loaded)[0].nll for loaded in (here, two)))


@pytest.mark.parametrize(
    "architecture",
    ["qwen3_moe", pytest.param("qwen3_moe", id="no float64"), pytest.param("gpt_oss", marks=pytest.mark.slow)],
)
def test_experts_are_scored_observed_and_rounded_there(architecture, tmp_path):
    store = Store(tmp_path / "store")
    local = resolve(parse_model(str(architectures.build(architecture, tmp_path / "model"))), store=store)
    here, two, half = (load(local, dtype=torch.float32, device=device) for device in (CPU, SPREAD, HALF))
    assert {str(parameter.device) for parameter in two.model.parameters()} == {"fake:0", "fake:1"}
    found = [nlls(loaded)[0].nll for loaded in (here, two, half)]
    close(found[0], found[1])
    close(found[0], found[2])
    moments = [measure(loaded, TEXTS, language="en") for loaded in (here, two)]
    gradients = [measure_gradients(loaded, TEXTS[:1], language="en") for loaded in (here, half)]
    for linear in here.anatomy.linears:
        close(*(one.input_square[linear.name] for one in moments), relative=1e-4)
        close(*(one[linear.name].cpu() for one in gradients), relative=1e-3, absolute=1e-7)
    rounded = []
    for loaded in (here, half):
        importance = ActivationImportance(loaded, CORPUS, store=Store(tmp_path / loaded.device.label.replace(" ", "")))
        with quantized(loaded, parse_spec("int4-g16+keep1%:activation"), importance=importance):
            rounded.append([parameter.detach().cpu() for parameter in loaded.model.parameters()])
    for one, other in zip(*rounded, strict=True):
        close(one, other)


def test_an_exported_model_holds_the_same_bytes(pair, tmp_path):
    from safetensors.numpy import load_file

    files = []
    for number, loaded in enumerate(pair):
        write_quantized(loaded, parse_spec("int4-g16+keep1%:magnitude"), tmp_path / str(number))
        files.append({path.name: load_file(path) for path in (tmp_path / str(number)).glob("*.safetensors")})
    assert files[0].keys() == files[1].keys()
    for here, there in zip(files[0].values(), files[1].values(), strict=True):
        assert here.keys() == there.keys()
        assert all(np.array_equal(here[name], there[name]) for name in here)


def test_a_batch_without_room_is_halved_until_it_fits():
    tried = []

    def compute(batch):
        tried.append(len(batch))
        if len(batch) > 2:
            raise torch.OutOfMemoryError
        return sum(map(len, batch))

    batch = ["a", "bb", "ccc", "dddd", "eeeee"]
    assert list(halved(batch, compute, device=FAKE)) == [
        (["a", "bb"], 3),
        (["ccc"], 3),
        (["dddd", "eeeee"], 9),
    ]
    assert tried == [5, 2, 3, 1, 2]


def test_a_sweep_halves_what_has_no_room_and_gradients_say_what_to_do(pair, monkeypatch):
    _, there = pair
    only = parse_spec("int3-row+only:" + there.anatomy.layers[1])
    change = Change(layer=1, apply=lambda: quantized(there, only))
    expected = next(iter(sweep(there, IDS, {"en": TEXTS}, [change])))
    predicted, tried = predict, []

    def crowded(head, hidden_ND, targets_N, *, top1=False):
        tried.append(len(hidden_ND))
        if len(hidden_ND) > 60:
            raise torch.OutOfMemoryError
        return predicted(head, hidden_ND, targets_N, top1=top1)

    monkeypatch.setattr("evenbits.scoring.sweep.predict", crowded)
    found = next(iter(sweep(there, IDS, {"en": TEXTS}, [change])))
    assert len(tried) > 1
    for one, other in ((expected.full, found.full), (expected.changed[0], found.changed[0])):
        close(one["en"].nll, other["en"].nll)

    def full(*_args, **_named):
        raise torch.OutOfMemoryError

    monkeypatch.setattr("evenbits.observe.activations.gradients._nll", full)
    with pytest.raises(DeviceError, match=r"has no room for gradients of en beside the model; .* --device cpu"):
        measure_gradients(there, TEXTS[:1], language="en")


@pytest.mark.parametrize("where", ["scoring.packed.through", "scoring.beside.diverge_each", "scoring.sweep._nll"])
def test_a_measurement_without_room_says_what_to_do(where, tiny_llama, tmp_path, monkeypatch):
    def full(*_args, **_named):
        raise torch.OutOfMemoryError

    store = Store(tmp_path)
    local = resolve(parse_model(str(tiny_llama)), store=store)
    subject = Subject(local=local, store=store, dtype="float32", device=ELSEWHERE)
    monkeypatch.setattr(f"evenbits.{where}", full)
    layers = [replace(FULL_PRECISION, label=str(i), key={"i": i}, first_layer=i) for i in (0, 1)]

    def ask():
        measure_damage(subject, [parse(text) for text in ("int4-g16", "int8-row")], CORPUS)
        subject.measure([cell for layer in layers for cell in subject.cells(layer, CORPUS)])

    with pytest.raises(DeviceError, match=r"fake:0 .*has no room for .* --device cpu"):
        ask()


@pytest.mark.parametrize("lengths", [[1024, *[22] * 700], [9, 8, 8, 5, 4, 4, 2, 1], [7], [3, 3, 3]])
@pytest.mark.parametrize("room", [0, 32768])
def test_attention_on_a_device_is_padded_to_a_bound_or_by_no_more_than_the_text(lengths, room, monkeypatch):
    monkeypatch.setattr("evenbits.scoring.packed.PADDED_POSITIONS", room)
    most_there = max(2 * sum(lengths), len(lengths) * room)
    for device, most in ((FAKE, most_there), (torch.device("cpu"), sum(lengths))):
        blocks = _blocks(lengths, device)
        shapes = [block.shape for block in blocks]
        assert sum(count * longest for count, longest in shapes) <= most
        assert max(count * longest for count, longest in shapes) <= max(room, 2 * sum(lengths))
        ends = [block.end for block in blocks]
        assert [block.begin for block in blocks] == [0, *ends[:-1]]
        assert ends[-1] == sum(lengths)
    assert len(_blocks([40, *[1] * 200], FAKE)) == (1 if room else 2)


def test_a_single_window_without_room_says_what_to_do():
    def compute(_batch):
        raise torch.OutOfMemoryError

    with pytest.raises(DeviceError, match=r"fake:0 has no room for a single window of 3 tokens .*--device cpu"):
        list(halved(["ccc", "a"], compute, device=FAKE))


def test_cells_of_another_device_are_other_cells():
    def key(device):
        [cell, _] = cells_of(FULL_PRECISION, CORPUS, model="m", dtype="float32", context=8, device=device)
        return cell.key()

    gpu = Device(name="cuda:0", label="NVIDIA H200", libraries="torch 2.11.0")
    assert key(gpu) == {**key(CPU), "device": "cuda NVIDIA H200, torch 2.11.0"}
    # Which of several equal devices it is does not change a number.
    assert key(replace(gpu, name="cuda:1")) == key(gpu)


def test_versions_and_on_a_cpu_the_dtype_of_products_are_part_of_every_key(monkeypatch):
    monkeypatch.setattr(module, "version", {"torch": "2.1", "transformers": "5.2", "tokenizers": "0.22"}.__getitem__)
    assert CPU.key("float32") == "cpu, torch 2.1, transformers 5.2, tokenizers 0.22"
    for answer, products in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(module, "multiplies_bfloat16", lambda answer=answer: answer)
        assert CPU.key("bfloat16") == f"cpu, torch 2.1, transformers 5.2, tokenizers 0.22, products in {products}"
        assert CPU.arithmetic("torch.bfloat16") == f"torch.bfloat16 on {CPU.key('bfloat16')}"
    # What another machine measured keeps that machine's.
    assert (
        Device(libraries="torch 2.11.0", products="bfloat16").key("bfloat16")
        == "cpu, torch 2.11.0, products in bfloat16"
    )


def test_what_a_cpu_multiplied_otherwise_is_not_taken_from_the_store(tiny_llama, tmp_path, monkeypatch):
    found = []
    for answer in (True, False, True):
        for where in ("evenbits.models.device", "evenbits.scoring.arithmetic"):
            monkeypatch.setattr(f"{where}.multiplies_bfloat16", lambda answer=answer: answer)
        store = Store(tmp_path)
        subject = Subject(local=resolve(parse_model(str(tiny_llama)), store=store), store=store, dtype="bfloat16")
        found.append(subject.losses(FULL_PRECISION, CORPUS)["de"].nll)
        assert bool(subject._loaded) == (len(found) < 3)
    assert np.array_equal(found[0], found[2])
    assert not np.array_equal(found[0], found[1])


@pytest.fixture
def arithmetic_of_cuda():
    """torch's settings of CUDA, as loose as can be, and put back afterwards."""
    cuda, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    settings = (
        (cuda, "allow_tf32"),
        (cuda, "allow_bf16_reduced_precision_reduction"),
        (cudnn, "allow_tf32"),
        (cudnn, "benchmark"),
    )
    before = [getattr(owner, name) for owner, name in settings]
    for owner, name in settings:
        setattr(owner, name, True)
    yield lambda: [getattr(owner, name) for owner, name in settings]
    for (owner, name), value in zip(settings, before, strict=True):
        setattr(owner, name, value)


def test_a_gpu_computes_without_tf32_and_repeatably_and_a_cpu_is_left_as_it_is(arithmetic_of_cuda, monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    asked = []
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda *args, **named: asked.append((args, named)))
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    module.set_up(CPU)
    assert (arithmetic_of_cuda(), asked) == ([True] * 4, [])
    module.set_up(Device(name="cuda:0", label="GPU"))
    assert (arithmetic_of_cuda(), asked) == ([False] * 4, [((True,), {"warn_only": True})])
    assert os.environ.pop("CUBLAS_WORKSPACE_CONFIG") == ":4096:8"


def test_linux_and_torch_agree_about_products_of_bfloat16(monkeypatch):
    here = module.multiplies_bfloat16()
    monkeypatch.setattr(module, "CPUINFO", Path("nowhere"))
    assert module.multiplies_bfloat16.__wrapped__() == here


def test_devices_are_named_and_what_is_not_there_is_refused(monkeypatch):
    assert parse_device("cpu") == CPU
    assert describe(CPU) == {"device": "cpu"}
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("evenbits.models.device._has_driver", lambda: True)
    assert parse_device("auto") == CPU
    with pytest.raises(DeviceError, match=r"--device cuda:1: torch .* sees no CUDA devices here"):
        parse_device("cuda:1")
    with pytest.raises(DeviceError, match=r"--device mps: torch .* sees no Apple GPU here"):
        parse_device("mps")


def test_an_apple_gpu_is_named_and_says_in_words_that_it_is_full(monkeypatch):
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    monkeypatch.setattr("torch.backends.mps.get_name", lambda: "Apple M4", raising=False)
    monkeypatch.setattr("torch.mps.recommended_max_memory", lambda: 2**34)
    found = parse_device("mps")
    assert found == device_for("mps", weights=2**40) == Device(name="mps:0", label="Apple M4", libraries=LIBRARIES)
    assert found.key("bfloat16") == f"mps Apple M4, {LIBRARIES}"
    assert describe(found) == {"device": "mps Apple M4", "gpu": {"name": "Apple M4", "memory_bytes": 2**34}}
    assert lacks_room(RuntimeError("MPS backend out of memory (MPS allocated: 18.00 GB ..."))
    assert lacks_room(torch.OutOfMemoryError())
    assert not lacks_room(RuntimeError("shapes differ"))


def test_a_model_that_one_device_has_no_room_for_is_spread_over_as_few_as_have_it(monkeypatch):
    """4 devices of 10 GiB, 2 of each to spare; a spec's replaced weights lie beside the weights."""
    gib = 2**30
    monkeypatch.setattr("evenbits.models.device._has_driver", lambda: True)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda index: "GPU" if index < 3 else "other GPU")
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda _index: SimpleNamespace(total_memory=10 * gib))
    names = {size: device_for("auto", weights=size * gib).names for size in (4, 5, 8, 9, 40)}
    assert [len(names[size]) for size in (4, 5, 8, 9, 40)] == [1, 2, 2, 3, 4]
    assert device_for("auto", weights=4 * gib) == Device(name="cuda:0", label="GPU", libraries=LIBRARIES)
    two = Device(name="cuda:0", label="2 x GPU", libraries=LIBRARIES, beside=("cuda:1",))
    assert device_for("cuda", weights=8 * gib) == two
    assert (two.key("bfloat16"), str(two)) == (f"cuda 2 x GPU, {LIBRARIES}", "cuda:0 + cuda:1 (2 x GPU)")
    # Workers beside each other have groups of their own; a device that was named stays the only one.
    mixed = Device(name="cuda:2", label="1 x GPU + 1 x other GPU", libraries=LIBRARIES, beside=("cuda:3",))
    assert [device_for("auto", weights=8 * gib, worker=worker) for worker in range(3)] == [two, mixed, two]
    assert device_for("cuda:1", weights=40 * gib) == Device(name="cuda:1", label="GPU", libraries=LIBRARIES)
    assert device_for("cpu", weights=40 * gib) == CPU


def test_what_a_gpu_measured_is_judged_where_there_is_none(monkeypatch, tmp_path):
    run = partial(device_of_run, "auto", dtype="bfloat16")
    with monkeypatch.context() as gpu:
        gpu.setattr("evenbits.models.device._has_driver", lambda: True)
        gpu.setattr("torch.cuda.is_available", lambda: True)
        gpu.setattr("torch.cuda.device_count", lambda: 2)
        gpu.setattr("torch.cuda.get_device_name", lambda _index: "GPU")
        gpu.setattr("torch.cuda.get_device_properties", lambda _index: SimpleNamespace(total_memory=10 * 2**30))
        store = Store(tmp_path / "store")
        one, two = (run(weights=gib * 2**30, store=store, worker=1) for gib in (1, 6))
        assert (one.name, len(two.names)) == ("cuda:1", 2)
        store.keep(tmp_path / "report")
    (tmp_path / "report" / SEAL).touch()
    judged = Store(tmp_path / "report")
    again = [run(weights=gib * 2**30, store=judged) for gib in (1, 6)]
    keys = [[device.key("bfloat16") for device in devices] for devices in (again, (one, two))]
    assert keys == [[f"cuda GPU, {LIBRARIES}", f"cuda 2 x GPU, {LIBRARIES}"]] * 2
    assert describe(again[0]) == {"device": "cuda GPU"}
    with pytest.raises(GapError):
        run(weights=3, store=judged)


def test_layers_are_divided_by_what_they_weigh():
    assert homes_of(0, [1, 1, 1, 1], ["a", "b"]) == ["a", "a", "b", "b"]
    # 4 outside and 8 of 1: the first device takes the embedding and two layers, 6 bytes each.
    assert homes_of(4, [1] * 8, ["a", "b"]) == ["a"] * 2 + ["b"] * 6
    assert homes_of(0, [5, 1, 1, 1], ["a", "b"]) == ["a", "b", "b", "b"]
    assert homes_of(100, [1, 1], ["a", "b"]) == ["b", "b"]


def test_workers_beside_each_other_take_one_device_each(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda index: f"GPU {index}")
    assert [parse_device("cuda", worker=number).name for number in range(3)] == ["cuda:0", "cuda:1", "cuda:0"]
    assert parse_device("cuda:1", worker=0) == Device(name="cuda:1", label="GPU 1", libraries=LIBRARIES)


@pytest.mark.parametrize("architecture", ["llama", "gpt2", pytest.param("llama", id="llama, no float64")])
def test_layers_are_streamed_to_the_device(architecture, tiny_model, tmp_path):
    """llama from disk alone; gpt2's float32 floor by its own layers, beside the model in bfloat16."""
    store = Store(tmp_path / "store")
    local = resolve(parse_model(str(tiny_model(architecture))), store=store)
    lean = architecture == "llama"
    found = []
    for device in (CPU, ELSEWHERE):
        own = Subject(
            local=local, store=store, dtype="bfloat16", device=device, **({"runner": Streamed()} if lean else {})
        )
        wanted = in_dtype(variant_of(parse_spec("int4-g16"), own), "float32")
        found.append(own.losses(replace(wanted, divergence=False), CORPUS))
        assert list(own._loaded) == ([] if lean else ["bfloat16"])
    for tag in CORPUS.languages:
        close(found[0][tag].nll, found[1][tag].nll)
