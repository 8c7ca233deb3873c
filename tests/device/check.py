"""What `check.sh` runs: a GPU against the CPU, every eval on a reference model, and the speeds and memory of DESIGN.

Each part writes its figures as soon as it has them; a part that fails leaves its error, and the next one runs.
"""

from __future__ import annotations

import gc
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LANGUAGES = ("ar", "bg", "de", "el", "es", "fi", "fr", "hu", "id", "ja", "pl", "ro", "ru", "sv", "tr", "uk")
SEGMENTS = 24
MODELS = ("a1", "a2", "eq")
SPECS = (
    "int4-g64",
    "int8-row",
    "nf4-b64",
    "int4-g64+keep0.1%:magnitude",
    "int3-row+keep1%:magnitude@global",
    "int4-g64+clip:mse",
    "int4-g64+keep0.1%:activation",
)
TOLERANCE = 1e-3  # bits per segment between CUDA and CPU, float32
DEVICE = os.environ.get("EVENBITS_CHECK_DEVICE", "cuda")
"""`cpu` rehearses everything with little text and a small model in the large one's place; its figures mean nothing."""
REHEARSED = DEVICE == "cpu"
EVALS_SECONDS = 90.0
"""Kept for the evals, which come last; they took 43 s on an H200."""
COMPARED = ("cuda_and_cpu", "spread_and_experts", "evals")
"""Parts that are wrong, not slow, where they miss what they are held to."""
LARGE = {
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
}
"""The shape of Qwen3-8B."""
SMALL = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 4096,
}


