"""Processes forked from one that has imported everything: a start takes no time, and they can be killed.

What only a fresh interpreter shows (imports, the program's own start) is tested with :mod:`subprocess`.
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
    """Return what makes such processes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


class Forked:
    """A function that runs in a process of its own; used as :class:`subprocess.Popen` is, with pipes for what it says.

    ``prepare`` is called there first, and ``terminal`` is the name of a terminal to write to instead.
    """

    def __init__(
        self, function: Callable[..., Any], *arguments: Any, prepare: Any = None, terminal: str | None = None
    ) -> None:
        folder = Path(tempfile.mkdtemp())
        weakref.finalize(self, shutil.rmtree, folder)
        self._said = [folder / "out", folder / "err"]
        for path in self._said:
            path.touch()
        names = [terminal or str(path) for path in self._said]
        self._process = forking().Process(target=_run, args=(names, prepare, function, arguments))
        self._process.start()
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """As :class:`subprocess.Popen` has it."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Return the exit status, None while it runs."""
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
        out, err = (path.read_text() for path in self._said)
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
