"""Compute SR (super-resolved) boxes from an image and a model.

Read ``super_resolution`` first (one box), then ``fill`` (a whole store, in storage order), then ``scheduler`` (tiles,
that is, blocks of voxels: those in view before the rest). ``view`` decides the order of the tiles in view. Files, views
and jobs do not belong here.
"""
