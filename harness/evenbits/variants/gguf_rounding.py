"""K- and i-quants in torch: a model's weights as llama.cpp's own quantizer rounds them, without llama.cpp.

`libgguf` rounds rows to llama.cpp's very bytes; `gguf_types` says which type each tensor gets. What an engine computes
with such weights is another matter (it rounds activations too): `gguf:FILE` is for that.

Text form::

    gguf:FILE_TYPE ["@imatrix" ["[" languages "]"]] ("+protect:" name)*

Unlike other specs the embedding and the head are rounded too, as in a file. A protected tensor stays F16.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evenbits.errors import SpecError
from evenbits.models.gguf_census import GgufCensus, census_of
from evenbits.variants.gguf_types import ALIASES, FILE_TYPES, GgufShape, TensorRow, choose_types
from evenbits.variants.quantization.spec import checked_tags
from evenbits.variants.variant import Original, Variant

if TYPE_CHECKING:
    import torch

    from evenbits.models.anatomy import Anatomy
    from evenbits.models.records import LoadedModel
    from evenbits.variants.quantization.importance import Importance
    from evenbits.variants.quantization.matrices import Source

__all__ = ["GgufRounding", "gguf_names", "parse_gguf_rounding", "planned_types", "rounded", "rounded_rows"]

SCHEMA = 2
"""Raised whenever the same rounding would give other weights."""

FINE = 6
"""Bits per weight from which a rounding is scored in float32: bf16 noise is as large as its damage."""

ARCHITECTURES = {"gemma3_text": "gemma3", "gpt_neox": "gptneox"}
"""GGUF's names of architectures where transformers has another."""

LARGE = {"llama": 80, "qwen2": 80}
"""Layers of the models that llama.cpp calls 70B, whose shared value heads get more bits."""

_TEXT = re.compile(r"gguf:([A-Z0-9_]+)(@imatrix(?:\[([^\]]*)\])?)?((?:\+protect:[A-Za-z0-9_.]+)*)")


@dataclass(frozen=True, kw_only=True, slots=True)
class GgufRounding:
    """`file_type`: llama.cpp's label. `imatrix`: weighted by activations, of `languages` (empty: of all).

    `protect`: module paths or their beginnings that stay F16.
    """

    file_type: str
    imatrix: bool = False
    languages: tuple[str, ...] = ()
    protect: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.file_type not in FILE_TYPES:
            raise SpecError(f"gguf:{self.file_type}: no such file type; there are {', '.join(FILE_TYPES)}")
        object.__setattr__(self, "languages", tuple(sorted(set(self.languages))))
        object.__setattr__(self, "protect", tuple(sorted(set(self.protect))))

    def __str__(self) -> str:
        languages = f"[{','.join(self.languages)}]" if self.languages else ""
        kept = "".join(f"+protect:{name}" for name in self.protect)
        return f"gguf:{self.file_type}{f'@imatrix{languages}' if self.imatrix else ''}{kept}"

    @property
    def needs(self) -> frozenset[str]:
        """The measurements that must exist before it can be applied."""
        return frozenset({"input_rms"}) if self.imatrix else frozenset()

    def variant(self, original: Original) -> Variant:
        """Return the rounding as a change of the model in memory; from 6 bits on it is scored in float32."""
        key: dict[str, Any] = {"spec": str(self), "libgguf": _libgguf_version(), "schema": SCHEMA}
        if self.imatrix:
            if original.probe is None:
                raise SpecError(f"{self}: an imatrix is measured on probe text, and there is none")
            key["probe"] = original.probe.digest

        @contextmanager
        def change(loaded: LoadedModel) -> Iterator[None]:
            from evenbits.observe.activations.importance import ActivationImportance

            importance = None
            if self.imatrix and original.probe is not None:
                importance = ActivationImportance(
                    loaded, original.probe, store=original.store, progress=original.progress
                )
            with rounded(loaded, self, importance=importance):
                yield

        fine = (self.bits_per_weight(original) or 0) >= FINE
        return Variant(label=str(self), key=key, change=change, dtype="float32" if fine else None)

    def bits_per_weight(self, original: Original) -> float | None:
        """Return the mean bits of a block's weight; `SpecError` where the file type does not fit the model."""
        return self._census(original).bits_per_weight

    def facts(self, original: Original) -> Mapping[str, Any]:
        """Return what rounds, and the census of tensor types that a file of this type would have."""
        census = self._census(original)
        return {
            "engine": "torch, weights rounded by libgguf",
            "version": _libgguf_version(),
            "tensor_types": dict(census.tensors),
            "file_bits_per_weight": census.file_bits_per_weight,
            "label": census.label,
            "weights_only": True,
        }

    def _census(self, original: Original) -> GgufCensus:
        def count() -> tuple[Mapping[str, Any], Mapping[str, Any]]:
            from evenbits.models.layout import anatomy_of
            from evenbits.models.outline import outline
            from evenbits.variants.quantization.patching import shapes_of

            model: Any = outline(original.local.folder, allow_code=original.local.allow_code)
            anatomy = anatomy_of(model)
            plan = planned_types(self, anatomy, shapes_of(model, anatomy), model.config)
            return {}, asdict(plan.census)

        key = {"schema": SCHEMA, "model": original.local.fingerprint, "spec": str(self)}
        return GgufCensus(**original.store.compute("gguf-plans", key, count).meta)


