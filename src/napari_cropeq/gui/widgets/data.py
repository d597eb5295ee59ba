"""The step Data: how the layer was acquired, and what can be measured on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from napari_cropeq.gui.hints import TRAIN_HINTS
from napari_cropeq.gui.layers.source import source_of, unit_of
from napari_cropeq.gui.parts.layer_choice import LayerChoice
from napari_cropeq.gui.parts.source_form import SourceForm
from napari_cropeq.gui.sections.measurement import MeasurementSection
from napari_cropeq.gui.sections.noise import NoiseSection
from napari_cropeq.gui.sections.slice_profile import ProfileSection
from napari_cropeq.gui.session import Session
from napari_cropeq.gui.widgets.panel import Panel

__all__ = ["DataWidget"]


class DataWidget(Panel):
    """Shows axes, voxel size and slice profile of the layer, which can be corrected, and measures its noise.

    Parameters
    ----------
    session : Session
        Of the viewer.
    layer : LayerChoice
        The layer that all steps work on.
    """

    hints = TRAIN_HINTS

    def __init__(self, session: Session, layer: LayerChoice) -> None:
        super().__init__(session, layer)
        self.source = SourceForm(self.form, self.layer.sources, self._correct)
        self.profile = ProfileSection(self.source.fwhm, self.source.lateral_fwhm, self.colours)
        self.noise = NoiseSection(self.colours)
        self.coloured += [self.profile, self.noise]
        for section, other in ((self.profile, self.noise), (self.noise, self.profile)):
            # In a small window there is no room for both.
            section.toggled.connect(lambda on, other=other: other.collapse(animate=False) if on else None)
            self.below.rows.addWidget(section)
            section.asked.connect(lambda section=section: self.pressed(lambda: self.measure(section)))
            for box in (*self.source.voxel_size, self.source.axial, self.source.lateral_fwhm):
                box.changed.connect(section.clear)  # it was measured for another acquisition
        self.add_status()
        self.bar.setVisible(False)
        self.layer.changed.connect(self._show_layer)
        for event in (self.viewer.layers.events.inserted, self.viewer.layers.events.removed):
            event.connect(self.source.offer)  # other layers may be further channels
        self.source.followed.connect(self._show_notice)
        self._show_layer()

    def measure(self, section: MeasurementSection) -> None:
        """Measure the shown volume for a section, in the background; nothing is changed."""
        layer, acquisition = self.layer.value, self.source.acquisition()
        [[volume]] = self.source.data(self.viewer.dims.point, every=False).channels

        def steps() -> Iterator[Any]:
            yield section.measure(volume, acquisition)

        def show(result: Any) -> None:
            if self.layer.value is layer and self.source.acquisition() == acquisition:
                section.show_result(result, unit_of(layer))

        section.wait()
        self.run(steps, show, section.done)

    def _correct(self, action: Callable[[], None]) -> None:
        """Correct the layer; the view is fitted to it, and shows the same slice."""
        step, before = self.viewer.dims.current_step, self.viewer.layers.extent.world
        self.attempt(action)
        if not np.array_equal(self.viewer.layers.extent.world, before):
            self.viewer.dims.current_step = step
            self.viewer.fit_to_view()

    def stop_work(self) -> None:
        """Disconnect from the viewer when the dock is closed; the session stops the job."""
        for event in (self.viewer.layers.events.inserted, self.viewer.layers.events.removed):
            event.disconnect(self.source.offer)

    def _show_notice(self) -> None:
        """Show what has to be confirmed, or else what follows from the voxel size."""
        if not self.complaining:
            self.say(self.source.notice or self._factor())

    def _factor(self) -> str:
        """Return by what the slices are multiplied; nothing for a layer that cannot be super-resolved."""
        try:
            acquisition = self.source.acquisition()
        except ValueError:
            return ""
        shape = source_of(self.layer.value).data.shape[-3:]
        slices, more = (lengths[acquisition.axial] for lengths in (shape, acquisition.sr_shape(shape)))
        return f"Factor {acquisition.factor:.4g}: {slices} slices become {more}."

    def _show_layer(self) -> None:
        self.source.follow(self.layer.value)
        for section in (self.profile, self.noise):
            section.clear()
