"""Writing a quantized model with its FP16 remainder into a folder of its own.

The folder appears when it is complete: it is written beside its place under another name and renamed.

| File                    | Holds                                                                                    |
|-------------------------|------------------------------------------------------------------------------------------|
| `evenbits.json`         | what was quantized and how: spec, base model, a row per matrix, checksum of the weights  |
| `quantized.safetensors` | packed matrices (`NAME.codes`, `.scales`, `.zeros`, `.kept`, `.kept_values`); all other  |
|                         | tensors as the checkpoint has them                                                       |
| config, tokenizer       | those of the checkpoint; the configuration names the method, so that nothing loads the   |
|                         | folder as a full-precision model                                                         |
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from evenbits.errors import ExportError, SpecError, UsageError
from evenbits.models import checkpoint
from evenbits.models.admission import read_config
from evenbits.models.anatomy import Linear
from evenbits.models.fingerprint import tokenizer_files
from evenbits.models.headers import MANIFEST, QUANTIZED
from evenbits.models.outline import stored_parameters
from evenbits.models.records import LoadedModel
from evenbits.rows import Row
from evenbits.variants.export.matrices import PackedMatrix, packed
from evenbits.variants.quantization.importance import Importance
from evenbits.variants.quantization.matrices import quantize_planned
from evenbits.variants.quantization.patching import checkpoint_source, plan_loaded
from evenbits.variants.quantization.planning import Plan, bits_per_weight
from evenbits.variants.quantization.spec import QuantSpec

__all__ = ["FORMAT", "METHOD", "Exported", "check_target", "write_quantized"]

FORMAT = 1
"""Raised whenever an older reader would get other weights."""

METHOD = "evenbits"
ALSO = ("generation_config.json", "chat_template.jinja", "exposure.json")
"""Files that go along where the checkpoint has them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported(Row):
    """What was written. `matrices`: quantized ones; `kept`: weights kept in FP16; `size`: bytes of the weight file."""

    KEYS: ClassVar = {"size": "bytes"}

    folder: Path
    spec: str
    bits_per_weight: float
    matrices: int
    kept: int
    size: int


def check_target(folder: Path) -> None:
    """Raise `UsageError` where something stands at `folder` already: nothing is ever overwritten."""
    if folder.exists() or folder.is_symlink():
        raise UsageError(f"{folder} exists; name a folder that does not, or remove it first")


def write_quantized(
    loaded: LoadedModel, spec: QuantSpec, folder: Path, *, importance: Importance | None = None, seed: int = 0
) -> Exported:
    """Quantize `loaded` as `spec` says and write it to `folder`, which must not exist.

    The weights are those of `evenbits.variants.quantization.quantized` with the same `importance` and `seed`. Raises
    `UsageError`, `SpecError`, `IntegrityError` or `ExportError`; then nothing is left behind.
    """
    check_target(folder)
    if spec.grid is None:
        raise SpecError(f"{spec}: nothing is quantized; name a spec such as int4-g64")
    plan = plan_loaded(loaded, spec)
    with _appearing(folder) as part:
        held = stored_parameters(loaded.model, checkpoint.tensor_names(loaded.local.folder))
        stored: dict[str, Tensor] = {}
        written: set[str] = set()
        rows, untied = [], _untied(loaded, plan)
        matrices = quantize_planned(plan, checkpoint_source(loaded), importance=importance, seed=seed)
        for matrix, tensor in zip(matrices, plan.quantized, strict=True):
            assert tensor.grid is not None  # noqa: S101 - it is quantized
            found = packed(matrix, tensor.grid)
            linear = loaded.anatomy.product(tensor.name)
            tensors = (linear.parameter,) if tensor.name == untied else held[linear.parameter]
            name = tensors[0] if len(tensors) == 1 else linear.parameter  # experts that are stored one by one
            shared = (loaded.anatomy.product(other).parameter for other in tensor.shared_with)
            written |= {name, *tensors, *(twin for parameter in shared for twin in held[parameter])}
            stored |= {f"{name}.{kind}": values.contiguous() for kind, values in found.tensors().items()}
            rows.append(_row(linear, name, found))
        for name, values in checkpoint.stream(loaded.local.folder):
            if name not in written:
                stored[name] = values.contiguous()
        if untied is not None and f"{untied}.weight" not in written:  # the other side of the pair is quantized
            stored[f"{untied}.weight"] = checkpoint.read(loaded.local.folder, held[f"{untied}.weight"][0]).clone()
        save_file(stored, part / QUANTIZED, metadata={"format": METHOD})
        size = (part / QUANTIZED).stat().st_size
        _write_config(loaded, part, untie=untied is not None)
        (part / QUANTIZED).chmod((part / "config.json").stat().st_mode)  # safetensors lets the owner alone read it
        _write_json(part / MANIFEST, _manifest(loaded, plan, rows, seed=seed, weights=part / QUANTIZED))
    return Exported(
        folder=folder,
        spec=str(spec),
        bits_per_weight=bits_per_weight(plan),
        matrices=len(rows),
        kept=sum(int(row["kept"]) for row in rows),
        size=size,
    )


