"""One press of a batch's Start, in the thread of a job and in words."""

from __future__ import annotations

import time
from collections.abc import Iterator

from napari_cropeq.gui.batch.form import BatchChoice
from napari_cropeq.gui.jobs import sentence
from napari_cropeq.gui.parts.duration import duration
from napari_cropeq.run.batch import Batch, BatchProgress, Item, summary

__all__ = ["BatchRun"]


class BatchRun:
    """Works on what was chosen; :meth:`steps` is for a :class:`~napari_cropeq.gui.jobs.Job`.

    Parameters
    ----------
    choice : BatchChoice
        What the form said when Start was pressed.
    """

    def __init__(self, choice: BatchChoice) -> None:
        self._choice, self._started = choice, time.monotonic()
        self._batch: Batch | None = None
        self.progress: BatchProgress | None = None  # the last that the window was sent
        self.stopped = False

    def steps(self) -> Iterator[BatchProgress]:
        """Work on all images."""
        self._batch = self._choice.batch()
        yield from self._batch.run()

    @property
    def items(self) -> list[Item]:
        """The images, and where each stands; none before they were found."""
        return [] if self._batch is None else self._batch.items

    @property
    def complete(self) -> bool:
        """Whether nothing is left to do."""
        return all(item.ended for item in self.items)

    def text(self) -> str:
        """Return which image is worked on."""
        assert self.progress is not None
        item, place = self.progress.item, f"{self.progress.current + 1} of {len(self.progress.items)}"
        return f"{place}: {item.name}, {item.status}{', ' if item.detail else ''}{item.detail}."

    def summary(self) -> str:
        """Return what has become of the images, and what is wrong with the first that failed."""
        told = summary(self.items)
        if not self.complete:
            return f"Stopped: {told}. What is unfinished is kept: choose Existing: resume to go on from it."
        wrong = [f" {item.name}: {sentence(item.error)}" for item in self.items if item.error is not None]
        return f"{told}, in {duration(time.monotonic() - self._started)}.{wrong[0] if wrong else ''}"
