"""State shared by the dock widgets of one viewer: the model in use, the results, and the tiles in memory."""

from __future__ import annotations

import contextlib
import weakref
from typing import Any

from napari.layers import Image
from qtpy.QtCore import QCoreApplication, QObject, Signal

from napari_cropeq.core.model import Model
from napari_cropeq.errors import ArgumentError
from napari_cropeq.gui.jobs import Job
from napari_cropeq.gui.layers.source import finest
from napari_cropeq.gui.preferences import Preferences, on_change
from napari_cropeq.gui.result import Result, result_key
from napari_cropeq.store.memory import TileCache

__all__ = ["Session", "is_complete"]

LIVE = "training"  # in the name of a layer that shows a model while it is trained

_sessions: dict[int, Session] = {}


class Session(QObject):
    """The model in use, one result for each source layer, and the cache of all their tiles."""

    model_changed = Signal()
    loading_changed = Signal()
    live_model = Signal(object, object)  # the layer that is trained on, and a model with its current weights

    def __init__(self, viewer: Any) -> None:
        super().__init__(QCoreApplication.instance())
        self.viewer = viewer
        self.cache = TileCache(Preferences.read().cache_bytes)
        self.stop_listening = on_change(self._on_preferences)
        self.model: Model | None = None
        self.model_name = self.model_label = ""
        self.loading = ""  # name of the model that is being read
        self._names: dict[str, str] = {}  # of models that were in use, by their fingerprint
        self.results: list[Result] = []
        self.live_wanted = 0  # number of widgets that show a training while it runs
        self._users: list[list[Job]] = []

    @classmethod
    def of(cls, viewer: Any) -> Session:
        """Return the session of a viewer, the same for all its widgets."""
        # napari gives plugins a new proxy each time; the object that it wraps is the viewer.
        viewer = getattr(viewer, "__wrapped__", viewer)
        key = id(viewer)
        if key not in _sessions:
            _sessions[key] = cls(weakref.proxy(viewer))
            weakref.finalize(viewer, _end, key)
        return _sessions[key]

    def use_model(self, model: Model, name: str, label: str = "") -> None:
        """Make ``model`` the one in use.

        Parameters
        ----------
        model : Model
            The model.
        name : str
            What to call it: the name of its file, or where it is from.
        label : str
            What to call it in the names of layers; by default ``name`` without the suffix of a model file.
        """
        self.model, self.model_name = model, name
        self.model_label = label or name.removesuffix(".safetensors")
        self._names[model.fingerprint] = name
        self.model_changed.emit()

    def want_live(self, on: bool) -> None:
        """Count the widgets that show a training while it runs: one more or one fewer."""
        self.live_wanted += 1 if on else -1

    def load(self, name: str) -> None:
        """Show that a model of this name is being read, or with an empty name that none is."""
        self.loading = name
        with contextlib.suppress(RuntimeError):  # the reading may end after the window is deleted
            self.loading_changed.emit()

    def name_of(self, result: Result) -> str:
        """Return the name of the model that a result is computed with, which may not be in use any more."""
        return self._names.get(result.fingerprint, "the model in training")

    def model_in_use(self) -> Model:
        """Return the model in use.

        Raises
        ------
        ArgumentError
            If there is none.
        """
        if self.model is None:
            raise ArgumentError("There is no model yet.", "Train on this layer, or load a model, in Train.")
        return self.model

    def result_for(
        self,
        layer: Image,
        planes: str | None = None,
        dtype: str | None = None,
        device: str | None = None,
        model: Model | None = None,
    ) -> Result:
        """Return the result for a layer and the model in use: the existing one, or a new one.

        Another result for the layer is closed; its layer stays.

        Parameters
        ----------
        layer : Image
            The source.
        planes : str, optional
            See :class:`Result`.
        device : str, optional
            ``auto``, ``cpu``, ``cuda``, ``mps`` or ``xpu``; by default the one chosen in the Preferences.
        dtype : str, optional
            ``source`` or ``float32``; by default that of the existing result.
        model : Model, optional
            Instead of the model in use: one that is still being trained.

        Raises
        ------
        ValueError
            If there is no model, it does not fit the layer, or a run over the whole layer with other settings
            is in progress.
        """
        label = self.model_label if model is None else LIVE
        model = model or self.model_in_use()
        for result in [r for r in self.results if not r.alive]:
            result.close()
            self.results.remove(result)
        own = [r for r in self.results if r.source_layer is layer]
        for result in own:
            if result.key == result_key(layer, model, planes, dtype or result.dtype):
                return result
        if any(r.running_all for r in own):
            raise ArgumentError(
                f"The whole of '{layer.name}' is being computed with another model or other settings.",
                "Wait until it is complete, or press Stop in Volume.",
            )
        device = device or Preferences.read().device
        new = Result(self.viewer, layer, model, planes, dtype or "source", device, self.cache, label)
        new.shown.hid_source = any(r.shown.hid_source for r in own)
        for result in own:
            new.shown.inherit(result.shown)
            if result.model.fingerprint == model.fingerprint and not result.state.complete:
                new.shown.adopted = result.layer
            elif result.layer is not None:
                new.shown.superseded.append(result.layer)
            result.close()
        new.setParent(self)
        self.results.append(new)
        return new

    def enter(self) -> list[Job]:
        """Register a widget; return the list for jobs that are stopped with it."""
        jobs: list[Job] = []
        self._users.append(jobs)
        return jobs

    def leave(self, jobs: list[Job]) -> None:
        """Stop a widget's jobs; close all results once the last widget is gone. Harmless when called again."""
        if not any(user is jobs for user in self._users):
            return
        self._users = [user for user in self._users if user is not jobs]
        for job in jobs:
            job.stop(wait=True)
        if not self._users:
            self.close()

    def close(self) -> None:
        """Stop all work on results."""
        for result in self.results:
            result.close()
        self.results.clear()

    def _on_preferences(self, preferences: Preferences) -> None:
        self.cache.cap = preferences.cache_bytes


def is_complete(level: Any) -> bool:
    """Return whether ``level`` is the finest level of an SR layer, or of a copy of it, with every tile computed."""
    results = [r for session in _sessions.values() for r in session.results if r.state.complete and r.layer is not None]
    # An array and its copies share a Dask name, which no other array has.
    return any(finest(r.layer).name == getattr(level, "name", None) for r in results)


def _end(key: int) -> None:
    """Remove the session of a deleted viewer."""
    session = _sessions.pop(key, None)
    if session is not None:
        session.stop_listening()
        with contextlib.suppress(RuntimeError):  # Qt may be shut down before Python
            session.deleteLater()
