"""Skeleton: a model without weights; those outside the layers, and a layer's while it runs, are read when needed.

What is read is what loading would have put there: the same tensors of the checkpoint, weights and saved buffers (biases
of routers, scales of layers), in the same dtype. That all of them are there and finite was seen when the model was
resolved.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, PreTrainedModel

from evenbits.models import checkpoint
from evenbits.models.device import CPU, Device, set_up
from evenbits.models.families import check_type
from evenbits.models.layout import anatomy_of, text_config
from evenbits.models.loading import attention_for, read_tokenizer
from evenbits.models.outline import class_of, in_place, stored_parameters
from evenbits.models.quiet import quiet_transformers
from evenbits.models.records import LoadedModel, LocalModel

__all__ = ["Skeleton"]


class Skeleton:
    """`loaded` is the model with its weights on torch's meta device.

    Inside `outside()` it has those that stand outside the layers, inside `layer(i)` those of that layer. `width`:
    numbers of a position between two layers.
    """

    def __init__(self, local: LocalModel, *, dtype: torch.dtype, device: Device = CPU) -> None:
        check_type(local.model_type)
        set_up(device)
        self._device, self._folder = device, local.folder
        with quiet_transformers():
            model = _empty(local, dtype)
            tokenizer = read_tokenizer(local.folder, local.fingerprint, local.allow_code)
        anatomy = anatomy_of(model)
        self._tensors = stored_parameters(model, checkpoint.tensor_names(local.folder))
        self._inside = tuple(f"{name}." for name in anatomy.layers)
        self._wide = _kept_wide(model, dtype)
        for module in model.modules():
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, buffer.to(device.name))
        self.width = int(text_config(model).hidden_size)
        self.loaded = LoadedModel(
            local=local, model=model, tokenizer=tokenizer, anatomy=anatomy, dtype=dtype, device=device
        )

    @contextmanager
    def outside(self) -> Iterator[None]:
        """Hold what stands outside the layers, embedding and head, while the context lasts."""
        model = self.loaded.model
        names = [name for name, _ in model.named_parameters() if not name.startswith(self._inside)]
        names += [name for name in self._buffers() if not name.startswith(self._inside)]
        try:
            with self._present(names):
                model.tie_weights()
                yield
        finally:
            model.tie_weights()

    @contextmanager
    def layer(self, index: int) -> Iterator[None]:
        """Hold the weights of decoder layer `index` while the context lasts."""
        named = (*dict(self.loaded.model.named_parameters(remove_duplicate=False)), *self._buffers())
        with self._present([name for name in named if name.startswith(self._inside[index])]):
            yield

    @contextmanager
    def layers_as_they_run(self) -> Iterator[None]:
        """Let the model's own forward find each layer's weights while that layer runs, inside `outside()`."""
        held: dict[int, AbstractContextManager[None]] = {}
        with ExitStack() as stack:
            for index, name in enumerate(self.loaded.anatomy.layers):
                module = self.loaded.model.get_submodule(name)

                def enter(*_call: Any, index: int = index) -> None:
                    held[index] = self.layer(index)
                    held[index].__enter__()

                def leave(*_call: Any, index: int = index) -> None:
                    held.pop(index).__exit__(None, None, None)

                stack.callback(module.register_forward_pre_hook(enter).remove)
                stack.callback(module.register_forward_hook(leave).remove)
            try:
                yield
            finally:
                for context in held.values():  # of a layer that failed
                    context.__exit__(None, None, None)

    def _buffers(self) -> list[str]:
        """Return the names of buffers that the checkpoint holds."""
        return [name for name, _ in self.loaded.model.named_buffers() if name in self._tensors]

    @contextmanager
    def _present(self, names: Sequence[str]) -> Iterator[None]:
        model = self.loaded.model
        absent = {name: _get(model, name) for name in names}
        try:
            for name, value in absent.items():
                _put(model, name, self._read(name, value))
            yield
        finally:
            for name, value in absent.items():
                _put(model, name, value)

    def _read(self, name: str, absent: torch.Tensor) -> torch.Tensor:
        value = in_place([checkpoint.read(self._folder, tensor) for tensor in self._tensors[name]], absent.shape)
        dtype = torch.float32 if self._wide is not None and self._wide.search(name) else absent.dtype
        value = value.to(device=self._device.name, dtype=dtype)
        return nn.Parameter(value, requires_grad=False) if isinstance(absent, nn.Parameter) else value


def _kept_wide(model: Any, dtype: torch.dtype) -> re.Pattern[str] | None:
    """Return the names of what transformers loads in float32 whatever the dtype of the rest."""
    from transformers.core_model_loading import build_glob_alternation

    kept = list(model._get_dtype_plan(dtype))  # noqa: SLF001 - its loading asks the same, and nothing public tells
    return build_glob_alternation(kept)[0] if kept else None


def _empty(local: LocalModel, dtype: torch.dtype) -> PreTrainedModel:
    """Return the model without numbers; its buffers (rotary tables) are computed, as loading computes them."""
    from accelerate import init_empty_weights

    config = AutoConfig.from_pretrained(local.folder, local_files_only=True, trust_remote_code=local.allow_code)
    with init_empty_weights(include_buffers=False):
        model: Any = class_of(config).from_config(
            config, dtype=dtype, attn_implementation=attention_for(config), trust_remote_code=local.allow_code
        )
    for module in model.modules():
        module._is_hf_initialized = False  # noqa: SLF001 - transformers' own mark
    model.initialize_weights()  # loading, too, fills buffers that are not saved anew, not in the dtype of the weights
    model.tie_weights()
    model.train(mode=False)
    return model  # type: ignore[no-any-return]


def _get(model: nn.Module, name: str) -> torch.Tensor:
    path, _, attribute = name.rpartition(".")
    value: torch.Tensor = getattr(model.get_submodule(path), attribute)
    return value


def _put(model: nn.Module, name: str, value: torch.Tensor) -> None:
    path, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(path), attribute, value)
