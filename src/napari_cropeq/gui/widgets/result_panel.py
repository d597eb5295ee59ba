"""The base class of the steps Preview, Volume and Trust: the planes and the result."""

from __future__ import annotations

from pathlib import Path

from magicgui.widgets import ComboBox
from superqt.utils import QSignalThrottler

from napari_cropeq.core.model import Model
from napari_cropeq.gui.layers.source import check_layer
from napari_cropeq.gui.parts.layer_choice import LayerChoice
from napari_cropeq.gui.parts.planes_choice import PLANES, PLANES_TOOLTIP
from napari_cropeq.gui.result import Result
from napari_cropeq.gui.session import Session
from napari_cropeq.gui.widgets.panel import Panel

__all__ = ["TERMS", "ResultPanel"]

STATE_MS = 250  # napari redraws its whole window for each new text: 20 ms on two cores without a GPU
TERMS = (
    "A tile is a block of voxels that is computed at once. Bit-exact: every voxel of the tiles is identical to the "
    "same voxel of the volume computed as a whole. ≤ ε: they differ by at most this number."
)


class ResultPanel(Panel):
    """A step that requests tiles of a result.

    Parameters
    ----------
    session : Session
        Of the viewer.
    layer : LayerChoice
        The layer that all steps work on.
    """

    def __init__(self, session: Session, layer: LayerChoice) -> None:
        super().__init__(session, layer)
        self.result: Result | None = None
        self._show_soon = QSignalThrottler(parent=self)
        self._show_soon.setTimeout(STATE_MS)
        self._show_soon.triggered.connect(self.show_state)
        self.planes = ComboBox(label="Planes", choices=PLANES, tooltip=PLANES_TOOLTIP)
        self.message.setToolTip(TERMS)
        self.form.extend([self.planes])
        self.layer.changed.connect(self._on_layer)
        self.session.model_changed.connect(self._forget_complaint)

    def show_state(self) -> None:
        """Show the progress of the result."""

    def _on_layer(self) -> None:
        """Clear what was shown about the result of another layer, unless its run is in progress."""
        if self.result is not None and not self.result.running_all and self.result.source_layer is not self.layer.value:
            self.bar.reset()
            self.say("")

    def open_result(self, dtype: str | None = None, model: Model | None = None) -> Result:
        """Return the result for the chosen layer and a model, and show its state from now on.

        Parameters
        ----------
        dtype : str, optional
            ``source`` or ``float32``; by default that of the existing result.
        model : Model, optional
            By default the one in use.

        Raises
        ------
        ValueError
            If layer and model do not fit.
        """
        result = self.session.result_for(check_layer(self.layer.value), self.planes.value, dtype, model=model)
        if result is not self.result:
            if self.result is not None and self.result.alive:  # one that is closed is deleted
                self.result.changed.disconnect(self._show_soon.throttle)
                self.result.failed.disconnect(self.complain)
                self.result.saved.disconnect(self.say_saved)
            self.result = result
            result.changed.connect(self._show_soon.throttle)
            result.failed.connect(self.complain)
            result.saved.connect(self.say_saved)
        return result

    def say_saved(self, path: str) -> None:
        """Show that a file is complete."""
        self.say(f"Saved {Path(path).absolute()}.")
