"""Comparison of a result with its source: flip and curtain.

Read ``compare`` first, then ``curtain``. Only ``canvas`` uses private parts of napari.
"""
