"""A result beside its source: flip and curtain.

Read ``compare`` first, then ``curtain``. ``canvas`` is the one place that needs private parts of napari.
"""
