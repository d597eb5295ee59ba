"""A batch in the window: its form, the list of images, a run, and the table of images.

Read ``form`` first, then ``run``. The dock widget is in ``widgets``, the batch itself in ``run/batch``.
"""
