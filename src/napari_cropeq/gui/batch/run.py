"""One run of a batch in a worker thread, and its progress as text."""

from __future__ import annotations

import time
from collections.abc import Iterator

from napari_cropeq.gui.batch.form import BatchChoice
from napari_cropeq.gui.parts.duration import duration
from napari_cropeq.run.batch import Batch, BatchProgress, Item, summary

__all__ = ["BatchRun"]


class BatchRun:
    """Processes the chosen images; :meth:`steps` is for a :class:`~napari_cropeq.gui.jobs.Job`.

    Parameters
    ----------
    choice : BatchChoice
        The settings of the form when Start was pressed.
    """

    def __init__(self, choice: BatchChoice) -> None:
        self._choice, self._started = choice, time.monotonic()
        self._batch: Batch | None = None
        self.progress: BatchProgress | None = None  # the last one sent to the window
        self.stopped = False

    def steps(self) -> Iterator[BatchProgress]:
        """Process all images."""
        self._batch = self._choice.batch()
        yield from self._batch.run()

    @property
    def items(self) -> list[Item]:
        """The images with their status; empty until they are found."""
        return [] if self._batch is None else self._batch.items

    @property
    def complete(self) -> bool:
        """Whether all images are processed."""
        return all(item.ended for item in self.items)

    def text(self) -> str:
        """Return the current image and its status, as text."""
        assert self.progress is not None
        item, place = self.progress.item, f"{self.progress.current + 1} of {len(self.progress.items)}"
        name = self._choice.model_name
        return (
            ", ".join(filter(None, (f"{place}: {item.name}", item.status, item.detail, name and f"with {name}"))) + "."
        )

    def summary(self) -> str:
        """Return how many images ended how."""
        text = summary(self.items)
        if not self.complete:
            return f"Stopped: {text}. Unfinished outputs are kept. To complete them, choose resume under Existing."
        return f"{text}, in {duration(time.monotonic() - self._started)}."
