"""One process's part of the tiles of a volume, for processes that share the work without communicating."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from napari_cropeq.core.geometry import IntTriple, LeadingIndex
from napari_cropeq.errors import ArgumentError
from napari_cropeq.run.error_output import FieldStores
from napari_cropeq.store.disk import DiskStore

__all__ = ["Partition"]


@dataclass(frozen=True, slots=True)
class Partition:
    """The tiles of one of ``count`` processes: consecutive ones in storage order, so that most reads are shared.

    Raises
    ------
    ArgumentError
        If ``number`` is not one of 0 to ``count`` - 1.
    """

    number: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if self.count < 1 or not 0 <= self.number < self.count:
            raise ArgumentError(
                f"There is no part {self.number} of {self.count}: their numbers start at 0.",
                "Correct the number of the part, or the number of parts.",
                setting="partition",
            )

    def check(self, existing: str, cluster: bool) -> None:
        """Raise ArgumentError if these settings of an export do not go with shared work.

        Parameters
        ----------
        existing : str
            What to do about an output that exists.
        cluster : bool
            Whether a cluster computes the tiles.
        """
        if self.count == 1:
            return
        if existing == "overwrite":
            raise ArgumentError(
                f"{self.count} processes that share the work cannot overwrite: each would remove what the others have "
                "done.",
                "Remove the old output first.",
            )
        if cluster:
            raise ArgumentError(
                f"The work is shared by {self.count} processes and by a cluster.",
                "Choose one of the two: the scheduler of a cluster already shares the work.",
            )

    def existing(self, existing: str) -> str:
        """Return what to do about an output that exists: if the work is shared, other processes may have made it."""
        return "resume" if self.count > 1 and existing == "refuse" else existing

    def holds(self, store: DiskStore | FieldStores) -> Callable[[LeadingIndex, IntTriple], bool]:
        """Return a function that tells whether a tile, by leading index and number (z, y, x), belongs to this part."""
        if isinstance(store, FieldStores):  # of one process
            return lambda leading, index: True
        finest = store.levels[0].numbering
        return lambda leading, index: finest.owner((leading, index), self.count) == self.number

    def number_of(self, store: DiskStore | FieldStores) -> int:
        """Return how many tiles belong to this part."""
        total = store.grid.count * len(store.leading_indices)
        first, after = (math.ceil(n * total / self.count) for n in (self.number, self.number + 1))
        return after - first

    def done_of(self, store: DiskStore | FieldStores) -> int:
        """Return how many of them are finished."""
        if self.count == 1:
            return len(store)
        mine = self.holds(store)
        return sum(mine(leading, index) for leading, index in store)