def write_text(folder: Path) -> None:
    """Write a few of Django's messages in many languages, a file each, for `dir:`."""
    from evenbits.text import load_corpus

    corpus = load_corpus("gettext", languages=LANGUAGES)
    longest = sorted(range(len(corpus)), key=lambda place: -len(corpus.texts[LANGUAGES[0]][place]))
    chosen = corpus.select(indices=tuple(sorted(longest[: 3 * SEGMENTS : 3])))
    folder.mkdir(parents=True)
    for tag in chosen.languages:
        lines = [" ".join(text.split()) for text in chosen.texts[tag]]
        (folder / f"{tag}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def compare_with_cpu(texts: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Damage of reference models on both devices, float32: the largest difference in bits per segment, by model."""
    from evenbits.cells import Subject
    from evenbits.models.device import CPU, describe, parse_device
    from evenbits.models.references import parse_model
    from evenbits.models.sources import resolve
    from evenbits.records import Corpus
    from evenbits.store import Store
    from evenbits.variants.registry import parse_specs, variant_of
    from evenbits.variants.variant import FULL_PRECISION

    device = parse_device(DEVICE)
    ids = tuple(str(number) for number in range(6))
    some = {tag: tuple(texts[tag][6:12]) for tag in ("de", "fi", "ru", "tr")}
    corpus = Corpus(name="device", source="check", languages=tuple(some), segment_ids=ids, texts=some)
    probe = Corpus(
        name="probe",
        source="check",
        languages=tuple(some),
        segment_ids=ids[:2],
        texts={tag: tuple(texts[tag][:2]) for tag in some},
    )
    found: dict[str, Any] = {"environment": describe(device), "models": {}}
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        for name in MODELS[: 1 if REHEARSED else None]:
            local = resolve(parse_model(f"reference:{name}"), store=store)
            losses: list[dict[str, Any]] = []
            for where in (CPU, device):
                subject = Subject(local=local, store=store, dtype="float32", device=where, probe=probe)
                specs = parse_specs(",".join(SPECS[: 2 if REHEARSED else None]))
                variants = {"full": FULL_PRECISION} | {str(spec): variant_of(spec, subject) for spec in specs}
                losses.append({text: subject.losses(one, corpus) for text, one in variants.items()})
                subject.release()
            worst = {
                spec: max(
                    float(
                        abs(
                            (there[tag].nll - losses[1]["full"][tag].nll) - (here[tag].nll - losses[0]["full"][tag].nll)
                        ).max()
                    )
                    / math.log(2)
                    for tag in some
                )
                for spec, here, there in ((text, losses[0][text], losses[1][text]) for text in losses[0])
            }
            full = max(float(abs(losses[1]["full"][tag].nll - losses[0]["full"][tag].nll).max()) for tag in some)
            found["models"][name] = {"full_bits": full / math.log(2), "damage_bits": worst}
    models = found["models"].values()
    found["largest_bits"] = max(max(one["full_bits"], *one["damage_bits"].values()) for one in models)
    found["reached"] = found["largest_bits"] <= TOLERANCE
    return found


def spread_and_whole(texts: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """A model spread over all GPUs, over the GPU and the CPU where there is one, against the CPU, float32."""
    import torch
    from evenbits.models.device import CPU, Device, parse_device
    from evenbits.models.loading import load
    from evenbits.models.references import parse_model
    from evenbits.models.sources import resolve
    from evenbits.observe.activations.collection import measure
    from evenbits.observe.activations.gradients import measure_gradients
    from evenbits.scoring import score
    from evenbits.store import Store
    from evenbits.variants.quantization.patching import quantized
    from evenbits.variants.quantization.spec import parse_spec

    first = parse_device(DEVICE)
    others = [f"cuda:{index}" for index in range(1, 0 if REHEARSED else torch.cuda.device_count())]
    spread = Device(name=first.name, label=f"spread {first.label}", beside=tuple(others or ["cpu"]))
    some, ids = texts["fi"][:6], [str(number) for number in range(6)]
    found: dict[str, Any] = {"devices": str(spread)}
    with tempfile.TemporaryDirectory() as folder:
        local = resolve(parse_model("reference:a1"), store=Store(Path(folder)))
        for architecture, model in (("reference:a1", local), *experts_in(Path(folder))):
            numbers: list[dict[str, Any]] = []
            for device in (CPU, spread):
                loaded = load(model, dtype=torch.float32, device=device)
                full, _ = score(loaded, "fi", ids, some)
                with quantized(loaded, parse_spec("int4-g16")):
                    changed, _ = score(loaded, "fi", ids, some)
                moments = measure(loaded, some[:3], language="fi").input_square
                gradients = measure_gradients(loaded, some[:1], language="fi")
                numbers.append(
                    {
                        "bits": {"full": full.nll / math.log(2), "damage": (changed.nll - full.nll) / math.log(2)},
                        "moments": moments,
                        "gradients": {name: one.cpu().numpy() for name, one in gradients.items()},
                    }
                )
            here, there = numbers
            apart = {
                kind: {name: float(abs(one - there[kind][name]).max()) for name, one in here[kind].items()}
                for kind in here
            }
            found[architecture] = {
                "largest_bits": max(apart["bits"].values()),
                **{
                    kind: max(value / float(abs(here[kind][name]).max()) for name, value in apart[kind].items())
                    for kind in ("moments", "gradients")
                },
            }
    named = [one for one in found.values() if isinstance(one, dict)]
    found["reached"] = all(one["largest_bits"] <= TOLERANCE for one in named)
    return found


def experts_in(folder: Path) -> list[tuple[str, Any]]:
    """Tiny models with fused experts, output x input and the reverse."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    import architectures
    from evenbits.models.references import parse_model
    from evenbits.models.sources import resolve
    from evenbits.store import Store

    names = ("qwen3_moe", "gpt_oss")
    store = Store(folder)
    return [(name, resolve(parse_model(str(architectures.build(name, folder / name))), store=store)) for name in names]


def large_model() -> Any:
    """A model of Qwen3-8B's shape with random weights in bfloat16 on the GPU, with the reference tokenizer."""
    import torch
    from evenbits.models.device import parse_device, set_up
    from evenbits.models.layout import anatomy_of
    from evenbits.models.loading import load
    from evenbits.models.records import LoadedModel
    from evenbits.models.references import parse_model
    from evenbits.models.sources import resolve
    from evenbits.store import Store
    from transformers import Qwen3Config, Qwen3ForCausalLM

    device, shape = parse_device(DEVICE), SMALL if REHEARSED else LARGE
    set_up(device)
    with tempfile.TemporaryDirectory() as folder:
        small = load(resolve(parse_model("reference:a1"), store=Store(Path(folder))), dtype=torch.float32)
    config = Qwen3Config(**shape, tie_word_embeddings=False, max_position_embeddings=4096, attn_implementation="sdpa")
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("meta"):
            model = Qwen3ForCausalLM(config)
    finally:
        torch.set_default_dtype(default)
    model.to_empty(device=device.name)
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.02) if parameter.dim() > 1 else parameter.data.fill_(1)
    rotary = model.model.rotary_emb
    steps = torch.arange(0, shape["head_dim"], 2, device=device.name, dtype=torch.float32) / shape["head_dim"]
    rotary.inv_freq = 1.0 / (10000.0**steps)
    model.eval().requires_grad_(requires_grad=False)
    return LoadedModel(
        local=small.local,
        model=model,
        tokenizer=small.tokenizer,
        anatomy=anatomy_of(model),
        dtype=torch.bfloat16,
        device=device,
    )


def waited() -> None:
    """Let the GPU finish."""
    import torch

    if not REHEARSED:
        torch.cuda.synchronize()


def timed(work: Callable[[], Any], *, rounds: int) -> float:
    """Return the median seconds of `work`, after one round that does not count."""
    seconds = []
    for number in range((1 if REHEARSED else rounds) + 1):
        waited()
        begin = time.perf_counter()
        work()
        waited()
        if number:
            seconds.append(time.perf_counter() - begin)
    return sorted(seconds)[len(seconds) // 2]


def long_text(texts: Mapping[str, Sequence[str]]) -> list[tuple[str, list[str]]]:
    """40 languages x 100 segments out of fewer: each text three times, with another end."""
    named = [(f"{tag}-{copy}", [f"{text} {copy}" for text in lines]) for tag, lines in texts.items() for copy in "abc"]
    segments = 4 if REHEARSED else 100
    return [(tag, (lines * 5)[:segments]) for tag, lines in named[: 2 if REHEARSED else 40]]


def speed_of_scoring(loaded: Any, texts: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Scoring against the bare products on the same tokens, and the memory beyond the weights."""
    import torch
    from evenbits.scoring import score
    from torch.nn import functional

    weights = sum(parameter.nbytes for parameter in loaded.model.parameters())
    languages = long_text(texts)
    segments = len(languages[0][1])
    ids = [str(number) for number in range(segments)]
    tokens = [
        sum(len(one) for one in loaded.tokenizer(lines, add_special_tokens=False)["input_ids"])
        for _, lines in languages
    ]

    def scored() -> None:
        for tag, lines in languages:
            score(loaded, tag, ids, lines)

    if not REHEARSED:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    ours = timed(scored, rounds=3)
    peak = weights if REHEARSED else torch.cuda.max_memory_allocated()
    linears = (*loaded.anatomy.linears, loaded.anatomy.head_linear)
    matrices = [loaded.model.get_parameter(linear.parameter) for linear in linears]
    x = {
        width: torch.randn(max(tokens), width, dtype=torch.bfloat16, device=loaded.model.device)
        for width in {matrix.shape[1] for matrix in matrices}
    }

    def multiplied() -> None:
        for count in tokens:
            for matrix in matrices:
                functional.linear(x[matrix.shape[1]][:count], matrix)

    bare = timed(multiplied, rounds=3)
    return {
        "languages": len(languages),
        "segments": segments,
        "tokens": sum(tokens),
        "seconds": ours,
        "tokens_per_second": sum(tokens) / ours,
        "bare_products_seconds": bare,
        "share_of_bare_speed": bare / ours,
        "reached_share": bare / ours >= 0.6,
        "weights_bytes": weights,
        "peak_bytes": peak,
        "beyond_weights_gib": (peak - weights) / 2**30,
        "reached_memory": peak - weights <= 4 * 2**30,
    }


def beside_lm_eval(loaded: Any, texts: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Scoring against lm-eval's rolling log-likelihood at its better batch size, on an eighth of the text."""
    from evenbits.records import Corpus
    from evenbits.scoring import score

    benchmarks()
    from test_scoring_speed import lm_eval_scorer

    languages = dict(long_text(texts)[::8])
    ids = tuple(str(number) for number in range(len(next(iter(languages.values())))))
    corpus = Corpus(
        name="device",
        source="check",
        languages=tuple(languages),
        segment_ids=ids,
        texts={tag: tuple(lines) for tag, lines in languages.items()},
    )
    sizes = {size: timed(lm_eval_scorer(loaded, corpus, size), rounds=1) for size in (8, 32)}
    best = min(sizes, key=sizes.__getitem__)

    def scored() -> None:
        for tag, lines in languages.items():
            score(loaded, tag, ids, lines)

    theirs, ours = timed(lm_eval_scorer(loaded, corpus, best), rounds=3), timed(scored, rounds=3)
    return {
        "languages": len(languages),
        "segments": len(ids),
        "seconds": ours,
        "lm_eval_seconds": theirs,
        "lm_eval_seconds_by_batch": sizes,
        "times_lm_eval": theirs / ours,
        "reached": theirs >= 3 * ours,
    }


def benchmarks() -> None:
    """Let modules of `tests/benchmarks` be imported, for the device that is checked, and the peers they measure."""
    os.environ["EVENBITS_BENCH_DEVICE"] = DEVICE
    sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))
    sys.path.append(os.environ.get("EVENBITS_PEERS", ""))


def rounding_beside_libraries(loaded: Any) -> dict[str, Any]:
    """Rounding four layers' matrices to int4-g64, and bitsandbytes and torchao on the same."""
    import importlib.util

    import torch

    benchmarks()
    from test_rounding_speed import PEERS, rounding

    matrices = [loaded.model.get_parameter(linear.parameter).detach() for linear in loaded.anatomy.linears[:28]]
    with torch.inference_mode():
        ours = timed(rounding(matrices), rounds=5)
        there = [name for name in PEERS if importlib.util.find_spec(name)]
        theirs = {name: timed(PEERS[name](matrices), rounds=5) for name in there}
    return {
        "weights": sum(matrix.numel() for matrix in matrices),
        "seconds": ours,
        "seconds_of_libraries": theirs,
        "not_installed": [name for name in PEERS if name not in theirs],
        "reached": all(ours < seconds for seconds in theirs.values()),
    }


def speed_of_a_sweep(loaded: Any, texts: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Changes of every single layer in one sweep against each of them from the start, a little text."""
    from evenbits.scoring.likelihood import batch_tokens_for
    from evenbits.scoring.sweep import Change, Text, _from_the_start, sweep
    from evenbits.variants.variant import FULL_PRECISION

    some = {tag: lines[:20] for tag, lines in long_text(texts)[:2]}
    ids = [str(number) for number in range(len(next(iter(some.values()))))]
    layers = range(len(loaded.anatomy.layers))
    changes = [Change(layer=layer, apply=lambda: FULL_PRECISION.applied(loaded)) for layer in layers]
    tokens = batch_tokens_for(loaded.model.device)

    def swept() -> None:
        list(sweep(loaded, ids, some, changes))

    def from_the_start() -> None:
        read = [Text.of(loaded, tag, ids, lines, 1024) for tag, lines in some.items()]
        _from_the_start(loaded, read, changes, context=1024, batch_tokens=tokens, advance=lambda: None)

    ours, theirs = timed(swept, rounds=3), timed(from_the_start, rounds=3)
    return {"layers": len(changes), "seconds": ours, "from_the_start_seconds": theirs, "reached": theirs >= 1.8 * ours}


def speed_of_rounding(loaded: Any) -> dict[str, Any]:
    """Rounding all linears to int4-g64 where they are, against reading and writing them once."""
    import torch
    from evenbits.variants.quantization.patching import quantized
    from evenbits.variants.quantization.spec import parse_spec

    matrices = [loaded.model.get_parameter(linear.parameter) for linear in loaded.anatomy.linears]
    spec = parse_spec("int4-g64")
    copies = [torch.empty_like(matrix) for matrix in matrices[:14]]

    def copied() -> None:
        for number, matrix in enumerate(matrices):
            place = next(copy for copy in copies[number % 14 :] + copies if copy.shape == matrix.shape)
            place.copy_(matrix)

    def rounded() -> None:
        with quantized(loaded, spec, source=source):
            pass

    def source(name: str) -> Any:
        return loaded.model.get_parameter(loaded.anatomy.product(name).parameter).detach()

    with torch.no_grad():
        once = timed(copied, rounds=5)
        ours = timed(rounded, rounds=5)
    weights = sum(matrix.numel() for matrix in matrices)
    return {
        "weights": weights,
        "seconds": ours,
        "copy_seconds": once,
        "times_copy": ours / once,
        "weights_per_second": weights / ours,
        "reached": ours <= 2 * once,
    }


def every_eval(text: Path, out: Path, seconds: float) -> dict[str, Any]:
    """All evals on reference:a1 on the GPU: rows by verdict, and those that ended in an error."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "-q",
            "evals",
            "--model",
            "reference:a1",
            "--spec",
            "int4-g64",
            "--corpus",
            f"dir:{text}",
            "--device",
            DEVICE,
            "--advisory",
            "--report",
            str(out.parent / "report"),
            "--store",
            folder,
        ]
        begin = time.perf_counter()
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
            code, said = done.returncode, done.stdout + done.stderr
        except subprocess.TimeoutExpired as error:
            code, said = None, (error.stdout or b"").decode(errors="replace")
        took = time.perf_counter() - begin
    report = out.parent / "report" / "report.json"
    rows = json.loads(report.read_text(encoding="utf-8"))["measurements"] if report.is_file() else []
    verdicts: dict[str, int] = {}
    for row in rows:
        verdicts[row["verdict"]] = verdicts.get(row["verdict"], 0) + 1
    errors = [
        {key: row.get(key) for key in ("hypothesis", "test", "nodeid", "reason", "explanation", "summary")}
        for row in rows
        if row["verdict"] == "error"
    ]
    return {
        "reached": code == 0 and bool(rows) and not errors,
        "exit_code": code,
        "seconds": took,
        "rows": len(rows),
        "verdicts": verdicts,
        "errors": errors[:20],
        "tail": said[-3000:] if code or not rows else "",
    }


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise `TimeoutError` in what takes longer than `seconds`."""

    def stop(*_signal: Any) -> None:
        raise TimeoutError(f"took longer than the {seconds:.0f} s that were left for it")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def main(text: Path, out: Path, seconds: float) -> int:
    """Run every part within `seconds`; return 0 where all came to an end and no number or verdict was wrong.

    A speed or a peak that misses its target is listed in `missed`, and no failure of this script.
    """
    end = time.monotonic() + seconds
    texts = {file.stem: file.read_text(encoding="utf-8").splitlines() for file in sorted(text.glob("*.txt"))}
    found: dict[str, Any] = {"failed": {}, "wrong": [], "missed": []}

    def part(name: str, work: Callable[[], dict[str, Any]], *, least: float, later: float = EVALS_SECONDS) -> None:
        left = end - time.monotonic() - later
        if left < least:
            found["failed"][name] = "no time was left for it"
            return
        begin = time.perf_counter()
        try:
            with at_most(left):
                found[name] = work() | {"part_seconds": time.perf_counter() - begin}
        except Exception:  # noqa: BLE001 - the other parts are to run whatever happened to this one
            found["failed"][name] = traceback.format_exc()[-4000:]
        if not all(value for key, value in found.get(name, {}).items() if key.startswith("reached")):
            found["wrong" if name in COMPARED else "missed"].append(name)
        out.write_text(json.dumps(found, indent=1), encoding="utf-8")
        told = json.dumps(found.get(name, found["failed"].get(name)), indent=1)
        sys.stdout.write(f"{name} {told[:6000]}\n")
        sys.stdout.flush()

    kept: list[Any] = []

    def large(work: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        if not kept:
            kept.append(large_model())
        return work(kept[0])

    part("cuda_and_cpu", lambda: compare_with_cpu(texts), least=10)
    part("spread_and_experts", lambda: spread_and_whole(texts), least=10)
    part("scoring_8b", lambda: large(lambda loaded: speed_of_scoring(loaded, texts)), least=30)
    part("rounding_8b", lambda: large(speed_of_rounding), least=10)
    part("rounding_beside_libraries", lambda: large(rounding_beside_libraries), least=10)
    part("sweep_8b", lambda: large(lambda loaded: speed_of_a_sweep(loaded, texts)), least=10)
    part("lm_eval_8b", lambda: large(lambda loaded: beside_lm_eval(loaded, texts)), least=20)
    kept.clear()
    gc.collect()
    part("evals", lambda: every_eval(text, out, end - time.monotonic() - 5), least=20, later=0)
    sys.stdout.write(json.dumps({name: found[name] for name in ("failed", "wrong", "missed")}, indent=1) + "\n")
    return 1 if found["failed"] or found["wrong"] else 0


if __name__ == "__main__":
    if sys.argv[1] == "text":
        write_text(Path(sys.argv[2]))
    else:
        raise SystemExit(main(Path(sys.argv[2]).resolve(), Path(sys.argv[3]).resolve(), float(sys.argv[4])))
