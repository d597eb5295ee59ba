"""Processes forked from one that has imported everything: they start at once, and can be killed.

Tests that need a fresh interpreter (imports, the start of the program) use :mod:`subprocess`.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

PRELOADED = ["torch._dynamo", "napari_cropeq.run.export", "napari_cropeq.formats.image", "napari_cropeq.cli.main"]


def forking() -> multiprocessing.context.ForkServerContext:
    """Return the context that forks processes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


class Forked:
    """A function that runs in its own process; used like :class:`subprocess.Popen` with pipes for its output.

    ``prepare`` is called there first, and ``terminal`` is the name of a terminal to write to instead.
    """

    def __init__(
        self, function: Callable[..., Any], *arguments: Any, prepare: Any = None, terminal: str | None = None
    ) -> None:
        folder = Path(tempfile.mkdtemp())
        weakref.finalize(self, shutil.rmtree, folder)
        self._outputs = [folder / "out", folder / "err"]
        for path in self._outputs:
            path.touch()
        names = [terminal or str(path) for path in self._outputs]
        self._process = forking().Process(target=_run, args=(names, prepare, function, arguments))
        self._process.start()
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """As in :class:`subprocess.Popen`."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Return the exit status, or None while it runs."""
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it, unless it has ended."""
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return the exit status."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout)
        return self._process.exitcode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for its end and return what it wrote to standard output and standard error."""
        self.wait(timeout)
        out, err = (path.read_text() for path in self._outputs)
        return out, err


def cropeq(*words: object, **options: Any) -> Forked:
    """Start the command line."""
    return Forked(_command_line, *map(str, words), **options)


def _command_line(*words: str) -> int:
    from napari_cropeq.cli.main import main

    return main(words)


def _run(names: list[str], prepare: Any, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.setsid()
    for handle, name in enumerate(names, 1):
        os.dup2(os.open(name, os.O_WRONLY | os.O_APPEND | os.O_NOCTTY), handle)
    if prepare is not None:
        prepare()
    sys.exit(function(*arguments))
