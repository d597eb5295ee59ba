"""Comparison of a result with its source or its interpolation: flip and curtain.

Read ``compare`` first, then ``curtain``. Only ``canvas`` uses private parts of napari.
"""
