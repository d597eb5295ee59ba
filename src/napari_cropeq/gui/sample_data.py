"""File > Open Sample: a light-sheet volume with known truth."""

from __future__ import annotations

from napari_cropeq.gui.reader import LayerData, layer_data
from napari_cropeq.volume.sample import light_sheet_sample

__all__ = ["light_sheet", "light_sheet_truth"]


def light_sheet() -> list[LayerData]:
    """Return the anisotropic volume, a layer for each channel."""
    return layer_data(light_sheet_sample()[0])


def light_sheet_truth() -> list[LayerData]:
    """Return its isotropic truth, a layer for each channel."""
    return layer_data(light_sheet_sample()[1])
