"""The Train dock widget: a model from the loaded layer itself."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyqtgraph
from magicgui.widgets import ComboBox, Container, FileEdit, FloatSpinBox, SpinBox
from qtpy.QtCore import QSize
from qtpy.QtWidgets import QAbstractSpinBox

from napari_cropeq.core.geometry import AXIS_NAMES, guess_axial
from napari_cropeq.core.model import Model
from napari_cropeq.core.training import Progress, Recipe, Training
from napari_cropeq.gui.jobs import Job
from napari_cropeq.gui.layers import set_voxel_size, source_of, voxel_size_of
from napari_cropeq.gui.panel import Panel
from napari_cropeq.volume.bricks import Bricks
from napari_cropeq.volume.superres import acquisition_of

__all__ = ["TrainWidget"]


class TrainWidget(Panel):
    """Trains on the chosen layer and hands the model to the other widgets.

    Parameters
    ----------
    napari_viewer : napari viewer
        Given by napari.
    """

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__(napari_viewer)
        self.axial = ComboBox(label="Axial axis", choices=list(AXIS_NAMES), tooltip="The axis of low resolution")
        self.voxel_size = [_length(name, "Distance between voxel centres") for name in AXIS_NAMES]
        self.sizes = Container(widgets=self.voxel_size, layout="horizontal", label="Voxel size")
        self.fwhm = _length("FWHM", "Width of the slice profile along the axial axis; the step by default")
        self.minutes = FloatSpinBox(label="Minutes", value=2.0, min=0.01, max=10_000.0, step=0.5)
        self.filters = SpinBox(label="Filters", value=32, min=1, max=1024, tooltip="Feature maps: more is slower")
        self.form.extend([self.axial, self.sizes, self.fwhm, self.minutes, self.filters])
        self.buttons = self.add_buttons(start=self.start, stop=self.stop)
        self.plot = pyqtgraph.PlotWidget(enableMenu=False)
        self.plot.setMinimumSize(200, 150)
        self.plot.sizeHint = lambda: QSize(320, 180)
        self.plot.setToolTip("Loss over patches")
        self.plot.getAxis("left").enableAutoSIPrefix(False)
        self.plot.addLegend(offset=(-5, 5))
        self._loss = self.plot.plot(pen=pyqtgraph.mkPen("#5ac8fa"), name="training")
        self._validation = self.plot.plot(pen=None, symbol="o", symbolSize=5, name="validation")
        self._layout.addWidget(self.plot)
        self.file = FileEdit(label="Model file", mode="w", filter="*.safetensors", value="model.safetensors")
        self.file_form = Container(widgets=[self.file])
        self._layout.addWidget(self.file_form.native)
        self.buttons |= self.add_buttons(save_model=self.save_model, load_model=self.load_model)
        self.add_status()

        self._job: Job | None = None
        self._training: Training | None = None
        self._own: set[Path] = set()  # files that this widget wrote and may write again
        self._curve: list[tuple[int, float]] = []
        self._showing = False
        self._shown: Any = None  # the layer whose scale the fields follow
        self._followed: float | None = None  # the step that the FWHM follows until it is set to something else
        self.layer.changed.connect(self._show_layer)
        for axis, box in enumerate(self.voxel_size):
            box.changed.connect(lambda _=None, axis=axis: self.attempt(lambda: self._correct_layer(axis)))
        self._show_layer()
        self._enable()

    def start(self) -> None:
        """Check everything, then train in the background."""
        if self._job is not None:
            return
        layer = self.layer.value
        source = source_of(layer)
        acquisition = acquisition_of(source, axial=AXIS_NAMES.index(self.axial.value), fwhm=self.fwhm.value)
        recipe = Recipe(minutes=self.minutes.value, filters=self.filters.value)
        shown = layer.world_to_data(self.viewer.dims.point[-layer.ndim :])
        lead = tuple(int(np.clip(round(i), 0, n - 1)) for i, n in zip(shown, source.data.shape[:-3], strict=False))
        volume = Bricks(source.data[lead])
        self._curve.clear()
        self._source = source.describe() | {"lead": list(lead)}

        def steps() -> Iterator[Progress]:
            self._training = None
            self._training = Training(volume, acquisition, recipe)
            yield from self._training.run()

        self._job = Job(steps)
        self._job.progressed.connect(self._on_progress)
        self._job.failed.connect(self.complain)
        self._job.ended.connect(self._on_ended)
        self.say("Reading the volume.")
        self.jobs[:] = [self._job]
        self._job.start()
        self._enable()

    def stop(self) -> None:
        """Stop training; the best weights so far become the model."""
        if self._job is not None:
            self._job.stop()

    def save_model(self) -> None:
        """Write the model in use to the file named."""
        if self.session.model is None:
            raise ValueError("Got no model to save, expected one: train or load one first.")
        path = Path(self.file.value)
        if path.exists() and path not in self._own:
            raise ValueError(f"Got {path}, which exists already: choose another name.")
        self.session.model.save(path)
        self._own.add(path)
        self.say(f"Saved {self.file.value}.")

    def load_model(self) -> None:
        """Use the model of the file named."""
        path = Path(self.file.value)
        model = Model.load(path)
        self.session.use_model(model, path.name)
        self.say(f"Using {path.name}, trained for factor {model.acquisition.factor:.4g}.")

    def _show_layer(self, _: Any = None) -> None:
        """Fill the fields from the layer, now and whenever its scale changes."""
        layer = self.layer.value
        is_new = layer is not self._shown
        if is_new:
            for old, connect in ((self._shown, False), (layer, True)):
                if old is not None:
                    for event in (old.events.scale, old.events.affine, old.events.units):
                        (event.connect if connect else event.disconnect)(self._show_layer)
            self._shown = layer
        if layer is None or layer.ndim < 3:
            return
        size = voxel_size_of(layer)
        # Four significant digits of the smallest step, whatever the unit.
        decimals = int(np.clip(4 - math.floor(math.log10(min(size))), 2, 15)) if min(size) > 0 else 5
        follows = self._followed is not None and math.isclose(self.fwhm.value, self._followed, rel_tol=1e-3)
        self._showing = True
        try:
            for box, value in zip((*self.voxel_size, self.fwhm), (*size, self.fwhm.value), strict=True):
                box.native.setDecimals(decimals)
                box.value = value
            axial = guess_axial(size)
            self.axial.value = AXIS_NAMES[axial]
            if is_new:
                self.fwhm.value = layer.metadata.get("fwhm", size[axial])
            elif follows:
                self.fwhm.value = size[axial]
            self._followed = size[axial]
            self.fwhm.label = f"FWHM ({layer.units[-1]:~P})"
        finally:
            self._showing = False

    def _correct_layer(self, axis: int) -> None:
        """Set the source layer's scale along one axis from its field."""
        layer = self.layer.value
        if self._showing or layer is None:
            return
        size = list(voxel_size_of(layer))
        size[axis] = float(self.voxel_size[axis].value)
        set_voxel_size(layer, (size[0], size[1], size[2]))

    def _on_progress(self, progress: Progress) -> None:
        self.bar.setValue(int(1000 * progress.fraction))
        self._curve.append((progress.patches, progress.loss))
        patches, loss = np.array(self._curve).T
        self._loss.setData(patches, loss)
        history = list(self._training.history) if self._training is not None else []
        if history:
            self._validation.setData([p.patches for p in history], [p.validation for p in history])
        rate = progress.patches / max(progress.seconds, 1e-9)
        self.say(
            f"{progress.patches} patches, {rate:.0f}/s, {progress.seconds_left:.0f} s left, loss {progress.loss:.4f}."
        )

    def _on_ended(self) -> None:
        training, self._job = self._training, None
        if training is not None and training.history:
            model = training.model(self._source)
            self.session.use_model(model, "the model just trained")
            if not self.complaining:
                last = training.history[-1]
                self.say(f"Trained on {last.patches} patches in {last.seconds:.0f} s: preview it, or save it.")
        self._enable()

    def _enable(self) -> None:
        self.buttons["start"].enabled = self._job is None
        self.buttons["stop"].enabled = self._job is not None


def _length(label: str, tooltip: str) -> FloatSpinBox:
    """Return a narrow field for a length; what it cannot be is told when it is used."""
    box = FloatSpinBox(label=label, value=1.0, min=-1e6, max=1e6, step=0.01, tooltip=tooltip)
    box.native.setDecimals(5)
    box.native.setMinimumWidth(56)
    box.native.setButtonSymbols(QAbstractSpinBox.ButtonSymbols.NoButtons)
    return box
