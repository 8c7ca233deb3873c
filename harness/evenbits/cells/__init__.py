"""Measuring damage: specs x languages on one model, each cell stored as soon as it is known.

The unit of work is one variant (a spec, or an ablation) on one language. A killed run resumes at the first cell that
is not in the store, two runs share the work, and a run whose cells are all stored never loads the model.
"""

from evenbits.cells.bench import DTYPES, ModelUnderTest
from evenbits.cells.measuring import measure_damage
from evenbits.cells.variants import FULL_PRECISION, Variant

__all__ = ["DTYPES", "FULL_PRECISION", "ModelUnderTest", "Variant", "measure_damage"]
