"""Notice that the files of an image change while it is read, so that no result mixes two volumes.

Read ``files`` first: the files as they were when the image was opened. ``chunks`` does the same for the chunks of a
Zarr array, of which a missing one would be read as fill value. Both compare what ``stat`` says; nothing is read twice.
"""
