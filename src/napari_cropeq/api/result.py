"""Check data and model, the first step of every function that super-resolves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from napari_cropeq.api.arguments import model_of, voxel_size_of
from napari_cropeq.api.image import image_of
from napari_cropeq.compute.super_resolution import SuperResolution, axial_of
from napari_cropeq.core.devices.device import choose_device
from napari_cropeq.core.geometry import Acquisition
from napari_cropeq.core.model import Model
from napari_cropeq.core.predict import plane_axes
from napari_cropeq.formats.image import Image, acquisition_of

__all__ = ["result_of"]


def result_of(
    data: Any,
    model: Any,
    voxel_size: Sequence[float] | None,
    planes: str | None,
    dtype: str,
    device: str,
    allow_missing: float | None = None,
) -> SuperResolution:
    """Return the super-resolution of data; the arguments are those of :func:`~.voxels.super_resolve`.

    Raises
    ------
    TypeError, ValueError
        If an argument is wrong, or data and model do not match.
    OSError
        If the data cannot be read.
    """
    choose_device(device)  # fails for a device that is not known or not available
    size = voxel_size_of(voxel_size)
    model = model_of("model", model)
    image = image_of(data, allow_missing)
    acquisition = _acquisition(image, model, size)
    plane_axes(planes, acquisition.axial)
    return SuperResolution(image, model, acquisition, planes, device, dtype)


def _acquisition(image: Image, model: Model, size: tuple[float, float, float] | None) -> Acquisition:
    """Return the acquisition of an image, by the given voxel size, else its own, else that of the model's volume."""
    own = model.acquisition
    if size is None and image.voxel_size is None:
        image = replace(image, voxel_size=own.voxel_size, unit=own.unit)
    axial = axial_of(image if size is None else image.with_voxel_size(size), model)
    return acquisition_of(image, size, axial)
