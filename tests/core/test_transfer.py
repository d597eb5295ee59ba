"""Voxels on a device: every type of voxel is normalised, and rounded again, as numpy does it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_cropeq.core.devices.transfer import HELD, convert, download, own_stream, rounded, upload
from napari_cropeq.core.normalisation import Normalisation

CPU = torch.device("cpu")
SCALE = Normalisation(-3.7, 201.3)
TYPES = [kind.name for kind in HELD]


def voxels(dtype: str) -> np.ndarray:
    """Return values (z, y, x) of a type from its smallest to its largest."""
    kind = np.dtype(dtype)
    limits = np.iinfo(kind) if kind.kind in "ui" else np.finfo(np.float16)
    return np.linspace(float(limits.min) * 0.99, float(limits.max) * 0.99, 60).astype(kind).reshape(3, 4, 5)


def read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


LAYOUTS = [
    pytest.param(np.ascontiguousarray, id="contiguous"),
    pytest.param(lambda array: array[:, ::-1, ::2], id="strided"),
    pytest.param(lambda array: array.astype(array.dtype.newbyteorder(">")), id="big-endian"),
    pytest.param(read_only, id="read-only"),
]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [*TYPES, "longdouble"])
@pytest.mark.parametrize("precision", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_every_type_is_normalised_as_numpy_does(dtype, layout, precision):
    array = layout(voxels(dtype))
    before = array.copy()
    found = SCALE.on_device(array, CPU, precision)
    expected = SCALE.apply(array, np.float64 if precision is torch.float64 else np.float32)
    assert np.array_equal(found.numpy(), expected) and np.array_equal(array, before)


@pytest.mark.parametrize("name", ["mps", "xpu"])
def test_a_device_without_float64_gets_normalised_voxels(name, monkeypatch):
    """There is no such device here: the CPU is declared as one."""
    monkeypatch.setattr("napari_cropeq.core.normalisation.WITHOUT_FLOAT64", ("cpu", name))
    array = voxels("uint16")
    assert np.array_equal(SCALE.on_device(array, CPU, torch.float32).numpy(), SCALE.apply(array))


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int64", "float32"])
def test_results_are_rounded_on_the_device_as_numpy_does(dtype):
    values = np.concatenate([np.linspace(-70000, 70000, 4001), [0.5, 1.5, 2.5, -0.5, 1e30, -1e30]]).astype(np.float32)
    found = convert(download(rounded(upload(values, CPU), dtype)), dtype)
    assert found.dtype == dtype and np.array_equal(found, convert(values, dtype))


def test_the_cpu_copies_nothing():
    array = voxels("float32")
    with own_stream(CPU):
        there = upload(array, CPU)
        assert np.shares_memory(there.numpy(), array) and np.shares_memory(download(there), array)
