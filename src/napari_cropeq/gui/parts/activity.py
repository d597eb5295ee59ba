"""Long work in napari's activity bar."""

from __future__ import annotations

from napari.utils import progress

__all__ = ["Activity"]

STEPS = 1000


class Activity:
    """One bar that is there while work goes on; for the window's own thread.

    Parameters
    ----------
    name : str
        What is worked on.
    """

    def __init__(self, name: str) -> None:
        self._bar = progress(total=STEPS, desc=name)
        self._done, self._text = 0, name

    def show(self, fraction: float, text: str) -> None:
        """Show how far the work is, 0 to 1; napari draws the window anew each time, so only where something changed."""
        done = round(STEPS * min(max(fraction, 0.0), 1.0))
        if text != self._text:
            self._bar.set_description(text)
        if done != self._done:
            self._bar.update(done - self._done)
        self._done, self._text = done, text

    def close(self) -> None:
        """Take the bar away."""
        self._bar.close()
