"""Process-wide changes: they last as long as the work that needs them, and can be switched off."""

from __future__ import annotations

import sys
import threading

import numpy as np
import pytest
import torch

from conftest import acquired, blobs, make_predictor, textured_volume
from napari_cropeq.core import host
from napari_cropeq.core.devices.out_of_memory import is_out_of_memory
from napari_cropeq.core.geometry import Acquisition, Box
from napari_cropeq.core.host import exact_convolutions, freed_memory_kept, short_turns, torch_threads
from napari_cropeq.core.thread_map import ThreadMap
from napari_cropeq.core.training.config import TrainingConfig
from napari_cropeq.core.training.training import Training

AFTER = (host.MMAP_BYTES, host.TRIM_BYTES)
DURING = (host.KEPT_BYTES, host.KEPT_BYTES)


@pytest.fixture
def thresholds(monkeypatch) -> list[tuple[int, int]]:
    """Return the thresholds that glibc gets, in order."""
    found, change = [], host._set_thresholds
    monkeypatch.setattr(host, "_set_thresholds", lambda *values: found.append(values) or change(*values))
    return found


def predict() -> np.ndarray:
    predictor = make_predictor(textured_volume((16, 40, 48)), 2.0, filters=4)
    return predictor(Box((0, 0, 0), (20, 32, 40)))


def train() -> np.ndarray:
    config = TrainingConfig(minutes=None, patches=16, filters=4, validation=2, batch=8, blocks=2)
    training = Training(acquired(blobs((48, 96, 96)), 4), Acquisition((4.0, 1.0, 1.0)), config, "cpu")
    for _ in training.run():
        assert host._memory._users == 1
    return torch.cat([w.reshape(-1) for w in training.network.state_dict().values()]).numpy()


@pytest.mark.parametrize("work", [predict, train])
def test_freed_memory_is_kept_while_we_work(thresholds, work):
    work()
    assert thresholds == [DURING, AFTER] * (len(thresholds) // 2) and thresholds
    assert host._memory._users == 0


def test_the_last_work_to_end_restores_the_thresholds(thresholds):
    with freed_memory_kept(), freed_memory_kept():
        pass
    assert thresholds == [DURING, AFTER]
    with pytest.raises(ZeroDivisionError), freed_memory_kept():
        raise ZeroDivisionError
    assert thresholds == [DURING, AFTER] * 2


def test_many_threads_restore_the_settings():
    before = sys.getswitchinterval()

    def use() -> None:
        for _ in range(200):
            with short_turns(), freed_memory_kept():
                assert sys.getswitchinterval() == pytest.approx(host.SWITCH_SECONDS)

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sys.getswitchinterval() == before and host._memory._users == host._turns._users == 0


@pytest.mark.parametrize("number", [1, 2, 5])
def test_torchs_threads_are_restored(number):
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), torch_threads(number):
        assert torch.get_num_threads() == number
        raise ZeroDivisionError
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("work", [predict, train])
def test_an_untouched_host_has_the_same_bits(thresholds, monkeypatch, work):
    expected = work()
    thresholds.clear()
    monkeypatch.setenv(host.VARIABLE, "untouched")
    assert np.array_equal(work(), expected) and not thresholds


def test_an_untouched_host_keeps_its_threads_and_turns(monkeypatch):
    monkeypatch.setenv(host.VARIABLE, "untouched")
    monkeypatch.setattr(torch, "set_num_threads", None)
    before = sys.getswitchinterval(), torch.get_num_threads()
    with short_turns(), torch_threads(before[1] + 1):
        assert (sys.getswitchinterval(), torch.get_num_threads()) == before
    threads = ThreadMap(2)
    assert [done.result() for _, done in threads.map(abs, [-1, -2])] == [1, 2]
    threads.dismiss()
    assert make_predictor(textured_volume((16, 40, 48)), 2.0, filters=4).side_by_side == 1


ERRORS = [
    pytest.param(MemoryError(), True, id="python"),
    pytest.param(torch.OutOfMemoryError("CUDA out of memory."), True, id="cuda"),
    pytest.param(RuntimeError("CUDA error: out of memory"), True, id="cuda-driver"),
    pytest.param(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you"), True, id="linux"),
    pytest.param(RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you"), True, id="windows"),
    pytest.param(RuntimeError("std::bad_alloc"), True, id="c++"),
    pytest.param(RuntimeError("could not create a primitive"), True, id="onednn-primitive"),
    pytest.param(RuntimeError("could not create a memory object"), True, id="onednn-memory"),
    pytest.param(RuntimeError("could not create a file"), False, id="a-file"),
    pytest.param(OSError("could not create a primitive"), False, id="OSError"),
    pytest.param(ValueError("could not create a dataset: out of memory"), False, id="ValueError"),
    pytest.param(OSError("server said: out of memory"), False, id="a-server"),
]


@pytest.mark.parametrize(("error", "expected"), ERRORS)
def test_errors_that_mean_out_of_memory(error, expected):
    assert is_out_of_memory(error) == expected


@pytest.mark.parametrize("variable", ["", "untouched"])
def test_convolutions_stay_exact_until_the_last_thread_has_left(variable, monkeypatch):
    """torch has one setting for all threads: the first to leave must not restore it. It decides the bits of results."""
    monkeypatch.setenv("NAPARI_CROPEQ_HOST", variable)
    before, gpu = torch.backends.cudnn.allow_tf32, torch.device("cuda")
    with exact_convolutions(gpu):
        with exact_convolutions(gpu):
            pass
        assert not torch.backends.cudnn.allow_tf32 and torch.backends.cudnn.deterministic
    assert torch.backends.cudnn.allow_tf32 == before
    with exact_convolutions(torch.device("cpu")):
        assert torch.backends.cudnn.allow_tf32 == before
