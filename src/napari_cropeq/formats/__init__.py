"""Images: files as lazy arrays with axes, voxel size and unit, and arrays as files.

Read ``image`` first: ``open_source`` is the way in. There is one reader a format (``tiff``, ``nifti``, ``ome_zarr``),
and ``write`` writes any image. No torch, and nothing about super-resolution, belongs here.
"""
