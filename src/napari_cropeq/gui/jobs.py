"""Work in background threads, so that the window stays responsive, and errors as sentences."""

from __future__ import annotations

import atexit
import contextlib
import functools
import logging
import os
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from qtpy.QtCore import QCoreApplication, QObject, Signal

from napari_cropeq.core.host import give_freed_memory_back, short_turns
from napari_cropeq.errors import CropeqError, StoppedError
from napari_cropeq.gui.hints import HINTS

__all__ = ["Job", "sentence", "stop_all_jobs"]

logger = logging.getLogger(__name__)

REPORT_SECONDS = 0.05
JOIN_SECONDS = 20.0

_running: weakref.WeakSet[Job] = weakref.WeakSet()


class Job(QObject):
    """Runs a generator in a thread of lower priority and reports on the GUI thread.

    :attr:`ended` is emitted exactly once, whatever the generator raises (RuntimeError and MemoryError included), so
    that no progress bar stays busy. Qt then deletes the job in the GUI thread. Python might do it in the thread of the
    work, which may hold the last reference, while the signals wait for the GUI thread.

    Parameters
    ----------
    steps : callable
        Makes the generator; it is called, run and closed in the thread. It yields progress, or None when there is
        nothing to do for now.
    interrupt : callable, optional
        Called by :meth:`stop` from the GUI thread, to wake the generator or to shorten its current step.
    hints : mapping, optional
        See :func:`sentence`.
    """

    progressed = Signal(object)  # the latest value yielded, at most 20 times a second
    failed = Signal(str)  # one sentence
    ended = Signal()  # always, and last

    def __init__(
        self,
        steps: Callable[[], Iterator[Any]],
        interrupt: Callable[[], None] | None = None,
        hints: Mapping[str, str] = HINTS,
    ) -> None:
        super().__init__(QCoreApplication.instance())
        self._steps, self._interrupt, self._hints = steps, interrupt, hints
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
        steps, started = None, time.monotonic()
        try:
            steps = self._steps()
            self._drive(steps)
        except StoppedError:
            pass
        except BaseException as error:  # noqa: BLE001 (nothing above this thread would report it)
            logger.info("Background work failed with %s", type(error).__name__)
            self._emit(self.failed, sentence(error, self._hints))
        finally:
            if steps is not None:
                with contextlib.suppress(Exception):
                    steps.close()  # type: ignore[attr-defined]
            give_freed_memory_back()
            _running.discard(self)
            logger.info("Background work ended after %.1f s", time.monotonic() - started)
            self._emit(self.ended)
            with contextlib.suppress(RuntimeError):
                self.deleteLater()

    def _drive(self, steps: Iterator[Any]) -> None:
        last, unsent = 0.0, None
        with contextlib.ExitStack() as working:
            working.enter_context(short_turns())
            idle = False
            for value in steps:
                # None: nothing to do for now. Send the value that was held back, and restore the process's settings.
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
        # The window, and with it the Qt part of this object, may already be deleted.
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
    """Stop every job and wait for it, so that no thread computes while the interpreter shuts down."""
    jobs = list(_running)
    for job in jobs:
        job.stop()
    if jobs:
        restore_priority()
    for job in jobs:
        job.stop(wait=True)


def lower_priority() -> None:
    """Give this thread a lower priority than the window's; threads that torch starts from it inherit it.

    A nice value is not enough: a waking thread, such as the window's many times a slice, waits until a nice thread
    has used its time slice. An idle thread is interrupted at once.
    """
    if sys.platform == "linux":  # other systems set the priority of the whole process only
        with contextlib.suppress(OSError):
            os.sched_setscheduler(threading.get_native_id(), os.SCHED_IDLE, os.sched_param(0))


def restore_priority() -> None:
    """Give threads of lower priority the usual one, because the window is closed and waits for them.

    On a busy machine a box would otherwise take longer than the wait, and the process would end with a crash.
    """
    if sys.platform == "linux":
        for thread in os.listdir("/proc/self/task"):
            with contextlib.suppress(OSError):
                if os.sched_getscheduler(int(thread)) == os.SCHED_IDLE:
                    os.sched_setscheduler(int(thread), os.SCHED_OTHER, os.sched_param(0))


def sentence(error: BaseException, hints: Mapping[str, str] = HINTS) -> str:
    """Return an error as text that a user can act on.

    An unexpected error, which is a bug, also prints its traceback to standard error.

    Parameters
    ----------
    error : BaseException
        The error.
    hints : mapping
        What to do, by the error's setting; see :mod:`napari_cropeq.gui.hints`.
    """
    if isinstance(error, CropeqError):
        return " ".join(error.sentence(hints).split())
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, MemoryError) or "out of memory" in text.lower() or "can't allocate" in text.lower():
        return f"There is not enough memory ({text[:160]}). Close other images, use fewer filters or another device."
    if not isinstance(error, (ValueError, OSError, ArithmeticError, ImportError)):
        traceback.print_exception(error)
        return f"Something unexpected went wrong ({type(error).__name__}: {text[:160]}). Please report it."
    return text
