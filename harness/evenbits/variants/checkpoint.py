"""`checkpoint:ID|FOLDER`: another checkpoint of the same task, in whatever format transformers loads.

Quantized ones (compressed-tensors, bitsandbytes, GPTQ, AWQ, FP8, torchao, where their loader is installed), a folder
that `evenbits quantize` wrote, and plain ones: pruned, distilled, fine-tuned. What of it can be compared follows from
its tokenizer: bits per segment always, KL and top-1 only where its tokens are the original's.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evenbits.errors import EngineError, EvenbitsError, IntegrityError, ModelError, SpecError
from evenbits.foreign import read_object
from evenbits.models.admission import check_code, quantization, read_config
from evenbits.models.fingerprint import fingerprint
from evenbits.models.headers import MANIFEST, entries
from evenbits.models.references import ModelRef, parse_model
from evenbits.models.sources import resolve
from evenbits.variants.quantization.spec import parse_spec
from evenbits.variants.variant import Original, Variant

if TYPE_CHECKING:
    from evenbits.models.records import LoadedModel
    from evenbits.variants.other_model import OtherModel

__all__ = ["Checkpoint", "activations_of", "parse"]

SCHEMA = 3
"""Raised whenever the same checkpoint would be loaded otherwise."""

READERS: Mapping[str, tuple[str, ...]] = {
    "compressed-tensors": ("compressed-tensors",),
    "bitsandbytes": ("bitsandbytes",),
    "gptq": ("gptqmodel", "optimum"),
    "awq": ("gptqmodel",),
    "auto-round": ("auto-round",),
    "torchao": ("torchao",),
    "hqq": ("hqq",),
    "quanto": ("optimum-quanto",),
    "aqlm": ("aqlm",),
    "vptq": ("vptq",),
    "eetq": ("eetq",),
    "quark": ("amd-quark",),
}
"""What transformers reads a format with, by the method's name; the others need no package of their own."""

EXPERTS = ".experts."
"""In the names of tensors of experts, one by one or all in one."""
DECODED = ("compressed-tensors", "fp8")
"""Methods whose codes `evenbits.variants.codes` decodes."""
NOT_ALWAYS = ("bias", "weight_zero_point")
"""Parts that a matrix may have in one layer and lack in another."""
ONLY_BFLOAT16 = ("nvfp4", "mxfp4", "fp4")
"""Formats whose reading fails in float32."""


