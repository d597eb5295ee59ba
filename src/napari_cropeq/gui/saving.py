"""Saving a whole result to a file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from napari_cropeq.compute.super_resolution import SuperResolution
from napari_cropeq.core.model import Model
from napari_cropeq.errors import ArgumentError
from napari_cropeq.formats.paths import check_output
from napari_cropeq.gui.layers.unfinished_layer import source_in_place
from napari_cropeq.gui.preferences import Preferences
from napari_cropeq.gui.result import Result
from napari_cropeq.gui.target import Target
from napari_cropeq.run.export import ExportProgress, export
from napari_cropeq.store.unfinished import Unfinished

__all__ = ["Saving"]

WAIT_S = 0.05


class Saving:
    """Writes one file; :meth:`steps` is for a :class:`~napari_cropeq.gui.jobs.Job`.

    Parameters
    ----------
    path : path
        The file.
    export_steps : callable
        Starts the export; called in the thread.
    opens : bool
        Whether the file is opened once it is complete.
    """

    def __init__(self, path: Path, export_steps: Callable[[], Iterator[ExportProgress]], opens: bool = False) -> None:
        self.path, self.opens = path, opens
        self._export_steps = export_steps
        self.complete = False

    @classmethod
    def of_result(cls, result: Result, target: Target) -> Saving:
        """Return a saving of a result; finished tiles are not computed again.

        Raises
        ------
        ValueError, OSError
            If the file exists or cannot be written.
        """
        existing = target.existing
        check_output(target.path, existing, result.inputs)

        def steps() -> Iterator[ExportProgress]:
            while (whole := result.result) is None:  # it is being prepared in its own thread
                if not result.alive:
                    raise ArgumentError("The result was closed before it was ready.", "Press Save again.")
                time.sleep(WAIT_S)
                yield ExportProgress("tiles", 0, 0, 0.0)
            yield from export(whole, target.path, existing=existing, computed=result.worker.finished_stores)

        return cls(target.path, steps)

    @classmethod
    def rest_of(cls, store: Unfinished) -> Saving:
        """Return a saving that completes an unfinished store of several channels from its source's file.

        In napari each channel is a layer, so no single layer is its source.

        Raises
        ------
        ValueError, OSError
            If the source no longer exists or cannot be read.
        """
        source, device = source_in_place(store), Preferences.read().device

        def steps() -> Iterator[ExportProgress]:
            model = Model.load(store.model_path)
            result = SuperResolution(source, model, None, store.planes, device, store.dtype, parallel=False)
            yield from export(result, store.output, existing="resume")

        return cls(store.output, steps, opens=True)

    def steps(self) -> Iterator[ExportProgress]:
        """Write the file."""
        yield from self._export_steps()
        self.complete = True
