"""`bnb:` and `torchao:` specs: quantized by the library that ships it, scored by that library's own products.

Text form::

    bnb:nf4 | bnb:fp4 | bnb:int8
    torchao:int8 | torchao:intB-gN      B 2..8 bits, groups of N inputs (`intx4-g32` is read as `int4-g32`)
    ... ("+protect:" name)*             linears that stay as they are, by path or its beginning

The linears of the decoder layers are quantized, the embedding and the head are not, as the libraries do by default.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from evenbits.errors import EngineError, SpecError
from evenbits.variants.recipes import kept_modules, protected_modules, recipes
from evenbits.variants.variant import Original, Variant

if TYPE_CHECKING:
    from evenbits.models.anatomy import Anatomy
    from evenbits.models.records import LoadedModel
    from evenbits.variants.other_model import OtherModel

__all__ = ["LibrarySpec", "parse", "quantized_copy"]

SCHEMA = 2
"""Raised whenever the same library would be asked to do something else."""

PACKAGES = {"bnb": "bitsandbytes", "torchao": "torchao"}
FORMATS = "bnb:nf4, bnb:fp4, bnb:int8, torchao:int8 and torchao:int4-g32 (2 to 8 bits, any group)"
BYTE = 8
UNPACKED = "bits are counted as packed; torchao keeps such codes in whole bytes on this device"
BNB_BLOCK = 64
"""bitsandbytes' block of 4-bit weights that share a float32 scale."""

_GROUPED = re.compile(r"intx?([2-8])-g([1-9][0-9]*)")


def parse(text: str) -> LibrarySpec:
    """Return the spec that `text` names; `SpecError` lists the known ones."""
    bare, *kept = text.split("+protect:")
    library, _, form = bare.partition(":")
    grouped = _GROUPED.fullmatch(form)
    names = tuple(kept)
    if library == "torchao" and grouped:
        return LibrarySpec(library=library, form="int", bits=int(grouped[1]), group=int(grouped[2]), protect=names)
    if library == "torchao" and form == "int8":
        return LibrarySpec(library=library, form="int", bits=8, protect=names)
    if library == "bnb" and form in {"nf4", "fp4", "int8"}:
        return LibrarySpec(library=library, form=form, bits=8 if form == "int8" else 4, protect=names)
    raise SpecError(f"spec {text!r}: there are {FORMATS}")