def parse(text: str) -> Checkpoint:
    """Return the checkpoint that `text` (`checkpoint:...`) names; `UsageError` or `ModelError` where it is none."""
    named = text.removeprefix("checkpoint:")
    if not named:
        raise SpecError(f"spec {text!r}: after checkpoint: comes a hub id or a folder")
    return Checkpoint(model=named)


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """`model`: as after `--model`."""

    model: str

    def __str__(self) -> str:
        return f"checkpoint:{self.model}"

    def variant(self, original: Original) -> Variant:
        """Return the checkpoint; its key holds the content of the folder. Refused: code to run, damaged files."""
        folder = self._folder(original)
        config = read_config(folder)
        check_code(folder, allow_code=original.local.allow_code)
        method = quantization(folder, config)
        if method is not None and _quantization(folder) is None:
            raise ModelError(
                f"{self}: it is quantized ({method}) in a way that transformers does not read. Serve it with the "
                "engine that it was made for, and measure that: served:URL#MODEL"
            )
        _check_reader(self, folder)
        dtype = self._dtype(original)
        key = {
            "checkpoint": fingerprint(folder, store=original.store),
            "loaders": _loaders(folder),
            "device": original.device.key(dtype),
            "schema": SCHEMA,
        }

        @contextmanager
        def runs(opened: Original) -> Iterator[OtherModel]:
            from evenbits.variants.other_model import OtherModel
            from evenbits.variants.tokens import OriginalTokens

            yield OtherModel(self.load(opened), OriginalTokens.of(opened), context=opened.context)

        return Variant(label=str(self), key=key, runs=runs, dtype=dtype, lean=False)

    def _dtype(self, original: Original) -> str:
        """Return the dtype that it is loaded in: the run's, but what the format or METHOD 3 asks for.

        FP4 is read in bfloat16 alone. What `evenbits quantize` wrote with 6 bits or more is scored in float32, as its
        spec is: written back in bfloat16 it loses part of its grid.
        """
        folder = self._folder(original)
        if (folder / MANIFEST).is_file():
            spec = parse_spec(read_object(folder / MANIFEST, error=IntegrityError).text("spec"))
            return "float32" if spec.needs_float32 else original.dtype
        return "bfloat16" if _quantization(folder) is not None and _is_fp4(folder) else original.dtype

    def load(self, original: Original) -> LoadedModel:
        """Return the checkpoint in memory, in the dtype that it is measured in."""
        import torch

        from evenbits.models.loading import load, move
        from evenbits.variants.export import load_quantized

        folder = self._folder(original)
        dtype: torch.dtype = getattr(torch, self._dtype(original))
        if (folder / MANIFEST).is_file():
            loaded = load_quantized(folder, dtype=dtype)
            move(loaded.model, loaded.anatomy, original.device)
            return loaded
        if _quantization(folder) is None:
            local = resolve(self._ref(), store=original.store, offline=original.local.offline)
            return load(local, dtype=dtype, device=original.device)
        return _quantized(self, folder, dtype, original)

    def bits_per_weight(self, original: Original) -> float | None:
        """Return the bits that the file spends on a weight of its layers' linears, scales and zero points included.

        Of a folder that `evenbits quantize` wrote what its manifest says, which counts protected layers as the spec
        does. None where the names of its tensors do not tell which linear each of them is of, or its architecture is
        none that evenbits knows.
        """
        folder = self._folder(original)
        if (folder / MANIFEST).is_file():
            return float(read_object(folder / MANIFEST, error=IntegrityError).number("bits_per_weight"))
        try:
            return _bits_per_weight(folder, allow_code=original.local.allow_code)
        except ModelError:
            return None

    def facts(self, original: Original) -> Mapping[str, Any]:
        """Return the format, its loaders and versions, types of the stored tensors, and what of it is not measured."""
        folder = self._folder(original)
        config = _quantization(folder) or {}
        counts: dict[str, int] = {}
        for entry in entries(folder).values():
            counts[entry.dtype] = counts.get(entry.dtype, 0) + 1
        activations = activations_of(config)
        found: dict[str, Any] = {
            "engine": "torch",
            "device": original.device.make,
            "format": config.get("quant_method", "not quantized") if config else "not quantized",
            "loaders": _loaders(folder),
            "tensor_types": dict(sorted(counts.items())),
        }
        if activations is not None:
            found |= {"weights_only": True, "not_measured": f"activations: {activations} where it is deployed"}
        return found

    def _ref(self) -> ModelRef:
        return parse_model(self.model)

    def _folder(self, original: Original) -> Path:
        """Return where the checkpoint lies, fetched where it must be."""
        ref = self._ref()
        if ref.kind == "folder":
            return Path(ref.location).absolute()
        if ref.kind == "hub":
            from evenbits.models import hub
            from evenbits.progress import Silent

            return hub.fetch(ref, store=original.store, offline=original.local.offline, progress=Silent())
        return resolve(ref, store=original.store, offline=original.local.offline).folder


def activations_of(config: Mapping[str, Any]) -> str | None:
    """Return how a quantization config treats activations (`8 bits, dynamic`), None where it leaves them alone.

    The KV cache, which holds some of them, is named as such.
    """
    found = [_inputs_of(config), _rounded(config.get("kv_cache_scheme"), "KV cache in ")]
    return "; ".join(one for one in found if one is not None) or None


