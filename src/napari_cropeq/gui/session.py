"""What the dock widgets of one viewer share: the model in use and the results."""

from __future__ import annotations

import weakref
from typing import Any

from napari.layers import Image
from qtpy.QtCore import QObject, Signal

from napari_cropeq.core.model import Model
from napari_cropeq.gui.result import Result, result_key

__all__ = ["Session"]

_sessions: dict[int, Session] = {}


class Session(QObject):
    """The model in use and one result for each source layer."""

    model_changed = Signal()

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self.viewer = viewer
        self.model: Model | None = None
        self.model_name = ""
        self.results: list[Result] = []
        self._users = 0

    @classmethod
    def of(cls, viewer: Any) -> Session:
        """Return the session of a viewer, the same for all its widgets."""
        # napari hands plugins a proxy, a new one each time; what it wraps is the viewer.
        viewer = getattr(viewer, "__wrapped__", viewer)
        key = id(viewer)
        if key not in _sessions:
            _sessions[key] = cls(weakref.proxy(viewer))
            weakref.finalize(viewer, _sessions.pop, key, None)
        return _sessions[key]

    def use_model(self, model: Model, name: str) -> None:
        """Make ``model`` the one in use."""
        self.model, self.model_name = model, name
        self.model_changed.emit()

    def result_for(
        self, layer: Image, planes: str | None = None, dtype: str = "source", device: str = "auto"
    ) -> Result:
        """Return the result for a layer and the model in use, the one there is or a new one.

        Another model's result for the layer is closed; its layer stays.

        Raises
        ------
        ValueError
            If there is no model, or it does not fit the layer.
        """
        if self.model is None:
            raise ValueError("Got no model, expected one: train on this layer, or load a model in the Train widget.")
        self.results = [r for r in self.results if r.alive]
        key = result_key(layer, self.model, planes, dtype)
        for result in self.results:
            if result.key == key:
                return result
        new = Result(self.viewer, layer, self.model, planes, dtype, device)
        for result in self.results:
            if result.source_layer is layer:
                result.close()
        self.results.append(new)
        return new

    def enter(self) -> None:
        """Count a widget that uses the session."""
        self._users += 1

    def leave(self) -> None:
        """Close all results once the last widget that used them is gone."""
        self._users -= 1
        if self._users <= 0:
            self.close()

    def close(self) -> None:
        """Stop all work on results."""
        for result in self.results:
            result.close()
        self.results.clear()
