"""The fields of a batch, and what they choose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from magicgui.widgets import ComboBox, FileEdit, FloatSpinBox, LineEdit

from napari_cropeq.compute.super_resolution import DTYPES
from napari_cropeq.core.model import Model
from napari_cropeq.core.training.config import TrainingConfig
from napari_cropeq.formats.find import find_images
from napari_cropeq.formats.image import Source
from napari_cropeq.formats.paths import EXISTING
from napari_cropeq.gui.layers.source import source_of
from napari_cropeq.gui.parts.planes_choice import PLANES
from napari_cropeq.gui.preferences import Preferences
from napari_cropeq.gui.session import Session
from napari_cropeq.run.batch import Batch, BatchSettings
from napari_cropeq.run.naming import FIELDS, PATTERN, Naming
from napari_cropeq.run.train_to_file import OwnTraining

__all__ = ["LAYERS", "BatchChoice", "BatchForm"]

FOLDER, FILES, LAYERS = "folder", "files", "layers"
IN_USE, EACH = "in use", "each"
FORMATS = (("OME-Zarr", ".ome.zarr"), ("OME-TIFF", ".ome.tif"))


@dataclass(frozen=True, slots=True)
class BatchChoice:
    """What the fields of a batch choose, checked as far as it can be without reading a file."""

    words: tuple[Path, ...]  # a folder, a pattern or files
    sources: tuple[Source, ...] | None  # the selected layers, instead
    naming: Naming
    settings: BatchSettings

    def batch(self) -> Batch:
        """Find the images and check their names; slow where a folder is.

        Raises
        ------
        ValueError, OSError
            See :class:`Batch`.
        """
        images = find_images(self.words) if self.sources is None else self.sources
        return Batch(images, self.naming, self.settings)


class BatchForm:
    """Which images, what they become, and where the results go.

    Parameters
    ----------
    session : Session
        Knows the selected layers and the model in use.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        told = "\n".join(f"{{{name}}}: {text}" for name, text in FIELDS.items())
        choices = [("a folder, or a pattern", FOLDER), ("files", FILES), ("the selected layers", LAYERS)]
        self.images = ComboBox(label="Images", choices=choices, tooltip="What is super-resolved")
        self.folder = FileEdit(
            label="Folder", mode="d", nullable=True, value=None, tooltip="or a pattern, such as data/*_raw.ome.zarr"
        )
        self.files = FileEdit(label="Files", mode="rm", nullable=True, value=None)
        self.which = ComboBox(label="Model", choices=[("none yet", IN_USE), ("train on each", EACH)])
        self.minutes = FloatSpinBox(
            label="Minutes", value=2.0, min=0.01, max=1e6, step=0.5, tooltip="Time to train on each image"
        )
        self.format = ComboBox(label="Format", choices=FORMATS)
        self.destination = FileEdit(
            label="Destination", mode="d", nullable=True, value=None, tooltip="The folder of the results"
        )
        self.pattern = LineEdit(label="Names", value=PATTERN, tooltip=told)
        self.dtype = ComboBox(label="Type", choices=list(DTYPES), tooltip="source: rounded and clipped to its range")
        self.planes = ComboBox(
            label="Planes", choices=PLANES, tooltip="Lateral axis that shares the planes with the axial one"
        )
        told = "What is done about outputs that are there; resume skips what is done and completes what is not"
        self.existing = ComboBox(label="Existing", choices=list(EXISTING), tooltip=told)
        self.widgets = [self.images, self.folder, self.files, self.which, self.minutes, self.format]
        self.widgets += [self.destination, self.pattern, self.dtype, self.planes, self.existing]
        self.images.changed.connect(self.show_relevant)
        self.which.changed.connect(self.show_relevant)

    def choice(self) -> BatchChoice:
        """Return what is chosen.

        Raises
        ------
        ValueError
            If something is missing, or a layer is no volume.
        """
        value = self.destination.value
        if value is None or str(value).strip() in ("", "."):
            raise ValueError("Got no destination, expected the folder of the results: choose one.")
        naming = Naming(Path(value), self.pattern.value, self.format.value)
        device, planes, dtype = Preferences.read().device, self.planes.value, self.dtype.value
        settings = BatchSettings(self._model(), self.existing.value, planes, dtype, device=device, parallel=False)
        words = self.words()
        if not words and self.images.value != LAYERS:
            raise ValueError(f"Got no {self.images.value} to work on, expected some: choose images above.")
        return BatchChoice(words, self._sources() if self.images.value == LAYERS else None, naming, settings)

    def words(self) -> tuple[Path, ...]:
        """Return the folder, the pattern or the files that are named; nothing where layers are chosen."""
        if self.images.value == LAYERS:
            return ()
        value = self.folder.value if self.images.value == FOLDER else self.files.value
        words = [Path(word) for word in (value if isinstance(value, Sequence) else [value] if value else [])]
        return tuple(word for word in words if str(word) not in ("", "."))

    def layers(self) -> list[Any]:
        """Return the selected layers in the order of the list; nothing where files are chosen."""
        viewer = self._session.viewer
        if self.images.value != LAYERS:
            return []
        return [layer for layer in viewer.layers if layer in viewer.layers.selection]

    def example(self, known: dict[str, Any]) -> str:
        """Return what the result of an image would be called, or what is wrong with the pattern of the names."""
        known = known | ({} if self.dtype.value == "source" else {"dtype": self.dtype.value})
        try:
            name = Naming(Path(), self.pattern.value, self.format.value).example(**known)
        except ValueError as error:
            return str(error)
        return f"Example: {name}{self.format.value}"

    def show_relevant(self) -> None:
        """Show the fields that the choices need."""
        self.folder.visible = self.images.value == FOLDER
        self.files.visible = self.images.value == FILES
        self.minutes.visible = self.which.value == EACH

    def show_model(self) -> None:
        """Name the model in use."""
        # Choices that are set anew change their order.
        self.which.native.setItemText(0, self._session.model_name or "none yet: train or load one")

    def _model(self) -> Model | OwnTraining:
        if self.which.value == EACH:
            return OwnTraining(TrainingConfig.preset("fast", minutes=self.minutes.value))
        if self._session.model is None:
            raise ValueError(
                "Got no model, expected one: train or load one in the Train widget, or choose to train on each image."
            )
        return self._session.model

    def _sources(self) -> tuple[Source, ...]:
        layers = self.layers()
        if not layers:
            raise ValueError("Got no selected layer, expected at least one: select layers in the layer list.")
        for layer in layers:
            if "napari-cropeq" in layer.metadata:
                raise ValueError(
                    f"Got the layer '{layer.name}', which is a result, expected acquired volumes: select its source."
                )
        return tuple(source_of(layer) for layer in layers)
