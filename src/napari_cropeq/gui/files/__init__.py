"""Fields for the names of files; read :mod:`napari_cropeq.gui.files.field` first."""

from __future__ import annotations
