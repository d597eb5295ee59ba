"""Notice damage that the libraries which read files do not notice.

``pages`` compares what the directories of a TIFF file say with each other and with its size. ``blosc`` does so for
chunks that Blosc has compressed.
"""
