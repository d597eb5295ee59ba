"""Dock widgets in napari. Only this package imports napari and Qt.

Read ``session`` first (what the widgets of a viewer share), then ``result`` (one SR layer and its worker), then
``widgets/``. Computations and the command line do not belong here.
"""
