"""How fast it is: scoring, rounding and sweeps of a model of 8 billion weights on the GPU, and scoring on the CPU."""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from machine import DEVICE, REHEARSED, TESTS, timed

LITTLE = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 64,
    "vocab_size": 49152,
}
"""The shape of SmolLM2-135M."""
SMALL = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 4096,
}


def large_model() -> Any:
    """A model of Qwen3-8B's shape with random weights in bfloat16 on the GPU, with the reference tokenizer."""
    from evenbits.models.device import parse_device
    from sparse_checkpoint import QWEN3_8B
    from transformers import Qwen3Config

    config = Qwen3Config(**SMALL if REHEARSED else QWEN3_8B, tie_word_embeddings=False)
    return random_model(config, parse_device(DEVICE))


def random_model(config: Any, device: Any) -> Any:
    """A model with random weights in bfloat16 on `device`, made there, with the reference tokenizer."""
    import torch
    from evenbits.models.device import set_up
    from evenbits.models.layout import anatomy_of
    from evenbits.models.loading import load
    from evenbits.models.records import LoadedModel
    from evenbits.models.references import parse_model
    from evenbits.models.sources import resolve
    from evenbits.store import Store
    from transformers import AutoModelForCausalLM

    set_up(device)
    with tempfile.TemporaryDirectory() as folder:
        small = load(resolve(parse_model("reference:a1"), store=Store(Path(folder))), dtype=torch.float32)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation="sdpa")
    model.to_empty(device=device.name)
    model.tie_weights()
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.02) if parameter.dim() > 1 else parameter.data.fill_(1)
    steps = torch.arange(0, config.head_dim, 2, device=device.name, dtype=torch.float32) / config.head_dim
    model.model.rotary_emb.inv_freq = 1.0 / (10000.0**steps)
    model.eval().requires_grad_(requires_grad=False)
    return LoadedModel(
        local=small.local,
        model=model,
        tokenizer=small.tokenizer,
        anatomy=anatomy_of(model),
        dtype=torch.bfloat16,
        device=device,
    )


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
    from evenbits.scoring import score

    benchmarks()
    from test_scoring_speed import lm_eval_scorer

    corpus = _corpus(dict(long_text(texts)[::8]))
    sizes = {size: timed(lm_eval_scorer(loaded, corpus, size), rounds=1) for size in (8, 32)}
    best = min(sizes, key=sizes.__getitem__)

    def scored() -> None:
        for tag in corpus.languages:
            score(loaded, tag, corpus.segment_ids, corpus.texts[tag])

    theirs, ours = timed(lm_eval_scorer(loaded, corpus, best), rounds=3), timed(scored, rounds=3)
    return {
        "languages": len(corpus.languages),
        "segments": len(corpus),
        "seconds": ours,
        "lm_eval_seconds": theirs,
        "lm_eval_seconds_by_batch": sizes,
        "times_lm_eval": theirs / ours,
        "reached": theirs >= 3 * ours,
    }


def _corpus(texts: Mapping[str, Sequence[str]]) -> Any:
    from evenbits.records import Corpus

    return Corpus(
        name="device",
        source="check",
        languages=tuple(texts),
        segment_ids=tuple(str(number) for number in range(len(next(iter(texts.values()))))),
        texts={tag: tuple(lines) for tag, lines in texts.items()},
    )


def benchmarks() -> None:
    """Let modules of `tests/benchmarks` be imported, for the device that is checked, and the peers they measure."""
    os.environ["EVENBITS_BENCH_DEVICE"] = DEVICE
    sys.path.append(str(TESTS / "benchmarks"))
    sys.path.append(os.environ.get("EVENBITS_PEERS", ""))


