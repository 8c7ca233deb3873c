"""GGUF as a model: held to what transformers would make of it, dequantized once to float32 safetensors in the store.

The file's own header decides first (`gguf_accounting.py`); what transformers makes of its metadata is completed by what
transformers leaves out: width per head, stretched positions, and what llama.cpp takes where the file is silent.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from evenbits.errors import EvenbitsError, ModelError
from evenbits.foreign import named, shown
from evenbits.models.admission import check_sizes
from evenbits.models.gguf_accounting import ROPE_FREQS, account, check_scalars, entries_of
from evenbits.models.gguf_header import GgufHeader, read_gguf_header
from evenbits.models.quiet import bars_of, quiet_transformers
from evenbits.progress import Progress, Silent

__all__ = ["check", "dequantize", "precision_of"]

FULL = frozenset({"F64", "F32", "F16", "BF16"})
# Llama 3's stretching of long waves, as it is published: (factor, low, high, original context).
LLAMA3_NAMES = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
LLAMA3_ROPE = ((8.0, 1.0, 4.0, 8192), (32.0, 1.0, 4.0, 8192))
NEEDED = ("block_count", "embedding_length", "attention.head_count")


def check(path: Path) -> GgufHeader:
    """Return the header of a file that may be a whole language model, as far as that can be told without torch.

    Raises `IntegrityError` for a damaged file, `ModelError` for a part of a model and for what is none.
    """
    header = read_gguf_header(path)
    parts = header.metadata.get("split.count", 1)
    if parts != 1:
        number = header.metadata.get("split.no", 0)
        raise ModelError(
            f"{path} is part {number + 1 if isinstance(number, int) else '?'} of {shown(parts)} of a model; join them "
            "with llama.cpp's `llama-gguf-split --merge` and give the whole file"
        )
    kind = header.metadata.get("general.type", "model")
    if kind != "model":
        raise ModelError(f"{path} holds {shown(kind)}, not a model (general.type); give the file of the model itself")
    if not header.tensors:
        raise ModelError(f"{path} holds no tensor: it is the header of a model without the model")
    architecture = header.metadata.get("general.architecture")
    if not isinstance(architecture, str):
        raise ModelError(f"{path} names no general.architecture, so it is not known how to compute with it")
    for name in NEEDED:
        value = header.metadata.get(f"{architecture}.{name}")
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ModelError(
                f"{path}: {named(architecture)}.{name} must be a whole number of at least 1, not {shown(value)}"
            )
    return header


def precision_of(path: Path) -> str | None:
    """Return in words in which formats the tensors are stored, None where all are in 16 bits or more.

    The file's own label, number of tensors by type, true bits per weight: a label alone is no format.
    """
    from evenbits.models.gguf_census import census_of_files

    census = census_of_files([path])
    if set(census.tensors) <= FULL:
        return None
    return f"{census.label}: {census}" if census.label else str(census)


def dequantize(path: Path, target: Path, *, progress: Progress | None = None) -> None:
    """Write the model of GGUF file `path` into folder `target` as float32 safetensors, config and tokenizer.

    About half a minute for 135 million parameters on 2 cores, most of it reading the vocabulary and mapping names.
    `ModelError` names tensors and entries that transformers would make up, leave out or ignore.
    """
    import torch
    import transformers

    header = check(path)
    shown_to = progress or Silent()
    arguments: dict[str, Any] = {"gguf_file": path.name, "local_files_only": True}
    # Newer transformers keep weights packed unless told otherwise.
    if hasattr(transformers, "GgufConfig"):
        arguments["quantization_config"] = transformers.GgufConfig(dequantize=True)
    try:
        with (
            shown_to.task(f"Dequantizing {path.name}", 4) as steps,
            quiet_transformers(shown_to),
            _one_reading(shown_to),
            _alone(path) as folder,
        ):
            check_scalars(header)
            config = _configuration(header, folder / path.name)
            account(header, config)
            steps.advance()
            model: Any = transformers.AutoModelForCausalLM.from_pretrained(
                folder, config=config, dtype=torch.float32, **arguments
            )
            steps.advance()
            arguments.pop("quantization_config", None)
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **arguments)
            steps.advance()
            # A model that says it is quantized refuses to be saved; it no longer is.
            model.hf_quantizer = None
            if hasattr(model.config, "quantization_config"):
                del model.config.quantization_config
            model.save_pretrained(target)
            tokenizer.save_pretrained(target)
            steps.advance()
    except (EvenbitsError, OSError):
        raise
    except Exception as error:  # whatever an odd file meets in transformers
        raise ModelError(
            f"transformers {transformers.__version__} cannot read the GGUF file {path}: {named(str(error))}. Give the "
            "original safetensors model instead."
        ) from error


def _configuration(header: GgufHeader, path: Path) -> Any:
    """Return the configuration that transformers makes of the metadata, and what it leaves out of it put in."""
    from transformers import CONFIG_MAPPING

    reading: Any = import_module("transformers.modeling_gguf_pytorch_utils")
    described = dict(reading.load_gguf_checkpoint(str(path), return_tensors=False)["config"])
    check_sizes(described, source=header.path, tensors=len(header.tensors))
    kind = described["model_type"]
    said = entries_of(header)
    if kind == "gpt2":
        described["n_positions"] = said["context_length"]
    if kind not in {"gpt2", "bloom"}:
        # What llama.cpp takes where the file is silent, which is not always what transformers does.
        described.setdefault("num_key_value_heads", said["attention.head_count"])
        described.setdefault("rope_theta", 10000.0)
        width = said.get("attention.key_length", said["embedding_length"] // said["attention.head_count"])
        described["head_dim"] = width
        if kind in {"gemma2", "gemma3_text"}:
            # The largest of each is scaled by the width per head instead.
            largest = said["block_count"] == {"gemma2": 46, "gemma3_text": 62}[kind]
            per_head = said["embedding_length"] // said["attention.head_count"]
            described["query_pre_attn_scalar"] = per_head if largest else width
    config = CONFIG_MAPPING[kind].from_dict(described)
    _stretch(header, config)
    return config


def _stretch(header: GgufHeader, config: Any) -> None:
    """Put linear scaling of positions, and Llama 3's own, into the configuration."""
    said = entries_of(header)
    changes: dict[str, Any] = {}
    if (factor := _linear_factor(said)) != 1:
        changes = {"rope_type": "linear", "factor": float(factor)}
    stretched = _llama3(header, config)
    if stretched is not None:
        changes = {"rope_type": "llama3", **dict(zip(LLAMA3_NAMES, stretched, strict=True))}
    if not changes:
        return
    now = config.rope_parameters
    if "full_attention" in now:  # gemma3: layers that look at a window keep their positions
        config.rope_parameters = now | {"full_attention": now["full_attention"] | changes}
    else:
        config.rope_parameters = now | changes


