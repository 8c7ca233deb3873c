"""Records of a model on disk and in memory. Importing this needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from evenbits.models.anatomy import Anatomy
from evenbits.models.device import CPU, Device

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = ["Loadable", "LoadedModel", "LocalModel", "OnDemand"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalModel:
    """A checked model in a folder of this machine.

    `text`: what the user typed. `folder`: holds config.json, tokenizer and safetensors. `fingerprint`: SHA-256 over
    weights, tokenizer and the configuration that changes the function (64 hex digits). `parameters`: number of trained
    numbers, tied weights counted once. `allow_code`: the user allowed the repository's own code to run. `exposure`:
    training bytes by language tag, from a file `exposure.json` beside the weights; None where there is none.
    `precision`: in which formats of less than 16 bits the file had the weights, None where it had none in such; what is
    measured of such a model comes on top of that, and whatever names the model says so. `offline`: the run uses no
    network, nor does what is measured beside the model.
    """

    text: str
    folder: Path
    fingerprint: str
    model_type: str
    parameters: int
    allow_code: bool = False
    exposure: Mapping[str, int] | None = None
    precision: str | None = None
    offline: bool = field(default=False, compare=False)

    def nbytes(self, dtype: str) -> int:
        """Return the bytes of its weights in `dtype`."""
        return self.parameters * (4 if dtype == "float32" else 2)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LoadedModel:
    """A model ready to score: evaluation mode, no gradients, on `device` in `dtype`.

    `unused`: tensors of the checkpoint that this architecture has no place for.
    """

    local: LocalModel
    model: PreTrainedModel
    tokenizer: Any
    anatomy: Anatomy
    dtype: torch.dtype
    unused: tuple[str, ...] = ()
    device: Device = CPU

    @property
    def arithmetic(self) -> str:
        """The dtype's name and what computes in it, as store keys have them."""
        return self.device.arithmetic(str(self.dtype))

    def load(self) -> LoadedModel:
        return self


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class OnDemand:
    """A model that is loaded only by who finds something lacking in the store. `arithmetic`: `torch.bfloat16`, ..."""

    local: LocalModel
    arithmetic: str
    loader: Callable[[], LoadedModel]

    def load(self) -> LoadedModel:
        return self.loader()


class Loadable(Protocol):
    """A loaded model, or one that would be loaded on demand: what is stored of it is found without loading."""

    @property
    def local(self) -> LocalModel: ...

    @property
    def arithmetic(self) -> str: ...

    def load(self) -> LoadedModel: ...
