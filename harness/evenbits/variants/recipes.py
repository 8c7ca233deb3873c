"""What to protect, in the words of the tools that quantize: settings that load as they stand.

| Tool           | Takes                                                                                        |
|----------------|----------------------------------------------------------------------------------------------|
| llama.cpp      | `llama-quantize --tensor-type PATTERN=f16 ...`: the first pattern found in a name decides    |
| llm-compressor | `ignore` of a modifier: exact module names                                                   |
| bitsandbytes   | `llm_int8_skip_modules` of `BitsAndBytesConfig`: replaces the default list, so it has the head |
| torchao        | `modules_to_not_convert` of `TorchAoConfig`                                                  |
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from evenbits.errors import SpecError
from evenbits.variants.gguf_rounding import gguf_names

if TYPE_CHECKING:
    from evenbits.models.anatomy import Anatomy

__all__ = ["kept_modules", "protected_modules", "recipes", "shell", "tensor_types"]


def protected_modules(anatomy: Anatomy, names: Sequence[str]) -> tuple[str, ...]:
    """Return the linears of the layers that `names` (module paths or their beginnings) cover, in the model's order.

    `SpecError` for a name that covers none.
    """
    modules = [linear.name for linear in anatomy.linears]
    for name in names:
        if not any(_covers(name, module) for module in modules):
            raise SpecError(f"protect:{name} matches no linear layer of this model")
    return tuple(module for module in modules if any(_covers(name, module) for name in names))


def kept_modules(anatomy: Anatomy) -> tuple[str, ...]:
    """Return the modules of the layers that stay in high precision by rule, such as routers: tools would take them."""
    return tuple(name.removesuffix(".weight") for name in anatomy.kept if name.endswith(".weight"))


def recipes(anatomy: Anatomy, names: Sequence[str]) -> dict[str, Any]:
    """Return, by tool, what keeps the modules that `names` cover in high precision.

    llama.cpp is None, with its reason beside it, for an architecture that GGUF has no names for.
    """
    modules = protected_modules(anatomy, names)
    left = [anatomy.head, *(linear.name for linear in anatomy.projections), *kept_modules(anatomy), *modules]
    found: dict[str, Any] = {
        "llm-compressor": {"ignore": left},
        "bitsandbytes": {"llm_int8_skip_modules": left},
        "torchao": {"modules_to_not_convert": left},
    }
    try:
        lines = [f"--tensor-type {pattern}={kind}" for pattern, kind in tensor_types(anatomy, modules)]
    except SpecError as error:
        return found | {"llama.cpp": None, "llama.cpp_reason": str(error)}
    return found | {"llama.cpp": lines}


def tensor_types(anatomy: Anatomy, modules: Sequence[str], *, kind: str = "f16") -> list[tuple[str, str]]:
    r"""Return (pattern, type) pairs for `--tensor-type`: one for a whole layer (`^blk\.3\.`), else one a tensor."""
    names = gguf_names([linear.name for linear in anatomy.linears], anatomy)
    by_layer: dict[int, list[str]] = {}
    for linear in anatomy.linears:
        if linear.name in modules and linear.layer is not None:
            by_layer.setdefault(linear.layer, []).append(names[linear.name])
    pairs = []
    for layer, tensors in sorted(by_layer.items()):
        whole = len(tensors) == len(anatomy.linears_of(layer))
        pairs += [(rf"^blk\.{layer}\.", kind)] if whole else [(f"^{re.escape(tensor)}$", kind) for tensor in tensors]
    return pairs


def shell(found: Mapping[str, Any]) -> list[str]:
    """Return the recipes as lines for a terminal, ready to be copied."""
    lines = []
    if found.get("llama.cpp"):
        quoted = " ".join(f"--tensor-type '{line.removeprefix('--tensor-type ')}'" for line in found["llama.cpp"])
        lines.append(f"llama.cpp       llama-quantize {quoted} IN.gguf OUT.gguf TYPE")
    for tool, name in (
        ("llm-compressor", "ignore"),
        ("bitsandbytes", "llm_int8_skip_modules"),
        ("torchao", "modules_to_not_convert"),
    ):
        lines.append(f"{tool:15} {name}={found[tool][name]}")
    return lines


def _covers(name: str, module: str) -> bool:
    return module == name or module.startswith(f"{name}.")
