"""Cells: one variant of one model on one language, measured once, stored, and added up to damage."""

from evenbits.cells.cell import Cell
from evenbits.cells.damage import FLOORS_NEEDED, Column, Damage
from evenbits.cells.floor import noise_floor
from evenbits.cells.measuring import damage_cells, measure, measure_damage, variant_cells
from evenbits.cells.subject import DTYPES, Subject

__all__ = [
    "DTYPES",
    "FLOORS_NEEDED",
    "Cell",
    "Column",
    "Damage",
    "Subject",
    "damage_cells",
    "measure",
    "measure_damage",
    "noise_floor",
    "variant_cells",
]
