"""The file that a result is written to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from napari_cropeq.store.folder import unfinished

__all__ = ["Target"]


@dataclass(frozen=True, slots=True)
class Target:
    """A file, and whether an existing one is replaced."""

    path: Path
    overwrite: bool

    @property
    def partial(self) -> str:
        """The name of its unfinished store; empty if there is none."""
        folder = unfinished(self.path) if self.path.name else None  # it may just be typed
        return "" if folder is None else folder.name

    @property
    def existing(self) -> str:
        """What is done about an existing or an unfinished output."""
        return "overwrite" if self.overwrite else "resume" if self.partial else "refuse"