def parse_gguf_rounding(text: str) -> GgufRounding | None:
    """Return the rounding that `text` names; None where it is no text of this form (a file, perhaps)."""
    found = _TEXT.fullmatch(text)
    name = None if found is None else ALIASES.get(found[1], found[1])
    if found is None or name not in FILE_TYPES:
        return None
    tags = () if found[3] is None else checked_tags(tuple(found[3].split(",")))
    names = tuple(part for part in found[4].split("+protect:") if part)
    return GgufRounding(file_type=name, imatrix=found[2] is not None, languages=tags, protect=names)


@dataclass(frozen=True, kw_only=True, slots=True)
class GgufPlan:
    """`types`: ggml type by module path. `names`: GGUF name by module path. `census`: what the file would hold."""

    types: Mapping[str, str]
    names: Mapping[str, str]
    census: GgufCensus


def planned_types(
    rounding: GgufRounding, anatomy: Anatomy, shapes: Mapping[str, tuple[int, int]], config: Any
) -> GgufPlan:
    """Return which type each matrix gets; `shapes`: O x I by module path, `config`: transformers' of the model.

    `SpecError` for an architecture that GGUF has no names for, for experts, and for a protected name that matches none.
    """
    if anatomy.has_experts:
        raise SpecError(
            f"{rounding}: which type a matrix gets has rules of its own in models with experts, which are not covered. "
            "Have llama.cpp write the file and name that, --spec gguf:FILE"
        )
    modules = [linear.name for linear in anatomy.linears] + [anatomy.embedding]
    if not anatomy.tied:
        modules.append(anatomy.head)
    names = gguf_names(modules, anatomy)
    overrides = _protections(rounding, names)
    layers = len(anatomy.layers)
    group = _first_group(config)
    large = group > 1 and LARGE.get(anatomy.model_type) == layers
    shape = GgufShape(layers=layers, group=group, large=large, falcon=anatomy.model_type == "falcon")
    rows = [TensorRow(name=names[module], rows=shapes[module][0], columns=shapes[module][1]) for module in modules]
    by_name = choose_types(rows, rounding.file_type, shape, imatrix=rounding.imatrix, overrides=overrides)
    return GgufPlan(
        types={module: by_name[name] for module, name in names.items()},
        names=names,
        census=census_of(
            [(row.name, by_name[row.name], (row.rows, row.columns)) for row in rows], label=rounding.file_type
        ),
    )


def _first_group(config: Any) -> int:
    """Return the query heads per key-value head of the first layer, which alone llama.cpp asks; 0 of a convolution."""
    if (getattr(config, "layer_types", None) or [""])[0] == "conv":  # LFM2
        return 0
    heads = int(getattr(config, "num_attention_heads", 1))
    if getattr(config, "multi_query", False) and not getattr(config, "new_decoder_architecture", False):  # Falcon 7B
        return heads
    names = ("num_key_value_heads", "num_kv_heads")  # Falcon has the second
    return heads // next((int(found) for name in names if (found := getattr(config, name, None))), heads)


