"""Skeleton: a model without weights; those outside the layers, and a layer's while it runs, are read when needed.

What is read is what loading would have put there: the same tensors of the checkpoint, in the same dtype. That all of
them are there and finite was seen when the model was resolved.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, PreTrainedModel

from evenbits.models import checkpoint
from evenbits.models.device import CPU, Device, set_up
from evenbits.models.families import check_type
from evenbits.models.layout import anatomy_of, text_config
from evenbits.models.loading import attention_for, read_tokenizer
from evenbits.models.outline import class_of, stored_parameters
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
        self._device, self._dtype, self._folder = device, dtype, local.folder
        with quiet_transformers():
            model = _empty(local, dtype)
            tokenizer = read_tokenizer(local.folder, local.fingerprint, local.allow_code)
        anatomy = anatomy_of(model)
        self._tensors = stored_parameters(model, checkpoint.tensor_names(local.folder))
        self._inside = tuple(f"{name}." for name in anatomy.layers)
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
        try:
            with self._present(names):
                model.tie_weights()
                yield
        finally:
            model.tie_weights()

    @contextmanager
    def layer(self, index: int) -> Iterator[None]:
        """Hold the weights of decoder layer `index` while the context lasts."""
        named = dict(self.loaded.model.named_parameters(remove_duplicate=False))
        with self._present([name for name in named if name.startswith(self._inside[index])]):
            yield

    @contextmanager
    def _present(self, names: Sequence[str]) -> Iterator[None]:
        model = self.loaded.model
        absent = {name: model.get_parameter(name) for name in names}
        try:
            for name in names:
                _put(model, name, self._read(name, absent[name].shape))
            yield
        finally:
            for name, parameter in absent.items():
                _put(model, name, parameter)

    def _read(self, name: str, shape: torch.Size) -> nn.Parameter:
        stored = self._tensors[name]
        read = [checkpoint.read(self._folder, tensor) for tensor in stored]
        value = read[0] if len(read) == 1 else torch.cat(read)
        value = value.reshape(shape).to(device=self._device.name, dtype=self._dtype)
        return nn.Parameter(value, requires_grad=False)


def _empty(local: LocalModel, dtype: torch.dtype) -> PreTrainedModel:
    """Return the model without numbers; its buffers (rotary tables) are computed, as loading computes them."""
    from accelerate import init_empty_weights

    config = AutoConfig.from_pretrained(local.folder, local_files_only=True, trust_remote_code=local.allow_code)
    with init_empty_weights(include_buffers=False):
        model: Any = class_of(config).from_config(
            config, dtype=dtype, attn_implementation=attention_for(config), trust_remote_code=local.allow_code
        )
    model.tie_weights()
    model.train(mode=False)
    return model  # type: ignore[no-any-return]


def _put(model: nn.Module, name: str, parameter: nn.Parameter) -> None:
    path, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(path), attribute, parameter)