def speed_of_rounding(loaded: Any) -> dict[str, Any]:
    """Rounding all linears to int4-g64 where they are, against reading and writing them once."""
    import torch
    from evenbits.variants.quantization.patching import quantized
    from evenbits.variants.quantization.spec import parse_spec

    benchmarks()
    from test_rounding_speed import TIMES_COPY

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
        "reached": ours <= TIMES_COPY * once,
    }


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

    benchmarks()
    from test_damage_speed import TIMES_SWEEP

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
    return {
        "layers": len(changes),
        "seconds": ours,
        "from_the_start_seconds": theirs,
        "reached": theirs >= TIMES_SWEEP * ours,
    }


def speed_on_a_cpu_with_matrix_units(texts: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Scoring on two threads of a CPU with AMX against lm-eval and the bare products: medians of interleaved rounds.

    Two languages, with as many tokens each as the benchmark's have: products of as many rows. Beside it what other
    sizes of a batch take, with both threads on one language and on one each, and where the time goes.
    """
    import torch
    from evenbits.models.device import CPU
    from evenbits.scoring import score
    from transformers import LlamaConfig

    if not (REHEARSED or torch.cpu._is_amx_tile_supported()):
        return {"not_measured": "this CPU has no matrix units (AMX)"}
    benchmarks()
    from test_scoring_speed import TIMES_LM_EVAL, TIMES_PRODUCTS, lm_eval_scorer, products

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        loaded = random_model(LlamaConfig(**SMALL if REHEARSED else LITTLE, tie_word_embeddings=True), CPU)
        some = _corpus({tag: texts[tag][: 2 if REHEARSED else 20] for tag in list(texts)[::8]})

        def scored(batch: int | None = None, *, each: Any = map) -> list[int]:
            def tokens_of(tag: str) -> int:
                losses, _ = score(loaded, tag, some.segment_ids, some.texts[tag], batch_tokens=batch)
                return int(losses.tokens.sum())

            return list(each(tokens_of, some.languages))

        tokens = scored()
        batches = (256, 512)
        by_batch = {batch: timed(partial(scored, batch), rounds=3) for batch in batches}
        with ThreadPoolExecutor(2, initializer=partial(torch.set_num_threads, 1)) as pool:
            apart = {batch: timed(partial(scored, batch, each=pool.map), rounds=3) for batch in batches}
        with torch.profiler.profile(record_shapes=True) as profile:
            scored()
        work = {
            "evenbits": scored,
            "lm_eval": lm_eval_scorer(loaded, some, 1),
            "products": products(loaded, torch.bfloat16, tokens),
        }
        seconds: dict[str, list[float]] = {name: [] for name in work}
        for number in range(2 if REHEARSED else 6):
            for name, once in work.items():
                begin = time.perf_counter()
                once()
                if number:  # the first round is for warmth
                    seconds[name].append(time.perf_counter() - begin)
    finally:
        torch.set_num_threads(before)
    ours, lm_eval, bare = (seconds[name] for name in ("evenbits", "lm_eval", "products"))
    faster = statistics.median(theirs / mine for theirs, mine in zip(lm_eval, ours, strict=True))
    slower = statistics.median(mine / least for mine, least in zip(ours, bare, strict=True))
    return {
        "tokens": sum(tokens),
        "seconds": seconds,
        "seconds_by_batch": by_batch,
        "seconds_by_batch_of_a_language_per_thread": apart,
        "seconds_by_operation": _largest(profile.key_averages()),
        "seconds_by_product": _largest(
            [one for one in profile.key_averages(group_by_input_shape=True) if one.key == "aten::mm"]
        ),
        "times_lm_eval": faster,
        "reached_lm_eval": faster >= TIMES_LM_EVAL,
        "times_products": slower,
        "reached_products": slower <= TIMES_PRODUCTS,
    }


def _largest(events: Iterable[Any]) -> dict[str, list[float]]:
    """Return calls and seconds of the twelve operations of a profile that took longest, by name and sizes of inputs."""
    longest = sorted(events, key=lambda event: -event.self_cpu_time_total)[:12]
    return {
        " ".join([event.key, *map(str, filter(None, event.input_shapes or ()))]): [
            event.count,
            event.self_cpu_time_total / 1e6,
        ]
        for event in longest
    }