def _inputs_of(config: Mapping[str, Any]) -> str | None:
    """Return how the config treats what products take, or give."""
    groups = config.get("config_groups")
    for group in groups.values() if isinstance(groups, Mapping) else ():
        if isinstance(group, Mapping):
            found = _rounded(group.get("input_activations")) or _rounded(group.get("output_activations"), "outputs in ")
            if found is not None:
                return found
    if (scheme := config.get("activation_scheme")) is not None:
        return f"8 bits, {scheme}"
    return "8 bits, dynamic" if config.get("quant_method") in {"fbgemm_fp8", "fp8"} else None


def _rounded(scheme: Any, what: str = "") -> str | None:
    """Return what compressed-tensors' arguments of a quantization say, after `what`; None where there are none."""
    if not isinstance(scheme, Mapping) or not scheme:
        return None
    return f"{what}{scheme.get('num_bits', '?')} bits{', dynamic' if scheme.get('dynamic') else ''}"


def _quantization(folder: Path) -> Mapping[str, Any] | None:
    found = read_config(folder).get("quantization_config")
    return found if isinstance(found, Mapping) and found else None


def _is_fp4(folder: Path) -> bool:
    config = _quantization(folder) or {}
    formats = [str(config.get("format", "")), str(config.get("quant_method", ""))]
    return any(form.startswith(name) for form in formats for name in ONLY_BFLOAT16)


def _bits_per_weight(folder: Path, *, allow_code: bool) -> float | None:
    """Return the bits of the tensors of the layers' linears by the weights that the checkpoint's own layers have."""
    from evenbits.models.layout import anatomy_of
    from evenbits.models.outline import outline, parameters_by_tensor
    from evenbits.variants.quantization.patching import shapes_of

    model = outline(folder, allow_code=allow_code)
    anatomy, held = anatomy_of(model), entries(folder)
    experts = {linear.parameter: linear.experts > 0 for linear in anatomy.linears}
    weights = {name: f"{_module_of(name)}.weight" for name in held}  # of codes, scales and zero points
    places = parameters_by_tensor(model, {*weights, *weights.values()})
    found, bits = set(), 0
    for name, entry in held.items():
        place = places.get(name) or places.get(weights[name])
        if place is None and EXPERTS in name and any(f".{layer}." in f".{name}" for layer in anatomy.layers):
            place = EXPERTS  # of a layer that the model has; some files hold more, for drafting tokens
        if (place in experts or place == EXPERTS) and not name.endswith("bias"):
            found.add(place)
            bits += 8 * (entry.end - entry.begin)
    if any(name not in found and not (fused and EXPERTS in found) for name, fused in experts.items()):
        return None
    shapes = shapes_of(model, anatomy)
    return bits / sum(math.prod(shapes[linear.name]) for linear in anatomy.linears)


def _module_of(tensor: str) -> str:
    """Return the module that a stored tensor belongs to: what stands before its last part, or before `.weight.`."""
    module, found, _ = tensor.partition(".weight.")
    return module if found else tensor.rpartition(".")[0]


def _method(folder: Path) -> str:
    """Return the method that a checkpoint names as transformers calls it, empty for a plain one."""
    return str((_quantization(folder) or {}).get("quant_method", ""))


def _loaders(folder: Path) -> dict[str, str]:
    """Return the versions of what reads and multiplies the format: part of the key, as they decide the scores."""
    found = {package: _version(package) for package in ("torch", "transformers", *READERS.get(_method(folder), ()))}
    return {package: number for package, number in found.items() if number is not None}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _check_reader(spec: Checkpoint, folder: Path) -> None:
    """Refuse a format whose reader is not installed, before anything is loaded: transformers would say so late."""
    method = _method(folder)
    missing = [package for package in READERS.get(method, ()) if _version(package) is None]
    if missing:
        needed = " and ".join(missing)
        raise ModelError(
            f"{spec}: it is quantized ({method}), which transformers reads with {needed}, and that is not installed: "
            f"pip install {' '.join(missing)}. Or serve it, and measure the server: served:URL#MODEL"
        )


