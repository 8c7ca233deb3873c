"""The few kinds of error that callers catch.

Every message is a sentence for a person: what is wrong, where (file, layer, language), and what to do about it.
"""

from __future__ import annotations

__all__ = [
    "CorpusError",
    "DeviceError",
    "EngineError",
    "EvenbitsError",
    "ExportError",
    "GapError",
    "IntegrityError",
    "ModelError",
    "NonFiniteError",
    "NotApplicableError",
    "PolicyError",
    "ReportError",
    "SpecError",
    "StoreError",
    "UnsafeModelError",
    "UsageError",
]


class EvenbitsError(Exception):
    """Base of every error the harness raises on purpose; `exit_code` is what the command line returns for it."""

    exit_code = 2


class UsageError(EvenbitsError):
    """An option or argument that cannot be understood or does not fit the others."""


class ModelError(EvenbitsError):
    """A model that cannot be found, loaded or supported."""


class UnsafeModelError(ModelError):
    """A model whose files would run code on loading (pickle, repository code)."""


class EngineError(EvenbitsError):
    """An engine outside this process (llama.cpp, a server) that is missing, refuses, dies or answers nonsense."""


class DeviceError(EvenbitsError):
    """A device that is not there, or too small for what was asked of it."""


class IntegrityError(EvenbitsError):
    """A file that is truncated, altered or not what its checksum says."""


class CorpusError(EvenbitsError):
    """Text that is missing, misaligned, empty or not decodable."""


class SpecError(EvenbitsError):
    """A quantization spec that cannot be parsed or cannot be applied to this model."""


class NonFiniteError(EvenbitsError):
    """NaN or infinity in weights or losses; the message names the tensor or segment."""


class NotApplicableError(EvenbitsError):
    """A question that does not arise for what was named; the verdict is `not_applicable`, with this sentence."""


class StoreError(EvenbitsError):
    """The store cannot be used: disk full, no permission, a file in the place of a folder."""


class GapError(StoreError):
    """Something that was not measured, where nothing may be: a part of the run is missing."""


class ExportError(EvenbitsError):
    """A quantized model that cannot be written (disk full, no permission)."""


class ReportError(EvenbitsError):
    """A report document that does not follow the published schema."""


class PolicyError(EvenbitsError):
    """A policy file with unknown or impossible entries."""
