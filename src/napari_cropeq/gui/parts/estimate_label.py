"""Estimate of time, disk space and memory for a run over a volume, before it starts."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from napari.layers import Image
from qtpy.QtWidgets import QLabel
from superqt.utils import QSignalDebouncer

from napari_cropeq.compute.super_resolution import SuperResolution
from napari_cropeq.core.model import Model
from napari_cropeq.formats.image import acquisition_of
from napari_cropeq.gui.jobs import Job
from napari_cropeq.gui.layers.source import source_key, source_of
from napari_cropeq.gui.parts.duration import duration
from napari_cropeq.gui.preferences import Preferences
from napari_cropeq.run.estimate import Estimate

__all__ = ["EstimateLabel"]

WAIT_MS = 300  # quick changes of the choices cause one measurement


class EstimateLabel(QLabel):
    """Measures a small part of the volume in the background, and shows time, disk space and memory.

    Parameters
    ----------
    panel : Panel
        Runs the measurement, and stops it when it is closed.
    """

    def __init__(self, panel: Any) -> None:
        super().__init__("")
        self.setWordWrap(True)
        self._panel = panel
        self._wanted: tuple[Any, ...] | None = None
        self._known: dict[tuple[Any, ...], Estimate] = {}
        self._path: Path | None = None
        self._measured: tuple[Any, ...] | None = None  # the key of the measurement in progress
        self._job: Job | None = None
        self._soon = QSignalDebouncer(parent=self)
        self._soon.setTimeout(WAIT_MS)
        self._soon.triggered.connect(self._measure)

    def show_for(
        self, layer: Image | None, model: Model | None, planes: str | None, dtype: str, path: Path | None
    ) -> None:
        """Show the estimate for the volume of ``layer``; nothing if layer and model do not fit."""
        self._path = path
        self._wanted = None
        try:
            if layer is not None and model is not None:
                source = source_of(layer)
                acquisition = acquisition_of(source)
                model.check_fits(acquisition)
                self._wanted = (source_key(layer), source, acquisition, model, planes, dtype)
        except ValueError:
            pass  # the error is shown when the run is started
        if self._job is not None and (self._wanted is None or self._key() != self._measured):
            self._job.stop()
        self._show()
        if self._wanted is not None and self._key() not in self._known:
            self._soon.throttle()

    def stop(self) -> None:
        """Stop measuring."""
        self._soon.cancel()
        self._wanted = None

    def _key(self) -> tuple[Any, ...]:
        assert self._wanted is not None
        voxels, _, acquisition, model, planes, dtype = self._wanted
        return voxels, acquisition, model.fingerprint, planes, dtype

    def showEvent(self, event: Any) -> None:
        """Measure what was chosen while the step was not shown."""
        super().showEvent(event)
        if self._wanted is not None and self._key() not in self._known:
            self._soon.throttle()

    def _measure(self) -> None:
        if self._wanted is None or self._job is not None or not self.isVisible():
            return
        key, (_, source, acquisition, model, planes, dtype) = self._key(), self._wanted
        device = Preferences.read().device
        found: list[Estimate] = []
        stopped = threading.Event()

        def steps() -> Iterator[None]:
            result = SuperResolution(source, model, acquisition, planes, device, dtype, parallel=False)
            found.append(Estimate.of(result, stopped.is_set))
            yield

        def ended() -> None:
            self._job = self._measured = None
            if found:
                self._known[key] = found[0]
            if self._wanted is None:  # the window may be closed by now
                return
            self._show()
            if self._key() != key or stopped.is_set():
                self._soon.throttle()

        self._measured = key
        self._job = self._panel.run(steps, lambda _: None, ended, stopped.set)

    def _show(self) -> None:
        estimate = None if self._wanted is None else self._known.get(self._key())
        if self._wanted is None:
            self.setText("")
        elif estimate is None:
            self.setText("Estimating time and size …")
        else:
            _, source, acquisition, *_ = self._wanted
            text = _text(estimate, acquisition.sr_shape(source.data.shape[-3:]), self._path)
            self.setText(" ".join(filter(None, (text, estimate.rounding))))
        self.setVisible(bool(self.text()))


def _text(estimate: Estimate, shape: tuple[int, ...], path: Path | None) -> str:
    size = f"{' × '.join(map(str, shape))} voxels, {_bytes(estimate.nbytes)}"
    time = f"Takes about {duration(estimate.seconds)} and up to {_bytes(estimate.memory)} of memory"
    if path is None:
        return f"Result: {size}. {time}."
    folder = path.parent
    free = shutil.disk_usage(folder).free if folder.is_dir() else None
    room = "" if free is None else f" ({_bytes(free)} free)"
    full = " There is not enough disk space." if free is not None and free < estimate.disk else ""
    return f"Result: {size}. {time}. File: about {_bytes(estimate.disk)} on disk{room}.{full}"


def _bytes(number: float) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.0f} MB"