def _check_parts(spec: Checkpoint, folder: Path) -> None:
    """Refuse a matrix that lacks a part (a scale, a shape) which the same matrix of other layers has.

    The loaders' own message names none, and some would go on with what memory holds.
    """
    parts: dict[str, set[str]] = {}
    for name, entry in entries(folder).items():
        module, _, part = name.rpartition(".")
        if part not in NOT_ALWAYS:
            parts.setdefault(module, set()).add(f"{part} ({entry.dtype})" if part == "weight" else part)
    by_role: dict[str, set[frozenset[str]]] = {}
    for module, found in parts.items():
        by_role.setdefault(_in_any_layer(module), set()).add(frozenset(found))
    for module, found in sorted(parts.items()):
        whole = max(by_role[_in_any_layer(module)], key=lambda other: (found < other, len(other)))
        if found < whole:
            raise ModelError(
                f"{spec}: {module} has no {', '.join(sorted(whole - found))}, which that of other layers has. "
                "Fetch the checkpoint again."
            )


def _in_any_layer(module: str) -> str:
    """Return what the same matrix of all layers, and of all experts, is called: numbers say which of them it is."""
    return re.sub(r"(?<=\.)\d+(?=\.|$)", "N", module)


def _quantized(spec: Checkpoint, folder: Path, dtype: Any, original: Original) -> LoadedModel:
    """Return the quantized checkpoint as transformers loads it; nothing of it missing or left over."""
    import transformers

    from evenbits.models.device import set_up
    from evenbits.models.loading import tokenizer_of
    from evenbits.models.outline import class_of, outline, outline_anatomy
    from evenbits.models.quiet import quiet_transformers
    from evenbits.models.records import LoadedModel as Loaded
    from evenbits.models.records import LocalModel

    allow_code = original.local.allow_code
    set_up(original.device)
    _check_parts(spec, folder)
    try:
        with quiet_transformers(), redirect_stdout(sys.stderr):  # gptqmodel greets there, and would do so in JSON
            config = transformers.AutoConfig.from_pretrained(
                folder, local_files_only=True, trust_remote_code=allow_code
            )
            maker: Any = class_of(config)
            where: dict[str, Any] = {"pretrained_model_name_or_path": folder}
            if _method(folder) in DECODED:
                from evenbits.variants.codes import plain_weights

                weights = plain_weights(folder, _quantization(folder) or {}, dtype=dtype)
                del config.quantization_config
                maker = type(outline(folder, allow_code=allow_code))
                where = {"pretrained_model_name_or_path": None, "state_dict": weights}
            model, info = maker.from_pretrained(
                **where,
                config=config,
                device_map={"": original.device.name},
                dtype=dtype,
                local_files_only=True,
                trust_remote_code=allow_code,
                use_safetensors=True,
                output_loading_info=True,
            )
    except EvenbitsError:
        raise
    except Exception as error:  # every format's loader has errors of its own
        method = (_quantization(folder) or {}).get("quant_method", "an unnamed method")
        raise EngineError(
            f"{spec}: transformers {transformers.__version__} cannot load this {method} checkpoint here: {error}"
        ) from error
    for kind, what in (("missing_keys", "lacks"), ("unexpected_keys", "has left over"), ("mismatched_keys", "misfits")):
        if info.get(kind):
            names = sorted(map(str, info[kind]))
            raise ModelError(f"{spec}: the checkpoint {what} {len(names)} tensors, such as {', '.join(names[:3])}")
    local = LocalModel(
        text=str(spec),
        folder=folder,
        fingerprint=fingerprint(folder, store=original.store),
        model_type=str(model.config.model_type),
        parameters=0,
        allow_code=allow_code,
    )
    model.train(mode=False).requires_grad_(requires_grad=False)
    anatomy = outline_anatomy(original.local.folder, allow_code=allow_code)
    return Loaded(local=local, model=model, tokenizer=tokenizer_of(local), anatomy=anatomy, dtype=dtype)