def gguf_names(modules: Sequence[str], anatomy: Anatomy) -> dict[str, str]:
    """Return the GGUF name of each module's weight; `SpecError` where the format has none for this architecture."""
    gguf: Any = import_module("gguf")
    wanted = ARCHITECTURES.get(anatomy.model_type, anatomy.model_type)
    known = {name: number for number, name in gguf.MODEL_ARCH_NAMES.items()}
    if wanted not in known:
        raise SpecError(f"GGUF has no model of type {anatomy.model_type}, so gguf: specs do not fit it")
    table = gguf.get_tensor_name_map(known[wanted], len(anatomy.layers))
    found = {}
    for module in modules:
        name = table.get_name(module)
        if name is None:
            raise SpecError(f"GGUF has no name for {module} of a {anatomy.model_type} model")
        found[module] = f"{name}.weight"
    return found


def _protections(rounding: GgufRounding, names: Mapping[str, str]) -> list[tuple[str, str]]:
    overrides = []
    for protected in rounding.protect:
        hit = [gguf for module, gguf in names.items() if module == protected or module.startswith(f"{protected}.")]
        if not hit:
            raise SpecError(f"{rounding}: protect:{protected} matches no matrix of this model")
        overrides += [(f"^{re.escape(name)}$", "F16") for name in hit]
    return overrides


@contextmanager
def rounded(
    loaded: LoadedModel,
    rounding: GgufRounding,
    *,
    importance: Importance | None = None,
    source: Source | None = None,
) -> Iterator[GgufPlan]:
    """Round the model as `rounding` says while the context lasts, and give the plan.

    Values come from `source` (by default the checkpoint's own, float32). `importance` gives the imatrix: the mean
    square of every input, languages counting equally; embedding and head have none, as in llama.cpp. `SpecError` where
    it is asked for and was not measured, or where `libgguf` is not installed.
    """
    import torch

    from evenbits.variants.quantization.patching import checkpoint_source, patched, shapes_of

    plan = planned_types(rounding, loaded.anatomy, shapes_of(loaded.model, loaded.anatomy), loaded.model.config)
    if rounding.imatrix and importance is None:
        raise SpecError(f"{rounding}: an imatrix needs probe texts to be measured on, and there are none")
    values = source or checkpoint_source(loaded)
    inside = {linear.name for linear in loaded.anatomy.linears}
    weights: dict[str, torch.Tensor] = {}
    for module, kind in plan.types.items():
        column_weights = None
        if rounding.imatrix and importance is not None and module in inside:
            rms_I = importance.input_rms(module, rounding.languages or None)
            column_weights = rms_I.cpu().double().square().float().numpy()
        rows_OI = values(module).detach().float().cpu().numpy()
        weights[module] = torch.from_numpy(rounded_rows(rows_OI, kind, imatrix=column_weights))
    if loaded.anatomy.tied:
        weights[loaded.anatomy.head] = weights[loaded.anatomy.embedding]
    with patched(loaded, weights):
        yield plan


def rounded_rows(
    rows_OI: NDArray[np.float32], kind: str, *, imatrix: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Return `rows_OI` as ggml type `kind` holds them, float32; `imatrix`: weight of each column's error, [I]."""
    if kind in {"F32", "F16"}:
        return rows_OI if kind == "F32" else rows_OI.astype(np.float16).astype(np.float32)
    libgguf = _libgguf()
    number = libgguf.GGMLQuantizationType[kind]
    packed = libgguf.quantize_rows(np.ascontiguousarray(rows_OI), number, imatrix=imatrix)
    return np.asarray(libgguf.dequantize_rows(packed, number), dtype=np.float32).reshape(rows_OI.shape)


def _libgguf() -> Any:
    try:
        return import_module("libgguf")
    except ImportError:
        raise SpecError(
            'gguf: specs are rounded by libgguf, which is not installed: pip install "evenbits[gguf]"'
        ) from None


def _libgguf_version() -> str:
    try:
        return version("libgguf")
    except PackageNotFoundError:
        _libgguf()  # says how to get it
        raise
