"""How much goes through the network in one call, and what happens when memory runs out."""

from __future__ import annotations

import itertools
import logging
import math
import operator
import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace

from napari_cropeq.core.geometry import Box, IntTriple
from napari_cropeq.core.network import Network

__all__ = ["CallSize", "Calls", "CanonicalTile", "in_calls"]

logger = logging.getLogger(__name__)

FREE_TILE = 256
# Feature-map elements in one call: limits memory, and keeps tensors far below 2**31 elements.
MAX_ELEMENTS = 2**22
# Smaller calls than these would need no less memory than the box itself.
LEAST_ELEMENTS, LEAST_TILE = 2**17, 32

CANONICAL_TILE, CANONICAL_ROWS = 64, 16
LARGE_TILES = (256, 128)  # sides of canonical tiles, SR voxels, that the memory of a GPU may have room for
LEAST_AXIAL = 16  # input samples
SHARE = 0.25  # of a GPU's memory, for one call
TEMPORARIES = 6  # arrays of the network's largest layer in memory at once, including copies and padding


@dataclass(frozen=True, slots=True)
class CallSize:
    """How much goes through the network in one call."""

    elements: int = MAX_ELEMENTS
    side: int = FREE_TILE
    together = 1  # tiles

    def halved(self) -> CallSize | None:
        """Return the next smaller size, or None if this is the smallest."""
        if self.elements <= LEAST_ELEMENTS:
            return None
        elements = self.elements // 2
        return CallSize(elements, max(LEAST_TILE, int(FREE_TILE * (elements / MAX_ELEMENTS) ** 0.5)))

    def __str__(self) -> str:
        return f"{self.elements} feature-map elements"


WHOLE_PLANES = CallSize(elements=1, side=2**31)
"""One plane in each call, of any size."""


@dataclass(frozen=True, slots=True)
class CanonicalTile:
    """The one tile that goes through the network where bits depend on its shape, in input samples.

    Parameters
    ----------
    axial, side, rows : int
        Its size along the axial axis, in the plane, and across planes.
    together : int
        How many tiles go through the network in one call, where that changes no bits.
    """

    axial: int = CANONICAL_TILE
    side: int = CANONICAL_TILE
    rows: int = CANONICAL_ROWS
    together: int = 1

    @classmethod
    def of(cls, network: Network, sizes: Iterable[IntTriple], memory: int) -> CanonicalTile:
        """Return the first of some tiles that a device with so much ``memory`` has room for, or else the smallest one.

        It depends on the total memory only, so that an unfinished result can be resumed.

        Parameters
        ----------
        network : Network
            Its filters and halo determine the memory of a call.
        sizes : iterable of (axial, side, rows)
            The largest first.
        memory : int
            Of the device, bytes; 0 for the CPU.
        """
        for size in sizes:
            tile = cls(*size)
            if 4 * TEMPORARIES * math.prod(tile.input_shape(network)) * network.filters <= SHARE * memory:
                return tile
        return cls()

    def input_shape(self, network: Network) -> IntTriple:
        """Return planes, rows and columns of one tile with the halo of a network."""
        return self.rows, self.axial + 2 * network.axial_halo, self.side + 2 * network.halo

    def halved(self) -> CanonicalTile | None:
        """Return the same tile in smaller calls, or None if a call has one: another shape would have other bits."""
        return replace(self, together=self.together // 2) if self.together > 1 else None

    def __str__(self) -> str:
        return f"{self.together} tile{'s' * (self.together > 1)} of {self.axial} x {self.side} x {self.rows} samples"


class Calls:
    """The size of network calls, shared by the threads and siblings of a predictor.

    When memory runs out calls get smaller, and then boxes are computed one after the other.

    Parameters
    ----------
    size : CallSize or CanonicalTile
        The size at first.
    """

    def __init__(self, size: CallSize | CanonicalTile) -> None:
        self.size, self._alone = size, False
        self._begun, self._changed = 0, threading.Condition()

    def begin(self) -> tuple[CallSize | CanonicalTile, bool]:
        """Return the size for a box, and whether no other box is computed meanwhile; wait for others if so."""
        with self._changed:
            self._changed.wait_for(lambda: not (self._alone and self._begun))
            self._begun += 1
            return self.size, self._alone

    def end(self) -> None:
        """Let others begin."""
        with self._changed:
            self._begun -= 1
            self._changed.notify_all()

    def use_less(self, tried: tuple[CallSize | CanonicalTile, bool]) -> bool:
        """Use less memory than with what :meth:`begin` returned, unless another thread has seen to it.

        Return False if less is not possible.
        """
        with self._changed:
            if tried != (self.size, self._alone):
                return True
            smaller = self.size.halved()
            if smaller is None and self._alone:
                return False
            self.size, self._alone = smaller or self.size, smaller is None
            logger.info(
                "Out of memory: %s",
                f"calls of the network now have {smaller}" if smaller else "boxes are computed in turn",
            )
            return True


def in_calls(tiles: list[tuple[int, Box]], together: int) -> list[tuple[int, list[Box]]]:
    """Return the plane and the tiles of each call: a power of two of them, at most ``together``."""
    groups: list[tuple[int, list[Box]]] = []
    for plane, each in itertools.groupby(tiles, operator.itemgetter(0)):
        rest = [tile for _, tile in each]
        while rest:
            count = min(together, 1 << (len(rest).bit_length() - 1))
            groups.append((plane, rest[:count]))
            rest = rest[count:]
    return groups
