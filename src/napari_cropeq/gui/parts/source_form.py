"""The training data as widgets that follow the layer: grid, slice profile, channels and time points."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from magicgui.widgets import ComboBox, Container, FloatSpinBox
from napari.layers import Image
from qtpy.QtWidgets import QAbstractSpinBox

from napari_cropeq.core.geometry import AXIS_NAMES, Acquisition, guess_axial
from napari_cropeq.formats.image import acquisition_of
from napari_cropeq.gui.layers.source import check_layer, set_voxel_size, source_of, voxel_size_of
from napari_cropeq.gui.training_data import TrainingData, channel_layers, shown_of

__all__ = ["ALL", "SHOWN", "SourceForm"]

SHOWN, ALL = "shown", "all"


class SourceForm:
    """Fields for the acquisition of a layer and for the volumes to train on.

    Correcting the voxel size sets the layer's scale.

    Parameters
    ----------
    others : callable
        Returns all layers, among them those with other channels of the chosen one.
    attempt : callable
        Runs a function and shows its error to the user.
    """

    def __init__(self, others: Callable[[], list[Any]], attempt: Callable[[Callable[[], None]], None]) -> None:
        self._others = others
        one = [("the one shown", SHOWN)]
        self.channels = ComboBox(label="Channels", choices=one)
        self.times = ComboBox(
            label="Time points", choices=one, tooltip="Time points to train on; all use the normalisation of the first"
        )
        self.axial = ComboBox(
            label="Axial axis", choices=list(AXIS_NAMES), tooltip="The axis with the lowest resolution"
        )
        self.voxel_size = [_length(name, f"Distance between voxel centres along {name}") for name in AXIS_NAMES]
        sizes = Container(widgets=self.voxel_size, layout="horizontal", labels=False, label="Voxel size")
        sizes.margins = (0, 0, 0, 0)
        self.fwhm = _length(
            "FWHM", "Full width at half maximum of the axial blur (slice profile); by default the axial step"
        )
        tooltip = "Width of the blur that lateral slices already have; training adds only the difference. 0: not known"
        self.lateral_fwhm = _length("Lateral FWHM", tooltip, 0.0)
        self.widgets = [self.channels, self.times, self.axial, sizes, self.fwhm]
        self._layer: Any = None  # the layer whose scale the fields follow
        self._followed: float | None = None  # the step that the FWHM follows until the user changes it
        self._showing = False

        def correct(axis: int) -> None:
            if not self._showing:
                attempt(lambda: self._correct_layer(axis))

        for axis, box in enumerate(self.voxel_size):
            box.changed.connect(lambda _=None, axis=axis: correct(axis))

    def acquisition(self) -> Acquisition:
        """Return how the layer was acquired.

        Raises
        ------
        ValueError
            If the layer is not a volume that can be super-resolved.
        """
        axial = AXIS_NAMES.index(self.axial.value)
        return acquisition_of(source_of(self._layer), None, axial, self.fwhm.value, self.lateral_fwhm.value)

    def data(self, point: Any, every: bool = True) -> TrainingData:
        """Return the chosen volumes, with the viewer's sliders at ``point``; only the shown one unless ``every``.

        Raises
        ------
        ValueError
            If the layer is not a volume.
        """
        layer = check_layer(self._layer)
        source, shown = source_of(layer), shown_of(layer, point)
        all_channels, all_times = (every and box.value == ALL for box in (self.channels, self.times))
        layers = channel_layers(layer, self._others()) if all_channels and source.n_channels == 1 else [layer]
        channels = range(source.n_channels) if all_channels else [shown["c"]]
        return TrainingData.of(layers, channels, range(source.n_times) if all_times else [shown["t"]])

    def follow(self, layer: Any) -> None:
        """Show a layer, now and whenever its scale changes."""
        is_new = layer is not self._layer
        if is_new:
            for old, connect in ((self._layer, False), (layer, True)):
                if old is not None:
                    for event in (old.events.scale, old.events.affine, old.events.units):
                        (event.connect if connect else event.disconnect)(self._on_scale)
            self._layer = layer
        self.offer()
        if layer is None or layer.ndim < 3:
            return
        size = voxel_size_of(layer)
        # Four significant digits of the smallest step, in any unit.
        decimals = int(np.clip(4 - math.floor(math.log10(min(size))), 2, 15)) if min(size) > 0 else 5
        follows = self._followed is not None and math.isclose(self.fwhm.value, self._followed, rel_tol=1e-3)
        self._showing = True
        try:
            lengths = (*self.voxel_size, self.fwhm, self.lateral_fwhm)
            for box, value in zip(lengths, (*size, self.fwhm.value, self.lateral_fwhm.value), strict=True):
                box.native.setDecimals(decimals)
                box.value = value
            axial = guess_axial(size)
            self.axial.value = AXIS_NAMES[axial]
            if is_new:
                self.fwhm.value, self.lateral_fwhm.value = layer.metadata.get("fwhm", size[axial]), 0.0
            elif follows:
                self.fwhm.value = size[axial]
            self._followed = size[axial]
            self.fwhm.label = f"FWHM ({layer.units[-1]:~P})"
        finally:
            self._showing = False

    def show_acquisition(self, layer: Image, acquisition: Acquisition) -> None:
        """Show another acquisition of the layer, and set the layer's scale accordingly."""
        set_voxel_size(layer, acquisition.voxel_size)
        self.axial.value = AXIS_NAMES[acquisition.axial]
        self.fwhm.value, self.lateral_fwhm.value = acquisition.fwhm, acquisition.lateral_fwhm

    def offer(self) -> None:
        """Offer all channels and all time points if there are several."""
        channels = times = 1
        names: list[str] = []
        try:
            source = source_of(self._layer)
            names = [la.name for la in channel_layers(self._layer, self._others())]
            channels, times = source.n_channels, source.n_times
        except ValueError:
            pass  # no choices for a layer that is not a volume; Start shows the error
        are_layers = channels == 1 and len(names) > 1
        self.channels.tooltip = "Channels to train on; each has its own normalisation" + (
            f": {', '.join(names)}" if are_layers else ""
        )
        if are_layers:
            _offer(self.channels, "this layer", f"this and {len(names) - 1} more of the same shape", True)
        else:
            _offer(self.channels, "the one shown", f"all {channels}", channels > 1)
        _offer(self.times, "the one shown", f"all {times}", times > 1)

    def _on_scale(self, _: Any = None) -> None:
        self.follow(self._layer)

    def _correct_layer(self, axis: int) -> None:
        """Set the layer's scale along one axis from its field."""
        if self._layer is not None:
            size = list(voxel_size_of(self._layer))
            size[axis] = float(self.voxel_size[axis].value)
            set_voxel_size(self._layer, (size[0], size[1], size[2]))


def _offer(box: ComboBox, one: str, every: str, several: bool) -> None:
    """Offer one or all; the current choice is kept if it still exists."""
    before = box.value
    box.choices = [(one, SHOWN), (every, ALL)] if several else [(one, SHOWN)]
    box.value = before if several else SHOWN
    box.visible = several


def _length(label: str, tooltip: str, value: float = 1.0) -> FloatSpinBox:
    """Return a narrow field for a length; invalid lengths are reported when they are used."""
    box = FloatSpinBox(label=label, value=value, min=-1e6, max=1e6, step=0.01, tooltip=tooltip)
    box.native.setDecimals(5)
    box.native.setStyleSheet("min-width: 56px")  # overrides the window's style
    box.native.setButtonSymbols(QAbstractSpinBox.ButtonSymbols.NoButtons)
    return box
