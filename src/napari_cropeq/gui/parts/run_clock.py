"""Speed of a run over a volume, and the time left."""

from __future__ import annotations

import math
import time

from napari_cropeq.gui.parts.duration import duration
from napari_cropeq.run.live import RunState

__all__ = ["RunClock"]


class RunClock:
    """Measures from the first tile on; pauses do not count."""

    def __init__(self) -> None:
        self._started: tuple[float, float] | None = None  # time and fraction then
        self._paused: float | None = None  # since when

    def pause(self, paused: bool) -> None:
        """Pause the clock, or let it continue."""
        now = time.monotonic()
        if paused:
            self._paused = now
        elif self._paused is not None:
            if self._started is not None:
                self._started = (self._started[0] + now - self._paused, self._started[1])
            self._paused = None

    def text(self, state: RunState) -> str:
        """Return tiles per second and the time left, as text."""
        if self._paused is not None:
            return "paused"
        fraction, (_, total) = state.fraction, state.tiles
        if self._started is None:
            if not total:
                return ""
            self._started = (time.monotonic(), fraction)
        seconds, gained = time.monotonic() - self._started[0], fraction - self._started[1]
        left = seconds * (1 - fraction) / gained if gained > 0 else math.inf
        if not math.isfinite(left) or seconds <= 0:
            return "estimating the time left"
        return f"{gained * total / seconds:.2g} tiles/s, {duration(left)} left"
