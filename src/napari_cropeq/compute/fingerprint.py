"""Fingerprint of a result: everything that decides its bits. Two runs can fill one store only if theirs are equal."""

from __future__ import annotations

from typing import Any

import torch

from napari_cropeq.compute.super_resolution import SuperResolution
from napari_cropeq.core.devices.device import processor_of
from napari_cropeq.core.model import Model
from napari_cropeq.store.spec import StoreSpec

__all__ = ["fingerprint_of", "store_spec"]


def store_spec(result: SuperResolution) -> StoreSpec:
    """Return the specification of a store on disk for ``result``."""
    dtype = "source" if result.dtype == result.source.data.dtype else "float32"
    return StoreSpec(
        shape=(*result.leading_shape, *result.sr_shape),
        dtype=result.dtype,
        image=result.image,
        description=result.describe() | {"dtype": dtype},
        fingerprint=fingerprint_of(result),
        model=result.model.to_bytes(),
        inputs=result.source.files,
    )


def fingerprint_of(result: SuperResolution) -> dict[str, Any]:
    """Return everything that decides the bits of ``result``, as JSON values with names that users know.

    The store adds the tile grid, which decides the bytes of its files.
    """
    source, acquisition = result.source, result.acquisition
    return {
        "model": result.model.fingerprint,
        "source": {
            "axes": source.axes,
            "shape": [int(n) for n in source.data.shape],
            "dtype": str(source.data.dtype),
            "voxels": result.sample_digest,
            **({} if source.missing is None else {"missing planes": source.missing}),
        },
        "geometry": {
            "voxel size": list(acquisition.voxel_size),
            "axial axis": "zyx"[acquisition.axial],
            "unit": acquisition.unit,
            "translate": list(source.translate),
        },
        "normalisation": [[n.low, n.high] for n in result.normalisations],
        "planes": ["zyx"[p] for p in result.planes],
        "type": str(result.dtype),
        "tile grid": {},
        "device": result.exactness.device,
        "exactness": str(result.exactness),
        # Bits are equal only between processors with the same instruction set and the same version of torch.
        "instruction set": torch.backends.cpu.get_cpu_capability(),
        "torch": str(torch.__version__),
        "training": _training_of(result.model),
        **_device_of(result),
    }


def _training_of(model: Model) -> dict[str, Any]:
    """Return what a model was trained for, which its own fingerprint, of weights and architecture, does not cover."""
    acquisition = model.acquisition
    return {
        "voxel size": list(acquisition.voxel_size),
        "axial axis": "zyx"[acquisition.axial],
        "unit": acquisition.unit,
        "fwhm": acquisition.fwhm,
        "lateral fwhm": acquisition.lateral_fwhm,
        "normalisation": [[n.low, n.high] for n in model.normalisations],
        **({"correction": model.correction} if model.correction else {}),
    }


def _device_of(result: SuperResolution) -> dict[str, Any]:
    """Return what decides the bits on a GPU besides its kind; nothing on the CPU."""
    device, canonical = torch.device(result.exactness.device), result.shapes.canonical
    if device.type == "cpu":
        return {}
    return {
        "processor": processor_of(device),
        "precision": "float32 without TF32",
        **({"cudnn": torch.backends.cudnn.version()} if device.type == "cuda" else {}),
        **({} if canonical is None else {"canonical tile": list(canonical)}),
    }
