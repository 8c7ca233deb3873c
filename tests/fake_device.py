"""Two more devices on a machine that has only a CPU, so that a mixed-up device fails without a GPU.

A tensor `on` one holds its numbers in ordinary memory but says `fake:0` or `fake:1`, has no numpy view and, as on CUDA,
may meet tensors of the CPU only where those are single numbers, are copied over, or index it, and those of the other
device only where they are copied. To divide by a number of the host is to multiply by its reciprocal, as on CUDA, which
can be one bit off. They are a backend of their own to torch (PrivateUse1), registered from Python: factories, modules,
autograd and inference mode work as on any device. They can go without float64, as Apple's do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Self

import torch
from evenbits.scoring.arithmetic import home_of_sums
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

__all__ = ["FAKE", "OTHER", "SYNCHRONISED", "FakeTensor", "emulated"]


class _Backend(_DummyBackendModule):
    def device_count(self) -> int:
        return 2


_setup_privateuseone_for_python_backend("fake", backend_module=_Backend())
FAKE, OTHER = torch.device("fake:0"), torch.device("fake:1")
SYNCHRONISED: Counter[str] = Counter()
"""How often the host waited for a number of the device, by operator."""

COPIES = {"aten::_to_copy", "aten::copy_"}
WAITS = {"aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::masked_select", "aten::_unique2"}
PRODUCTS = {"aten::div": torch.ops.aten.mul.Tensor, "aten::div_": torch.ops.aten.mul_.Tensor}
INDEXED = {"aten::index", "aten::index_put_", "aten::index_put", "aten::_index_put_impl_"}


class FakeTensor(torch.Tensor):
    """A tensor on a fake device; `held` has its numbers."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor, device: torch.device = FAKE) -> Self:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=device,
        )
        made.held = held.detach()
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})

    def __repr__(self) -> str:
        return f"FakeTensor({tuple(self.shape)}, {self.dtype}, {self.device})"

    def numpy(self, **_: Any) -> Any:
        raise TypeError("can't convert fake:0 device type tensor to numpy. Use Tensor.cpu() first.")

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert fake:0 device type tensor to numpy. Use Tensor.cpu() first.")

    def __getitem__(self, index: Any) -> Any:
        """Lists become tensors before torch would copy them there with the dispatcher off."""
        parts = index if isinstance(index, tuple) else (index,)
        return super().__getitem__(tuple(torch.tensor(part) if isinstance(part, list) else part for part in parts))

    def tolist(self) -> Any:
        SYNCHRONISED["tolist"] += 1
        return self.held.tolist()


def _run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    name = func._schema.name
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    there = [tensor for tensor in tensors if isinstance(tensor, FakeTensor)]
    if name in WAITS and there:
        SYNCHRONISED[name] += 1
    _check_together(name, args, tensors, there)
    if name == "aten::histc":  # counts integers on every device but the CPU
        args = (args[0].float(), *args[1:])
    if name in PRODUCTS and not kwargs.get("rounding_mode") and _by_a_number(*args[:2]):
        func, args = PRODUCTS[name], (args[0], torch.tensor(1 / float(args[1]), dtype=args[0].dtype))
    found = func(*tree_map(_inside, args), **tree_map(_inside, kwargs))
    if func._schema.name.endswith("_") and args:  # in place: the same tensor goes back
        return args[0]
    if "out" in kwargs:
        return kwargs["out"]
    target = there[0].device if there else torch.device("cpu")
    if kwargs.get("device") is not None:
        target = torch.device(kwargs["device"])
    return tree_map(partial(_outside, device=target), found) if target.type == "fake" else found


def _by_a_number(value: Any, divisor: Any) -> bool:
    """Whether floating-point numbers of the device are divided by a number of the host."""
    host = not isinstance(divisor, FakeTensor) and (not isinstance(divisor, torch.Tensor) or divisor.dim() == 0)
    return isinstance(value, FakeTensor) and value.dtype.is_floating_point and host


def _check_together(name: str, args: tuple[Any, ...], tensors: list[torch.Tensor], there: list[FakeTensor]) -> None:
    here = [tensor for tensor in tensors if not isinstance(tensor, FakeTensor) and tensor.device.type == "cpu"]
    if name in COPIES or not there:
        return
    if len({tensor.device for tensor in there}) > 1:
        raise RuntimeError(f"Expected all tensors to be on the same device, but found fake:0 and fake:1 ({name})")
    met = [tensor for tensor in here if tensor.dim() > 0]
    if name in INDEXED and isinstance(args[0], FakeTensor):  # CUDA takes indices from the CPU
        met = [tensor for tensor in met if tensor.dtype not in {torch.int64, torch.int32, torch.bool}]
    elif not isinstance(args[0], FakeTensor) and name.endswith("_"):
        met = here
    if met:
        raise RuntimeError(f"Expected all tensors to be on the same device, but found fake:0 and cpu ({name})")


def _inside(value: Any) -> Any:
    if isinstance(value, FakeTensor):
        return value.held
    return torch.device("cpu") if isinstance(value, torch.device) and value.type == "fake" else value


def _outside(value: Any, *, device: torch.device) -> Any:
    here = isinstance(value, torch.Tensor) and not isinstance(value, FakeTensor)
    if here and value.dtype is torch.float64 and _LACKING:
        raise TypeError(f"{device} has no float64")
    return FakeTensor(value, torch.device("fake", device.index or 0)) if here else value


_LACKING: list[str] = []
"""Not empty while the devices have no float64."""

_library = torch.library.Library("_", "IMPL")
_library.fallback(lambda op, *args, **kwargs: _run(op, args, kwargs), "PrivateUse1")


class _FromData(TorchFunctionMode):
    """Makes tensors of data for a fake device here and brings them there: torch would copy with the dispatcher off.

    To put another function in the place of `torch.tensor` is no way: `torch.device("meta")` would not know it.
    """

    def __torch_function__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = dict(kwargs or {})
        if func is torch.tensor and named.get("device") is not None and torch.device(named["device"]).type == "fake":
            device = named.pop("device")
            return func(*args, **named).to(device)
        return func(*args, **named)


@contextmanager
def emulated(*, float64: bool = True) -> Iterator[None]:
    """Let torch do what a backend in Python cannot: make tensors from data there, and go without inference mode.

    torch counts no versions of inference tensors. Without `float64` no tensor of that kind can be made there.
    """
    inference = torch.inference_mode
    torch.inference_mode = torch.no_grad
    _LACKING.extend([] if float64 else ["float64"])
    home_of_sums.cache_clear()
    try:
        with _FromData():
            yield
    finally:
        torch.inference_mode = inference
        _LACKING.clear()
        home_of_sums.cache_clear()
