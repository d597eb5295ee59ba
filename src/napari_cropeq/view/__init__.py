"""What of a volume is looked at, and the lazy array that shows it.

Read ``view`` first (a frozen box with a centre, and its tiles nearest first), then ``in_view`` (which tiles a view
needs), then ``lazy`` (the Dask levels over tile stores). Qt and napari do not belong here: the window translates its
camera into a ``View``.
"""
