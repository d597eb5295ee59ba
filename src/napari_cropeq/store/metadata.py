"""The ``zarr.json`` files of a store: recorded when it is created, and written again if they are changed later."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import zarr
from zarr.storage import MemoryStore

from napari_cropeq.core.geometry import IntTriple
from napari_cropeq.core.whole_file import write_whole
from napari_cropeq.formats.ome_zarr.write import create_array, write_metadata
from napari_cropeq.formats.pyramid import level_shapes, levels_of
from napari_cropeq.store.journal import sync_folder
from napari_cropeq.store.spec import StoreSpec

__all__ = ["Metadata", "recorded_text"]

logger = logging.getLogger(__name__)

RECORD = "metadata"  # in the header


@dataclass(frozen=True, slots=True)
class Metadata:
    """What the metadata files of a store contain, as long as it exists."""

    files: Mapping[str, str]  # text, by path in the store
    recorded: bool = True  # as text; if not, only the values count

    @classmethod
    def of_spec(cls, spec: StoreSpec, sizes: Sequence[tuple[IntTriple, IntTriple]]) -> Metadata:
        """Make the metadata of a new store.

        Parameters
        ----------
        spec : StoreSpec
            What is stored.
        sizes : sequence of pairs of (z, y, x)
            Sizes of shard and chunk for each level.
        """
        content: dict[str, Any] = {}
        store = MemoryStore(content)
        group = zarr.open_group(store, mode="w", zarr_format=3)
        for number, (shape, size) in enumerate(zip(level_shapes(spec.volume_shape), sizes, strict=True)):
            create_array(group, str(number), spec.leading_shape, shape, spec.dtype, size, spec.image.axes)
        write_metadata(store, spec.image, levels_of(spec.volume_shape))
        return cls({name: buffer.to_bytes().decode() for name, buffer in content.items()})

    @classmethod
    def of_header(
        cls, header: Mapping[str, Any], spec: StoreSpec, sizes: Sequence[tuple[IntTriple, IntTriple]]
    ) -> Metadata:
        """Return what a store was started with; earlier versions did not record it, so it is made from ``spec``."""
        files = {name: recorded_text(header, name) for name in cls._names(sizes)}
        if all(files.values()):
            return cls(files)
        started = header.get("result")
        if isinstance(started, dict):  # which is also what the image says about its origin
            about = {key: value for key, value in started.items() if key != "dtype"}
            source = about.get("source")
            name = source.get("name") if isinstance(source, dict) else None
            image = replace(spec.image, provenance=about, name=str(name or spec.image.name))
            spec = replace(spec, image=image)
        return cls(cls.of_spec(spec, sizes).files, recorded=False)

    def header(self) -> dict[str, Any]:
        """Return the entries for the header of a store."""
        return {RECORD: dict(self.files)}

    def write(self, folder: Path) -> None:
        """Write all files, and sync them and their folders to disk."""
        for name, text in self.files.items():
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            write_whole(path, text.encode())
            sync_folder(path.parent)
        sync_folder(folder)

    def repair(self, folder: Path) -> None:
        """Write the files again that are damaged, missing or changed."""
        for name, text in self.files.items():
            if not self._is(folder / name, text):
                logger.warning("%s is missing, damaged or changed: it is written again", folder / name)
                Metadata({name: text}).write(folder)

    @staticmethod
    def _names(sizes: Sequence[Any]) -> list[str]:
        return ["zarr.json", *(f"{number}/zarr.json" for number in range(len(sizes)))]

    def _is(self, path: Path, text: str) -> bool:
        with suppress(OSError, ValueError, RecursionError):
            found = path.read_bytes()
            return found == text.encode() or (not self.recorded and _values(found) == _values(text))
        return False


def recorded_text(header: Mapping[str, Any], name: str) -> str:
    """Return the text of a metadata file that the header of a store records; empty if it does not."""
    files = header.get(RECORD)
    text = files.get(name) if isinstance(files, dict) else None
    return text if isinstance(text, str) else ""


def _values(text: str | bytes) -> str:
    """Return a text that is the same for the same JSON values, of the same types."""
    return json.dumps(json.loads(text), sort_keys=True)
