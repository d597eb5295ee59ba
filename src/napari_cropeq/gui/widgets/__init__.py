"""The dock widgets, one file each, and their base classes.

Read ``panel`` first (the base class of all), then ``train``. The parts of the widgets are in ``parts``.
"""
