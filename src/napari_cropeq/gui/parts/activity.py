"""Progress in napari's activity dock."""

from __future__ import annotations

from napari.utils import progress

__all__ = ["Activity"]

STEPS = 1000


class Activity:
    """A progress bar that is shown while work runs; for the GUI thread.

    Parameters
    ----------
    name : str
        Description of the work.
    """

    def __init__(self, name: str) -> None:
        self._bar = progress(total=STEPS, desc=name)
        self._text = name

    def show(self, fraction: float, text: str) -> None:
        """Show progress, 0 to 1; only changes are sent to napari, because it redraws the window each time."""
        done = round(STEPS * min(max(fraction, 0.0), 1.0))
        if text != self._text:
            self._text = text
            self._bar.set_description(text)
        if done != self._bar.n:  # its own number: napari may process events meanwhile, and call this again
            self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """Remove the bar."""
        self._bar.close()
