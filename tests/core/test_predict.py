"""Planes, devices, the dtype of results, and predictions that run out of memory."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from conftest import make_predictor, random_network, textured_volume
from napari_cropeq.core.call_size import LEAST_ELEMENTS, MAX_ELEMENTS, Calls, CallSize
from napari_cropeq.core.devices import exactness, out_of_memory
from napari_cropeq.core.devices.transfer import convert
from napari_cropeq.core.geometry import Box
from napari_cropeq.core.predict import plane_axes
from napari_cropeq.errors import ArgumentError, OutOfMemoryError


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
def test_the_axial_axis_is_not_a_lateral_one(axial):
    with pytest.raises(ArgumentError, match=f"The planes cannot be '{'zyx'[axial]}' if the axial axis is"):
        plane_axes("zyx"[axial], axial)


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


@pytest.mark.parametrize("room", [pytest.param(2**19, id="smaller-calls-same-bits"), pytest.param(0, id="too-little")])
def test_out_of_memory_makes_calls_smaller(room, monkeypatch, caplog):
    """torch itself raises the error, for an allocation that fails on every machine."""
    predictor = make_predictor(textured_volume((16, 100, 288)), 2.0, filters=8)
    box = Box((0, 0, 0), (20, 64, 288))
    expected = predictor(box)
    predict, sizes = predictor.network.predict, []

    def scarce(batch):
        sizes.append(batch.numel() * 8)
        if sizes[-1] > room:
            torch.empty(2**55)
        return predict(batch)

    monkeypatch.setattr(predictor.network, "predict", scarce)
    if room:
        with caplog.at_level("INFO", logger="napari_cropeq"):
            assert np.array_equal(predictor(box), expected)
        assert "Out of memory: calls of the network now have 2097152 feature-map elements" in caplog.messages
        assert sizes[0] > room and max(sizes[-5:]) <= room, "smaller until they fit, and then no more large ones"
        calls = len(sizes)
        assert np.array_equal(predictor.over(predictor.source, predictor.normalisation)(box), expected)
        assert max(sizes[calls:]) <= room
    else:
        message = "There is too little memory for a box of 20 x 64 x 288 voxels with 8 filters"
        with pytest.raises(OutOfMemoryError, match=message) as caught:
            predictor(box)
        assert caught.value.setting == "memory"


def test_boxes_that_do_not_fit_beside_each_other_are_computed_in_turn(monkeypatch, caplog):
    predictor = make_predictor(textured_volume((16, 100, 100)), 2.0, filters=8)
    predictor._calls = Calls(CallSize(LEAST_ELEMENTS))
    box = Box((0, 0, 0), (20, 64, 64))
    expected, predict, room = predictor(box), predictor.network.predict, threading.Semaphore(1)
    together, local = threading.Barrier(2), threading.local()

    def scarce(batch):
        first = not hasattr(local, "tried")
        if first:
            together.wait()
        local.tried = room.acquire(blocking=False)
        if first:
            together.wait()
        if not local.tried:
            torch.empty(2**55)
        try:
            return predict(batch)
        finally:
            room.release()

    monkeypatch.setattr(predictor.network, "predict", scarce)
    with ThreadPoolExecutor(2) as pool, caplog.at_level("INFO", logger="napari_cropeq"):
        found = list(pool.map(predictor, [box] * 2))
    assert all(np.array_equal(voxels, expected) for voxels in found)
    assert "Out of memory: boxes are computed in turn" in caplog.messages


def test_after_a_library_has_silently_gone_without_memory_its_bits_are_not_used(monkeypatch):
    """cuDNN takes another kernel then, and keeps it; only torch's count of failed allocations shows it."""
    predictor = make_predictor(textured_volume((16, 100, 288)), 2.0, filters=8)
    box, failures, predict = Box((0, 0, 0), (20, 64, 288)), [], predictor.network.predict

    def scarce(batch):
        failures.extend([] if failures else [batch.shape])  # the next calls use the other kernel at once
        return predict(batch) * (1 + 2**-23)

    monkeypatch.setattr(predictor.network, "predict", scarce)
    monkeypatch.setattr(out_of_memory, "_spoilt", set())
    monkeypatch.setattr(out_of_memory, "_failed_allocations", lambda device: len(failures))
    for _ in range(2):
        with pytest.raises(OutOfMemoryError, match=r"it may compute other bits\. Finished tiles are right\."):
            predictor(box)
    assert len(failures) == 1 and out_of_memory.is_spoilt(torch.device("cpu"))


def test_a_gpu_that_may_compute_other_bits_is_not_asked_again(monkeypatch):
    monkeypatch.setattr(out_of_memory, "_spoilt", {"cuda"})
    monkeypatch.setattr(exactness, "choose_device", lambda name: torch.device("cuda"))
    network = random_network("valid", 4, blocks=2)
    with pytest.warns(RuntimeWarning, match=r"other bits\. The CPU is used\. Start this program again"):
        assert exactness.device_for(network, "auto").type == "cpu"
    with pytest.raises(ArgumentError, match=r"^The memory of the GPU was full"):
        exactness.device_for(network, "cuda")


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_threads_that_run_out_of_memory_together_make_calls_smaller_once(threads, monkeypatch):
    predictor = make_predictor(textured_volume((16, 100, 288)), 2.0, filters=8)
    box = Box((0, 0, 0), (20, 64, 288))
    expected = predictor(box)
    predict, together, local, sizes = predictor.network.predict, threading.Barrier(threads), threading.local(), []

    def scarce(batch):
        if not hasattr(local, "tried"):  # the first call of each thread
            local.tried = True
            together.wait()
            torch.empty(2**55)
        sizes.append(batch.numel())
        return predict(batch)

    with ThreadPoolExecutor(threads) as pool:
        monkeypatch.setattr(predictor.network, "predict", scarce)
        found = list(pool.map(predictor, [box] * threads))
        assert all(np.array_equal(voxels, expected) for voxels in found)
    monkeypatch.setattr(predictor.network, "predict", lambda batch: sizes.append(batch.numel()) or predict(batch))
    sizes.clear()
    predictor(box)
    assert MAX_ELEMENTS / 8 < max(sizes) * 8 <= MAX_ELEMENTS / 2, "feature-map elements of a call"
