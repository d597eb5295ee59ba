"""The fields of the Batch widget, and the settings that they choose."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from magicgui.widgets import ComboBox, Container, FloatSpinBox, LineEdit
from magicgui.widgets.bases import ValueWidget

from napari_cropeq.compute.super_resolution import DTYPES
from napari_cropeq.core.model import Model
from napari_cropeq.core.training.config import TrainingConfig
from napari_cropeq.errors import ArgumentError
from napari_cropeq.formats.find import find_images
from napari_cropeq.formats.image import Image
from napari_cropeq.formats.metadata import full_unit
from napari_cropeq.formats.paths import EXISTING
from napari_cropeq.gui.files.field import FileField
from napari_cropeq.gui.hints import BATCH_HINTS
from napari_cropeq.gui.jobs import sentence
from napari_cropeq.gui.layers.source import source_of
from napari_cropeq.gui.parts.form import Form
from napari_cropeq.gui.parts.lengths import PIXEL, UNITS, size_fields
from napari_cropeq.gui.parts.planes_choice import PLANES, PLANES_TOOLTIP, TYPE_TOOLTIP
from napari_cropeq.gui.preferences import Preferences
from napari_cropeq.gui.session import Session
from napari_cropeq.run.batch import Batch, BatchSettings
from napari_cropeq.run.naming import FIELDS, PATTERN, Naming
from napari_cropeq.run.train_to_file import OwnTraining

__all__ = ["LAYERS", "BatchChoice", "BatchForm"]

FOLDER, FILES, LAYERS = "folder", "files", "layers"
IN_USE, EACH = "in use", "each"
FORMATS = (("OME-Zarr", ".ome.zarr"), ("OME-TIFF", ".ome.tif"))
EXISTING_TOOLTIP = (
    "If outputs exist already: refuse stops with a message, resume skips complete outputs and completes unfinished "
    "ones, overwrite replaces them"
)


@dataclass(frozen=True, slots=True)
class BatchChoice:
    """The settings of a batch, checked as far as possible without reading a file."""

    paths: tuple[Path, ...]  # a folder, a pattern or files
    sources: tuple[Image, ...] | None  # the selected layers, if these are chosen instead
    naming: Naming
    settings: BatchSettings
    model_name: str  # of the model in use; empty if one is trained on each image

    def batch(self) -> Batch:
        """Find the images and check the names of the outputs; may be slow on a network drive.

        Raises
        ------
        ValueError, OSError
            See :class:`Batch`.
        """
        images = find_images(self.paths) if self.sources is None else self.sources
        return Batch(images, self.naming, self.settings)


class BatchForm:
    """Fields for the images, the results and their destination.

    Parameters
    ----------
    form : Form
        The fields are added to it.
    session : Session
        Gives the selected layers and the model in use.
    """

    def __init__(self, form: Form, session: Session) -> None:
        self._form, self._session = form, session
        placeholders = "<br>".join(f"{{{name}}}: {text}" for name, text in FIELDS.items())  # napari drops line breaks
        choices = [("a folder, or a pattern", FOLDER), ("files", FILES), ("the selected layers", LAYERS)]
        self.images = ComboBox(label="Images", choices=choices, tooltip="The images to super-resolve")
        self.folder = FileField(
            "images", "d", label="Folder", tooltip="A folder, or a pattern such as data/*_raw.ome.zarr"
        )
        self.files = FileField("images", "rm", label="Files", tooltip="The image files")
        self.voxel_size = size_fields(", for files that do not store it; 0: not known", unknown=True)
        units = [unit for unit in UNITS if unit != PIXEL]
        self.unit = ComboBox(choices=units, tooltip="Unit of this voxel size, for models and results")
        self.unstored = _row("Voxel size", *self.voxel_size, self.unit)
        self.unstored.tooltip = "Voxel size and unit of files that store none"
        self.which = ComboBox(
            label="Model",
            choices=[("none yet", IN_USE), ("train on each", EACH)],
            tooltip="Use the same model for all images, or train a model on each image",
        )
        self.minutes = FloatSpinBox(
            label="Minutes", value=2.0, min=0.01, max=1e6, step=0.5, tooltip="Training time for each image, in minutes"
        )
        self.minutes.native.setSuffix(" min")
        self.destination = FileField("results", "d", label="Destination", tooltip="The folder to save the results in")
        self.pattern = LineEdit(value=PATTERN, tooltip=f"<qt>Names of the results<br>{placeholders}</qt>")
        self.format = ComboBox(choices=FORMATS, tooltip="File format of the results")
        names = _row("Names", self.pattern, self.format)
        names.tooltip = self.pattern.tooltip
        self.dtype = ComboBox(label="Type", choices=list(DTYPES), tooltip=TYPE_TOOLTIP)
        self.planes = ComboBox(label="Planes", choices=PLANES, tooltip=PLANES_TOOLTIP)
        self.existing = ComboBox(label="Existing", choices=list(EXISTING), tooltip=EXISTING_TOOLTIP)
        form.extend([self.images, self.folder, self.files, self.unstored, self.which, self.minutes])
        form.extend([self.destination, names, self.dtype, self.planes, self.existing])
        self.images.changed.connect(self.show_relevant)
        self.which.changed.connect(self.show_relevant)

    def choice(self) -> BatchChoice:
        """Return the chosen settings.

        Raises
        ------
        ValueError
            If something is missing, or a layer is not a volume.
        """
        folder = self.destination.path
        if folder is None:
            raise ArgumentError("There is no destination.", "Choose the folder to save the results in.")
        naming, model = Naming(folder, self.pattern.value, self.format.value), self._model()
        device, planes, dtype, assumed = Preferences.read().device, self.planes.value, self.dtype.value, self.assumed()
        settings = BatchSettings(
            model, self.existing.value, planes, dtype, device=device, parallel=False, assumed=assumed
        )
        paths = self.paths()
        if not paths and self.images.value != LAYERS:
            chosen = "No folder is" if self.images.value == FOLDER else "No files are"
            raise ArgumentError(f"{chosen} chosen.", "Choose the images above.")
        sources = self._sources() if self.images.value == LAYERS else None
        name = self._session.model_name if self.which.value == IN_USE else ""
        return BatchChoice(paths, sources, naming, settings, name)

    def assumed(self) -> tuple[tuple[float, float, float], str] | None:
        """Return voxel size (z, y, x) and unit of files that store none; None if they are not known."""
        z, y, x = (float(box.value) for box in self.voxel_size)
        if self.images.value == LAYERS or not (z or y or x):
            return None
        return (z, y, x), full_unit(self.unit.value)

    def paths(self) -> tuple[Path, ...]:
        """Return the chosen folder, pattern or files; nothing if layers are chosen."""
        if self.images.value == LAYERS:
            return ()
        return (self.folder if self.images.value == FOLDER else self.files).paths

    def layers(self) -> list[Any]:
        """Return the selected layers in the order of the layer list; nothing if files are chosen."""
        viewer = self._session.viewer
        if self.images.value != LAYERS:
            return []
        return [layer for layer in viewer.layers if layer in viewer.layers.selection]

    def example(self, known: dict[str, Any]) -> str:
        """Return an example of the name of a result, or what is wrong with the pattern."""
        known = known | ({} if self.dtype.value == "source" else {"dtype": self.dtype.value})
        try:
            name = Naming(Path(), self.pattern.value, self.format.value).example(**known)
        except ValueError as error:
            return sentence(error, BATCH_HINTS)
        return f"Example: {name}{self.format.value}"

    def show_relevant(self) -> None:
        """Show only the fields that apply to the choices."""
        self._form.show_field(self.folder, self.images.value == FOLDER)
        self._form.show_field(self.files, self.images.value == FILES)
        self._form.show_field(self.unstored, self.images.value != LAYERS)
        self._form.show_field(self.minutes, self.which.value == EACH)

    def show_model(self) -> None:
        """Name the model in use."""
        # Setting the choices again would change their order.
        self.which.native.setItemText(0, self._session.model_name or "none yet: train or load one")

    def _model(self) -> Model | OwnTraining:
        if self.which.value == EACH:
            return OwnTraining(TrainingConfig.preset("fast", minutes=self.minutes.value))
        if self._session.model is None:
            raise ArgumentError(
                "There is no model yet.",
                "Train or load one in Train, or choose to train on each image.",
            )
        return self._session.model

    def _sources(self) -> tuple[Image, ...]:
        layers = self.layers()
        if not layers:
            raise ArgumentError("No layer is selected.", "Select at least one in the layer list.")
        for layer in layers:
            if "napari-cropeq" in layer.metadata:
                raise ArgumentError(
                    f"The layer '{layer.name}' is already a result of super-resolution.", "Select its source instead."
                )
        return tuple(source_of(layer) for layer in layers)


def _row(label: str, *fields: ValueWidget) -> Container:
    """Return fields beside one another."""
    row = Container(widgets=fields, layout="horizontal", labels=False, label=label)
    row.margins = (0, 0, 0, 0)
    return row
