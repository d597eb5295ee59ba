"""OME-Zarr: ``read`` opens an image, ``write`` writes one; ``collection`` lists the images of a plate or collection.

An image may lie in a folder, or at an address: ``remote`` has the store of objects at an address.
"""