def _linear_factor(said: Mapping[str, Any]) -> float:
    """Return by how much positions are divided; llama.cpp takes scaling without a type as linear."""
    if said.get("rope.scaling.type", "linear") != "linear":
        return 1.0
    return float(said.get("rope.scaling.factor", said.get("rope.scale_linear", 1.0)) or 1.0)


def _llama3(header: GgufHeader, config: Any) -> tuple[float, float, float, int] | None:
    """Return the published setting that gives the factors in the tensor `rope_freqs.weight`, None where all are one.

    `ModelError` where no published one does.
    """
    tensor = next((tensor for tensor in header.tensors if tensor.name == ROPE_FREQS), None)
    if tensor is None or tensor.kind != "F32":
        return None  # of another type it stays without a place, and is named as such
    with header.path.open("rb") as file:
        file.seek(tensor.begin)
        factors = np.frombuffer(file.read(tensor.end - tensor.begin), dtype="<f4")
    if (factors == 1).all():
        return None
    theta = float(config.rope_parameters["rope_theta"])
    waves = 2 * math.pi * theta ** (np.arange(len(factors)) / len(factors))
    for factor, low, high, context in LLAMA3_ROPE:
        smooth = np.clip((context / waves - low) / (high - low), 0, 1)
        if np.allclose(factors, 1 / ((1 - smooth) / factor + smooth), rtol=1e-4):
            return factor, low, high, context
    raise ModelError(
        f"{header.path} divides the frequencies of its positions ({ROPE_FREQS}) by factors that belong to no published "
        "setting of Llama 3; give the original safetensors model instead"
    )


@contextmanager
def _alone(path: Path) -> Iterator[Path]:
    """Yield a folder that holds a link to the file and nothing else: transformers prefers a tokenizer beside it."""
    with tempfile.TemporaryDirectory(prefix="evenbits-gguf-") as name:
        folder = Path(name)
        (folder / path.name).symlink_to(path.absolute())
        yield folder


@contextmanager
def _one_reading(progress: Progress) -> Iterator[None]:
    """Have transformers parse the file once, and show its bar: it makes a new reader for each of its steps.

    A reader walks through every token of the vocabulary in Python, some seconds each time; it only reads, so sharing
    one is safe.
    """
    gguf: Any = import_module("gguf")
    reading: Any = import_module("transformers.modeling_gguf_pytorch_utils")
    original, bar = gguf.GGUFReader, getattr(reading, "tqdm", None)
    readers: dict[str, Any] = {}

    def shared(path: Any, mode: str = "r") -> Any:
        if mode != "r":
            return original(path, mode)
        if str(path) not in readers:
            readers[str(path)] = original(path, mode)
        return readers[str(path)]

    gguf.GGUFReader = shared
    if bar is not None:  # not one of the bars that transformers lets others draw
        reading.tqdm = bars_of(progress)
    try:
        yield
    finally:
        gguf.GGUFReader = original
        if bar is not None:
            reading.tqdm = bar
