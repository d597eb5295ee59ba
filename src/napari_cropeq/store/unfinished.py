"""A store that was begun and not completed: what it was made of, so that it can be gone on with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from napari_cropeq.formats.paths import FOLDER
from napari_cropeq.store.folder import MODEL
from napari_cropeq.store.journal import Journal

__all__ = ["Unfinished"]


@dataclass(frozen=True, slots=True)
class Unfinished:
    """An unfinished store."""

    folder: Path
    output: Path  # what it will be called
    source: dict[str, Any]  # name, axes, shape, path, ... of what it is computed from
    planes: str  # as :class:`napari_cropeq.core.predict.Predictor` takes them
    dtype: str  # source or float32
    fraction: float  # of the tiles that are there

    @classmethod
    def open(cls, folder: str | Path) -> Unfinished | None:
        """Read what a folder says; None where it is no unfinished store.

        Raises
        ------
        ValueError
            If its journal cannot be read.
        """
        folder = Path(folder)
        journal = Journal(folder)
        if not journal.exists:
            return None
        header = journal.header
        try:
            about, output = header["result"], folder.with_name(str(header["output"]))
            array: Any = zarr.open_array(folder / "0", mode="r")
            tiles = np.prod([-(-n // s) for n, s in zip(array.shape, array.shards, strict=True)])
            done = len({record.shard for record in journal.records() if record.shard[0] == 0})
            planes = "both" if len(about["planes"]) > 1 else str(about["planes"][0])
            return cls(
                folder, output, dict(about["source"]), planes, str(about["dtype"]), min(1.0, done / float(tiles))
            )
        except (KeyError, TypeError, ValueError, IndexError, OSError) as error:
            raise ValueError(
                f"Got {folder.name}, whose journal is damaged ({type(error).__name__}: {error}), expected what was "
                "begun: start it anew with Overwrite."
            ) from error

    @property
    def channels(self) -> int:
        """How many channels it has."""
        axes, shape = str(self.source.get("axes", "")), self.source.get("shape", ())
        return int(dict(zip(axes, shape, strict=False)).get("c", 1))

    @property
    def model_path(self) -> Path:
        """File of the model it was begun with."""
        return self.folder / FOLDER / MODEL
