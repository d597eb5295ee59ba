"""The dock widgets that the manifest names; without torch, one that says what is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel

from napari_cropeq.errors import MissingPackageError
from napari_cropeq.torch_check import LOAD_FIRST, check_torch

__all__ = ["BatchDock", "DataDock", "PreviewDock", "TrainDock", "TrustDock", "VolumeDock"]


class Missing(QLabel):
    """What is missing and how to install it, as text that can be copied.

    napari would show an error of the import from the name of the module on, and hide the remedy.
    """

    text_shown = ""

    def __init__(self) -> None:
        super().__init__(self.text_shown)
        self.setWordWrap(True)
        self.setMargin(12)
        self.setMinimumWidth(300)
        self.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)


try:
    check_torch()
except MissingPackageError as error:
    again = "" if error.remedy == LOAD_FIRST else "\n\nThen start napari again."
    Missing.text_shown = f"{error.problem}\n\n{error.remedy}{again}"
    if not TYPE_CHECKING:
        BatchDock = DataDock = PreviewDock = TrainDock = TrustDock = VolumeDock = Missing
else:
    from napari_cropeq.gui.widgets.dock import BatchDock, DataDock, PreviewDock, TrainDock, TrustDock, VolumeDock
