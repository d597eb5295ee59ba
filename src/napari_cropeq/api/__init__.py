"""The public functions: whole jobs on anything that is a volume, for scripts and notebooks.

``import napari_cropeq`` exports them. Read ``train`` first, then ``result`` (data and a model, checked) and ``voxels``
(a result in memory, or lazily). ``image`` makes an image of whatever a user has. What computes does not belong here.
"""
