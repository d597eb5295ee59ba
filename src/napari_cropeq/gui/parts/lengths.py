"""Fields for lengths: a width, or the voxel size along z, y and x."""

from __future__ import annotations

from magicgui.widgets import FloatSpinBox
from qtpy.QtWidgets import QAbstractSpinBox

from napari_cropeq.core.geometry import AXIS_NAMES

__all__ = ["PIXEL", "PROPOSED", "UNITS", "length_field", "size_fields"]

PIXEL, PROPOSED = "pixel", "µm"
UNITS = ("µm", "nm", "mm", PIXEL)
NARROW = "min-width: 56px"  # overrides the window's style


def length_field(label: str, tooltip: str, value: float = 1.0, least: float = -1e6) -> FloatSpinBox:
    """Return a narrow field for a length; invalid lengths are reported when they are used."""
    box = FloatSpinBox(label=label, value=value, min=least, max=1e6, step=0.01, tooltip=tooltip)
    box.native.setDecimals(5)
    box.native.setStyleSheet(NARROW)
    box.native.setButtonSymbols(QAbstractSpinBox.ButtonSymbols.NoButtons)
    return box


def size_fields(tooltip: str = "", unknown: bool = False) -> list[FloatSpinBox]:
    """Return the fields for the distances between voxel centres along z, y and x.

    Parameters
    ----------
    tooltip : str
        Added to the tooltip of each.
    unknown : bool
        Whether they may be 0, which is shown as a dash.
    """
    options = {"value": 0.0, "least": 0.0} if unknown else {}
    boxes = []
    for name in AXIS_NAMES:
        box = length_field(name, f"Distance between voxel centres along {name}{tooltip}", **options)
        box.native.setPrefix(f"{name} ")
        if unknown:
            box.native.setSpecialValueText(f"{name} –")
        boxes.append(box)
    return boxes
