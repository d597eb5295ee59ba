"""A batch in the window: what its form chooses, the images it would take, a run, and the table of what becomes of them.

Read ``form`` first, then ``run``. The dock widget that holds them is in ``widgets``, the batch itself in ``run/batch``.
"""
