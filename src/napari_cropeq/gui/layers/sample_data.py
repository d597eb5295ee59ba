"""File > Open Sample: a light-sheet volume and its isotropic truth, and a real volume."""

from __future__ import annotations

from napari_cropeq.formats.sample import AXIAL_FWHM, YEAST_MITOCHONDRIA, light_sheet_sample
from napari_cropeq.gui.layers.reader import LayerData, layer_data, read

__all__ = ["light_sheet", "light_sheet_truth", "yeast_mitochondria"]


def light_sheet() -> list[LayerData]:
    """Return the anisotropic volume, one layer for each channel."""
    layers = layer_data(light_sheet_sample()[0])
    for _, options, _ in layers:
        options["metadata"]["fwhm"] = AXIAL_FWHM  # wider than the step; shown in the step Data
    return layers


def light_sheet_truth() -> list[LayerData]:
    """Return its isotropic truth, one layer for each channel."""
    return layer_data(light_sheet_sample()[1])


def yeast_mitochondria() -> list[LayerData]:
    """Return a real volume as the reader opens its file, with limits that leave most of the noise dark."""
    layers = read(str(YEAST_MITOCHONDRIA))
    for _, options, _ in layers:
        options["contrast_limits"] = (100, 170)  # napari would choose them by the middle slice, which is mostly noise
    return layers
