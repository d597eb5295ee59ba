"""How fast a run over a volume is, and when it will be done."""

from __future__ import annotations

import math
import time

from napari_cropeq.gui.parts.duration import duration
from napari_cropeq.run.live import RunState

__all__ = ["RunClock"]


class RunClock:
    """Reckons from the moment tiles begin to come; pauses do not count."""

    def __init__(self) -> None:
        self._started: tuple[float, float] | None = None  # when, and which fraction
        self._held: float | None = None

    def hold(self, held: bool) -> None:
        """Stop the clock, or let it go on."""
        now = time.monotonic()
        if held:
            self._held = now
        elif self._held is not None:
            if self._started is not None:
                self._started = (self._started[0] + now - self._held, self._started[1])
            self._held = None

    def text(self, state: RunState) -> str:
        """Return tiles a second and time left, in words."""
        if self._held is not None:
            return "paused"
        fraction, (_, total) = state.fraction, state.tiles
        if self._started is None:
            if not total:
                return ""
            self._started = (time.monotonic(), fraction)
        seconds, gained = time.monotonic() - self._started[0], fraction - self._started[1]
        left = seconds * (1 - fraction) / gained if gained > 0 else math.inf
        if not math.isfinite(left) or seconds <= 0:
            return "measuring the time left"
        return f"{gained * total / seconds:.2g} tiles/s, {duration(left)} left"
