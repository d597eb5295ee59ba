"""A part of the work on a volume, where several processes share it without talking to each other."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from napari_cropeq.core.geometry import IntTriple, LeadingIndex
from napari_cropeq.store.disk import DiskStore

__all__ = ["Partition"]


@dataclass(frozen=True, slots=True)
class Partition:
    """The tiles of one of ``count`` processes: a run of them in storage order, which share what they read.

    Raises
    ------
    ValueError
        If there is no such part.
    """

    number: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if self.count < 1 or not 0 <= self.number < self.count:
            raise ValueError(
                f"Got part {self.number} of {self.count}, expected one of 0 to {max(self.count, 1) - 1}: "
                "correct --shard-id or --num-shards."
            )

    def holds(self, store: DiskStore) -> Callable[[LeadingIndex, IntTriple], bool]:
        """Return a function that says whether a tile, by lead and number (z, y, x), belongs to this part."""
        counts, each = store.grid.counts, store.grid.count
        leading_number = {leading: number for number, leading in enumerate(store.leading_indices)}
        total = each * len(store.leading_indices)

        def mine(leading: LeadingIndex, index: IntTriple) -> bool:
            z, y, x = index
            number = leading_number[leading] * each + (z * counts[1] + y) * counts[2] + x
            return number * self.count // total == self.number

        return mine

    def number_of(self, store: DiskStore) -> int:
        """Return how many tiles belong to this part."""
        total = store.grid.count * len(store.leading_indices)
        first, after = (math.ceil(n * total / self.count) for n in (self.number, self.number + 1))
        return after - first

    def done_of(self, store: DiskStore) -> int:
        """Return how many of them are there."""
        if self.count == 1:
            return len(store)
        mine = self.holds(store)
        return sum(mine(leading, index) for leading, index in store)
