"""The question what planes that a file lacks are read as."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtWidgets import QApplication, QInputDialog

from napari_cropeq.errors import ImageError
from napari_cropeq.formats.image import Image
from napari_cropeq.formats.open import open_image

__all__ = ["open_or_ask"]

LARGEST = 2**31 - 1


def open_or_ask(path: Path | str) -> Image:
    """Open an image; if it lacks planes, ask in the window what they are read as.

    Raises
    ------
    ImageError
        As :func:`napari_cropeq.formats.open.open_image`, also if the user cancels, or there is no window.
    """
    try:
        return open_image(path)
    except ImageError as error:
        value = _asked(error.problem) if error.setting == "allow_missing" else None
        if value is None:
            raise
    return open_image(path, value)


def _asked(problem: str) -> float | None:
    """Return the value that the user gives; None if the user cancels or cannot be asked."""
    if QApplication.instance() is None:
        return None
    question = f"{problem}\nRead all voxels of the missing planes as:"
    value, given = QInputDialog.getDouble(None, "Missing planes", question, 0.0, -LARGEST, LARGEST, 3)
    return float(value) if given else None
