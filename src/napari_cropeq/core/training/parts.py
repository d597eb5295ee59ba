"""Splits batches into parts when memory runs out."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch

from napari_cropeq.core.devices.out_of_memory import give_memory_back, is_out_of_memory
from napari_cropeq.core.training.patches import TrainingBatch

__all__ = ["Parts"]

logger = logging.getLogger(__name__)


class Parts:
    """The number of patches that go through a network at the same time; halved when memory runs out.

    Parameters
    ----------
    size : int
        Initial number of patches.
    device : torch.device
        The device whose memory is used.

    Attributes
    ----------
    note : str
        Message for the user; empty while whole batches fit.
    """

    def __init__(self, size: int, device: torch.device) -> None:
        self.size, self.note, self._device = size, "", device

    def sum(self, batch: TrainingBatch, work: Callable[[TrainingBatch], float], prepare: Callable[[], None]) -> float:
        """Return the sum of ``work`` over the parts of a batch; ``prepare`` is called before its first part.

        Raises
        ------
        RuntimeError or MemoryError
            If memory does not suffice for a single patch.
        """
        while True:
            try:
                prepare()
                return sum(work(part) for part in batch.split(self.size))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or self.size == 1:
                    raise
            self.size = -(-self.size // 2)
            self.note = f"Out of memory: {self.size} patches at a time, the result is the same."
            logger.info("Out of memory: batches are split into parts of %d patches", self.size)
            give_memory_back(self._device)
