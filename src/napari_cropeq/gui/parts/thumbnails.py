"""A validation patch as the network gets it, as it makes it, and as it should be."""

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
    "input": "Input: a lateral patch that was not trained on, as blurred and coarse as the axial direction",
    "output": "Output: what the network makes of it now",
    "truth": "Truth: the lateral patch itself",
}


class Thumbnails(QWidget):
    """Three grey images of equal contrast, nearest-neighbour scaled; the degraded axis is vertical.

    Of a patch that is longer along it than wide the part of most contrast is shown, so that its pixels can be seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.shown: Thumbnail | None = None
        self._images: dict[str, QLabel] = {}
        layout = QGridLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for column, (name, told) in enumerate(CAPTIONS.items()):
            caption, image = QLabel(name.capitalize()), QLabel()
            image.setFixedSize(WIDTH, HEIGHT)
            for label in (caption, image):
                label.setAlignment(Qt.AlignmentFlag.AlignCenter)
                label.setToolTip(told)
            layout.addWidget(caption, 0, column)
            layout.addWidget(image, 1, column, Qt.AlignmentFlag.AlignCenter)
            self._images[name] = image

    def show_patch(self, thumbnail: Thumbnail) -> None:
        """Show another patch, or the same as it is seen now."""
        if thumbnail is self.shown:
            return
        self.shown = thumbnail
        seen = _rows_seen(thumbnail.truth)
        low, high = np.percentile(thumbnail.truth[seen], (0.5, 99.5))
        for name, label in self._images.items():
            label.setPixmap(_pixmap(getattr(thumbnail, name)[seen], float(low), float(high)))

    def clear(self) -> None:
        """Show nothing."""
        self.shown = None
        for label in self._images.values():
            label.clear()


def _rows_seen(patch: npt.NDArray[np.float32]) -> slice:
    """Return the rows of a patch (rows, columns) that have the most contrast, as many as the room is high."""
    rows, columns = patch.shape
    seen = min(rows, columns * HEIGHT // WIDTH)
    sums = np.concatenate([[0.0], np.cumsum(patch.var(axis=1, dtype=np.float64))])
    start = int(np.argmax(sums[seen:] - sums[:-seen]))
    return slice(start, start + seen)


def _pixmap(patch: npt.NDArray[np.float32], low: float, high: float) -> QPixmap:
    """Return an image (rows, columns), grey from ``low`` to ``high``."""
    grey = np.clip((patch - low) / max(high - low, 1e-12) * 255, 0, 255)
    pixels = np.ascontiguousarray(grey.round().astype(np.uint8))
    height, width = pixels.shape
    # The image only borrows the pixels; the pixmap is a copy.
    pixmap = QPixmap.fromImage(QImage(pixels.data, width, height, width, QImage.Format.Format_Grayscale8))
    times = min(WIDTH // width, HEIGHT // height)  # whole, so that all pixels are of one size
    if times:
        return pixmap.scaled(times * width, times * height)
    keep, smooth = Qt.AspectRatioMode.KeepAspectRatio, Qt.TransformationMode.SmoothTransformation
    return pixmap.scaled(WIDTH, HEIGHT, keep, smooth)
