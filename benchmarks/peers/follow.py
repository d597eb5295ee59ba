"""Run a program with one thread on one core, and measure its stages: CPU time, time on the clock, memory."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
)
EVERY = 0.1
"""Seconds between two looks at the memory."""

SAYS = "stage: "
"""A driver prints it with the name of the stage that starts."""


@dataclass
class Stage:
    """What a stage takes; it may come several times."""

    cpu_seconds: float = 0.0
    seconds: float = 0.0
    peak_mb: float = 0.0


class Program:
    """A running program with all of its processes.

    Parameters
    ----------
    command : sequence of str
        The program and its arguments.
    core : int, optional
        The core that it runs on; any if None.
    """

    def __init__(self, command: Sequence[str], core: int | None = None) -> None:
        one = os.environ | dict.fromkeys(THREADS, "1") | {"PYTHONUNBUFFERED": "1"}
        self._process = psutil.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=one)
        if core is not None and hasattr(self._process, "cpu_affinity"):
            self._process.cpu_affinity([core])
        self.stages: dict[str, Stage] = {"start": Stage()}
        self._now, self._since = "start", (time.perf_counter(), 0.0)
        self._ended = False

    def follow(self, log: Path, stage_of: Callable[[str], str | None], last: str | None = None) -> None:
        """Wait for its end, with its console output in ``log``.

        Parameters
        ----------
        log : path
            File for the output.
        stage_of : function
            Returns the stage that starts, if any, from a line of the output, which may not be complete yet.
        last : str, optional
            Stop the program when this stage starts.

        Raises
        ------
        RuntimeError
            If the program fails.
        """
        watcher = threading.Thread(target=self._watch, daemon=True)
        watcher.start()
        text = ""  # the line that is not complete yet
        with open(log, "wb") as file:
            while chunk := os.read(self._process.stdout.fileno(), 2**16):
                file.write(chunk)
                file.flush()
                *lines, text = (text + chunk.decode(errors="replace")).splitlines(keepends=True) or [""]
                if text.endswith(("\n", "\r")):
                    lines, text = [*lines, text], ""
                stages = [stage for stage in map(stage_of, (*lines, text)) if stage is not None]
                for stage in stages:
                    if stage != self._now:
                        self._enter(stage)
                if last is not None and last in stages:
                    self._end()
                    break
        self._close()
        self._process.stdout.close()
        code = self._process.wait()
        self._ended = True
        watcher.join()
        if code != 0 and last not in self.stages:
            raise RuntimeError(f"{self._process.args[0]} failed (exit code {code}). See {log}.")

    def record(self) -> dict[str, dict[str, float]]:
        """Return the stages, in values that JSON can hold."""
        return {
            name: {key: round(value, 2) for key, value in asdict(stage).items()} for name, stage in self.stages.items()
        }

    def _enter(self, stage: str) -> None:
        self._close()
        self._now = stage
        self.stages.setdefault(stage, Stage())

    def _close(self) -> None:
        """Count the time since the last stage started, and look at the memory: a stage may be short."""
        self._look()
        clock, cpu = self._since
        self._since = time.perf_counter(), self._cpu()
        stage = self.stages[self._now]
        stage.seconds += self._since[0] - clock
        stage.cpu_seconds += max(0.0, self._since[1] - cpu)

    def _end(self) -> None:
        for member in (*self._process.children(recursive=True), self._process):
            member.kill()

    def _tree(self) -> list[psutil.Process]:
        try:
            return [self._process, *self._process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def _cpu(self) -> float:
        """Return the CPU time of the processes, with that of children that have ended, s."""
        total = 0.0
        for member in self._tree():
            try:
                total += sum(member.cpu_times()[:4])
            except psutil.NoSuchProcess:
                continue
        return total

    def _watch(self) -> None:
        while not self._ended:
            self._look()
            time.sleep(EVERY)

    def _look(self) -> None:
        """Note the memory of all processes."""
        stage, memory = self.stages[self._now], 0
        for member in self._tree():
            try:
                memory += member.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        stage.peak_mb = max(stage.peak_mb, memory / 2**20)


def said(line: str) -> str | None:
    """Return the stage that a driver prints in a line, if it is complete."""
    return line.strip().removeprefix(SAYS) if line.startswith(SAYS) and line.endswith("\n") else None
