"""Images: files as lazy arrays with axes, voxel size and unit, and arrays as files.

Read ``image`` first: ``open_image`` opens any image, and lists the reader of each format (``tiff``, ``nifti``,
``ome_zarr``). Add the reader of a new format there and in ``napari.yaml``. ``metadata`` has what files record: voxel
size, unit, channels. ``write`` writes any image. Code that uses torch or is about super-resolution does not belong
here.
"""
