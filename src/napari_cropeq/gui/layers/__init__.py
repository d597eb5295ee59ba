"""napari layers: layers as sources and results as layers, reader and writer, and the part in view.

Read ``source`` first (a layer as a source), then ``place`` (axes, scale and units). ``viewport``, ``view_follower`` and
``sr_layer`` lead from the camera to the tiles that are computed and shown.
"""
