"""The training data as widgets that follow the layer: grid, slice profile, channels and time points."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from magicgui.widgets import ComboBox, Container, PushButton
from napari.layers import Image
from psygnal import Signal
from qtpy.QtWidgets import QComboBox

from napari_cropeq.core.geometry import AXIS_NAMES, MIN_SLICES, Acquisition, guess_axial
from napari_cropeq.formats.image import acquisition_of
from napari_cropeq.gui.layers.axes import arrange, described, possible_axes, stated_axes
from napari_cropeq.gui.layers.source import check_layer, set_unit, set_voxel_size, source_of, unit_of, voxel_size_of
from napari_cropeq.gui.parts.form import Form
from napari_cropeq.gui.parts.keyboard import with_mnemonic
from napari_cropeq.gui.parts.lengths import PIXEL, PROPOSED, UNITS, length_field, size_fields
from napari_cropeq.gui.training_data import TrainingData, channel_layers, shown_of

__all__ = ["ALL", "SHOWN", "SourceForm"]

CONFIRMED = "napari-cropeq-voxel-size"
"""Key in a layer's metadata: the user has confirmed voxel size and unit."""

SHOWN, ALL = "shown", "all"
SHORT = 12  # characters of the axes that a narrow window shows
AXES = (
    "Another choice labels the axes of the layer, and moves them into the order time, channels, z, y, x. Choose the "
    "same again to confirm it"
)
FOLLOWED = ("data", "axis_labels", "scale", "affine", "units")  # of a layer


