"""The visible part of a volume, and the lazy array that shows it.

Read ``view`` first (an immutable box with a centre, and its tiles, nearest first), then ``in_view`` (the tiles that a
view needs), then ``lazy`` (Dask levels on top of tile stores). Qt and napari do not belong here: ``gui`` converts the
camera to a ``View``.
"""
