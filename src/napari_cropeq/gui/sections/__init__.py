"""Parts of a panel that are folded under a title; read :mod:`napari_cropeq.gui.sections.section` first."""

from __future__ import annotations
