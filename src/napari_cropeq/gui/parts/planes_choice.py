"""The planes that super-resolution can go through, as they are offered."""

from __future__ import annotations

__all__ = ["PLANES"]

PLANES = (("automatic", None), ("z", "z"), ("y", "y"), ("x", "x"), ("mean of both", "both"))
