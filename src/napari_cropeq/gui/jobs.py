"""The one way heavy work leaves the GUI thread."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import re
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from qtpy.QtCore import QCoreApplication, QObject, Signal

from napari_cropeq.core.host import give_freed_memory_back, short_turns
from napari_cropeq.errors import StoppedError

__all__ = ["Job", "stop_all_jobs"]

REPORT_SECONDS = 0.05
OPTION = re.compile(r" \((command line: )?--[^)]*\)")  # of the command line, which a window has not
JOIN_SECONDS = 20.0

_running: weakref.WeakSet[Job] = weakref.WeakSet()


class Job(QObject):
    """Runs a generator in a thread of lower priority and reports on the GUI thread.

    Whatever the generator raises, RuntimeError and out of memory included, ends in exactly one
    :attr:`ended` signal, so that no bar spins forever.

    Parameters
    ----------
    steps : callable
        Makes the generator; it is called, run and closed in the thread. Yielded values are progress, None
        that there is nothing to do for now.
    interrupt : callable, optional
        Called by :meth:`stop` from the GUI thread, to wake or shorten what is under way.
    """

    progressed = Signal(object)  # the latest value yielded, at most 20 times a second
    failed = Signal(str)  # one sentence
    ended = Signal()  # always, and last

    def __init__(self, steps: Callable[[], Iterator[Any]], interrupt: Callable[[], None] | None = None) -> None:
        super().__init__()
        self._steps, self._interrupt = steps, interrupt
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cropeq", daemon=True)

    @property
    def running(self) -> bool:
        """Whether the thread is alive."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start the thread."""
        stop_at_exit()
        _running.add(self)
        self._thread.start()

    def stop(self, wait: bool = False) -> None:
        """Ask the work to stop at its next step; wait for it if asked to."""
        self._stop.set()
        if self._interrupt is not None:
            self._interrupt()
        if wait and self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(JOIN_SECONDS)

    def _run(self) -> None:
        lower_priority()
        steps = None
        try:
            steps = self._steps()
            self._drive(steps)
        except StoppedError:
            pass
        except BaseException as error:  # noqa: BLE001 (a thread has nobody above it to tell)
            self._emit(self.failed, sentence(error))
        finally:
            if steps is not None:
                with contextlib.suppress(Exception):
                    steps.close()  # type: ignore[attr-defined]
            give_freed_memory_back()
            _running.discard(self)
            self._emit(self.ended)

    def _drive(self, steps: Iterator[Any]) -> None:
        last, unsent = 0.0, None
        with contextlib.ExitStack() as working:
            working.enter_context(short_turns())
            idle = False
            for value in steps:
                # None says that nothing is under way: what was held back is due, and the process is left as it is.
                if idle != (value is None):
                    idle = value is None
                    if idle:
                        working.close()
                    else:
                        working.enter_context(short_turns())
                unsent = value if value is not None else unsent
                if unsent is not None and (idle or time.monotonic() - last >= REPORT_SECONDS):
                    self._emit(self.progressed, unsent)
                    last, unsent = time.monotonic(), None
                if self._stop.is_set():
                    break
        if unsent is not None:
            self._emit(self.progressed, unsent)

    def _emit(self, signal: Any, *values: Any) -> None:
        # The window, and this object's Qt half with it, may be gone by now.
        with contextlib.suppress(RuntimeError):
            signal.emit(*values)


@functools.lru_cache(maxsize=1)
def stop_at_exit() -> None:
    """Stop all jobs when the application or the interpreter ends, whichever comes first."""
    app = QCoreApplication.instance()
    if app is not None:
        app.aboutToQuit.connect(stop_all_jobs)
    atexit.register(stop_all_jobs)


def stop_all_jobs() -> None:
    """Stop every job and wait for it; nothing computes on while the interpreter goes down."""
    jobs = list(_running)
    for job in jobs:
        job.stop()
    for job in jobs:
        job.stop(wait=True)


def lower_priority() -> None:
    """Let the window's thread go first; threads that torch starts from this one inherit the priority.

    A niceness would not do: a thread that wakes, as the window's does many times a slice, waits for a nice one to use
    up its share of the time. Whatever wakes goes before an idle one at once.
    """
    if sys.platform == "linux":  # elsewhere the priority is the whole process's
        with contextlib.suppress(OSError):
            os.sched_setscheduler(threading.get_native_id(), os.SCHED_IDLE, os.sched_param(0))


def sentence(error: BaseException) -> str:
    """Return what a biologist can act on; defects of ours keep their traceback on standard error."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, MemoryError) or "out of memory" in text.lower() or "can't allocate" in text.lower():
        return f"Got too little memory ({text[:160]}): close other data, use fewer filters or another device."
    if not isinstance(error, (ValueError, OSError, ArithmeticError, ImportError)):
        traceback.print_exception(error)
        return f"Got an unexpected error ({type(error).__name__}: {text[:160]}): please report it."
    return OPTION.sub("", text)
