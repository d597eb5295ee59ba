"""A training in a worker thread: it yields reports, keeps a checkpoint, and ends with a model."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from napari_cropeq.core.model import Model
from napari_cropeq.core.training.checkpoint import Checkpoint
from napari_cropeq.core.training.training import Progress, Thumbnail, Training
from napari_cropeq.gui.jobs import sentence
from napari_cropeq.run.train_to_file import train_and_keep

__all__ = ["Report", "TrainingRun", "losses_of"]

logger = logging.getLogger(__name__)

THUMBNAIL_SECONDS = 2.0
SNAPSHOT_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class Report:
    """The state of a training that the window shows."""

    progress: Progress
    validations: tuple[tuple[int, float], ...]  # patches and loss
    thumbnail: Thumbnail | None
    note: str  # for the user
    snapshot: Model | None = None  # a model with the current weights, if requested
    interpolation: float | None = None  # loss of interpolation on held-out patches


class TrainingRun:
    """One press of Start, Continue or Resume; :meth:`steps` is for a :class:`~napari_cropeq.gui.jobs.Job`.

    Parameters
    ----------
    make : callable
        Makes the training; called in the thread, since it reads the volumes.
    description : mapping
        Description of the source for the model file.
    checkpoint : Checkpoint
        Keeps the training while it runs; removed once it is complete or the user has stopped it.
    wants_snapshot : callable
        Whether to report snapshots of the weights.
    """

    def __init__(
        self,
        make: Callable[[], Training],
        description: dict[str, Any],
        checkpoint: Checkpoint,
        wants_snapshot: Callable[[], bool],
    ) -> None:
        self._wants_snapshot = wants_snapshot
        self._make, self._description, self._checkpoint = make, description, checkpoint
        self.model: Model | None = None
        self.last: Progress | None = None
        self.ended_by_user = False
        self._note = ""

    def steps(self) -> Iterator[Report]:
        """Train, and yield a report after every step; closing this keeps the best weights so far."""
        training = self._make()
        steps = train_and_keep(training, self._checkpoint, self._on_disk_error)
        whole = False
        try:
            yield from self._reports(training, steps)
            whole = True
        finally:
            steps.close()
            if training.history:
                self.last, self.model = training.history[-1], training.model(self._description)
            if whole or self.ended_by_user:
                self._checkpoint.remove()

    def _reports(self, training: Training, steps: Iterator[Progress]) -> Iterator[Report]:
        drawn = taken = -math.inf
        snapshot: Model | None = None
        thumbnail: Thumbnail | None = None
        validations: tuple[tuple[int, float], ...] = ()
        for progress in steps:
            ends = progress.fraction == 1 and progress.validation is not None
            if ends or time.monotonic() - drawn >= THUMBNAIL_SECONDS:
                thumbnail, drawn = training.thumbnail(), time.monotonic()
            if len(validations) < len(training.history):
                validations = tuple((p.patches, p.validation) for p in training.history if p.validation is not None)
            if self._wants_snapshot() and time.monotonic() - taken >= SNAPSHOT_SECONDS:
                snapshot, taken = training.snapshot(self._description), time.monotonic()
            note, level = progress.note or self._note, training.interpolation_loss
            yield Report(progress, validations, thumbnail, note, snapshot, level)

    def _on_disk_error(self, error: OSError) -> None:
        logger.warning("The checkpoint cannot be written: %s", error)
        self._note = f"No checkpoint can be saved, so a crash would lose this training: {sentence(error)}"


def losses_of(report: Report) -> str:
    """Return the error relative to that of interpolation, and the losses, as text for a tooltip."""
    smaller = 100 * (1 - 10 ** (-max(report.progress.gain, 0) / 20))
    losses = [f"{report.progress.loss:.4f} on training patches"]
    if report.validations:
        losses.append(f"at best {min(loss for _, loss in report.validations):.4f} on held-out patches")
    if report.interpolation is not None:
        losses.append(f"{report.interpolation:.4f} by interpolation on held-out patches")
    return (
        f"On held-out patches, which are not used for training, the root-mean-square error is {smaller:.0f} % smaller "
        f"than that of interpolation. Loss: {', '.join(losses)}."
    )
