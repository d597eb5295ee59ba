"""Work off the GUI thread ends in exactly one signal, whatever happens."""

from __future__ import annotations

import os
import sys
import threading
import time

import pytest
import torch

from napari_cropeq.errors import StoppedError
from napari_cropeq.gui.jobs import Job, stop_all_jobs


def failing(error: BaseException):
    def steps():
        yield 1
        raise error

    return steps


ERRORS = [
    pytest.param(ValueError("Got 1, expected 2: mend it."), "Got 1, expected 2: mend it.", id="ours"),
    pytest.param(
        ValueError("Got a, which exists: choose another (--output), or replace it (command line: --over Z Y)."),
        "Got a, which exists: choose another, or replace it.",
        id="options-of-the-command-line",
    ),
    pytest.param(RuntimeError("broken"), "Got an unexpected error", id="RuntimeError"),
    pytest.param(torch.OutOfMemoryError("CUDA out of memory."), "Got too little memory", id="OutOfMemoryError"),
    pytest.param(RuntimeError("DefaultCPUAllocator: can't allocate memory"), "Got too little memory", id="cpu-memory"),
    pytest.param(MemoryError(), "Got too little memory", id="MemoryError"),
    pytest.param(KeyboardInterrupt(), "Got an unexpected error", id="BaseException"),
    pytest.param(StoppedError(), None, id="stopped"),
]


@pytest.mark.parametrize(("error", "words"), ERRORS)
def test_errors_become_a_sentence_and_an_end(qtbot, capsys, error, words):
    job, told, seen = Job(failing(error)), [], []
    job.failed.connect(told.append)
    job.progressed.connect(seen.append)
    with qtbot.waitSignal(job.ended, timeout=5000):
        job.start()
    qtbot.waitUntil(lambda: not job.running)
    assert len(told) == (words is not None)
    assert words is None or words in told[0]
    assert seen == [1]


def test_an_error_before_the_first_step(qtbot):
    def steps():
        raise OSError("Got no file: choose another.")

    job, told = Job(steps), []
    job.failed.connect(told.append)
    with qtbot.waitSignal(job.ended, timeout=5000):
        job.start()
    assert told == ["Got no file: choose another."]


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


def test_threads_take_turns_more_often_while_jobs_run(qtbot):
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


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the priority is the whole process's")
def test_the_window_goes_before_jobs_and_their_threads(qtbot):
    """The threads that torch computes with inherit what the job's thread has."""

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
    assert every.count(os.SCHED_IDLE) >= torch.get_num_threads(), "those of earlier jobs may still be there"
    assert os.sched_getscheduler(threading.main_thread().native_id) == os.SCHED_OTHER


def test_threads_take_their_usual_turns_while_a_job_waits(qtbot):
    before, seen, go_on = sys.getswitchinterval(), [], threading.Event()

    def steps():
        for value in (1, None, None, 2, None):
            seen.append(sys.getswitchinterval())
            yield value
        go_on.wait(10)
        seen.append(sys.getswitchinterval())

    job = Job(steps)
    with qtbot.waitSignal(job.ended, timeout=5000):
        job.start()
        go_on.set()
    assert [interval < before for interval in seen] == [True, True, False, False, True, False]
    assert sys.getswitchinterval() == before
