"""A run over a whole volume: every tile that is missing, in storage order."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Set
from concurrent.futures import Future, wait
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from napari_cropeq.compute.tile_source import TileSource
from napari_cropeq.core.geometry import Box, IntTriple, LeadingIndex, int_triple
from napari_cropeq.core.predict import never
from napari_cropeq.core.thread_map import ThreadMap
from napari_cropeq.core.tiles import TileGrid, divide
from napari_cropeq.errors import StoppedError
from napari_cropeq.store.protocol import TileStore

__all__ = [
    "Done",
    "Event",
    "Failed",
    "Failures",
    "Filled",
    "Group",
    "Stepped",
    "TileFiller",
    "groups",
    "retried",
]

Ask = Callable[[], bool]

ASK_SECONDS = 0.02
RETRIES = (0.2, 1.0)  # seconds after which a source that could not be read is tried again
GIVE_UP = 16  # failures in a row after which a run over the volume ends: the source is gone

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Done:
    """A box that has just been computed."""

    store: TileStore
    leading: LeadingIndex
    box: Box
    tiles: int  # of the store, finished by this box; 0 for a part of a larger tile
    generation: int  # of the last request for visible tiles when it was begun


@dataclass(frozen=True, slots=True)
class Failed:
    """What could not be computed; the rest continues."""

    error: Exception
    bulk: bool  # whether the run over the volume ended with it
    leading: LeadingIndex = ()
    box: Box | None = None  # of the run over the volume; None for others


@dataclass(frozen=True, slots=True)
class Filled:
    """The run over the volume has ended."""

    store: TileStore
    failures: tuple[Failed, ...]  # what could not be computed


@dataclass(frozen=True, slots=True)
class Stepped:
    """A step in the background."""


Event = Done | Failed | Filled | Stepped


@dataclass(frozen=True, slots=True)
class Group:
    """What is computed for one another: several small tiles, or one large one."""

    leading: LeadingIndex
    box: Box
    missing: tuple[IntTriple, ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """What is computed in one go: a part of a group."""

    group: Group
    part: Box
    first: bool
    last: bool


def groups(
    store: TileStore,
    leading_indices: Iterable[LeadingIndex],
    part: IntTriple,
    mine: Callable[[LeadingIndex, IntTriple], bool] | None = None,
) -> Iterator[Group]:
    """Yield what is missing in a store, in storage order; see :class:`TileFiller`."""
    grid = store.grid
    if grid.shape is None:
        raise ValueError("Got a store without a shape, expected a finite one: give it the shape of the SR grid.")
    # Small tiles are grouped to a part, since recompute falls with size; large ones are computed in parts.
    size = int_triple([max(1, p // t) * t for p, t in zip(part, grid.tile, strict=True)])
    for leading in leading_indices:
        for box in TileGrid(grid.shape, size).touching(Box.whole(grid.shape)):
            missing = [index for index in grid.indices(box) if (leading, index) not in store]
            if mine is not None:
                missing = [index for index in missing if mine(leading, index)]
            if missing:
                yield Group(leading, box, tuple(missing))


class Failures:
    """What could not be computed, reported when a run over the volume ends."""

    def __init__(self) -> None:
        self.all: list[Failed] = []
        self._in_a_row = 0

    def note(self, event: Done | Failed) -> None:
        """Note how a group went.

        Raises
        ------
        Exception
            What was wrong with the last one, where too many have failed in a row: the source is gone.
        """
        if isinstance(event, Failed):
            self.all.append(event)
            self._in_a_row += 1
            if self._in_a_row == GIVE_UP:
                raise event.error
        elif event.tiles:
            self._in_a_row = 0


class TileFiller:
    """Computes the missing tiles of a store.

    Parameters
    ----------
    store : TileStore
        With a shape.
    source : TileSource
        Gives the voxels; it is closed when :meth:`events` ends.
    mine : callable, optional
        Whether tiles of this number (z, y, x) at this lead are to be filled; all by default.
    """

    def __init__(
        self, store: TileStore, source: TileSource, mine: Callable[[LeadingIndex, IntTriple], bool] | None = None
    ) -> None:
        self._store, self._source, self._mine = store, source, mine

    def events(
        self, stop: Ask, generation: Callable[[], int], urgent: Ask = never
    ) -> Generator[Event | None, None, None]:
        """Compute part by part, yielding each, and put a group's tiles when it is whole.

        A group whose source cannot be read is tried again, then reported and left out.

        Parameters
        ----------
        stop : callable
            Asked often, in any thread; once it returns True the work ends with StoppedError.
        generation : callable
            Gives the number of the last request for tiles in view.
        urgent : callable
            Asked while parts are computed by other threads than the caller's: where it returns True, None is yielded,
            and the caller may do something else meanwhile.

        Raises
        ------
        OSError
            If the store cannot be written.
        """
        failures, source = Failures(), self._source
        found = groups(self._store, source.leading_indices, source.part, self._mine)
        with closing(source), closing(self.fill(found, stop, generation, urgent)) as events:
            for event in events:
                if event is not None:
                    failures.note(event)
                yield event
        self._store.flush()
        yield Filled(self._store, tuple(failures.all))

    def fill(
        self, found: Iterable[Group], stop: Ask, generation: Callable[[], int], urgent: Ask = never
    ) -> Generator[Done | Failed | None, None, None]:
        """Compute groups part by part, yielding each, and put their tiles when they are whole; as :meth:`events`."""
        threads, failed = ThreadMap(self._source.side_by_side), set[Group]()

        def compute(piece: Piece) -> npt.NDArray[Any]:
            return retried(lambda: self._source(piece.group.leading, piece.part, stopped), stopped)

        def stopped() -> bool:
            return threads.over or stop()

        voxels: npt.NDArray[Any] = np.empty(0)
        try:
            for piece, computed in threads.map(compute, self._pieces(found, failed)):
                group = piece.group
                while not _there(computed, urgent):
                    yield None
                if group in failed:
                    continue
                try:
                    part = computed.result()
                except StoppedError:
                    raise
                except Exception as error:  # noqa: BLE001 (the other groups go on, and the caller tells the user)
                    failed.add(group)
                    yield Failed(error, False, group.leading, group.box)
                    continue
                if piece.first:
                    voxels = np.empty(group.box.shape, part.dtype)
                voxels[piece.part.relative_to(group.box.start).slices] = part
                if piece.last:
                    self._put(group, voxels)
                yield Done(self._store, group.leading, piece.part, len(group.missing) * piece.last, generation())
        finally:
            threads.dismiss()

    def _pieces(self, found: Iterable[Group], failed: Set[Group]) -> Iterator[Piece]:
        """Yield the parts of groups, one group after another; source voxels are prefetched one group ahead."""
        for group, following in _with_next(found):
            for announced in (group, following):
                if announced is not None:
                    self._source.prefetch(announced.leading, announced.box)
            parts = list(divide(group.box, self._source.part))
            for number, part in enumerate(parts, 1):
                if group not in failed:
                    yield Piece(group, part, number == 1, number == len(parts))

    def _put(self, group: Group, voxels: npt.NDArray[Any]) -> None:
        for index in group.missing:
            box = self._store.grid.box(index)
            self._store.put((group.leading, index), voxels[box.relative_to(group.box.start).slices])


def _there(computed: Future[Any], urgent: Ask) -> bool:
    """Wait until something is computed, or until something else is urgent; return whether it is computed."""
    while not computed.done() and not urgent():
        wait([computed], timeout=ASK_SECONDS)
    return computed.done()


def retried(read: Callable[[], _T], stop: Ask) -> _T:
    """Return what ``read`` gives; what cannot be read may be so a moment later, on a network drive above all."""
    for pause in RETRIES:
        try:
            return read()
        except OSError:
            _wait(pause, stop)
    return read()


def _wait(seconds: float, stop: Ask) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if stop():
            raise StoppedError
        time.sleep(0.02)


def _with_next(items: Iterable[_T]) -> Iterator[tuple[_T, _T | None]]:
    """Yield every item with the one after it, the last one with None."""
    iterator = iter(items)
    for item in iterator:
        following = next(iterator, None)
        while following is not None:
            yield item, following
            item, following = following, next(iterator, None)
        yield item, None
