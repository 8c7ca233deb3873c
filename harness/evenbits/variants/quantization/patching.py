"""Patching: change weights of a loaded model for a while, and put every byte back.

A patch never writes into the model's memory. It puts a new parameter in the place of the old one and, at the end, also
after an exception, puts the old one back: the restored bytes are the very same memory, shared weights (a tied head)
stay as they are unless both sides are patched, and only what is replaced is held twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from evenbits.errors import UsageError
from evenbits.models import checkpoint
from evenbits.models.device import room_on
from evenbits.models.layout import anatomy_of
from evenbits.variants.quantization.importance import Importance
from evenbits.variants.quantization.matrices import Source, quantize_planned
from evenbits.variants.quantization.planning import Plan, plan
from evenbits.variants.quantization.spec import QuantSpec

if TYPE_CHECKING:
    from evenbits.models.anatomy import Anatomy
    from evenbits.models.records import LoadedModel, LocalModel

__all__ = ["checkpoint_source", "patched", "plan_for", "plan_loaded", "quantized", "shapes_of", "zeroed"]

MARK = "_evenbits_patch"
"""Set on every parameter that a patch put in, so that a patched weight is never taken for the checkpoint's own."""


@contextmanager
def quantized(
    loaded: LoadedModel,
    spec: QuantSpec,
    *,
    importance: Importance | None = None,
    seed: int = 0,
    source: Source | None = None,
    where: Callable[[str], bool] = lambda _name: True,
) -> Iterator[Plan]:
    """Quantize the model as `spec` says while the context lasts, and give the plan.

    The values come from `source(module name)` (O x I), by default the checkpoint's own in float32, and are written
    in the model's dtype. `importance` and `seed`: see `quantize_planned`. `where`: change only modules of which it is
    true, for models that hold a part of their weights. `SpecError` where the spec does not fit the model or a
    measurement is missing; `UsageError` where a weight to be quantized is patched already (quantize outside,
    ablate inside; or pass the `source` that is meant). Whatever happens, the model leaves as it came.
    """
    planned = plan_loaded(loaded, spec)
    planned = replace(planned, tensors=tuple(tensor for tensor in planned.tensors if where(tensor.name)))
    if source is None:
        for tensor in planned.quantized:
            if hasattr(_parameter(loaded.model, tensor.name), MARK):
                raise UsageError(
                    f"{tensor.name} is patched already, so {str(spec)!r} would not start from the checkpoint's "
                    "weights. Quantize first and patch inside, or pass source= with the weights that are meant"
                )
        source = checkpoint_source(loaded)
    with ExitStack() as stack, torch.no_grad():
        matrices = quantize_planned(planned, source, importance=importance, seed=seed, dtype=loaded.dtype)
        with room_on(loaded.device, f"the weights of {spec} beside the model's own"):
            for matrix, tensor in zip(matrices, planned.quantized, strict=True):
                parameter = _replacement(loaded, tensor.name, matrix.values)
                for name in (tensor.name, *tensor.shared_with):
                    stack.enter_context(_swapped(loaded.model, name, parameter))
        yield planned


