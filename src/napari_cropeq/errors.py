"""Errors that callers tell apart by their type; this module imports nothing."""

from __future__ import annotations

__all__ = ["CompletedMeanwhileError", "StoppedError"]


class StoppedError(Exception):
    """The caller asked a computation to stop between two calls of the network."""


class CompletedMeanwhileError(FileExistsError):
    """Another process that shares the work has just completed the output: nothing is left to do."""
