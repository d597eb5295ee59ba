"""Images: files as lazy arrays with axes, voxel size and unit, and arrays as files.

Read ``image`` first: ``open_image`` is the way in, and lists the reader of each format (``tiff``, ``nifti``,
``ome_zarr``; a new one is added there and in ``napari.yaml``). ``metadata`` has what files say: voxel size, unit,
channels. ``write`` writes any image. No torch, and nothing about super-resolution, belongs here.
"""
