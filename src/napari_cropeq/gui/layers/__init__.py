"""napari layers: from a layer to a source and back, files as layers and layers as files, what is in view.

Read ``source`` first (a layer as a source), then ``place`` (axes, scale and units). From the camera to what is computed
and shown lead ``viewport``, ``view_follower`` and ``sr_layer``.
"""
