"""What must be the same on a GPU: damage, statistics and gradients of the CPU, and every eval comes to a verdict."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from machine import DEVICE, REHEARSED

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
    from evenbits.models.device import Device, parse_device
    from evenbits.models.references import parse_model
    from evenbits.models.sources import resolve
    from evenbits.store import Store

    first = parse_device(DEVICE)
    others = [f"cuda:{index}" for index in range(1, 0 if REHEARSED else torch.cuda.device_count())]
    spread = Device(name=first.name, label=f"spread {first.label}", beside=tuple(others or ["cpu"]))
    found: dict[str, Any] = {"devices": str(spread)}
    with tempfile.TemporaryDirectory() as folder:
        local = resolve(parse_model("reference:a1"), store=Store(Path(folder)))
        for architecture, model in (("reference:a1", local), *experts_in(Path(folder))):
            found[architecture] = apart(model, spread, texts["fi"][:6], "int4-g16")
    named = [one for one in found.values() if isinstance(one, dict)]
    found["reached"] = all(one["largest_bits"] <= TOLERANCE for one in named)
    return found


def apart(model: Any, device: Any, texts: Sequence[str], spec: str) -> dict[str, float]:
    """How far a model on `device` is from itself on the CPU, float32: bits per segment at most, of losses and of the
    damage of `spec`, and the largest part by which input moments and gradients differ."""
    import torch
    from evenbits.models.device import CPU
    from evenbits.models.loading import load
    from evenbits.observe.activations.collection import measure
    from evenbits.observe.activations.gradients import measure_gradients

    numbers: list[dict[str, Any]] = []
    for where in (CPU, device):
        loaded = load(model, dtype=torch.float32, device=where)
        gradients = measure_gradients(loaded, texts[:1], language="fi")
        numbers.append(
            {
                "bits": bits_of(loaded, texts, spec),
                "moments": measure(loaded, texts[:3], language="fi").input_square,
                "gradients": {name: one.cpu().numpy() for name, one in gradients.items()},
            }
        )
    here, there = numbers
    differences = {
        kind: {name: float(abs(one - there[kind][name]).max()) for name, one in here[kind].items()} for kind in here
    }
    return {
        "largest_bits": max(differences["bits"].values()),
        **{
            kind: max(
                value / float(abs(here[kind][name]).max())
                for name, value in differences[kind].items()
                if here[kind][name].any()
            )
            for kind in ("moments", "gradients")
        },
    }


def bits_of(loaded: Any, texts: Sequence[str], spec: str) -> dict[str, Any]:
    """Losses in bits per segment, and what `spec` adds to them."""
    from evenbits.scoring import score
    from evenbits.variants.quantization.patching import quantized
    from evenbits.variants.quantization.spec import parse_spec

    ids = [str(number) for number in range(len(texts))]
    full, _ = score(loaded, "fi", ids, texts)
    with quantized(loaded, parse_spec(spec)):
        changed, _ = score(loaded, "fi", ids, texts)
    return {"full": full.nll / math.log(2), "damage": (changed.nll - full.nll) / math.log(2)}


TEXTS = ("the inner thing an inner thing", "Привет! Kaixo, zer moduz? " * 3, "they went in the tent and then " * 4, "a")


def every_type() -> dict[str, Any]:
    """A tiny model of each supported type on both devices, float32; in bfloat16 there its losses are finite."""
    import architectures
    import torch
    from evenbits.models.device import parse_device
    from evenbits.models.families import SUPPORTED
    from evenbits.models.loading import load
    from evenbits.models.references import parse_model
    from evenbits.models.sources import resolve
    from evenbits.store import Store
    from transformers import CONFIG_MAPPING

    device = parse_device(DEVICE)
    types: dict[str, dict[str, float]] = {}
    errors: dict[str, str] = {}
    chosen = SUPPORTED[: 4 if REHEARSED else None]
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "store")
        for name in chosen:
            if name not in CONFIG_MAPPING:
                continue
            try:
                local = resolve(parse_model(str(architectures.build(name, Path(folder) / name))), store=store)
                types[name] = apart(local, device, TEXTS, "int4-row")
                bits_of(load(local, dtype=torch.bfloat16, device=device), TEXTS, "int4-row")
            except Exception:  # noqa: BLE001 - the other types are to run whatever happened to this one
                errors[name] = traceback.format_exc()[-1500:]
    largest = {
        kind: max((one[kind] for one in types.values()), default=math.inf)
        for kind in ("largest_bits", "moments", "gradients")
    }
    return {
        "count": len(types),
        **largest,
        "errors": errors,
        "not_in_this_transformers": [name for name in chosen if name not in CONFIG_MAPPING],
        "types": types,
        "reached": not errors and largest["largest_bits"] <= TOLERANCE,
    }


def experts_in(folder: Path) -> list[tuple[str, Any]]:
    """Tiny models with fused experts, output x input and the reverse."""
    import architectures
    from evenbits.models.references import parse_model
    from evenbits.models.sources import resolve
    from evenbits.store import Store

    names = ("qwen3_moe", "gpt_oss")
    store = Store(folder)
    return [(name, resolve(parse_model(str(architectures.build(name, folder / name))), store=store)) for name in names]


def every_eval(text: Path, out: Path, seconds: float) -> dict[str, Any]:
    """All evals on reference:a1 on the GPU: rows by verdict, those that ended in an error, and the time told before."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
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
        asked = subprocess.run(
            [*command, "--collect-only"], capture_output=True, text=True, timeout=seconds, check=False
        )
        told = next((line for line in asked.stdout.splitlines() if line.startswith("cost ")), asked.stderr[-1000:])
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
        "told": told,
        "seconds": took,
        "rows": len(rows),
        "verdicts": verdicts,
        "errors": errors[:20],
        "tail": said[-3000:] if code or not rows else "",
    }