@dataclass(frozen=True, kw_only=True, slots=True)
class LibrarySpec:
    """`library`: bnb or torchao. `form`: nf4, fp4, int8, int. `group`: inputs that share a scale, None for a row."""

    library: str
    form: str
    bits: int
    group: int | None = None
    protect: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "protect", tuple(sorted(set(self.protect))))

    def __str__(self) -> str:
        form = self.form if self.library == "bnb" else f"int{self.bits}{f'-g{self.group}' if self.group else ''}"
        return f"{self.library}:{form}{''.join(f'+protect:{name}' for name in self.protect)}"

    @property
    def version(self) -> str:
        """Version of the library; `SpecError` where it is not installed."""
        package = PACKAGES[self.library]
        try:
            return version(package)
        except PackageNotFoundError:
            raise SpecError(f'{self}: {package} is not installed: pip install "evenbits[backends]"') from None

    def variant(self, original: Original) -> Variant:
        """Return a copy of the model quantized by the library; the key holds its version, and what computes."""
        key = {
            "library": str(self),
            "version": self.version,
            "device": original.device.key(original.dtype),
            "schema": SCHEMA,
        }

        @contextmanager
        def runs(opened: Original) -> Iterator[OtherModel]:
            from evenbits.variants.other_model import OtherModel
            from evenbits.variants.tokens import OriginalTokens

            with _quiet(PACKAGES[self.library]):
                loaded = quantized_copy(opened, self)
                yield OtherModel(loaded, OriginalTokens.of(opened), context=opened.context)

        return Variant(label=str(self), key=key, runs=runs, lean=False)

    def bits_per_weight(self, original: Original) -> float | None:
        """Return the library's storage of a linear weight: codes, scales, and zero points where it keeps them."""

        def count() -> tuple[Mapping[str, Any], Mapping[str, Any]]:
            from evenbits.models.layout import anatomy_of
            from evenbits.models.outline import outline
            from evenbits.variants.quantization.patching import shapes_of

            model = outline(original.local.folder, allow_code=original.local.allow_code)
            anatomy = anatomy_of(model)
            shapes = shapes_of(model, anatomy)
            kept = protected_modules(anatomy, self.protect)
            bits, weights = 0.0, 0
            for linear in anatomy.linears:
                rows, columns = shapes[linear.name]
                weights += rows * columns
                bits += rows * columns * 16 if linear.name in kept else self._bits(rows, columns, original.dtype)
            return {}, {"bits": bits / weights}

        key = {"schema": SCHEMA, "model": original.local.fingerprint, "spec": str(self), "dtype": original.dtype}
        return float(original.store.compute("library-plans", key, count).meta["bits"])

    def _bits(self, rows: int, columns: int, dtype: str) -> float:
        """Return the bits of a matrix of rows x columns, as a test counts them in the library's own tensors."""
        size, scale = rows * columns, 16 if dtype == "bfloat16" else 32
        if self.library == "bnb":
            return size * 4 + 32 * -(-size // BNB_BLOCK) if self.bits == 4 else size * 8 + 32 * rows
        if self.group is None:
            return size * 8 + (32 + 8) * rows
        return size * self.bits + (scale + 8) * rows * (columns / self.group)

    def facts(self, original: Original) -> Mapping[str, Any]:
        """Return library, version, and the device it computed on."""
        return {
            "engine": PACKAGES[self.library],
            "version": self.version,
            "build": f"torch {version('torch')}",
            "device": original.device.make,
            **({"storage": UNPACKED} if self.group and self.bits < BYTE else {}),
        }


@contextmanager
def _quiet(package: str) -> Iterator[None]:
    """Keep the library's remarks (a cast to float16 for each layer) off the terminal."""
    logger = logging.getLogger(package)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def quantized_copy(original: Original, spec: LibrarySpec) -> LoadedModel:
    """Return the model loaded anew and quantized by the library: every linear of its layers, nothing else.

    `SpecError` where a group does not divide a layer's inputs; `EngineError` where the library left a linear alone,
    took the head too, or cannot do it on this machine.
    """
    import torch

    from evenbits.models.device import set_up
    from evenbits.models.loading import tokenizer_of
    from evenbits.models.outline import outline_anatomy
    from evenbits.models.records import LoadedModel as Loaded

    set_up(original.device)
    local, dtype = original.local, getattr(torch, original.dtype)
    anatomy = outline_anatomy(local.folder, allow_code=local.allow_code)
    unknown = next((linear for linear in anatomy.linears if linear.experts or linear.transposed), None)
    if unknown is not None:
        kind = "experts that share one parameter" if unknown.experts else "GPT-2's Conv1D"
        raise SpecError(
            f"{spec}: {PACKAGES[spec.library]} knows nn.Linear only, and {unknown.name} is {kind}. Grids of our own, "
            "such as int4-g64 or nf4-b64, round it."
        )
    try:
        model = (
            _bitsandbytes(original, spec, anatomy, dtype)
            if spec.library == "bnb"
            else _torchao(original, spec, anatomy, dtype)
        )
    except (RuntimeError, ValueError, ImportError, NotImplementedError, AssertionError) as error:
        raise EngineError(f"{spec}: {PACKAGES[spec.library]} {spec.version} cannot do it here: {error}") from error
    _check_extent(model, anatomy, spec)
    return Loaded(local=local, model=model, tokenizer=tokenizer_of(local), anatomy=anatomy, dtype=dtype)


def _bitsandbytes(original: Original, spec: LibrarySpec, anatomy: Anatomy, dtype: Any) -> Any:
    """Return the model as transformers loads it with bitsandbytes; its skip list replaces the default one."""
    transformers: Any = import_module("transformers")
    from evenbits.models.outline import class_of
    from evenbits.models.quiet import quiet_transformers

    left = recipes(anatomy, spec.protect)["bitsandbytes"]["llm_int8_skip_modules"]
    config = (
        transformers.BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=left)
        if spec.form == "int8"
        else transformers.BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=spec.form,
            bnb_4bit_compute_dtype=dtype,
            llm_int8_skip_modules=left,
        )
    )
    with quiet_transformers():
        settings = transformers.AutoConfig.from_pretrained(
            original.local.folder, local_files_only=True, trust_remote_code=original.local.allow_code
        )
        model = class_of(settings).from_pretrained(
            original.local.folder,
            dtype=dtype,
            quantization_config=config,
            device_map={"": original.device.name},
            local_files_only=True,
            trust_remote_code=original.local.allow_code,
            use_safetensors=True,
        )
    return model.train(mode=False).requires_grad_(requires_grad=False)


def _torchao(original: Original, spec: LibrarySpec, anatomy: Anatomy, dtype: Any) -> Any:
    """Return the model with torchao's tensors in the linears of its layers."""
    import torch

    from evenbits.models.loading import load

    quantization: Any = import_module("torchao.quantization")
    model: Any = load(original.local, dtype=dtype, device=original.device).model
    names = {linear.name for linear in anatomy.linears} - set(protected_modules(anatomy, spec.protect))
    if spec.group is None:
        config = quantization.Int8WeightOnlyConfig()
    else:
        for name in names:
            columns = model.get_submodule(name).weight.shape[1]
            if columns % spec.group:
                raise SpecError(f"{spec}: groups of {spec.group} do not divide the {columns} inputs of {name}")
        config = quantization.IntxWeightOnlyConfig(
            weight_dtype=getattr(torch, f"int{spec.bits}"), granularity=quantization.PerGroup(spec.group)
        )
    quantization.quantize_(model, config, filter_fn=lambda _module, name: name in names)
    return model


def _check_extent(model: Any, anatomy: Anatomy, spec: LibrarySpec) -> None:
    """Raise `EngineError` unless exactly the linears of the layers are the library's, and nothing kept by rule is."""
    import torch

    def plain(name: str) -> bool:
        module = model.get_submodule(name)
        return type(module) is torch.nn.Linear and type(module.weight.data) is torch.Tensor

    kept = protected_modules(anatomy, spec.protect)
    left = [linear.name for linear in anatomy.linears if plain(linear.name) and linear.name not in kept]
    taken = [name for name in kept if not plain(name)]
    if taken:
        raise EngineError(f"{spec}: the library quantized {taken[0]}, which was to be protected")
    package = PACKAGES[spec.library]
    for name in kept_modules(anatomy):
        module = model.get_submodule(name)
        if any(type(part).__module__.startswith(package) for part in (module, module.weight, module.weight.data)):
            raise EngineError(f"{spec}: the library quantized {name}, which stays in high precision by rule")
    if left:
        raise EngineError(f"{spec}: the library left {len(left)} linears as they were, such as {left[0]}")
    if not plain(anatomy.head):
        raise EngineError(f"{spec}: the library quantized the head {anatomy.head}, which it should leave alone")