class SourceForm:
    """Fields for the acquisition of a layer and for the volumes to train on.

    Correcting voxel size or unit sets those of the layer; choosing its axes labels and moves them.

    Parameters
    ----------
    form : Form
        The fields are added to it.
    others : callable
        Returns all layers, among them those with other channels of the chosen one.
    attempt : callable
        Runs a function and shows its error to the user.
    """

    followed = Signal()  # a layer, or another acquisition of it, is shown

    def __init__(
        self, form: Form, others: Callable[[], list[Any]], attempt: Callable[[Callable[[], None]], None]
    ) -> None:
        self._form, self._others = form, others
        self.axes = ComboBox(label="Axes", tooltip=AXES)
        self.axes.native.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.axes.native.setMinimumContentsLength(SHORT)
        self._doubt = ""  # about the axes
        one = [("the one shown", SHOWN)]
        self.channels = ComboBox(label="Channels", choices=one)
        self.times = ComboBox(
            label="Time points", choices=one, tooltip="Time points to train on; all use the normalisation of the first"
        )
        self.axial = ComboBox(
            label="Axial axis", choices=list(AXIS_NAMES), tooltip="The axis with the lowest resolution"
        )
        self.voxel_size = size_fields()
        self.unit = ComboBox(label="Unit", choices=UNITS, tooltip="Unit of voxel size and FWHM, for layer and files")
        self._sizes = Container(widgets=self.voxel_size, layout="horizontal", labels=False, label="Voxel size")
        self._sizes.margins = (0, 0, 0, 0)
        self.fwhm = length_field(
            "FWHM", "Full width at half maximum of the axial blur (slice profile); by default the axial step"
        )
        tooltip = "Width of the blur that lateral slices already have; training adds only the difference"
        self.lateral_fwhm = length_field("Lateral FWHM", tooltip, 0.0)
        self.lateral_fwhm.min = 0.0
        self.lateral_fwhm.native.setSpecialValueText("unknown")
        self.confirm = PushButton(text=with_mnemonic("Confirm"), tooltip="The voxel size and its unit are as shown")
        self.confirm.label = ""
        form.extend([self.axes, self.channels, self.times, self.axial, self._sizes, self.unit, self.confirm, self.fwhm])
        self._layer: Any = None  # the layer whose scale the fields follow
        self._followed: float | None = None  # the step that the FWHM follows until the user changes it
        self._showing = False

        def correct(axis: int | None) -> None:
            if not self._showing:
                attempt(lambda: self._correct_layer(axis))

        def arranged() -> None:
            if not self._showing and self._layer is not None:
                attempt(lambda: arrange(self._layer, self.axes.value))

        self.axes.changed.connect(arranged)
        self.axes.native.activated.connect(lambda _: arranged())  # also if the shown choice is confirmed
        for axis, box in enumerate(self.voxel_size):
            box.changed.connect(lambda _=None, axis=axis: correct(axis))
        self.unit.changed.connect(lambda: correct(None))
        self.confirm.clicked.connect(lambda: correct(None))

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
        """Show a layer, now and whenever its axes or scale change."""
        is_new = layer is not self._layer
        if is_new:
            for old, connect in ((self._layer, False), (layer, True)):
                if old is not None:
                    for name in FOLLOWED:
                        event = getattr(old.events, name)
                        (event.connect if connect else event.disconnect)(self._on_change)
            self._layer = layer
        self._show_axes()
        self.offer()
        if layer is not None and layer.ndim >= 3:
            self._show(layer, is_new)
        self.followed.emit()

    def _show(self, layer: Image, is_new: bool) -> None:
        size = voxel_size_of(layer)
        known = unit_of(layer)
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
            self.unit.choices = UNITS if known in UNITS else (*UNITS, known)
            self.unit.value = PROPOSED if known == PIXEL and not self._is_confirmed(layer) else known
            self._form.show_field(self.confirm, not self._is_confirmed(layer))
            for field, name in ((self._sizes, "Voxel size"), (self.fwhm, "FWHM")):
                self._form.rename(field, f"{name} ({self.unit.value})")
            self.lateral_fwhm.native.setSuffix(f" {self.unit.value}")
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
            self._offer(self.channels, "this layer", f"this and {len(names) - 1} more of the same shape", True)
        else:
            self._offer(self.channels, "the one shown", f"all {channels}", channels > 1)
        self._offer(self.times, "the one shown", f"all {times}", times > 1)

    def _offer(self, box: ComboBox, one: str, every: str, several: bool) -> None:
        """Offer one or all; the current choice is kept if it still exists."""
        before = box.value
        box.choices = [(one, SHOWN), (every, ALL)] if several else [(one, SHOWN)]
        box.value = before if several else SHOWN
        self._form.show_field(box, several)

    def _show_axes(self) -> None:
        """Show what the axes of a layer with more than three are, and whether that is an assumption."""
        layer = self._layer
        several = isinstance(layer, Image) and not layer.rgb and 4 <= layer.ndim <= 5
        self._form.show_field(self.axes, several)
        self._doubt = ""
        if not several:
            return
        self._showing = True
        try:
            choices = possible_axes(layer)
            self.axes.choices = [(described(letters, layer.data.shape), letters) for letters in choices]
            self.axes.value = choices[0]
            self.axes.tooltip = f"{described(choices[0], layer.data.shape)}. {AXES}"
        finally:
            self._showing = False
        slices = layer.data.shape[choices[0].index("z")]
        few = f", and z has only {slices} slice{'s' * (slices != 1)}" if slices < MIN_SLICES else ""
        if not stated_axes(layer.axis_labels, layer.ndim):
            self._doubt = f"Check Axes: the layer does not name them{few}."

    def _on_change(self, _: Any = None) -> None:
        self.follow(self._layer)

    @property
    def notice(self) -> str:
        """What has to be confirmed, as a sentence; empty if nothing."""
        layer, unit = self._layer, ""
        if layer is not None and layer.ndim >= 3 and not self._is_confirmed(layer):
            unit = "The file stores no unit of its voxel size. Set voxel size and unit, or press Confirm."
        return " ".join(filter(None, (self._doubt, unit)))

    def _is_confirmed(self, layer: Image) -> bool:
        """Whether the unit of a layer is known from its file or from the user."""
        return unit_of(layer) != PIXEL or bool(layer.metadata.get(CONFIRMED))

    def _correct_layer(self, axis: int | None) -> None:
        """Set the layer's unit, and its scale along one axis, from the fields."""
        layer = self._layer
        if layer is None:
            return
        size = list(voxel_size_of(layer))
        if axis is not None:
            size[axis] = float(self.voxel_size[axis].value)
        set_voxel_size(layer, (size[0], size[1], size[2]))
        layer.metadata[CONFIRMED] = True
        set_unit(layer, self.unit.value)
        self.follow(layer)