def _untied(loaded: LoadedModel, plan: Plan) -> str | None:
    """Return the head where it shared the embedding's weight and no longer can: only one of the two is quantized."""
    anatomy = loaded.anatomy
    if not anatomy.tied:
        return None
    pair = [tensor for tensor in plan.quantized if tensor.name in {anatomy.embedding, anatomy.head}]
    return anatomy.head if pair and not pair[0].shared_with else None


def _row(linear: Linear, name: str, found: PackedMatrix) -> dict[str, Any]:
    return {
        "tensor": name,
        "module": linear.name,
        "shape": list(found.shape),
        "transposed": linear.transposed,
        "experts": linear.experts,
        "grid": str(found.grid),
        "kept": len(found.kept),
    }


def _manifest(
    loaded: LoadedModel, plan: Plan, rows: list[dict[str, Any]], *, seed: int, weights: Path
) -> dict[str, Any]:
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "format": FORMAT,
        "evenbits": version("evenbits"),
        "spec": str(plan.spec),
        "base_model": loaded.local.text,
        "base_fingerprint": loaded.local.fingerprint,
        "seed": seed,
        "bits_per_weight": bits_per_weight(plan),
        "weights_sha256": digest,
        "matrices": rows,
    }


def _write_config(loaded: LoadedModel, part: Path, *, untie: bool) -> None:
    source = loaded.local.folder
    config = read_config(source)
    config["quantization_config"] = {"quant_method": METHOD, "manifest": MANIFEST}
    if untie:
        config["tie_word_embeddings"] = False
    _write_json(part / "config.json", config)
    for file in (*tokenizer_files(source), *(source / name for name in ALSO)):
        if file.is_file():
            shutil.copyfile(file, part / file.name)


def _write_json(file: Path, value: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(value, ensure_ascii=False, allow_nan=False, indent=1) + "\n", encoding="utf-8")


@contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    """Give an empty folder that takes the name `folder` when all went well, and is removed when not."""
    part = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.part")
    try:
        part.mkdir(parents=True)
        yield part
        _flush(part)
        part.rename(folder)  # fails where another run was faster and filled it
    except SafetensorError as error:
        raise ExportError(f"{folder} cannot be written: {error}. Nothing partial was kept.") from error
    except OSError as error:
        if error.errno in {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR} and folder.exists():
            raise UsageError(f"{folder} appeared meanwhile; nothing was overwritten, name another folder") from error
        raise ExportError(
            f"{folder} cannot be written: {error.strerror or error}. Nothing partial was kept; free some space or name "
            "a folder elsewhere."
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _flush(part: Path) -> None:
    """Have the disk hold every file before its folder gets the name by which it is trusted."""
    for file in part.iterdir():
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
