"""Batches in parts, where memory does not suffice for the whole."""

from __future__ import annotations

from collections.abc import Callable

import torch

from napari_cropeq.core.host import give_freed_memory_back
from napari_cropeq.core.out_of_memory import is_out_of_memory
from napari_cropeq.core.training.patches import TrainingBatch

__all__ = ["Parts"]


class Parts:
    """How many patches go through a network at once; fewer once memory has run out.

    Parameters
    ----------
    size : int
        Patches at first.
    device : torch.device
        Whose memory it is.

    Attributes
    ----------
    note : str
        What the user should know.
    """

    def __init__(self, size: int, device: torch.device) -> None:
        self.size, self.note, self._device = size, "", device

    def sum(self, batch: TrainingBatch, work: Callable[[TrainingBatch], float], prepare: Callable[[], None]) -> float:
        """Return the sum of ``work`` over the parts of a batch; ``prepare`` is called before its first part.

        Raises
        ------
        MemoryError
            If memory does not suffice for a single patch.
        """
        while True:
            try:
                prepare()
                return sum(work(part) for part in batch.split(self.size))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            if self.size == 1:
                raise MemoryError("a single patch does not fit")
            self.size = -(-self.size // 2)
            self.note = f"Out of memory: {self.size} patches at a time, the result is the same."
            give_freed_memory_back()
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
