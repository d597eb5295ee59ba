"""A held-out patch: the input of the network, its output, and the truth."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import Qt
from qtpy.QtGui import QImage, QPixmap
from qtpy.QtWidgets import QGridLayout, QLabel, QWidget

from napari_cropeq.core.training.training import Thumbnail

__all__ = ["Thumbnails"]

WIDTH, HEIGHT = 104, 128
CAPTIONS = {
    "input": (
        "slice as acquired",
        "A lateral patch that is not used for training, made as blurred and coarse as the axial direction",
    ),
    "output": ("super-resolved", "The same patch, super-resolved by the network so far"),
    "truth": ("held-out truth", "The original lateral patch"),
}


class Thumbnails(QWidget):
    """Three grey images of equal contrast, nearest-neighbour scaled; the degraded axis is vertical.

    Only the part with most contrast is shown if a patch is higher than wide, so that its pixels are visible.
    """

    def __init__(self) -> None:
        super().__init__()
        self.shown: Thumbnail | None = None
        self._images: dict[str, QLabel] = {}
        layout = QGridLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for column, (name, (text, tooltip)) in enumerate(CAPTIONS.items()):
            caption, image = QLabel(text), QLabel()
            image.setFixedSize(WIDTH, HEIGHT)
            for label in (caption, image):
                label.setAlignment(Qt.AlignmentFlag.AlignCenter)
                label.setToolTip(tooltip)
            layout.addWidget(caption, 0, column)
            layout.addWidget(image, 1, column, Qt.AlignmentFlag.AlignCenter)
            self._images[name] = image

    def show_patch(self, thumbnail: Thumbnail) -> None:
        """Show a patch; nothing is done if it is already shown."""
        if thumbnail is self.shown:
            return
        self.shown = thumbnail
        rows = _rows_shown(thumbnail.truth)
        low, high = np.percentile(thumbnail.truth[rows], (0.5, 99.5))
        for name, label in self._images.items():
            label.setPixmap(_pixmap(getattr(thumbnail, name)[rows], float(low), float(high)))

    def clear(self) -> None:
        """Show nothing."""
        self.shown = None
        for label in self._images.values():
            label.clear()


def _rows_shown(patch: npt.NDArray[np.float32]) -> slice:
    """Return the rows of a patch (rows, columns) that have the most contrast, as many as fit."""
    rows, columns = patch.shape
    shown = min(rows, columns * HEIGHT // WIDTH)
    sums = np.concatenate([[0.0], np.cumsum(patch.var(axis=1, dtype=np.float64))])
    start = int(np.argmax(sums[shown:] - sums[:-shown]))
    return slice(start, start + shown)


def _pixmap(patch: npt.NDArray[np.float32], low: float, high: float) -> QPixmap:
    """Return an image (rows, columns), grey from ``low`` to ``high``."""
    grey = np.clip((patch - low) / max(high - low, 1e-12) * 255, 0, 255)
    pixels = np.ascontiguousarray(grey.round().astype(np.uint8))
    height, width = pixels.shape
    # The QImage does not copy the pixels; the pixmap does.
    pixmap = QPixmap.fromImage(QImage(pixels.data, width, height, width, QImage.Format.Format_Grayscale8))
    times = min(WIDTH // width, HEIGHT // height)  # an integer, so that all pixels have the same size
    if times:
        return pixmap.scaled(times * width, times * height)
    keep, smooth = Qt.AspectRatioMode.KeepAspectRatio, Qt.TransformationMode.SmoothTransformation
    return pixmap.scaled(WIDTH, HEIGHT, keep, smooth)
