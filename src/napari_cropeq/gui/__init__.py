"""The window: dock widgets in napari. The one place for napari and Qt.

Read ``session`` first (what the widgets of a viewer share), then ``result`` (one SR layer and its worker), then
``widgets/``. Computing does not belong here, and nothing here knows the command line.
"""
