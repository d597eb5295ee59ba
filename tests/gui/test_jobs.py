"""Background work ends with exactly one signal, whatever happens."""

from __future__ import annotations

import os
import sys
import threading
import time

import pytest
import torch

from napari_cropeq.errors import ArgumentError, ImageError, OutOfMemoryError, StoppedError, VoxelSizeError
from napari_cropeq.gui.hints import BATCH_HINTS
from napari_cropeq.gui.jobs import Job, sentence, stop_all_jobs


def failing(error: BaseException):
    def steps():
        yield 1
        raise error

    return steps


ERRORS = [
    pytest.param(ValueError("1 is not 2. Correct it."), "1 is not 2. Correct it.", id="ValueError"),
    pytest.param(ImageError("It is 2D.", "Choose another."), "It is 2D. Choose another.", id="no-setting"),
    pytest.param(
        VoxelSizeError("It has no voxel size.", "Give the voxel size.", setting="voxel_size"),
        "It has no voxel size. Set the correct Voxel size under Data.",
        id="setting-with-a-control",
    ),
    pytest.param(
        ArgumentError("There are 2 parts.", "Give another number.", setting="partition"),
        "There are 2 parts. Give another number.",
        id="setting-without-a-control",
    ),
    pytest.param(
        OutOfMemoryError("A tile needs 5 GB.", "Lower it.", setting="memory"), "5 GB. Close other images", id="memory"
    ),
    pytest.param(RuntimeError("broken"), "unexpected went wrong (RuntimeError: broken). Please report", id="a-bug"),
    pytest.param(torch.OutOfMemoryError("CUDA out of memory."), "There is not enough memory", id="cuda-memory"),
    pytest.param(RuntimeError("DefaultCPUAllocator: can't allocate memory"), "not enough memory", id="cpu-memory"),
    pytest.param(MemoryError(), "There is not enough memory", id="MemoryError"),
    pytest.param(KeyboardInterrupt(), "Something unexpected went wrong", id="BaseException"),
    pytest.param(StoppedError(), None, id="stopped"),
]


@pytest.mark.parametrize(("error", "words"), ERRORS)
def test_errors_become_a_sentence_and_an_end(qtbot, capsys, error, words):
    job, messages, seen = Job(failing(error)), [], []
    job.failed.connect(messages.append)
    job.progressed.connect(seen.append)
    with qtbot.waitSignal(job.ended, timeout=5000):
        job.start()
    qtbot.waitUntil(lambda: not job.running)
    assert len(messages) == (words is not None)
    assert words is None or words in messages[0]
    assert seen == [1]


def test_hints_are_those_of_the_widget(qtbot):
    error = ArgumentError("out.ome.zarr exists already.", "Allow overwriting.", setting="existing")
    job, messages = Job(failing(error), hints=BATCH_HINTS), []
    job.failed.connect(messages.append)
    with qtbot.waitSignal(job.ended, timeout=5000):
        job.start()
    assert messages == [sentence(error, BATCH_HINTS)]
    assert messages[0].startswith("out.ome.zarr exists already. Choose another Destination, or under Existing choose")
    assert sentence(error) == "out.ome.zarr exists already. Choose another Destination, or check Overwrite."


def test_an_error_before_the_first_step(qtbot):
    def steps():
        raise OSError("There is no file. Choose another.")

    job, messages = Job(steps), []
    job.failed.connect(messages.append)
    with qtbot.waitSignal(job.ended, timeout=5000):
        job.start()
    assert messages == ["There is no file. Choose another."]


def test_stop_ends_the_work_and_closes_the_generator(qtbot):
    closed = threading.Event()

    def steps():
        try:
            while True:
                time.sleep(0.01)
                yield 0
        finally:
            closed.set()

    job = Job(steps)
    job.start()
    qtbot.waitUntil(lambda: job.running)
    with qtbot.waitSignal(job.ended, timeout=5000):
        job.stop()
    assert closed.is_set()
    job.stop(wait=True)
    assert not job.running


def test_the_last_value_is_always_reported(qtbot):
    job, seen = Job(lambda: iter(range(1000))), []
    job.progressed.connect(seen.append)
    with qtbot.waitSignal(job.ended, timeout=5000):
        job.start()
    assert seen[-1] == 999
    assert len(seen) < 100


def test_quitting_stops_every_job(qtbot):
    def steps():
        while True:
            time.sleep(0.01)
            yield 0

    jobs = [Job(steps) for _ in range(3)]
    for job in jobs:
        job.start()
    stop_all_jobs()
    assert not any(job.running for job in jobs)


def test_the_switch_interval_is_shorter_while_jobs_run(qtbot):
    before, seen = sys.getswitchinterval(), []

    def steps():
        while True:
            time.sleep(0.01)
            yield sys.getswitchinterval()

    jobs = [Job(steps) for _ in range(2)]
    for job in jobs:
        job.progressed.connect(seen.append)
        job.start()
    jobs[0].stop(wait=True)
    seen.clear()
    qtbot.waitUntil(lambda: len(seen) > 2, timeout=5000)
    assert max(seen) < before / 5, "the other still runs"
    jobs[1].stop(wait=True)
    assert sys.getswitchinterval() == before


linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the priority is the whole process's")


@linux
def test_a_job_has_the_usual_priority_once_the_closed_window_waits_for_it(qtbot):
    policies, started = [], threading.Event()

    def steps():
        while len(policies) < 2 or policies[-1] == os.SCHED_IDLE:
            policies.append(os.sched_getscheduler(0))
            started.set()
            time.sleep(0.01)
        yield

    job = Job(steps)
    job.start()
    assert started.wait(5)
    stop_all_jobs()
    assert not job.running and policies[0] == os.SCHED_IDLE and policies[-1] == os.SCHED_OTHER


@linux
def test_jobs_and_their_threads_have_a_lower_priority_than_the_window(qtbot):
    """The threads of torch inherit the priority of the job's thread."""

    def policies() -> list[int]:
        return sorted(os.sched_getscheduler(int(task)) for task in os.listdir("/proc/self/task"))

    def steps():
        image = torch.randn(4, 8, 256, 256)
        torch.nn.functional.conv2d(image, torch.randn(8, 8, 3, 3))
        yield os.sched_getscheduler(threading.get_native_id()), policies()

    job, seen = Job(steps), []
    job.progressed.connect(seen.append)
    with qtbot.waitSignal(job.ended, timeout=20_000):
        job.start()
    [(own, every)] = seen
    assert own == os.SCHED_IDLE
    assert every.count(os.SCHED_IDLE) >= torch.get_num_threads(), "threads of earlier jobs may still exist"
    assert os.sched_getscheduler(threading.main_thread().native_id) == os.SCHED_OTHER


def test_the_switch_interval_is_restored_while_a_job_waits(qtbot):
    before, seen, resume = sys.getswitchinterval(), [], threading.Event()

    def steps():
        for value in (1, None, None, 2, None):
            seen.append(sys.getswitchinterval())
            yield value
        resume.wait(10)
        seen.append(sys.getswitchinterval())

    job = Job(steps)
    with qtbot.waitSignal(job.ended, timeout=5000):
        job.start()
        resume.set()
    assert [interval < before for interval in seen] == [True, True, False, False, True, False]
    assert sys.getswitchinterval() == before
