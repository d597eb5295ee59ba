"""What a scheduler tells of its work."""

from __future__ import annotations

from dataclasses import dataclass

from napari_cropeq.core.geometry import Box, Lead
from napari_cropeq.store.protocol import TileStore

__all__ = ["Done", "Event", "Failed", "Filled", "Stepped"]


@dataclass(frozen=True, slots=True)
class Done:
    """A box that has just been computed."""

    store: TileStore
    lead: Lead
    box: Box
    tiles: int  # of the store, finished by this box; 0 for a part of a larger tile
    generation: int  # of the last wish when it was begun


@dataclass(frozen=True, slots=True)
class Failed:
    """What could not be computed; whatever else is wanted goes on."""

    error: Exception
    bulk: bool  # whether the wish for every tile ended with it
    lead: Lead = ()
    box: Box | None = None  # of which tile of the run over the volume; None for others


@dataclass(frozen=True, slots=True)
class Filled:
    """The run over the volume has come to its end."""

    store: TileStore
    failures: tuple[Failed, ...]  # what could not be computed


@dataclass(frozen=True, slots=True)
class Stepped:
    """A step in the background."""


Event = Done | Failed | Filled | Stepped
