"""Altered copies of checkpoints: any eval can then run on them with `--model FOLDER`."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from evenbits.errors import UsageError
from evenbits.models.admission import read_config
from evenbits.models.exposure import FILE as EXPOSURE
from evenbits.models.fingerprint import tokenizer_files

if TYPE_CHECKING:
    from evenbits.models.records import LoadedModel, LocalModel

__all__ = ["altered_copy", "weights_of"]


def weights_of(loaded: LoadedModel) -> dict[str, Tensor]:
    """Return all parameters by name, in the dtype the model was loaded in; a shared weight appears once, as embedding.

    Load the model in float32: an alteration computed from rounded weights would not hold the function equal.
    """
    return {name: parameter.detach() for name, parameter in loaded.model.named_parameters()}


def altered_copy(
    local: LocalModel,
    weights: Mapping[str, Tensor],
    target: Path,
    *,
    config: Mapping[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Write a copy of the model with other `weights` into the new folder `target`, and return it.

    Tokenizer and exposure come along; `config` overrides entries of its configuration. float32 by default, so that
    writing rounds nothing away. `UsageError` where `target` exists: nothing is ever replaced. The folder appears whole
    or not at all.
    """
    if target.exists():
        raise UsageError(f"{target} exists; name a folder that does not")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        entries = read_config(local.folder) | dict(config or {})
        entries.pop("torch_dtype", None)
        entries["dtype"] = str(dtype).removeprefix("torch.")
        (part / "config.json").write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")
        for file in (*tokenizer_files(local.folder), local.folder / EXPOSURE, local.folder / "generation_config.json"):
            if file.is_file():
                shutil.copy(file, part)
        stored = {name: tensor.to(dtype).contiguous() for name, tensor in weights.items()}
        save_file(stored, part / "model.safetensors", metadata={"format": "pt"})
        part.chmod(0o755)
        part.rename(target)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return target
