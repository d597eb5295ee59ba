"""Errors that callers tell apart by their type; this module imports nothing."""

from __future__ import annotations

__all__ = ["StoppedError"]


class StoppedError(Exception):
    """The caller asked a computation to stop between two calls of the network."""
