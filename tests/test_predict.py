"""What a predictor is told: planes, device, and the dtype of its result."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_cropeq.core.predict import choose_device, convert, plane_axes


@pytest.mark.parametrize(
    ("planes", "axial", "expected"),
    [
        pytest.param(None, 0, (2,), id="default-z"),
        pytest.param(None, 2, (1,), id="default-x"),
        pytest.param("both", 1, (0, 2), id="both"),
        pytest.param("y", 0, (1,), id="named"),
    ],
)
def test_planes(planes, axial, expected):
    assert plane_axes(planes, axial) == expected


@pytest.mark.parametrize("axial", [0, 1, 2], ids="zyx")
def test_the_axial_axis_is_no_lateral_one(axial):
    with pytest.raises(ValueError, match=f"Got planes '{'zyx'[axial]}', expected"):
        plane_axes("zyx"[axial], axial)


def test_devices():
    assert choose_device("cpu").type == "cpu"
    with pytest.raises(ValueError, match="Got device 'tpu', expected auto, cpu or cuda"):
        choose_device("tpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA GPU")
def test_no_cuda():
    assert choose_device("auto").type == "cpu"
    with pytest.raises(ValueError, match="torch finds no CUDA GPU here: choose cpu or auto"):
        choose_device("cuda")


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        pytest.param("uint8", [0, 0, 2, 2, 255, 255], id="uint8"),
        pytest.param("int8", [-128, 0, 2, 2, 127, 127], id="int8"),
        pytest.param("uint16", [0, 0, 2, 2, 300, 65535], id="uint16"),
        pytest.param("int16", [-999, 0, 2, 2, 300, 32767], id="int16"),
        pytest.param("uint32", [0, 0, 2, 2, 300, 2**32 - 1], id="uint32"),
        pytest.param("float32", np.float32([-999, -0.4, 1.6, 2.4, 300, 1e30]).tolist(), id="float32"),
    ],
)
def test_results_are_rounded_and_clipped(dtype, expected):
    converted = convert(np.float32([-999, -0.4, 1.6, 2.4, 300, 1e30]), dtype)
    assert converted.dtype == dtype
    assert converted.tolist() == expected


@pytest.mark.parametrize("dtype", ["uint64", "int64"])
def test_the_largest_integers_do_not_wrap(dtype):
    low, high = convert(np.float32([-1e30, 1e30]), dtype)
    limits = np.iinfo(dtype)
    assert low == limits.min
    assert limits.max - 2**11 <= high <= limits.max


MEMORY = """
import resource, sys
sys.path.insert(0, {tests!r})
import numpy as np, torch
torch.set_num_threads(1)
from conftest import make_predictor, textured_volume
from napari_cropeq.core.geometry import Box
predictor = make_predictor(textured_volume((16, 288, 288)), 2.0, filters={filters})
box = Box((0, 0, 0), (8, 32, 160))
predictor(Box((0, 0, 0), (8, 8, 8)))
predictor._calls.elements, predictor._calls.side = 2**28, 512  # all of the box in one call
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
before = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (used + {spare} * 2**20, before[1]))
try:
    scarce = predictor(box)
except MemoryError as error:
    print("memory", error)
else:
    resource.setrlimit(resource.RLIMIT_AS, before)
    calls = predictor._calls.elements
    predictor._calls.elements, predictor._calls.side = 2**22, 256
    print(calls < 2**28, np.array_equal(scarce, predictor(box)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit on a process's memory is Linux's")
@pytest.mark.parametrize(
    ("filters", "spare", "expected"),
    [
        pytest.param(32, 6000, "False True", id="enough"),
        pytest.param(128, 200, "True True", id="smaller-calls-same-bits"),
        pytest.param(32, 2, "memory Got too little memory for a box of 8 x 32 x 160 voxels", id="too-little"),
    ],
)
def test_out_of_memory_makes_calls_smaller(filters, spare, expected):
    """A process that really cannot allocate more."""
    program = MEMORY.format(tests=str(Path(__file__).parent), filters=filters, spare=spare)
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert ran.stdout.startswith(expected), ran.stdout + ran.stderr