@contextmanager
def patched(loaded: LoadedModel, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Put `weights` into the model while the context lasts.

    A key is a module path, and its tensor O x I whatever way the module stores it; or the full path of any other
    parameter (`model.norm.weight`), as it is stored. Values are written in the model's dtype. `UsageError` for a path
    that is no parameter, or another shape. Patches may be nested; the innermost one holds.
    """
    with ExitStack() as stack, torch.no_grad():
        for name, values in weights.items():
            stack.enter_context(_swapped(loaded.model, name, _replacement(loaded, name, values)))
        yield


@contextmanager
def zeroed(loaded: LoadedModel, places: Mapping[str, Tensor]) -> Iterator[None]:
    """Set single weights to zero while the context lasts: `places` gives, by module path, flat indices into O x I.

    The other weights keep the values they have when the context is entered, quantized or not.
    """
    with ExitStack() as stack, torch.no_grad():
        for name, indices in places.items():
            stored = _parameter(loaded.model, name)
            w_OI = loaded.anatomy.product(name).matrix(stored.detach()).clone(memory_format=torch.contiguous_format)
            indices = torch.as_tensor(indices, dtype=torch.int64)  # noqa: PLW2901 - numpy arrays are welcome
            if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < w_OI.numel():
                raise UsageError(f"{name}: indices must be 0 to {w_OI.numel() - 1}, flat into {tuple(w_OI.shape)}")
            w_OI.view(-1)[indices.to(w_OI.device)] = 0
            stack.enter_context(_swapped(loaded.model, name, _replacement(loaded, name, w_OI)))
        yield


def plan_loaded(loaded: LoadedModel, spec: QuantSpec) -> Plan:
    """Return the plan of `spec` for a loaded model."""
    return plan(spec, loaded.anatomy, shapes_of(loaded.model, loaded.anatomy))


def plan_for(local: LocalModel, spec: QuantSpec) -> Plan:
    """Return the plan of `spec` for a model on disk, from its configuration alone: no weights are read."""
    from evenbits.models.outline import outline

    model = outline(local.folder, allow_code=local.allow_code)
    anatomy = anatomy_of(model)
    return plan(spec, anatomy, shapes_of(model, anatomy))


def shapes_of(model: nn.Module, anatomy: Anatomy) -> dict[str, tuple[int, int]]:
    """Return O x I of every product of the layers, the embedding and the head, by its name."""
    shapes = {}
    for linear in (*anatomy.linears, anatomy.product(anatomy.embedding), anatomy.head_linear):
        rows, columns = linear.matrix(_parameter(model, linear.name)).shape
        shapes[linear.name] = (int(rows), int(columns))
    return shapes


def checkpoint_source(loaded: LoadedModel) -> Source:
    """Return the source of the checkpoint's own values: O x I, in a dtype that holds them, by module path.

    A model in the checkpoint's own dtype, or in float32, holds them. Any other dtype has rounded them, so they are read
    from the checkpoint, and moved to where the model has the weight.
    """
    from evenbits.models.outline import in_place, stored_parameters

    @cache
    def stored_names() -> dict[str, tuple[str, ...]]:
        return stored_parameters(loaded.model, checkpoint.tensor_names(loaded.local.folder))

    def source(name: str) -> Tensor:
        linear = loaded.anatomy.product(name)
        held = _parameter(loaded.model, name).detach()
        if held.dtype == torch.float32:
            return linear.matrix(held).contiguous()
        tensors = stored_names()[linear.parameter]
        if checkpoint.dtype_of(loaded.local.folder, tensors[0]) == held.dtype:
            return linear.matrix(held).contiguous()
        read = [checkpoint.read(loaded.local.folder, tensor) for tensor in tensors]
        return linear.matrix(in_place(read, held.shape)).to(held.device).contiguous()

    return source


@contextmanager
def _swapped(model: nn.Module, name: str, parameter: nn.Parameter) -> Iterator[None]:
    module, attribute = _owner(model, name)
    original = getattr(module, attribute)
    setattr(module, attribute, parameter)
    try:
        yield
    finally:
        setattr(module, attribute, original)


def _replacement(loaded: LoadedModel, name: str, values: Tensor) -> nn.Parameter:
    """Return `values` as a parameter like the one it replaces: dtype, device, layout, gradient flag."""
    original = _parameter(loaded.model, name)
    linear = loaded.anatomy.product(name)
    expected = tuple(linear.matrix(original).shape)
    if tuple(values.shape) != expected:
        raise UsageError(f"{name} has shape {expected}, the patch has {tuple(values.shape)}")
    values = linear.stored(values).to(device=original.device, dtype=original.dtype).contiguous()
    parameter = nn.Parameter(values, requires_grad=original.requires_grad)
    setattr(parameter, MARK, True)
    return parameter


def _parameter(model: nn.Module, name: str) -> nn.Parameter:
    module, attribute = _owner(model, name)
    parameter = getattr(module, attribute)
    assert isinstance(parameter, nn.Parameter)  # noqa: S101 - `_owner` looked it up among the parameters
    return parameter


def _owner(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    """Return the module that holds the parameter `name`, and the parameter's attribute name there."""
    try:
        module, attribute = model.get_submodule(name), "weight"
    except AttributeError:
        path, _, attribute = name.rpartition(".")
        try:
            module = model.get_submodule(path)
        except AttributeError:
            raise UsageError(f"{name}: the model has no module or parameter of that name") from None
    if attribute not in dict(module.named_parameters(recurse=False)):
        raise UsageError(f"{name}: the model has no parameter of that name")
    return module, attribute
