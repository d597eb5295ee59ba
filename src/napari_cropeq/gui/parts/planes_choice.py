"""The choices of planes and voxel type that several widgets offer, and their tooltips."""

from __future__ import annotations

__all__ = ["PLANES", "PLANES_TOOLTIP", "TYPE_TOOLTIP"]

PLANES = (("automatic", None), ("z", "z"), ("y", "y"), ("x", "x"), ("mean of both", "both"))
PLANES_TOOLTIP = (
    "The network processes planes that contain the axial axis and this lateral axis. Automatic: the mean of both, "
    "which is closer to the truth and takes twice the time of one"
)
TYPE_TOOLTIP = "Type of the voxels. source: that of the image, rounded and clipped to its range; float32: not rounded"
