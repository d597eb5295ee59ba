"""An unfinished store: what it is computed from and with which settings, so that it can be resumed."""

from __future__ import annotations

import json
import math
import operator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_cropeq.core.geometry import IntTriple, int_triple
from napari_cropeq.errors import ImageError
from napari_cropeq.formats.paths import FOLDER
from napari_cropeq.store.folder import FORMAT, MODEL
from napari_cropeq.store.journal import Journal
from napari_cropeq.store.metadata import recorded_text

__all__ = ["Settings", "Unfinished"]


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings that a store was started with: a resumed run takes them in the place of defaults."""

    planes: str | None = None  # as for :class:`napari_cropeq.core.predict.Predictor`
    dtype: str = "source"  # or float32
    device: str = "auto"
    shard: IntTriple | None = None  # (z, y, x) of the finest level, SR voxels

    @classmethod
    def of(cls, folder: Path) -> Settings:
        """Read the settings of an unfinished store; without one, they are the defaults.

        Raises
        ------
        ImageError
            If its header cannot be read.
        """
        journal = Journal(folder)
        if not journal.exists:
            return cls()
        header = journal.header
        if header.get("format") != FORMAT:  # of another version: it is refused where the store is opened
            return cls()
        try:
            about, fingerprint = header["result"], header["fingerprint"]
            shard = [operator.index(side) for side in fingerprint["tile grid"]["shard"]]
            dtype, device, planes = about["dtype"], fingerprint["device"], list(about["planes"])
            texts = all(isinstance(text, str) for text in (dtype, device, *planes))
            if not (texts and 1 <= len(planes) <= 2 and min(shard) >= 1):
                raise ValueError("its settings are not possible")
            return cls("both" if len(planes) > 1 else planes[0], dtype, device, int_triple(shard))
        except (LookupError, TypeError, ValueError) as error:
            raise _damaged(folder, error) from error


@dataclass(frozen=True, slots=True)
class Unfinished:
    """An unfinished store."""

    folder: Path
    output: Path  # its path when it is complete
    source: dict[str, Any]  # name, axes, shape, path, ... of the image it is computed from
    planes: str  # as for :class:`napari_cropeq.core.predict.Predictor`
    dtype: str  # source or float32
    fraction: float  # fraction of the tiles that are finished

    @classmethod
    def open(cls, folder: str | Path) -> Unfinished | None:
        """Read the header of an unfinished store; None if the folder is not one.

        Raises
        ------
        ImageError
            If its journal cannot be read.
        """
        folder = Path(folder)
        journal = Journal(folder)
        if not journal.exists:
            return None
        header = journal.header
        try:
            about, output = header["result"], folder.with_name(str(header["output"]))
            array = json.loads(recorded_text(header, "0/zarr.json") or (folder / "0/zarr.json").read_text())
            shards = array["chunk_grid"]["configuration"]["chunk_shape"]
            tiles = math.prod(-(-n // s) for n, s in zip(array["shape"], shards, strict=True))
            done = len({record.shard for record in journal.records() if record.shard[0] == 0})
            planes = "both" if len(about["planes"]) > 1 else str(about["planes"][0])
            found = cls(folder, output, dict(about["source"]), planes, str(about["dtype"]), min(1.0, done / tiles))
            if found.channels < 1:
                raise ValueError("its source has no channels")
            return found
        except (LookupError, ArithmeticError, TypeError, ValueError, OSError, RecursionError) as error:
            raise _damaged(folder, error) from error

    @property
    def channels(self) -> int:
        """Number of channels."""
        axes, shape = str(self.source.get("axes", "")), self.source.get("shape", ())
        return int(dict(zip(axes, shape, strict=False)).get("c", 1))

    @property
    def model_path(self) -> Path:
        """File of the model it was started with."""
        return self.folder / FOLDER / MODEL


def _damaged(folder: Path, error: Exception) -> ImageError:
    return ImageError(
        f"The journal of {folder.name} is damaged ({type(error).__name__}: {error}).",
        'Start again with existing="overwrite".',
        setting="restart",
    )
