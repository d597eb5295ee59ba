"""Open an image at an address, and keep the window responsive while its voxels arrive."""

from __future__ import annotations

from napari import Viewer
from napari.settings import get_settings
from napari.utils.notifications import show_info
from qtpy.QtWidgets import QInputDialog

from napari_cropeq.formats.paths import is_url
from napari_cropeq.gui.layers.questions import window

__all__ = ["open_address", "render_asynchronously"]

QUESTION = "Address of an OME-Zarr image, which starts with https://, http://, s3:// or gs://:"


def open_address(viewer: Viewer) -> None:
    """Ask for the address of an image, and open it."""
    given, text = "", QUESTION
    while True:
        given, accepted = QInputDialog.getText(window(), "Open address", text, text=given)
        given = given.strip()
        if not accepted or not given:
            return
        if is_url(given):
            viewer.open(given, plugin="napari-cropeq")
            return
        text = f"This is not an address. {QUESTION}"


def render_asynchronously(name: str) -> None:
    """Let napari render layers asynchronously: the window would wait for the server at each step through the slices."""
    experimental = get_settings().experimental
    if not experimental.async_:
        experimental.async_ = True
        show_info(
            f"{name} is read over the network. From now on, napari renders layers asynchronously, so that the window "
            "does not wait for it. File > Preferences > Experimental changes this."
        )
