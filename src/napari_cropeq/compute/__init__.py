"""From a source and a model to any SR box, and to all of them.

Read ``super_resolution`` first (one box), then ``fill`` (a whole store), then ``scheduler`` (which tile is next).
Files, views and jobs do not belong here.
"""
