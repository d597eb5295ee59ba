"""Small files for tests of whole runs: stacks, and a model for them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import tifffile
import torch
import zarr

from conftest import random_network, textured_volume
from napari_cropeq.core.geometry import Acquisition
from napari_cropeq.core.model import Model
from napari_cropeq.core.network import ErrorTail
from napari_cropeq.core.normalisation import Normalisation

SIZE = (4.0, 1.0, 1.0)
WELLS = {"A/1": ("0", "1"), "B/3": ("0",)}
"""Fields of each well of :func:`a_plate`."""

INTERVALS = {0.5: 0.6, 0.8: 1.6, 0.9: 2.5}  # of expected errors


def a_stack(path: Path, data: np.ndarray | None = None, size=SIZE, axes: str = "ZYX", seed: int = 0) -> Path:
    """Write an OME-TIFF of factor 4, and return its path."""
    metadata = {"axes": axes}
    for axis, step in zip("ZYX", size, strict=True):
        metadata |= {f"PhysicalSize{axis}": step, f"PhysicalSize{axis}Unit": "µm"}
    data = textured_volume((8, 20, 40), seed) if data is None else data
    tifffile.imwrite(path, data, metadata=metadata, photometric="minisblack", ome=True)
    return path


def lacking(path: Path, data: np.ndarray, axes: str, sizes: dict[str, int], **options) -> Path:
    """Write planes as an OME-TIFF of factor 4, and name more of them in its OME-XML."""
    steps = {f"PhysicalSize{axis}": step for axis, step in zip("ZYX", SIZE, strict=True)}
    tifffile.imwrite(path, data, metadata={"axes": axes, **steps}, photometric="minisblack", **options)
    xml = tifffile.tiffcomment(path)
    for axis, size in sizes.items():
        xml = re.sub(rf'Size{axis}="\d+"', f'Size{axis}="{size}"', xml, count=1)
    tifffile.tiffcomment(path, xml.encode())
    return path


def a_zarr(path: Path, size=SIZE, seed: int = 0, shape=(8, 20, 40), chunks=(8, 20, 20)) -> Path:
    """Write an OME-Zarr of factor 4, and return its path."""
    group = zarr.open_group(path, mode="w", zarr_format=3)
    data = textured_volume(shape, seed)
    group.create_array("0", shape=data.shape, dtype=data.dtype, chunks=chunks)[:] = data
    axes = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "zyx"]
    datasets = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": list(size)}]}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"name": "", "axes": axes, "datasets": datasets}]}
    return path


def a_plate(path: Path) -> Path:
    """Write a plate with three fields, and a well that was never imaged."""
    plate = zarr.open_group(path, mode="w", zarr_format=3)
    wells = [{"path": well, "rowIndex": 0, "columnIndex": 0} for well in (*WELLS, "B/4")]
    plate.attrs["ome"] = {"version": "0.5", "plate": {"wells": wells, "rows": [], "columns": []}}
    for number, (well, fields) in enumerate(WELLS.items()):
        group = plate.create_group(well)
        group.attrs["ome"] = {"version": "0.5", "well": {"images": [{"path": field} for field in fields]}}
        for field in fields:
            a_zarr(path / well / field, seed=10 * number + int(field))
    return path


def a_collection(path: Path, names: tuple[str, ...] = ("0", "1", "2"), series: tuple[str, ...] = ()) -> Path:
    """Write what bioformats2raw makes of a file with several images."""
    root = zarr.open_group(path, mode="w", zarr_format=3)
    root.attrs["ome"] = {"version": "0.5", "bioformats2raw.layout": 3}
    if series:
        root.create_group("OME").attrs["ome"] = {"version": "0.5", "series": list(series)}
    for number, name in enumerate(names):
        a_zarr(path / name, seed=number)
    return path


def a_tiff(path: Path) -> Path:
    """Write an OME-TIFF of two images with names, and the second with other voxels."""
    with tifffile.TiffWriter(path, ome=True) as file:
        for number, name in enumerate(("first", "second")):
            steps = {f"PhysicalSize{axis}": (number + 2.0 if axis == "Z" else 0.5) for axis in "ZYX"}
            data = np.random.default_rng(number).integers(0, 999, (5, 20, 30), dtype=np.uint16)
            file.write(data, photometric="minisblack", metadata={"axes": "ZYX", "Name": name, **steps})
    return path


def a_model(factor: float = 4.0, filters: int = 4, correction: float = 0.0, blocks: int = 2) -> Model:
    """Return a model with random weights; 2 blocks compute faster than 7."""
    network = random_network(filters=filters, blocks=blocks, factor=factor)
    acquisition = Acquisition((factor, 1.0, 1.0))
    return Model(network, acquisition, [Normalisation(0.0, 4000.0)], correction=correction)


def everything(folder: Path) -> list[str]:
    """Return the names of the files and folders in a folder, not recursively."""
    return sorted(path.name for path in folder.iterdir())


def with_tail(model: Model, seed: int = 0) -> Model:
    """Return a model with an expected error from random weights."""
    tail = model.network.tail
    weights = torch.randn(tail.weight.shape, generator=torch.manual_seed(seed)) / 5
    return replace(model, error_tail=ErrorTail.of(weights, torch.full_like(tail.bias, -3).detach(), INTERVALS))
