"""Quantized models as files: packed integers, scales, and the weights kept in FP16, written once and read back exactly.

`write_quantized` makes a folder, `load_quantized` a model of it, `dequantized` its weights.
"""

from evenbits.variants.export.reading import dequantized, load_quantized, read_manifest
from evenbits.variants.export.writing import Exported, check_target, write_quantized

__all__ = ["Exported", "check_target", "dequantized", "load_quantized", "read_manifest", "write_quantized"]
