"""Patterns for the names of results: refused, or a name without a folder."""

from __future__ import annotations

import dask.array as da
import numpy as np
from hypothesis import strategies as st

from fuzz.edits import Edit
from fuzz.oracle import REFUSED, RIGHT, Kind, WrongError, unless_refused
from fuzz.strategies import patterns
from napari_cropeq.core.geometry import Acquisition
from napari_cropeq.formats.image import Image
from napari_cropeq.run.naming import Naming


class Pattern(Kind):
    """A pattern for names."""

    def make(self) -> None:
        """Make the image to name."""
        data = da.from_array(np.zeros((4, 5, 6), np.uint16))
        self.image = Image(data, "zyx", (2.5, 1.0, 1.0), "micrometer", (0.0, 0.0, 0.0), "a/b: µ", path="/data/x/a.tif")

    def edits(self) -> st.SearchStrategy[Edit]:
        """Draw a pattern."""
        return patterns()

    def run(self, edits: list[Edit]) -> str:
        """Judge the pattern; two edits are two parts of it."""
        return self._name("".join(pattern for _, _, pattern in edits))

    def _name(self, pattern: str) -> str:
        acquisition = Acquisition((2.5, 1.0, 1.0))
        path = unless_refused(lambda: Naming(self.folder, pattern).output(3, self.image, acquisition, "uint16"))
        if path is None:
            return REFUSED
        odd = not path.name.isprintable() or len(path.name.encode()) > 255 or not path.stem.strip(" .")
        if path.parent != self.folder or not path.name.endswith(".ome.zarr") or odd:
            raise WrongError(f"the name {path.name[:300]!r}")
        path.exists()
        return RIGHT
