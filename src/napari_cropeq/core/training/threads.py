"""The number of torch's threads with which the steps of a training are fastest."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import TypeVar

from napari_cropeq.core.host import torch_threads

__all__ = ["ThreadChoice"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

TRIED = 3  # steps with each number; the first is not counted, since torch prepares its kernels then
CLEAR = 0.9  # share of the time of more threads that fewer must need
SLOWER = 2.0  # times as slow as it was, so that numbers are compared again
LEAST_STEPS = 50  # between two comparisons


class ThreadChoice:
    """Compares numbers of threads by the time of some steps, and again when steps become slower.

    Beside other programs that use all cores, threads wait for each other at the end of each layer: one thread can be
    ten times as fast as all of them.

    Parameters
    ----------
    most : int
        Largest number of threads.

    Attributes
    ----------
    number : int
        Threads for the next step.
    """

    def __init__(self, most: int) -> None:
        self._numbers = sorted({max(1, most >> n) for n in range(most.bit_length())}, reverse=True)
        self._tried: list[float] = []
        self._recent = 0.0
        self._compare()

    def run(self, step: Callable[[T], float], batch: T) -> float:
        """Make a step with :attr:`number` threads, count its time, and return what it returns."""
        with torch_threads(self.number):
            started = time.monotonic()
            loss = step(batch)
            self.count(time.monotonic() - started)
        return loss

    def count(self, seconds: float) -> None:
        """Count a step with :attr:`number` threads."""
        self._steps += 1
        if self._trying is not None:
            self._tried.append(seconds)
            if len(self._tried) == TRIED:
                self._end_trial()
            return
        self._recent = 0.8 * self._recent + 0.2 * seconds
        if self._recent > SLOWER * self._usual and self._steps >= LEAST_STEPS:
            self._compare()

    def _compare(self) -> None:
        self._steps, self._usual = 0, math.inf
        self._trying: int | None = 0
        self._best, self._tried = self._numbers[0], []
        self.number = self._numbers[0]

    def _end_trial(self) -> None:
        """Keep the number that was tried if it is clearly faster, and try the next one."""
        assert self._trying is not None
        seconds = min(self._tried[1:])
        if seconds < CLEAR * self._usual:
            self._best, self._usual = self._numbers[self._trying], seconds
        self._trying, self._tried = self._trying + 1, []
        if self._trying == len(self._numbers):
            self._trying, self.number, self._recent = None, self._best, self._usual
            logger.info("%d threads are fastest: %.0f ms for each step", self._best, 1000 * self._usual)
        else:
            self.number = self._numbers[self._trying]
