"""From a source and a model to any SR box, and to all of them.

Read ``super_resolution`` first (one box), then ``fill`` (a whole store, in storage order), then ``scheduler`` (tiles
in view before the rest). The order of the tiles in view is made in ``view``. Files, views and jobs do not belong
here.
"""
