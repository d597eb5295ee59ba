"""The questions that opening an image asks in the window: which image of a file, what missing planes are read as."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import napari
import zarr
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QApplication,
    QComboBox,
    QDialog,
    QDialogButtonBox,
    QFormLayout,
    QInputDialog,
    QLabel,
    QListWidget,
    QVBoxLayout,
    QWidget,
)

from napari_cropeq.errors import ImageError
from napari_cropeq.formats.image import Image
from napari_cropeq.formats.ome_zarr.collection import fields_of, wells_of
from napari_cropeq.formats.ome_zarr.remote import RemoteStore
from napari_cropeq.formats.open import open_image, scenes_of

__all__ = ["open_or_ask", "window"]

LARGEST = 2**31 - 1


def open_or_ask(place: Path | str) -> Image | None:
    """Open an image, and ask in the window for what opening it needs.

    This is the image of a file with several, the field of a plate, or the value of missing planes.

    Returns
    -------
    Image or None
        None if the user cancels.

    Raises
    ------
    ImageError
        As :func:`napari_cropeq.formats.open.open_image`, also if there is no window to ask in.
    """
    answers: dict[str, Any] = {}
    while True:
        setting, problem, scenes = "scene", "", ()
        try:
            image = open_image(place, **answers)
            if not image.scenes or "scene" in answers or not _can_ask():
                return image
            scenes = image.scenes
        except ImageError as error:
            setting, problem = error.setting, error.problem
            if setting not in ("scene", "allow_missing") or setting in answers or not _can_ask():
                raise
        if setting == "allow_missing":
            answer: float | str | None = _value(problem)
        else:
            answer = _scene_dialog(place, problem, scenes, answers.get("allow_missing")).answer()
        if answer is None:
            return None
        answers[setting] = answer


def _can_ask() -> bool:
    return QApplication.instance() is not None


def window() -> QWidget | None:
    """Return the window to show a dialog in, which gives it its colours."""
    viewer = napari.current_viewer()
    return None if viewer is None else viewer.window._qt_window


def _value(problem: str) -> float | None:
    """Ask for the value of missing planes."""
    question = f"{problem}\nRead all voxels of the missing planes as:"
    value, given = QInputDialog.getDouble(window(), "Missing planes", question, 0.0, -LARGEST, LARGEST, 3)
    return float(value) if given else None


def _scene_dialog(
    place: Path | str, problem: str, scenes: tuple[str, ...], allow_missing: float | None
) -> FieldDialog | SceneDialog:
    """Return the question which image of a file or collection, or which field of a plate, to open."""
    name = place.name if isinstance(place, Path) else place.rsplit("/", 1)[-1]
    if not scenes and (isinstance(place, str) or place.is_dir()):
        group = zarr.open_group(RemoteStore(place) if isinstance(place, str) else place, mode="r")
        wells = wells_of(group)
        if wells:
            return FieldDialog(name, group, wells)
    return SceneDialog(name, scenes or scenes_of(place, allow_missing), problem)


class _OpenDialog(QDialog):
    """A question with the buttons Open and Cancel."""

    def __init__(self, title: str, question: str) -> None:
        super().__init__(window())
        self.setWindowTitle(title)
        self.setMinimumWidth(400)
        self.form = QFormLayout()
        label = QLabel(question)
        label.setTextFormat(Qt.PlainText)
        label.setWordWrap(True)
        self.buttons = QDialogButtonBox(QDialogButtonBox.Open | QDialogButtonBox.Cancel)
        self.buttons.accepted.connect(self.accept)
        self.buttons.rejected.connect(self.reject)
        layout = QVBoxLayout(self)
        layout.addWidget(label)
        layout.addLayout(self.form, 1)
        layout.addWidget(self.buttons)

    def answer(self) -> str | None:
        """Show the dialog and return what the user chooses; None if the user cancels."""
        try:
            return self.chosen() if self.exec() == QDialog.Accepted else None
        finally:
            self.deleteLater()

    def chosen(self) -> str:
        """Return what is chosen."""
        raise NotImplementedError


class SceneDialog(_OpenDialog):
    """Choose one of the images of a file by its name.

    Parameters
    ----------
    file : str
        Name of the file.
    scenes : tuple of str
        Names of its images.
    problem : str
        Why the first image cannot be opened; empty if it can.
    """

    def __init__(self, file: str, scenes: tuple[str, ...], problem: str) -> None:
        super().__init__("Choose image", problem or f"{file} has {len(scenes)} images. Open:")
        self.list = QListWidget()
        self.list.addItems(scenes)
        self.list.setCurrentRow(0)
        self.list.itemDoubleClicked.connect(self.accept)
        self.form.addRow(self.list)
        self.list.setFocus()

    def chosen(self) -> str:
        """Return the name of the chosen image."""
        return self.list.currentItem().text()


class FieldDialog(_OpenDialog):
    """Choose a well of a plate, and a field of that well.

    Parameters
    ----------
    plate : str
        Name of the plate.
    group : zarr.Group
        Its group.
    wells : tuple of str
        Paths of its wells.
    """

    def __init__(self, plate: str, group: zarr.Group, wells: tuple[str, ...]) -> None:
        super().__init__("Choose field", f"{plate} is a plate of {len(wells)} wells. Open one field of a well:")
        self._group = group
        self.well, self.field = QComboBox(), QComboBox()
        self.well.addItems(wells)
        self.form.addRow("&Well", self.well)
        self.form.addRow("&Field", self.field)
        self.well.currentTextChanged.connect(self._list_fields)
        self._list_fields(wells[0])
        self.well.setFocus()

    def chosen(self) -> str:
        """Return the path of the chosen field."""
        return str(self.field.currentData())

    def _list_fields(self, well: str) -> None:
        self.field.clear()
        for path in fields_of(self._group, well):
            self.field.addItem(path.removeprefix(f"{well}/"), path)
        imaged = self.field.count() > 0
        if not imaged:
            self.field.addItem("not imaged")
        self.field.setEnabled(imaged)
        self.buttons.button(QDialogButtonBox.Open).setEnabled(imaged)
