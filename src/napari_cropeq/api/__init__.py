"""The public functions: whole jobs on arrays, images and files, for scripts and notebooks.

``import napari_cropeq`` exports them. Read ``train`` first, then ``result`` (checks data and model) and ``voxels`` (a
result in memory, or as a lazy array). ``image`` converts the data that a user passes to an image. Computations do not
belong here.
"""
